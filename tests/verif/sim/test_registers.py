"""Verilog changed for speed, registers in one process and blocks that rest: Yosys proves that the design is the same."""

import re
import subprocess
import sys
import tempfile

import pytest
from amaranth.hdl import Module, Mux, ResetInserter, Signal, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from tiptoe_hdl.config import TINY
from tiptoe_verif.native import resting
from tiptoe_verif.sim import verilate
from tiptoe_verif.sim.registers import merge_registers

PAIR = data.StructLayout({"low": unsigned(5), "high": unsigned(7)})


class _Registers(wiring.Component):
    """Registers of every form: held, always new, in parts, in a state machine, without reset, read by others.

    Their reset is a signal, or (as with a chain of resets) a bit of a port.
    """

    soft_reset: In(1)
    resets: In(3)
    enable: In(1)
    select: In(2)
    value: In(12)
    count: Out(4)
    sum: Out(12, init=9)
    pair: Out(PAIR)
    state: Out(2)
    last: Out(12)
    bits: Out(12)

    def __init__(self, bit=None):
        super().__init__()
        self._reset = self.soft_reset if bit is None else self.resets[bit]

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
        return ResetInserter(self._reset)(m)


def _as_written(monkeypatch, design):
    monkeypatch.setattr(verilate, "merge_registers", lambda text: text)
    text = verilate.to_verilog(design, "top")
    monkeypatch.undo()
    return text


def _proved_equal(first: str, second: str, *, cycles: int = 4) -> bool:
    """Whether the modules ``top`` of both are the same in every cycle, by induction over so many."""
    script = []
    for name, text in (("gold", first), ("gate", second)):
        script += [f"read_verilog <<verilog\n{text}\nverilog", "prep -flatten -top top", "memory_map", "opt_clean"]
        script += [f"rename top {name}", f"design -stash {name}"]
    script += [f"design -copy-from {name} -as {name} {name}" for name in ("gold", "gate")]
    script += ["equiv_make gold gate both", "prep -flatten -top both", "equiv_simple", f"equiv_induct -seq {cycles}"]
    with tempfile.NamedTemporaryFile("w", suffix=".ys") as file:
        file.write("\n".join([*script, "equiv_status -assert", ""]))
        file.flush()
        program = f"from pyosys import libyosys as ys; ys.run_pass('script {file.name}', ys.Design())"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if done.returncode == 0:
        return True
    assert "unproven $equiv cells" in done.stdout + done.stderr, done.stdout[-2000:] + done.stderr[-2000:]
    return False


@pytest.mark.parametrize(("bit", "reset"), [(None, "soft_reset"), (1, "resets[1]")])
def test_merged_registers_are_the_same_design(monkeypatch, bit, reset):
    written, merged = _as_written(monkeypatch, _Registers(bit)), verilate.to_verilog(_Registers(bit), "top")
    assert merged == merge_registers(written)
    processes = [len(re.findall(r"always @\(posedge", text)) for text in (written, merged)]
    # Those with resets, the one without, and the one that always takes a new value.
    assert processes == [7, 3], merged
    # The reset is looked at once for all registers in one process, and for the one that always takes a new value.
    assert (written.count(f"if ({reset}) begin"), merged.count(f"if ({reset}) begin")) == (6, 2), merged
    assert _proved_equal(written, merged)
    for right, wrong in (("count <= 4'h0", "count <= 4'h1"), ("sum <= 12'h009", "sum <= sum")):
        assert right in merged
        assert not _proved_equal(written, merged.replace(right, wrong))


def test_other_processes_stay_as_they_are():
    text = "module other(clk);\n  always @(posedge clk)\n    taken <= \\$1 ;\n  assign \\$1  = ~ taken;\nendmodule\n"
    assert merge_registers(text) == text


class _Constants(wiring.Component):
    """A register without reset of which some bits are always the same."""

    value: In(4)
    both: Out(12)

    def elaborate(self, platform):
        m = Module()
        kept = Signal(12, reset_less=True)
        m.d.sync += [kept[4:8].eq(0), kept[8:].eq(0b1010)]
        with m.If(self.value[0]):
            m.d.sync += kept[:4].eq(self.value)
        m.d.comb += self.both.eq(kept)
        return m


def test_bits_that_are_always_the_same_are_set_without_waiting(monkeypatch):
    """``always @*`` of a constant waits for ever: Verilator refuses it, others leave the bits unknown."""
    text = verilate.to_verilog(_Constants(), "top")
    assert not re.search(r"always @\*\n[^;]*= \d+'h[0-9a-f]+;", text)
    assert re.search(r"initial\n +\S+ \[11:8\] = 4'ha;", text), text
    assert not _proved_equal(text, text.replace("4'ha;", "4'hb;"))


