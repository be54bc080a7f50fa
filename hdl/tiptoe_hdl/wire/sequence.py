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


def far_behind(a: ValueLike, b: ValueLike) -> Value:
    """1 bit: a lies between 2**24 and 2**25 - 1 or more behind b, less than 2**31. For what must not be there any more when half
    of the modulus has gone by; eight bits are compared."""
    later = (Value.cast(b)[24:32] - Value.cast(a)[24:32])[:8]
    return ~later[7] & later[1:7].any()


def seq_le(a: ValueLike, b: ValueLike) -> Value:
    """a is b or comes before it; 1 bit."""
    return ~distance(b, a)[31]
