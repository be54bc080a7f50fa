"""IPv6 in the engine's four-tuples (docs/rings.md, OPEN): one number stands for our address, a keyed fold for the peer's.

An address is an integer, first byte on the wire in the highest bits; one of IPv6 is greater than any of IPv4, since the addresses
``::/96`` are no host's (RFC 4291 section 2.5.5.1).
"""

from __future__ import annotations

LADDR_V6 = 6
"""laddr of every four-tuple over IPv6."""

_BITS = 32
_TAPS = (0, 2, 3, 7)
KEYS = 3
"""Key words."""


def on_v6(address: int) -> bool:
    """Whether an address is one of IPv6."""
    return address >> 32 != 0


def alias(address: int, key: int) -> int:
    """faddr of an IPv6 address; ``key`` as register ALIAS_KEY has it, word 0 lowest. Each but the last of its four words is
    multiplied by the key's word: bit j is the inner product over GF(2) with bits j to j + 31 of the sequence that begins with
    that and goes on by X**32 + X**7 + X**3 + X**2 + 1."""
    words = [address >> shift & 0xFFFF_FFFF for shift in (96, 64, 32, 0)]
    folded = words[KEYS]
    for number in range(KEYS):
        sequence = key >> _BITS * number & 0xFFFF_FFFF
        for bit in range(_BITS, 2 * _BITS - 1):
            sequence |= (sum(sequence >> bit - _BITS + tap for tap in _TAPS) & 1) << bit
        for bit in range(_BITS):
            folded ^= ((words[number] & sequence >> bit).bit_count() & 1) << bit
    return folded
