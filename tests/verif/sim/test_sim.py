"""The simulation machinery: cocotb benches and shared libraries, cached, with a waveform on failure."""

import ctypes
from pathlib import Path

import pytest
from amaranth.hdl import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from tiptoe_verif.example import AxiStreamSlice
from tiptoe_verif.sim import (
    CocotbFailure,
    ToolError,
    bench_tests,
    build_cocotb,
    build_library,
    port_names,
    run_cocotb,
    to_verilog,
    toolchain,
)

BENCH = Path(__file__).with_name("bench_axis_slice.py")
TOP = "axis_slice"


@pytest.fixture(scope="module")
def verilog():
    return to_verilog(AxiStreamSlice(), TOP)


def test_ports(verilog):
    ports = port_names(TOP, verilog)
    assert ports["clk"] == "input" and ports["m_axis_tdata"] == "output"
    assert not any(name.startswith(("i__", "o__")) for name in ports)


def test_cases_are_found():
    assert bench_tests(BENCH) == ["frames_pass", "long_run", "sleep", "fails_when_asked"]


def test_cocotb_passes(verilog, out_dir):
    results = run_cocotb(TOP, verilog, BENCH, results_dir=out_dir)
    assert results.passed == ["frames_pass", "long_run", "sleep"]
    assert results.skipped == ["fails_when_asked"]


def test_one_case(verilog, out_dir):
    results = run_cocotb(TOP, verilog, BENCH, testcase="sleep", env={"CYCLES": "500"}, results_dir=out_dir)
    assert results.passed == ["sleep"]
    assert results.sim_time_ns == pytest.approx(505 * 8, abs=16)


def test_failure_names_log_and_waveform(verilog, out_dir):
    with pytest.raises(CocotbFailure, match="asked to fail") as caught:
        run_cocotb(TOP, verilog, BENCH, env={"FAIL": "1"}, results_dir=out_dir)
    assert "1 of 4 cocotb tests failed" in str(caught.value)
    waveform = next(out_dir.glob("fails_when_asked.*"))
    assert str(waveform) in str(caught.value) and waveform.stat().st_size > 100


def test_builds_are_shared(verilog):
    program = build_cocotb(TOP, verilog)
    before = program.stat().st_mtime_ns
    assert build_cocotb(TOP, verilog) == program
    assert program.stat().st_mtime_ns == before


HARNESS = """
#include "Vtop.h"
#include "verilated.h"
extern "C" long run(long cycles) {
    VerilatedContext context;
    Vtop top(&context);
    top.s_axis_tvalid = 1;
    top.m_axis_tready = 1;
    long taken = 0;
    for (long i = 0; i < cycles; i++) {
        top.clk = 0; top.eval();
        taken += top.m_axis_tvalid;
        top.clk = 1; top.eval();
    }
    return taken;
}
"""


def test_library(verilog, out_dir):
    harness = out_dir / "harness.cpp"
    harness.write_text(HARNESS)
    path = build_library(TOP, verilog, [harness])
    assert path == build_library(TOP, verilog, [harness])
    library = ctypes.CDLL(str(path))
    library.run.restype, library.run.argtypes = ctypes.c_long, [ctypes.c_long]
    assert library.run(1000) == 999


def test_another_compiler_is_another_build(verilog, out_dir, monkeypatch, request):
    harness = out_dir / "harness.cpp"
    harness.write_text(HARNESS)
    usual = build_library(TOP, verilog, [harness])
    other = out_dir / "other-c++"
    other.write_text('#!/bin/sh\necho used >> "$0.log"\nexec g++ "$@"\n')
    other.chmod(0o755)
    request.addfinalizer(toolchain.fingerprint.cache_clear)  # after the environment is as it was
    monkeypatch.setenv("TIPTOE_CXX", str(other))
    toolchain.fingerprint.cache_clear()
    path = build_library(TOP, verilog, [harness])
    assert path != usual and path.exists()
    assert (out_dir / "other-c++.log").read_text().count("used") > 3
    monkeypatch.setenv("TIPTOE_CXX", "no-such-compiler")
    toolchain.fingerprint.cache_clear()
    with pytest.raises(ToolError, match="no-such-compiler not found"):
        build_library(TOP, verilog, [harness])
    monkeypatch.undo()


class Tables(wiring.Component):
    """One memory that starts at zero, one that does not."""

    at: In(8)
    o: Out(16)

    def elaborate(self, platform):
        m = Module()
        m.submodules.zero = zero = Memory(shape=8, depth=256, init=[])
        m.submodules.ramp = ramp = Memory(shape=8, depth=256, init=range(256))
        reads = [zero.read_port(), ramp.read_port()]
        m.d.comb += [read.addr.eq(self.at) for read in reads]
        m.d.comb += self.o.eq(Cat(read.data for read in reads))
        return m


def test_zero_memories_are_not_written_out(out_dir):
    text = to_verilog(Tables(), "tables")
    assert text.count("8'hfe") == 1 and text.count("8'h00") <= 1
    harness = out_dir / "harness.cpp"
    harness.write_text("""
#include "Vtop.h"
extern "C" int look(int at) {
    VerilatedContext context;
    Vtop top(&context);
    top.at = at;
    top.clk = 0; top.eval();
    top.clk = 1; top.eval();
    return top.o;
}
""")
    library = ctypes.CDLL(str(build_library("tables", text, [harness], optimise="-O1")))
    assert [library.look(at) for at in (0, 7, 255)] == [0, 7 << 8, 255 << 8]


def test_combinational_loop_is_refused(out_dir):
    loop = """
module loop(a, y);
  input a; output y; wire a; wire y; wire b;
  assign b = y ^ a;
  assign y = b & a;
endmodule
"""
    with pytest.raises(ToolError, match="UNOPTFLAT"):
        build_cocotb("loop", loop)


def test_hang_is_ended(verilog, out_dir):
    bench = out_dir / "bench_hang.py"
    bench.write_text(
        "import cocotb\nfrom cocotb.triggers import RisingEdge\n\n"
        "@cocotb.test()\nasync def hang(dut):\n    while True:\n        await RisingEdge(dut.clk)\n"
    )
    # Which test hung is named only if the interrupt did not hit cocotb itself in the middle of an event.
    with pytest.raises(CocotbFailure, match=r"(hang|\(simulation\)): did not end within 10 s"):
        run_cocotb(TOP, verilog, bench, results_dir=out_dir, timeout_s=10)
