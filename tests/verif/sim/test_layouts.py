"""Bits of layouts, as Amaranth's own `const` and `from_bits` have them."""

import pytest
from amaranth.hdl import Const, Shape, signed
from amaranth.lib import data, enum
from amaranth.lib.data import ArrayLayout, FlexibleLayout, StructLayout, UnionLayout

from tiptoe_hdl.config import SIM
from tiptoe_hdl.messages import State, rx_verdict
from tiptoe_verif.sim.layouts import packer, unpacker
from tiptoe_verif.streams import to_py


class Kind(enum.Enum, shape=2):
    ONE = 1
    THREE = 3


class Named(data.Struct):
    count: 5 = 17
    kind: Kind = Kind.THREE
    level: signed(4)


LAYOUTS = {
    "struct": StructLayout({"a": 1, "b": 13, "c": signed(5)}),
    "nothing": StructLayout({}),
    "empty field": StructLayout({"a": 0, "b": 4}),
    "nested": StructLayout({"a": StructLayout({"x": 3, "y": signed(7)}), "b": ArrayLayout(6, 3)}),
    "array of structures": ArrayLayout(StructLayout({"x": 3, "y": Kind}), 4),
    "union": UnionLayout({"x": 3, "y": 9}),
    "with holes": FlexibleLayout(24, {"a": data.Field(4, 3), 0: data.Field(signed(8), 12)}),
    "class": Named,
    "of a class": StructLayout({"a": Named, "b": 2}),
    "the engine's": rx_verdict(SIM),
}


def leaf(shape, rng):
    """Any value of a shape, some of them too large for it."""
    if shape is Kind or isinstance(shape, type) and issubclass(shape, enum.Enum):
        return rng.choice(list(shape))
    width = Shape.cast(shape).width
    return rng.randrange(-(1 << width), 2 << width) if rng.random() < 0.3 else rng.getrandbits(width) if width else 0


def value(shape, rng):
    """What a test would write: some fields, or all of them."""
    layout = data.Layout.cast(shape) if isinstance(shape, data.Layout) or shape is Named else None
    if layout is None:
        return leaf(shape, rng)
    fields = [(key, value(field.shape, rng)) for key, field in layout]
    if isinstance(layout, ArrayLayout):
        return [part for _, part in fields]
    if isinstance(layout, UnionLayout):
        return dict([rng.choice(fields)])
    return {key: part for key, part in fields if rng.random() < 0.8}


def plain(constant):
    """Plain Python of a constant, a field at a time."""
    if not isinstance(constant, data.Const):
        return constant
    layout = data.Layout.cast(constant.shape())
    if isinstance(layout, ArrayLayout):
        return [plain(constant[index]) for index in range(layout.length)]
    return {key: plain(constant[key]) for key, _ in layout}


@pytest.mark.parametrize("shape", LAYOUTS.values(), ids=list(LAYOUTS))
def test_bits_are_those_of_a_constant(shape, rng):
    for _ in range(50):
        written = value(shape, rng)
        assert packer(shape)(written) == shape.const(written).as_bits(), written


@pytest.mark.parametrize("shape", LAYOUTS.values(), ids=list(LAYOUTS))
def test_plain_python_is_that_of_a_constant(shape, rng):
    for _ in range(50):
        bits = packer(shape)(value(shape, rng))
        try:
            expected = plain(shape.from_bits(bits))
        except ValueError:
            continue  # bits that no member of the enumeration has
        assert unpacker(shape)(bits) == expected == to_py(shape.from_bits(bits))


def test_constants_are_taken_as_they_are():
    shape = LAYOUTS["nested"]
    whole = shape.const({"a": {"x": 5, "y": -3}, "b": [1, 2, 3]})
    assert packer(shape)(whole) == whole.as_bits()
    assert packer(shape)({"a": whole.a, "b": [Const(1), 2, 3]}) == whole.as_bits()
    assert packer(shape)(None) == 0 and packer(Named)(None) == Named.const(None).as_bits()


def test_enumerations():
    shape = StructLayout({"state": State, "kind": Kind})
    bits = packer(shape)({"state": State.ESTABLISHED, "kind": 3})
    assert unpacker(shape)(bits) == {"state": State.ESTABLISHED, "kind": Kind.THREE}


def test_more_shapes_than_plans_are_kept():
    shapes = [StructLayout({"low": width, "high": 8}) for width in range(1, 1500)]
    for _ in range(2):
        assert all(packer(shape)({"high": 5}) == 5 << width for width, shape in enumerate(shapes, 1))
        assert all(unpacker(shape)(5 << width) == {"low": 0, "high": 5} for width, shape in enumerate(shapes, 1))


@pytest.mark.parametrize("written", [{"c": 1}, [1, 2, 3]])
def test_what_is_no_part_is_refused(written):
    with pytest.raises(ValueError, match="is not a part of"):
        packer(StructLayout({"a": 1, "b": 2}))(written)
