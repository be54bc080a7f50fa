"""The synthesis flow: harness, memory passes, comparison with the baseline."""

import re

import pytest
from amaranth.hdl import Module, Signal
from amaranth.hdl._nir import CombinationalCycle
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from tiptoe_hdl.config import TINY
from tiptoe_hdl.verilog import engine_verilog
from tiptoe_hdl.wire.apart import APART
from tiptoe_verif.synth import SynthResult, synth_block
from tiptoe_verif.synth import __main__ as command
from tiptoe_verif.synth.blocks import BLOCKS
from tiptoe_verif.synth.report import regressions


class Adder(wiring.Component):
    """A memory, a flip-flop behind it, an adder: what the output register is for."""

    write: In(1)
    at: In(9)
    data: In(36)
    look: In(9)
    o: Out(36)

    def __init__(self, attrs=None):
        self._attrs = attrs or {}
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.store = store = Memory(shape=36, depth=512, init=[], attrs=self._attrs)
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
    tuned = synth_block(lambda: Adder(APART), "test_adder", grades=[6])
    assert plain.bram == tuned.bram == 1
    assert plain.merged_ff == 0 and tuned.merged_ff == 36
    assert tuned.lut < plain.lut and tuned.ff == 36
    assert tuned.fmax_mhz["6"] > 1.3 * plain.fmax_mhz["6"]
    assert tuned.critical["6"][0].startswith("clk-to-q")


def test_memories_that_keep_apart_say_so_in_verilog():
    """Who synthesises the Verilog has what this flow has."""
    text = engine_verilog(TINY)
    marked = re.findall(r"\(\* no_rw_check[^\n]*\n(?:  \(\*[^\n]*\n)*  reg ", text)
    assert len(marked) == text.count('rw_addr_collision = "no"') >= 40


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


OPTIONS = {
    "blocks": None, "grades": "6,8", "seed": 1, "jobs": 1, "whole": False, "area": False, "baseline": False, "update": False,
    "paths": False, "target": "", "names": False,
}  # fmt: skip
"""What the command line has when nothing is given."""


@pytest.mark.parametrize(
    "options, name, grades",
    [
        ({}, "tx", [6, 8]),
        ({}, "engine", []),
        ({"whole": True}, "tx", [6, 8]),
        ({"whole": True}, "engine", [None]),
        ({"whole": True}, "lean_1024", [None]),
        ({"blocks": ["engine"], "grades": "8"}, "engine", [8]),
        ({"blocks": ["engine", "tx"], "area": True}, "engine", [None]),
        ({"blocks": ["engine", "tx"], "area": True}, "tx", [None]),
        ({"blocks": ["engine"]}, "tx", []),
    ],
)
def test_whole_engines_are_routed_only_by_name(monkeypatch, options, name, grades):
    tasks = []
    monkeypatch.setattr(command, "measure_all", lambda wanted, jobs: (tasks.extend(wanted), ([], []))[1])
    command.main(**OPTIONS | options)
    assert [grade for block, grade, _ in tasks if block == name] == grades
    assert {block for block, _, _ in tasks} <= {block.name for block in BLOCKS}
