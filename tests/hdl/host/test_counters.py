"""The counter bank: no pulse lost on any line, however fast; cleared by reset."""

import random

import pytest
from amaranth.hdl import Module, ResetInserter, Signal

from tiptoe_hdl.host.counters import CounterBank, PulseMerge, pulse_ports
from tiptoe_hdl.messages import Counter
from tiptoe_verif.streams import run_bench


async def pulse_all(ctx, dut, rates, cycles, rng):
    sent = [0] * len(Counter)
    for _ in range(cycles):
        for index, name in enumerate(pulse_ports()):
            pulse = int(rng.random() < rates[index])
            ctx.set(getattr(dut, name), pulse)
            sent[index] += pulse
        await ctx.tick()
    for name in pulse_ports():
        ctx.set(getattr(dut, name), 0)
    return sent


async def values(ctx, dut):
    """All counters, each read when its index has been there for 36 cycles."""
    got = []
    for index in range(len(Counter)):
        ctx.set(dut.index, index)
        await ctx.tick().repeat(36)
        got.append(ctx.get(dut.value))
    return got


def test_a_line_for_each_counter():
    dut = CounterBank()
    for counter in Counter:
        assert hasattr(dut, f"count_{counter.name.lower()}")


@pytest.mark.parametrize("rates", ["all", "mixed", "sparse"])
def test_no_pulse_is_lost(rates, rng):
    dut = CounterBank()
    rate = {
        "all": [1.0] * len(Counter),
        "mixed": [rng.random() for _ in range(len(Counter))],
        "sparse": [0.01] * len(Counter),
    }[rates]

    async def bench(ctx):
        sent = await pulse_all(ctx, dut, rate, 700, rng)
        await ctx.tick().repeat(38)
        assert await values(ctx, dut) == sent

    run_bench(dut, bench)


def test_pulses_right_after_reset_count():
    dut = CounterBank()

    async def bench(ctx):
        sent = await pulse_all(ctx, dut, [0.5] * len(Counter), 40, random.Random(3))
        await ctx.tick().repeat(38)
        assert await values(ctx, dut) == sent

    run_bench(dut, bench)


def test_reset_clears():
    dut = CounterBank()
    reset = Signal()
    top = Module()
    top.submodules.bank = ResetInserter(reset)(dut)

    async def bench(ctx):
        await pulse_all(ctx, dut, [1.0] * len(Counter), 100, random.Random(4))
        ctx.set(reset, 1)
        await ctx.tick()
        ctx.set(reset, 0)
        sent = await pulse_all(ctx, dut, [0.3] * len(Counter), 20, random.Random(5))
        await ctx.tick().repeat(50)
        assert await values(ctx, dut) == sent

    run_bench(top, bench)


@pytest.mark.parametrize("n", [2, 3])
def test_pulses_of_one_cycle_all_count(n, rng):
    dut = PulseMerge(n)
    sent, counted = 0, 0

    async def bench(ctx):
        nonlocal sent, counted
        for cycle in range(400):
            pulses = rng.getrandbits(n) if cycle % 40 < 5 else 0
            sent += pulses.bit_count()
            ctx.set(dut.i, pulses)
            _, _, o = await ctx.tick().sample(dut.o)
            counted += o
        assert counted == sent > 0

    run_bench(dut, bench)
