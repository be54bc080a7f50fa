"""Choices among many, and comparisons of many bits, in few levels of logic."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Module, Signal, Value


def select(one_hot, values) -> Value:
    """The value whose bit is set, all zeroes if none is."""
    values = [Value.cast(value) for value in values]
    return reduce(or_, (value & bit.replicate(len(value)) for bit, value in zip(one_hot, values, strict=True)))


def equal_before(m: Module, a, b) -> Value:
    """Whether a cycle ago a was b: a comparison of many bits, cut in the middle by flip-flops."""
    a, b = Value.cast(a), Value.cast(b)
    same = Signal(len(a) // 4)
    m.d.sync += same.eq(Cat(a.word_select(at, 4) == b.word_select(at, 4) for at in range(len(same))))
    return same.all()
