"""Token bucket against a model: no more than the rate allows, and all that it allows."""

import pytest

from tiptoe_hdl.wire.token_bucket import TokenBucket
from tiptoe_verif.streams import run_bench


@pytest.mark.parametrize("rate, burst", [(1, 4), (3, 2), (0, 5), (5, 0), (65535, 65535), (2, 50)])
def test_answers_in_the_long_run_and_at_once(rate, burst, rng):
    """At most the burst at once, and a tick's rate more with each tick."""
    dut = TokenBucket()

    async def bench(ctx):
        ctx.set(dut.rate, rate)
        ctx.set(dut.burst, burst)
        await ctx.tick().repeat(4)
        spent = ticks = 0
        busy = True
        for cycle in range(3000):
            if cycle % 300 == 0:
                busy = not busy
            available = ctx.get(dut.available)
            spend = busy and available and cycle % 3 == 0
            tick = cycle % 50 == 7
            ctx.set(dut.spend, int(spend))
            ctx.set(dut.tick, int(tick))
            spent += bool(spend)
            ticks += tick
            await ctx.tick()
            assert spent <= burst + rate * ticks
        if burst and rate:
            most = 1500 // 3  # while busy
            assert spent >= min(most, min(burst, rate * 6) * 5)
        if not rate:
            assert spent == burst

    run_bench(dut, bench)
