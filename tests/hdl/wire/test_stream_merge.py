"""Merge of streams: every source in turn, and a time that depends on the sources only."""

import pytest

from tiptoe_hdl.wire.stream_merge import StreamMerge
from tiptoe_verif.streams import run_bench

SOURCES = 3


async def step(ctx, dut):
    """A cycle: the source taken, or None."""
    _, _, valid, ready, payload, *taken = await ctx.tick().sample(
        dut.o.valid, dut.o.ready, dut.o.payload, *(port.ready for port in dut.i)
    )
    if not (valid and ready):
        assert not any(t and ctx.get(port.valid) for t, port in zip(taken, dut.i, strict=True))
        return None
    source = payload >> 8
    assert taken[source] and sum(taken) == 1
    return source


def test_all_at_once_are_served_in_turn():
    dut = StreamMerge(16, SOURCES)

    async def bench(ctx):
        for k, port in enumerate(dut.i):
            ctx.set(port.valid, 1)
            ctx.set(port.payload, k << 8)
        ctx.set(dut.o.ready, 1)
        served = [await step(ctx, dut) for _ in range(30)]
        assert served == [k % SOURCES for k in range(30)]

    run_bench(dut, bench)


@pytest.mark.parametrize("source", range(SOURCES))
def test_one_alone_is_taken_in_every_cycle(source):
    dut = StreamMerge(16, SOURCES)

    async def bench(ctx):
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.i[source].payload, source << 8)
        ctx.set(dut.i[source].valid, 1)
        served = [await step(ctx, dut) for _ in range(10)]
        assert served[bool(source) :] == [source] * (10 - bool(source))

    run_bench(dut, bench)


@pytest.mark.parametrize("source", range(SOURCES))
def test_the_time_does_not_depend_on_when(source):
    """As a single transfer comes 1, 2, 3... cycles after the last one."""
    dut = StreamMerge(16, SOURCES)

    async def bench(ctx):
        ctx.set(dut.o.ready, 1)
        ctx.set(dut.i[source].payload, source << 8)
        for pause in range(1, 10):
            ctx.set(dut.i[source].valid, 1)
            cycles = 0
            while await step(ctx, dut) is None:
                cycles += 1
            ctx.set(dut.i[source].valid, 0)
            assert pause == 1 or cycles == 0
            for _ in range(pause):
                assert await step(ctx, dut) is None

    run_bench(dut, bench)


@pytest.mark.parametrize("stall", [0, 0.5, 0.9])
@pytest.mark.parametrize("idle", [0, 0.5, 0.95])
def test_nothing_is_lost_twice_or_kept_waiting(rng, idle, stall):
    dut = StreamMerge(16, SOURCES)

    async def bench(ctx):
        sent, waited, expected = [0] * SOURCES, [0] * SOURCES, [0] * SOURCES
        offered = [False] * SOURCES
        for _ in range(2000):
            for k, port in enumerate(dut.i):
                offered[k] = offered[k] or rng.random() >= idle
                ctx.set(port.valid, offered[k])
                ctx.set(port.payload, k << 8 | sent[k] & 0xFF)
            ctx.set(dut.o.ready, rng.random() >= stall)
            _, _, valid, ready, payload = await ctx.tick().sample(dut.o.valid, dut.o.ready, dut.o.payload)
            if valid and ready:
                k = payload >> 8
                assert payload & 0xFF == expected[k] & 0xFF and offered[k]
                expected[k] += 1
                sent[k] += 1
                offered[k] = False
                waited[k] = 0
                for other in range(SOURCES):
                    waited[other] += offered[other]
                    assert waited[other] <= SOURCES, "others more than once each"
        assert all(expected)

    run_bench(dut, bench)
