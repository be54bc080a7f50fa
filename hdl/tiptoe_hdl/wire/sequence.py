"""Sequence number arithmetic modulo 2**32 (RFC 9293 section 3.4, RFC 1982).

The only place where sequence numbers and ring positions are compared.
"""

from amaranth.hdl import Value, ValueLike


def distance(a: ValueLike, b: ValueLike) -> Value:
    """a - b modulo 2**32, 32 bits unsigned."""
    return (Value.cast(a) - Value.cast(b))[:32]


def seq_lt(a: ValueLike, b: ValueLike) -> Value:
    """a comes before b; 1 bit."""
    return distance(a, b)[31]


def seq_ge(a: ValueLike, b: ValueLike) -> Value:
    """a is b or comes after it; 1 bit."""
    return ~distance(a, b)[31]


def seq_gt(a: ValueLike, b: ValueLike) -> Value:
    """a comes after b; 1 bit."""
    return distance(b, a)[31]


def seq_le(a: ValueLike, b: ValueLike) -> Value:
    """a is b or comes before it; 1 bit."""
    return ~distance(b, a)[31]
