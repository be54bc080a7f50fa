"""cocotb bench of the example register slice (run by test_sim.py)."""

import itertools
import os
import random

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiStreamBus, AxiStreamSink, AxiStreamSource


async def _reset(dut):
    dut.rst.value = 1
    await ClockCycles(dut.clk, 4)
    dut.rst.value = 0
    await RisingEdge(dut.clk)


async def _start(dut):
    source = AxiStreamSource(AxiStreamBus.from_prefix(dut, "s_axis"), dut.clk, dut.rst)
    sink = AxiStreamSink(AxiStreamBus.from_prefix(dut, "m_axis"), dut.clk, dut.rst)
    await _reset(dut)
    return source, sink


@cocotb.test()
async def frames_pass(dut):
    source, sink = await _start(dut)
    source.set_pause_generator(random.random() < 0.3 for _ in itertools.count())
    sink.set_pause_generator(random.random() < 0.3 for _ in itertools.count())
    frames = [random.randbytes(n) for n in range(1, 100, 7)]
    for frame in frames:
        await source.send(frame)
    for frame in frames:
        assert bytes((await sink.recv()).tdata) == frame
    assert sink.empty()


@cocotb.test()
async def long_run(dut):
    source, sink = await _start(dut)
    for _ in range(int(os.environ.get("FRAMES", "5"))):
        frame = random.randbytes(1514)
        await source.send(frame)
        assert bytes((await sink.recv()).tdata) == frame


@cocotb.test()
async def sleep(dut):
    await _reset(dut)
    await ClockCycles(dut.clk, int(os.environ.get("CYCLES", "1000")))


@cocotb.test(skip="FAIL" not in os.environ)
async def fails_when_asked(dut):
    await _reset(dut)
    assert dut.m_axis_tvalid.value == 1, "asked to fail"
