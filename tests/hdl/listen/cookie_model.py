"""SYN cookies as the engine makes them, in Python."""

from tests.hdl.listen.bench import M32

MSS = (48, 256, 536, 1200, 1300, 1400, 1440, 1460)


def _rotate(value, bits):
    return (value << bits | value >> 32 - bits) & M32


def half_siphash(key: int, words: list[int]) -> int:
    """HalfSipHash-2-4 with 32 bits of output, of words; messages of bytes end in one that has their length on top."""
    k0, k1 = key & M32, key >> 32
    a, b, c, d = k0, k1, k0 ^ 0x6C796765, k1 ^ 0x74656462

    def rounds(count):
        nonlocal a, b, c, d
        for _ in range(count):
            a = a + b & M32
            b = _rotate(b, 5) ^ a
            a = _rotate(a, 16)
            c = c + d & M32
            d = _rotate(d, 8) ^ c
            a = a + d & M32
            d = _rotate(d, 7) ^ a
            c = c + b & M32
            b = _rotate(b, 13) ^ c
            c = _rotate(c, 16)

    for word in words:
        d ^= word
        rounds(2)
        a ^= word
    c ^= 0xFF
    rounds(4)
    return b ^ d


def cookie(key: int, tuple_: dict[str, int], irs: int, mss: int, time: int) -> int:
    """ISS - IRS of a SYN,ACK with a cookie; ``mss`` as the SYN says it, 0 for none."""
    number = max(n for n, least in enumerate(MSS) if n == 0 or least <= (mss or 536))
    words = [
        tuple_["faddr"], (irs + 1 & M32) ^ tuple_["lport"] << 16, tuple_["fport"] | number << 16 | (time & 0x1FFF) << 19,
    ]  # fmt: skip
    return half_siphash(key, words) & 0xFFFFFF | number << 24 | (time & 31) << 27
