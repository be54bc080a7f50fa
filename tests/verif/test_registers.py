"""Registers in one process instead of two: Yosys proves that the design is the same."""

import re
import subprocess
import sys
import tempfile

from amaranth.hdl import Module, ResetInserter, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tiptoe_verif.sim import verilate
from tiptoe_verif.sim.registers import merge_registers

PAIR = data.StructLayout({"low": unsigned(5), "high": unsigned(7)})


class _Registers(wiring.Component):
    """Registers of every form: held, always new, in parts, in a state machine, without reset, read by others."""

    soft_reset: In(1)
    enable: In(1)
    select: In(2)
    value: In(12)
    count: Out(4)
    sum: Out(12, init=9)
    pair: Out(PAIR)
    state: Out(2)
    last: Out(12)
    bits: Out(12)

    def elaborate(self, platform):
        m = Module()
        kept = Signal(12, reset_less=True)
        with m.If(self.enable):
            m.d.sync += [self.count.eq(self.count + 1), kept.eq(self.value)]
            with m.Switch(self.select):
                with m.Case(0):
                    m.d.sync += self.pair.low.eq(self.value)
                with m.Case(1, 2):
                    m.d.sync += self.pair.high.eq(self.pair.low + self.count)
                with m.Default():
                    m.d.sync += self.pair.eq(self.pair.as_value().rotate_left(1))
        m.d.sync += self.last.eq(kept ^ self.sum)
        m.d.sync += self.bits.bit_select(self.count, 1).eq(self.value[3])
        with m.FSM():
            with m.State("Wait"), m.If(self.value[0]):
                m.d.sync += self.sum.eq(self.sum + self.value)
                m.next = "Work"
            with m.State("Work"):
                m.d.comb += self.state.eq(self.count[2:])
                with m.If(~self.enable):
                    m.next = "Wait"
        return ResetInserter(self.soft_reset)(m)


def _as_written(monkeypatch):
    monkeypatch.setattr(verilate, "merge_registers", lambda text: text)
    text = verilate.to_verilog(_Registers(), "top")
    monkeypatch.undo()
    return text


def _proved_equal(first: str, second: str) -> bool:
    script = []
    for name, text in (("gold", first), ("gate", second)):
        script += [f"read_verilog <<verilog\n{text}\nverilog", "prep -flatten -top top", f"rename top {name}"]
        script += [f"design -stash {name}"]
    script += [f"design -copy-from {name} -as {name} {name}" for name in ("gold", "gate")]
    script += ["equiv_make gold gate both", "prep -flatten -top both", "equiv_simple", "equiv_induct"]
    with tempfile.NamedTemporaryFile("w", suffix=".ys") as file:
        file.write("\n".join([*script, "equiv_status -assert", ""]))
        file.flush()
        program = f"from pyosys import libyosys as ys; ys.run_pass('script {file.name}', ys.Design())"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if done.returncode == 0:
        return True
    assert "unproven $equiv cells" in done.stdout + done.stderr, done.stdout[-2000:] + done.stderr[-2000:]
    return False


def test_merged_registers_are_the_same_design(monkeypatch):
    written, merged = _as_written(monkeypatch), verilate.to_verilog(_Registers(), "top")
    assert merged == merge_registers(written)
    processes = [len(re.findall(r"always @\(posedge", text)) for text in (written, merged)]
    # Those with resets, the one without, and the one that always takes a new value.
    assert processes == [7, 3], merged
    assert _proved_equal(written, merged)
    for right, wrong in (("count <= 4'h0", "count <= 4'h1"), ("sum <= 12'h009", "sum <= sum")):
        assert right in merged
        assert not _proved_equal(written, merged.replace(right, wrong))


def test_other_processes_stay_as_they_are():
    text = "module other(clk);\n  always @(posedge clk)\n    taken <= \\$1 ;\n  assign \\$1  = ~ taken;\nendmodule\n"
    assert merge_registers(text) == text
