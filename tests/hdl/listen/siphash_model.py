"""SipHash-2-4 in Python, and initial sequence numbers made with it."""

from __future__ import annotations

MASK = (1 << 64) - 1


def _rotate(value: int, count: int) -> int:
    return (value << count | value >> 64 - count) & MASK


def siphash24(key: bytes, message: bytes) -> int:
    """The 64-bit hash; its first byte is the lowest."""
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rounds(count: int) -> None:
        for _ in range(count):
            v[0] = v[0] + v[1] & MASK
            v[1] = _rotate(v[1], 13) ^ v[0]
            v[0] = _rotate(v[0], 32)
            v[2] = v[2] + v[3] & MASK
            v[3] = _rotate(v[3], 16) ^ v[2]
            v[0] = v[0] + v[3] & MASK
            v[3] = _rotate(v[3], 21) ^ v[0]
            v[2] = v[2] + v[1] & MASK
            v[1] = _rotate(v[1], 17) ^ v[2]
            v[2] = _rotate(v[2], 32)

    padded = message + bytes(-(len(message) + 1) % 8) + bytes([len(message) & 0xFF])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def tuple_bytes(tuple_: dict[str, int]) -> bytes:
    """The bytes hashed for a four-tuple."""
    sizes = {"laddr": 4, "faddr": 4, "lport": 2, "fport": 2}
    return b"".join(tuple_[field].to_bytes(size, "little") for field, size in sizes.items())


def initial_sequence(key: int, clock: int, tuple_: dict[str, int]) -> int:
    return clock + siphash24(key.to_bytes(16, "little"), tuple_bytes(tuple_)) & 0xFFFFFFFF
