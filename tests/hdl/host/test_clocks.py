"""The clocks of TCP: ticks of the prescaler and from outside, and the ISN clock."""

import pytest

from tiptoe_hdl.host.clocks import ISN_CYCLES_LOG2, Clocks
from tiptoe_verif.streams import run_bench


async def ticks(ctx, dut, cycles):
    """Cycles from now at which ``tick`` was high."""
    found = []
    for cycle in range(cycles):
        _, _, tick = await ctx.tick().sample(dut.tick)
        if tick:
            found.append(cycle)
    return found


def is_periodic(found, period):
    return all(there - here == period for here, there in zip(found, found[1:], strict=False))


@pytest.mark.parametrize("period", [1, 2, 3, 4, 7, 50])
@pytest.mark.parametrize("before", [0, 1, 2, 3, 49, 1_000_000])
def test_period_after_a_change(period, before):
    """Whatever the period was before, also one that has hardly begun."""
    dut = Clocks()

    async def bench(ctx):
        ctx.set(dut.tick_cycles, before)
        await ctx.tick().repeat(500)
        ctx.set(dut.tick_cycles, period)
        await ctx.tick().repeat(4)  # a tick of the old period may be under way
        found = await ticks(ctx, dut, 10 * period)
        assert len(found) in (9, 10) and is_periodic(found, period)

    run_bench(dut, bench)


def test_zero_stops():
    dut = Clocks()

    async def bench(ctx):
        ctx.set(dut.tick_cycles, 5)
        await ctx.tick().repeat(23)
        ctx.set(dut.tick_cycles, 0)
        await ctx.tick().repeat(3)
        assert await ticks(ctx, dut, 200) == []

    run_bench(dut, bench)


def test_external_ticks_only(rng):
    dut = Clocks()
    given = sorted(rng.sample(range(200), 30))

    async def bench(ctx):
        ctx.set(dut.tick_cycles, 3)
        ctx.set(dut.external, 1)
        await ctx.tick().repeat(10)
        before = ctx.get(dut.tick_time)
        seen = []
        for cycle in range(202):
            ctx.set(dut.external_tick, cycle in given)
            _, _, tick = await ctx.tick().sample(dut.tick)
            if tick:
                seen.append(cycle - 1)
        assert seen == given
        assert ctx.get(dut.tick_time) == before + len(given)

    run_bench(dut, bench)


def test_isn_clock():
    dut = Clocks()

    async def bench(ctx):
        await ctx.tick().repeat(10 << ISN_CYCLES_LOG2)
        assert ctx.get(dut.isn_time) == 10

    run_bench(dut, bench)
