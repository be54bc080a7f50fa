"""Tags of sent frames: IEEE 802.1Q clause 9."""

import pytest

from tests.widths import WIDTHS
from tiptoe_hdl.config import TINY
from tiptoe_hdl.tx.tag import Tagger
from tiptoe_verif.streams import STREAM_CASES, beats_frames, expect_empty, frame_beats, recv_n, run_bench, send_all
from tiptoe_verif.wire.vlan import tagged

LENGTHS = [60, 61, 62, 63, 64, 65, 66, 67, 68, 72, 76, 80, 1511, 1512, 1513, 1514]


def exercise(width, frames, settings, *, idle=0.0, stall=0.0):
    dut = Tagger(TINY.with_(data_width=width))
    enable, vid, priority = settings
    items = [beat for frame in frames for beat in frame_beats(frame, width)]
    want = [tagged(frame, vid, priority) if enable else frame for frame in frames]
    expected = [beat for frame in want for beat in frame_beats(frame, width)]
    took = []

    async def source(ctx):
        for port, value in zip((dut.enable, dut.id, dut.priority), settings, strict=True):
            ctx.set(port, value)
        await send_all(ctx, dut.i, items, idle=idle)

    async def sink(ctx):
        got = await recv_n(ctx, dut.o, len(expected), stall=stall)
        assert beats_frames(got) == want
        assert [(b["keep"], b["last"]) for b in got] == [(b["keep"], b["last"]) for b in expected]
        ctx.set(dut.o.ready, 1)
        await expect_empty(ctx, dut.o)

    async def clock(ctx):
        async for _, _, valid, ready in ctx.tick().sample(dut.o.valid, dut.o.ready):
            took.append(valid and ready)

    limit = 200 + int(20 * len(expected) / (1 - max(idle, stall)))
    run_bench(dut, source, sink, background=[clock], max_cycles=limit)
    return len(took) - took.index(1), len(expected)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("settings", [(0, 5, 3), (1, 5, 3), (1, 0, 7), (1, 4094, 0)])
def test_every_length(width, settings, rng):
    exercise(width, [rng.randbytes(length) for length in rng.sample(LENGTHS, len(LENGTHS))], settings)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("idle, stall", STREAM_CASES)
def test_idle_and_backpressure(width, idle, stall, rng):
    exercise(width, [rng.randbytes(rng.randrange(60, 100)) for _ in range(60)], (1, 5, 3), idle=idle, stall=stall)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_beat_a_cycle(width, rng):
    took, beats = exercise(width, [rng.randbytes(1514)] * 20, (1, 5, 3))
    assert took <= beats + 17