# --- blocks that rest ---


class _Pipeline(wiring.Component):
    """What the engine's has: stages, a memory that is cleared first, a result forwarded. And, if asked for, loops."""

    valid: In(1)
    forward: In(1)
    address: In(1)
    value: In(2)
    result: Out(2)
    ready: Out(1)
    count: Out(2)

    def __init__(self, *, counts=False, sums=False):
        super().__init__()
        self._counts, self._sums = counts, sums

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = store = memory.Memory(shape=2, depth=2, init=[])
        read, write = store.read_port(), store.write_port()
        valid, forward, address, value, cleared = Signal(2), Signal(), Signal(2), Signal(2), Signal(2)
        m.d.sync += [
            valid.eq(valid << 1 | self.valid), forward.eq(self.forward), address.eq(address << 1 | self.address),
            value.eq(self.value), cleared.eq(cleared + ~self.ready),
            self.result.eq((self.result if self._sums else Mux(forward, self.result, read.data)) + value),
        ]  # fmt: skip
        if self._counts:
            m.d.sync += self.count.eq(self.count + 1)
        m.d.comb += [
            self.ready.eq(cleared[1]), read.addr.eq(self.address), read.en.eq(1),
            write.en.eq(valid[1] | ~self.ready | (value == 3)), write.addr.eq(Mux(self.ready, address[1], cleared)),
            write.data.eq(Mux(self.ready, self.result, 0)),
        ]  # fmt: skip
        return m


@pytest.fixture
def small(monkeypatch):
    """Small blocks may rest too."""
    monkeypatch.setattr(resting, "REGISTERS", 1)


def _resting(design):
    """Its Verilog, with and without the edges that the harness leaves out, and the cycles before it rests."""
    text = verilate.to_verilog(design, "top")
    changed, blocks = resting.let_rest(text, "busy")
    assert blocks == ["top"]
    found = re.search(r"rest_cycles == (\d+)\)", changed)
    assert found is not None
    return text, changed.replace("(posedge busy)", "(posedge clk) if (!resting)"), int(found[1])


def test_a_resting_block_is_the_same(small):
    text, changed, cycles = _resting(_Pipeline())
    assert "result" not in re.search(r"rest_was <= \{(.*)\}", changed)[1]
    assert cycles <= 6, "longer than it has to be"
    assert _proved_equal(text, changed, cycles=cycles + 3)
    # Neither the cycles nor any of the conditions could be left out.
    lows = re.findall(r"!\(?\w+ ?\)?(?= &|;)", changed)
    assert sorted(low.strip("!() ") for low in lows) == ["address", "forward", "rst", "valid", "write__en"]
    for condition in (f"rest_cycles == {cycles})", *lows):
        without = changed.replace(condition, "1)" if condition.startswith("rest_cycles") else "1", 1)
        assert not _proved_equal(text, without, cycles=cycles + 3), condition


@pytest.mark.parametrize("loop", ["counts", "sums"])
def test_loops_are_watched(loop, small):
    text, changed, cycles = _resting(_Pipeline(**{loop: True}))
    register = {"counts": "count", "sums": "result"}[loop]
    assert register in re.search(r"rest_was <= \{(.*)\}", changed)[1]
    assert _proved_equal(text, changed, cycles=cycles + 3)


def test_others_keep_their_clock(monkeypatch, small):
    class Parent(_Pipeline):
        def elaborate(self, platform):
            m = super().elaborate(platform)
            m.submodules.other = other = _Pipeline()
            m.d.comb += other.value.eq(self.result)
            return m

    text = verilate.to_verilog(Parent(), "top")
    assert resting.let_rest(text, "busy")[1] == ["top.other"]
    text = verilate.to_verilog(_Pipeline(counts=True), "top")
    monkeypatch.setattr(resting, "WATCHED", 3)
    assert resting.let_rest(text, "busy") == (text, [])
    monkeypatch.setattr(resting, "WATCHED", 64)
    for unknown in ("  assign { a, b } = c;\n", "  always @(negedge clk)\n    a <= b;\n", "  always_comb a = b;\n"):
        other = text.replace("endmodule", f"{unknown}endmodule")
        assert resting.let_rest(other, "busy") == (other, []), unknown


def test_the_pipeline_of_the_engine_rests():
    _, text = verilate.engine_verilog(TINY)
    assert resting.let_rest(text, "busy")[1] == ["tiptoe_engine.flow.pipeline"]
