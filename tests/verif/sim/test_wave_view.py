"""The prepared views of a waveform: their signals exist, and a segment's way is in them."""

from __future__ import annotations

import re

import pytest

from tiptoe_hdl.config import CONFIGS
from tiptoe_verif.native.simulation import Simulation
from tiptoe_verif.sim.verilate import engine_verilog
from tiptoe_verif.sim.wave_view import CYCLE_PS, GTKW, SURFER, WAY, write_views

NAMES = [name for _, names in WAY for name in names]


def test_the_verilog_has_every_signal():
    """What Verilator traces are the Verilog's signals: a name that moved is found without a waveform."""
    top, verilog = engine_verilog(CONFIGS["tiny"])
    modules = dict(re.findall(r"^module \\?(\S+?) ?\((.*?)^endmodule", verilog, re.S | re.M))
    for name in NAMES:
        block, _, signal = name.rpartition(".")
        text = modules[f"{top}.{block}" if block else top]
        declared = re.search(
            rf"^ +(?:input|output|wire|reg)(?: wire| reg)? *(?:\[\d+:0\])? *\\?{re.escape(signal)} ?;", text, re.M
        )
        assert declared, name


def test_a_small_waveform(tmp_path):
    """Only what is in the waveform is in the views, with its width, below the scope that has it."""
    waveform = tmp_path / "small.vcd"
    waveform.write_text(
        "$timescale 1ps $end\n$scope module top $end\n$scope module engine $end\n$var wire 1 ! irq $end\n"
        "$scope module flow $end\n$var wire 1 # segment__valid $end\n$upscope $end\n"
        '$scope module table $end\n$var wire 7 " result__payload $end\n$upscope $end\n$upscope $end\n$upscope $end\n'
        '$enddefinitions $end\n#0\n0!\n0#\nb0 "\n#8000\n1!\n'
    )
    missing = write_views(waveform, 100)
    gtkw, surfer = (waveform.with_suffix(suffix).read_text() for suffix in (GTKW, SURFER))
    assert set(missing) == set(NAMES) - {"irq", "flow.segment__valid", "table.result__payload"}
    assert "top.engine.irq\n" in gtkw and "top.engine.table.result__payload[6:0]\n" in gtkw
    assert "variable_add top.engine.table.result__payload\n" in surfer and f"cursor_set {100 * CYCLE_PS}\n" in surfer
    assert str(100 * CYCLE_PS) in gtkw


@pytest.mark.soak
def test_a_real_waveform(tmp_path):
    """A build with waveforms, a frame through it: every signal is there, the cursor stands in the middle of the cycle in
    which the frame's first word passes."""
    from pywellen import Waveform

    cycles = []
    with Simulation("tiny", trace=tmp_path / "waves.fst", pcap=tmp_path / "capture.pcap") as sim:
        path = sim.trace_path
        sim.capture.stamp = lambda first, last, to_engine: cycles.append(first)
        sim.settle()
        sim.inject(b"\xff" * 6 + b"\x02\0\0\0\0\x09" + b"\x08\x06" + bytes(46))
        sim.run_us(500)
    assert write_views(path, cycles[0]) == []
    gtkw = path.with_suffix(GTKW).read_text()
    (shown,) = [line for line in gtkw.splitlines() if line.endswith("s_axis_rx_tvalid")]
    variable = next(each for each in Waveform(str(path)).all_vars() if each.full_name == shown)
    risen = next(time for time, value in variable.signal if int(value))
    assert risen == cycles[0] * CYCLE_PS - CYCLE_PS // 2
    assert f"cursor_set {cycles[0] * CYCLE_PS}\n" in path.with_suffix(SURFER).read_text()
