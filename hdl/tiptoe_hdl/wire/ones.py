"""Masks."""

from amaranth.hdl import Cat, Const, Value


def ones_below(count: Value, width: int) -> Value:
    """``width`` bits, those under ``count`` set: ``(1 << count) - 1`` without a carry chain."""
    return Cat(Const(bit, range(width)) < count for bit in range(width))
