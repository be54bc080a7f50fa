"""Layouts to bits and back, for benches: what `shape.const` and `shape.from_bits` do, without an object for every field.

A plan is made once for a shape. The benches of single blocks spend most of their time here. (``block.pack`` refuses what does
not fit; this cuts it off, as Amaranth does.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar

from amaranth.hdl import Const, Shape, ShapeCastable, ValueCastable
from amaranth.lib import data

Pack = Callable[[Any], int]
Unpack = Callable[[int], Any]
Plan = TypeVar("Plan")

_MOST = 1000
"""Plans kept at once: each configuration of each test has shapes of its own."""


def _kept(make: Callable[[Any], Plan]) -> Callable[[Any], Plan]:
    """Remember what was made for a shape: this very one, since a layout's hash looks at all its fields."""
    plans: dict[int, tuple[Any, Plan]] = {}

    @wraps(make)
    def plan(shape: Any) -> Plan:
        kept = plans.get(id(shape))
        if kept is None:
            made = make(shape)
            if len(plans) >= _MOST:
                plans.clear()
            kept = plans[id(shape)] = (shape, made)  # the shape is held, so its id stays its own
        return kept[1]

    return plan


def bits_of(target: Any, value: Any) -> int:
    """What ``ctx.set(target, value)`` sets, as an int for ``Value.cast(target)``."""
    shape = target.shape() if isinstance(target, ValueCastable) else None
    if isinstance(shape, ShapeCastable):
        return packer(shape)(value)
    return value if type(value) is int else int(Const.cast(value).value)


@_kept
def packer(shape: Any) -> Pack:
    """Bits of a Python value of this shape, modulo its width: what ``Const(value, shape)`` would hold."""
    mask = (1 << Shape.cast(shape).width) - 1
    layout = _layout(shape)
    if layout is None:
        if isinstance(shape, ShapeCastable):
            return lambda value: Const.cast(shape.const(value)).value & mask
        return lambda value: (value if type(value) is int else Const.cast(value).value) & mask
    fields = {
        key: (packer(field.shape), field.offset, ~(((1 << field.width) - 1) << field.offset)) for key, field in layout
    }
    initial = shape.const(None).as_bits()

    def pack(value: Any) -> int:
        if isinstance(value, Mapping):
            items: Any = value.items()
        elif isinstance(value, (list, tuple)):
            items = enumerate(value)
        else:
            return int(shape.const(value).as_bits())
        bits = initial
        for key, part in items:
            field = fields.get(key)
            if field is None:
                raise ValueError(f"{key!r} is not a part of {shape!r}")
            pack_part, offset, others = field
            bits = bits & others | pack_part(part) << offset
        return int(bits)

    return pack


@_kept
def unpacker(shape: Any) -> Unpack:
    """Bits of this shape as plain Python: structures become dicts, arrays lists, enumerations members, the rest ints."""
    layout = _layout(shape)
    if layout is None:
        if isinstance(shape, ShapeCastable):
            return shape.from_bits
        if Shape.cast(shape).signed:
            sign, modulus = 1 << Shape.cast(shape).width - 1, 1 << Shape.cast(shape).width
            return lambda bits: (bits + sign) % modulus - sign
        return lambda bits: bits
    fields = [(key, unpacker(field.shape), field.offset, (1 << field.width) - 1) for key, field in layout]
    if isinstance(layout, data.ArrayLayout):
        return lambda bits: [unpack(bits >> offset & mask) for _, unpack, offset, mask in fields]
    return lambda bits: {key: unpack(bits >> offset & mask) for key, unpack, offset, mask in fields}


def _layout(shape: Any) -> data.Layout | None:
    """The layout of a structure, a class of ``data.Struct`` included; None for anything else."""
    if isinstance(shape, data.Layout):
        return shape
    if isinstance(shape, type) and issubclass(shape, (data.Struct, data.Union)):
        return data.Layout.cast(shape)
    return None
