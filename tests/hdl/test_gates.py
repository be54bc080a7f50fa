"""Frames stay whole at the engine's ports around enabling and soft reset."""

import pytest

from tiptoe_hdl.config import TINY
from tiptoe_hdl.rx.gate import Gate
from tiptoe_hdl.tx.gate import TxGate
from tiptoe_verif.streams import STREAM_CASES, exercise_stream, recv_n, run_bench, send_all


def frames(rng, count, **more):
    """Beats of random frames; the data tells frame and place."""
    beats = []
    for n in range(count):
        length = rng.choice((1, 1, 2, 5, 20))
        beats += [dict(data=n << 8 | k, keep=0xFF, last=int(k == length - 1), **more) for k in range(length)]
    return beats


@pytest.mark.parametrize("idle, stall", STREAM_CASES)
def test_tx_gate_passes_everything(idle, stall, rng):
    beats = frames(rng, 40)
    exercise_stream(TxGate(TINY), beats, beats, idle=idle, stall=stall)


@pytest.mark.parametrize("idle, stall", STREAM_CASES)
def test_tx_gate_quiet_only_between_frames(idle, stall, rng):
    """Whenever it is quiet every frame begun has ended, and no beat that was offered is taken back."""
    dut = TxGate(TINY)
    beats = frames(rng, 60)

    async def quiesce(ctx):
        while True:
            await ctx.tick().repeat(rng.randrange(1, 60))
            ctx.set(dut.quiesce, 1)
            await ctx.tick().until(dut.quiet)
            for _ in range(rng.randrange(1, 20)):
                assert not ctx.get(dut.o.valid), "a frame begins while the gate is closed"
                await ctx.tick()
            ctx.set(dut.quiesce, 0)

    async def watch(ctx):
        waiting, inside = None, False
        while True:
            _, _, valid, ready, beat, quiet, closed = await ctx.tick().sample(
                dut.o.valid, dut.o.ready, dut.o.payload, dut.quiet, dut.quiesce
            )
            assert waiting is None or (valid and beat.data == waiting), "an offered beat was taken back"
            waiting = beat.data if valid and not ready else None
            assert not (quiet and closed and (inside or valid)), "quiet inside a frame"
            if valid and ready:
                inside = not beat.last

    async def source(ctx):
        await send_all(ctx, dut.i, beats, idle=idle, rng=rng)

    async def sink(ctx):
        assert await recv_n(ctx, dut.o, len(beats), stall=stall, rng=rng) == beats

    run_bench(dut, source, sink, background=(quiesce, watch))


@pytest.mark.parametrize("idle, stall", STREAM_CASES)
def test_rx_gate_swallows_the_rest_of_a_frame_that_was_cut(idle, stall, rng):
    """After ``cut`` comes the beginning of a frame, or nothing."""
    dut = Gate(TINY)
    beats = frames(rng, 60, error=0)
    cuts = 0
    clean = True  # the next beat out must be a frame's first

    async def cut(ctx):
        nonlocal cuts, clean
        while True:
            await ctx.tick().repeat(rng.randrange(20, 60))
            ctx.set(dut.cut, 1)
            ctx.set(dut.enable, 0)
            await ctx.tick().repeat(3)
            cuts += 1
            clean = True
            ctx.set(dut.cut, 0)
            await ctx.tick().repeat(rng.randrange(1, 5))
            ctx.set(dut.enable, 1)

    async def sink(ctx):
        nonlocal clean
        expected = None
        cut_before = False
        while True:
            ctx.set(dut.o.ready, rng.random() >= stall)
            _, _, valid, ready, beat, cutting = await ctx.tick().sample(
                dut.o.valid, dut.o.ready, dut.o.payload, dut.cut
            )
            if cutting and cut_before:
                assert not valid
                expected = None
            elif valid and ready:
                assert beat.data & 0xFF == 0 if expected is None else beat.data == expected
                expected = None if beat.last else beat.data + 1
            cut_before = cutting

    async def source(ctx):
        ctx.set(dut.enable, 1)
        await send_all(ctx, dut.i, beats, idle=idle, rng=rng)

    run_bench(dut, source, background=(cut, sink))
    assert cuts > 2
