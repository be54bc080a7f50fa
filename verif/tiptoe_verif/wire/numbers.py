"""Sequence numbers modulo 2**32 (RFC 9293 section 3.4)."""

from __future__ import annotations


def signed(difference: int) -> int:
    """A difference modulo 2**32 as a number with a sign."""
    return (difference + (1 << 31) & 0xFFFFFFFF) - (1 << 31)


def unwrap(seq: int, near: int) -> int:
    """The number that is ``seq`` modulo 2**32 and closest to ``near``."""
    return near + signed(seq - near)
