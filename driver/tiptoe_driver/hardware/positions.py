"""Ring positions and sequence numbers: arithmetic modulo 2**32 (RFC 9293 section 3.4).

A *position* counts the payload bytes of a ring since the connection began: byte 0 is the first one after the SYN.
The only place of the driver where positions or sequence numbers are compared.
"""

MASK = 0xFFFF_FFFF


def advance(position: int, count: int) -> int:
    """``position`` moved on by ``count`` bytes (or back, when negative)."""
    return (position + count) & MASK


def distance(later: int, earlier: int) -> int:
    """Bytes from ``earlier`` to ``later``, 0 to 2**32 - 1."""
    return (later - earlier) & MASK


def is_after(a: int, b: int) -> bool:
    """Whether ``a`` comes after ``b``: less than half the circle ahead, and not equal."""
    return 0 < (a - b) & MASK < 0x8000_0000
