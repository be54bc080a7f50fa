"""The command ring: read in order and around its end, several commands at once, wrong sizes and tails, errors of the bus."""

import pytest

from tests.hdl.host.command_bench import BASE, WIDE, Bench, tid
from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_hdl.config import TINY
from tiptoe_hdl.host.abi import ErrorCode
from tiptoe_hdl.host.abi import Opcode as HdlOpcode
from tiptoe_hdl.messages import Status


@WIDE
@pytest.mark.parametrize("latency, delay", [(0, 0), (40, 0), (10, 6), (150, 3)])
def test_many_commands_in_order_around_the_ring(width, latency, delay, rng):
    bench = Bench(TINY.with_(data_width=width), seed=rng.random(), delay=delay, latency=latency)
    bench.done_stall = 0.3 if delay else 0.0
    ends = [rng.getrandbits(32) for _ in range(60)]

    async def main(ctx):
        await bench.run(ctx, *[abi.pack_close(n, tid=tid(n % 16), snd_end=end) for n, end in enumerate(ends)])

    bench.simulate(main)
    assert [(flow["id"], flow["a"]) for _, flow in bench.said("flow")] == [(n % 16, end) for n, end in enumerate(ends)]
    assert bench.errors == [] and bench.done == []


def test_several_commands_are_read_at_once():
    bench = Bench(latency=30)

    async def main(ctx):
        bench.post(*[abi.pack_nop(n) for n in range(13)])
        await ctx.tick().repeat(40)
        await bench.ring(ctx)
        await bench.idle(ctx)

    bench.simulate(main)
    assert bench.reads == [8, 5]


def test_a_transfer_ends_where_the_ring_ends():
    bench = Bench()

    async def main(ctx):
        for count in (5, 16, 3, 16):
            bench.post(*[abi.pack_abort(n, tid=n) for n in range(count)])
            await bench.ring(ctx)
            await bench.idle(ctx)

    bench.simulate(main)
    assert bench.reads == [5, 3, 8, 5, 3, 8, 8]
    assert [payload["id"] for _, payload in bench.log] == [*range(5), *range(16), *range(3), *range(16)]


def test_one_command_takes_few_cycles():
    """Provision and close: reading ahead hides the memory's latency."""
    bench = Bench(log2=8, latency=125)
    begin, end = [], []

    async def main(ctx):
        bench.post(*[abi.pack_close(n, tid=n % 16, snd_end=n) for n in range(100)])
        await bench.ring(ctx)
        cycle = 0
        while len(bench.said("flow")) < 100:
            await ctx.tick()
            cycle += 1
            if len(bench.said("flow")) == 20 and not begin:
                begin.append(cycle)
        end.append(cycle)

    bench.simulate(main)
    assert (end[0] - begin[0]) / 80 < 24


@pytest.mark.parametrize("log2, tail", [(4, 17), (4, 0x8000_0000), (4, 0xFFFF_FFFF), (3, 1), (17, 1), (31, 1), (0, 1)])
def test_an_impossible_tail_is_ignored(log2, tail):
    bench = Bench(log2=log2)

    async def main(ctx):
        ctx.set(bench.dut.tail, tail)
        await ctx.tick().repeat(100)
        assert bench.errors == [(ErrorCode.BAD_COMMAND_TAIL, tail)] and bench.reads == []
        # A sound one still counts.
        if log2 == 4:
            await bench.run(ctx, abi.pack_abort(1, tid=3))
            assert [payload["id"] for _, payload in bench.log] == [3]
            # Backwards is as wrong as too far ahead.
            ctx.set(bench.dut.tail, 0)
            await ctx.tick().repeat(40)
            assert bench.errors[1:] == [(ErrorCode.BAD_COMMAND_TAIL, 0)]

    bench.simulate(main)


def test_tail_ahead_of_what_is_read_counts_from_the_head():
    bench = Bench(latency=300)

    async def main(ctx):
        bench.post(*[abi.pack_nop(1)] * 16)
        await bench.ring(ctx)
        await ctx.tick().repeat(100)
        ctx.set(bench.dut.tail, 17)  # nothing is read yet: one too many
        await ctx.tick().repeat(20)
        assert bench.errors == [(ErrorCode.BAD_COMMAND_TAIL, 17)]
        await ctx.tick().repeat(400)
        assert ctx.get(bench.dut.head) == 16

    bench.simulate(main)


@WIDE
def test_commands_that_cannot_be_read_are_told_one_by_one(width):
    bench = Bench(TINY.with_(data_width=width))
    bench.bad_addresses = {BASE + 10 * 64 + 8}

    async def main(ctx):
        await ctx.tick().repeat(40)
        bench.post(*[abi.pack_abort(n, tid=n) for n in range(14)])
        await bench.ring(ctx)
        await bench.idle(ctx)
        # The ring goes on.
        await bench.run(ctx, abi.pack_abort(1, tid=15))

    bench.simulate(main)
    assert bench.errors == [(ErrorCode.COMMAND_FETCH, 8)]
    assert [payload["id"] for _, payload in bench.log] == [*range(8), 15]
    assert bench.done == [(0, HdlOpcode.NOP, Status.DMA_ERROR, count) for count in range(8, 14)]


def test_nothing_is_read_while_disabled():
    bench = Bench()

    async def main(ctx):
        ctx.set(bench.dut.enable, 0)
        bench.post(abi.pack_abort(1, tid=3))
        await bench.ring(ctx)
        await ctx.tick().repeat(100)
        assert bench.reads == []
        ctx.set(bench.dut.enable, 1)
        await bench.idle(ctx)
        assert len(bench.log) == 1

    bench.simulate(main)
