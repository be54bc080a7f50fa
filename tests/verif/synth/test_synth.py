"""The synthesis flow: harness, memory passes, comparison with the baseline."""

import pytest
from amaranth.hdl import Module, Signal
from amaranth.hdl._nir import CombinationalCycle
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from tiptoe_verif.sim import ToolError
from tiptoe_verif.synth import SynthResult, synth_block
from tiptoe_verif.synth.report import regressions


class Adder(wiring.Component):
    """A memory, a flip-flop behind it, an adder: what the output register is for."""

    write: In(1)
    at: In(9)
    data: In(36)
    look: In(9)
    o: Out(36)

    def elaborate(self, platform):
        m = Module()
        m.submodules.store = store = Memory(shape=36, depth=512, init=[])
        write, read = store.write_port(), store.read_port()
        m.d.comb += [write.en.eq(self.write), write.addr.eq(self.at), write.data.eq(self.data), read.addr.eq(self.look)]
        held = Signal(36, reset_less=True)
        m.d.sync += [held.eq(read.data), self.o.eq(held + 1)]
        return m


class Loop(wiring.Component):
    a: In(1)
    o: Out(1)

    def elaborate(self, platform):
        m = Module()
        x = Signal()
        y = Signal()
        m.d.comb += [x.eq(y ^ self.a), y.eq(x | self.a), self.o.eq(y)]
        return m


def test_memory_passes_save_area_and_time():
    plain = synth_block(Adder, "test_adder", grades=[6])
    tuned = synth_block(Adder, "test_adder", no_collision=["store"], grades=[6])
    assert plain.bram == tuned.bram == 1
    assert plain.merged_ff == 0 and tuned.merged_ff == 36
    assert tuned.lut < plain.lut and tuned.ff == 36
    assert tuned.fmax_mhz["6"] > 1.3 * plain.fmax_mhz["6"]
    assert tuned.critical["6"][0].startswith("clk-to-q")


def test_unknown_memory_is_an_error():
    with pytest.raises(ToolError, match="no memory matches the no_collision pattern 'stroe'"):
        synth_block(Adder, "test_adder", no_collision=["stroe"], grades=[])


def test_loop_is_found():
    with pytest.raises(CombinationalCycle):
        synth_block(Loop, "test_loop", grades=[])
    assert regressions(SynthResult("x", loops=["found logic loop in module top"]), {})


def test_regressions():
    known = {"lut": 1000, "ff": 500, "bram": 4, "dsp": 0, "fmax_mhz": {"6": 150.0}}
    same = SynthResult("x", lut=1040, ff=500, bram=4, fmax_mhz={"6": 140.0, "8": 100.0})
    assert regressions(same, known) == []
    worse = SynthResult("x", lut=1060, ff=530, bram=5, fmax_mhz={"6": 130.0})
    assert [line.split()[0] for line in regressions(worse, known)] == ["lut", "ff", "bram", "Fmax"]
