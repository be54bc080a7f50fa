"""Zeros of large memories cost minutes in Amaranth's back end; a simulation needs none of them."""

from amaranth.back import rtlil
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Out

from tiptoe_hdl import verilog as hdl
from tiptoe_hdl.config import CONFIGS
from tiptoe_verif.sim.zero_memories import zero_memories_left_out


class Rom(wiring.Component):
    """One memory with the given contents."""

    o: Out(8)

    def __init__(self, init):
        self._init = init
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=8, depth=4, init=self._init)
        m.d.comb += self.o.eq(memory.read_port().data)
        return m


def test_zeros_are_left_out_and_nothing_else():
    assert "meminit" in rtlil.convert(Rom([]))
    with zero_memories_left_out():
        assert "meminit" not in rtlil.convert(Rom([]))
        assert "meminit" in rtlil.convert(Rom([0, 0, 7]))
    assert "meminit" in rtlil.convert(Rom([]))


def test_largest_configuration_is_no_more_text_than_the_smallest():
    """It has 65,536 connections; the zeros of its tables are 125 MB, and two minutes to write."""
    with zero_memories_left_out():
        sizes = [len(hdl.engine_rtlil(CONFIGS[name])) for name in ("tiny", "datacentre")]
    assert sizes[1] < 1.2 * sizes[0]
