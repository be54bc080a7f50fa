"""Queue of whole frames: idle × backpressure × length; no room, damage, frames longer than the queue; never a gap."""

import random

import pytest

from tests.widths import WIDTHS
from tiptoe_hdl.config import TINY
from tiptoe_hdl.mac.frame_queue import FrameQueue
from tiptoe_verif.streams import FRAME_LENGTHS, STREAM_CASES, expect_empty, recv_n, run_bench, send_all, watch_stream

WORDS = {32: 1024, 64: 256, 128: 128, 256: 64}


def beats(frame: bytes, width: int, *, error=0) -> list[dict[str, int]]:
    """A frame as ``rx_beat``."""
    step = width // 8
    return [
        {
            "data": int.from_bytes(frame[at : at + step], "little"),
            "keep": (1 << len(frame[at : at + step])) - 1,
            "last": int(at + step >= len(frame)),
            "error": error * int(at + step >= len(frame)),
        }
        for at in range(0, len(frame), step)
    ]


def out(frame: bytes, width: int) -> list[dict[str, int]]:
    return [{name: item[name] for name in ("data", "keep", "last")} for item in beats(frame, width)]


def counts(dut, seen):
    """Counts its pulses."""

    async def count(ctx):
        async for _, _, dropped, damaged in ctx.tick().sample(dut.count_dropped, dut.count_damaged):
            seen["dropped"] += dropped
            seen["damaged"] += damaged

    return count


def bench(dut, sent, expected, *, idle=0.0, stall=0.0, seed=0):
    """Send beats, expect beats; the pulses."""
    seen = {"dropped": 0, "damaged": 0}

    async def source(ctx):
        await send_all(ctx, dut.i, sent, idle=idle, rng=random.Random(seed))

    async def sink(ctx):
        assert await recv_n(ctx, dut.o, len(expected), stall=stall, rng=random.Random(seed + 1)) == expected
        ctx.set(dut.o.ready, 1)
        await expect_empty(ctx, dut.o)

    limit = 500 + int(4 * len(sent) / (1 - max(idle, stall)))
    run_bench(dut, source, sink, background=[counts(dut, seen), watch_stream(dut.o)], max_cycles=limit)
    return seen


@pytest.mark.parametrize("idle, stall", STREAM_CASES)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_frame_passes_from_who_waits(width, idle, stall, rng):
    """The queue is smaller than what comes: nothing is lost, and order and length stay."""
    frames = [rng.randbytes(length) for length in FRAME_LENGTHS]
    rng.shuffle(frames)
    dut = FrameQueue(TINY.with_(data_width=width), WORDS[width], lossy=False)
    sent = [item for frame in frames for item in beats(frame, width)]
    expected = [item for frame in frames for item in out(frame, width)]
    assert bench(dut, sent, expected, idle=idle, stall=stall, seed=rng.getrandbits(32)) == {"dropped": 0, "damaged": 0}


@pytest.mark.parametrize("lossy", [False, True])
def test_damaged_frames_leave_no_trace(lossy, rng):
    """An error in the last beat, holes in ``keep``, a beat before the last that is not full; frames of one beat among them."""
    dut = FrameQueue(TINY, 256, lossy=lossy)
    sent, expected, damaged = [], [], 0
    for _ in range(60):
        frame = rng.randbytes(rng.choice((1, 8, 9, 60, 200)))
        items = beats(frame, 64)
        match rng.choice(("", "", "error", "hole", "short")):
            case "error":
                items[-1]["error"] = 1
            case "hole":
                items[rng.randrange(len(items))]["keep"] = 0b1011
            case "short" if len(items) > 1:
                items[rng.randrange(len(items) - 1)]["keep"] = 0b111
            case _:
                items[0]["error"] = int(len(items) > 1)  # counts in the last beat alone
                sent, expected = sent + items, expected + out(frame, 64)
                continue
        sent, damaged = sent + items, damaged + 1
    assert damaged and bench(dut, sent, expected, stall=0.2, seed=7) == {"dropped": 0, "damaged": damaged}


def test_empty_last_beat(rng):
    """A last beat without bytes ends a frame whose length is a multiple of the bus."""
    frame = rng.randbytes(64)
    items = beats(frame, 64)
    items[-1]["last"] = 0
    tail = {"data": 0, "keep": 0, "last": 1}
    expected = [item | {"last": 0} for item in out(frame, 64)] + [tail]
    assert not any(bench(FrameQueue(TINY, 256, lossy=True), [*items, tail | {"error": 0}], expected).values())


def test_without_room_whole_frames_are_lost(rng):
    """Nobody takes frames while forty come without a gap: those that fitted come out whole, in order; later ones pass again."""
    dut = FrameQueue(TINY, 256, lossy=True)
    frames = [rng.randbytes(rng.choice((60, 300, 1514))) for _ in range(40)]
    later = [rng.randbytes(61) for _ in range(3)]
    seen = {"dropped": 0, "damaged": 0}
    got = []

    async def both(ctx):
        for frame in frames:
            for item in beats(frame, 64):
                assert ctx.get(dut.i.ready), "a MAC does not wait"
                ctx.set(dut.i.payload, item)
                ctx.set(dut.i.valid, 1)
                await ctx.tick()
        ctx.set(dut.i.valid, 0)
        ctx.set(dut.o.ready, 1)
        while ctx.get(dut.o.valid):
            _, _, beat = await ctx.tick().sample(dut.o.payload)
            got.append({name: beat[name] for name in ("data", "keep", "last")})
        ctx.set(dut.o.ready, 0)
        await send_all(ctx, dut.i, [item for frame in later for item in beats(frame, 64)])
        assert await recv_n(ctx, dut.o, 24) == [item for frame in later for item in out(frame, 64)]

    run_bench(dut, both, background=[counts(dut, seen), watch_stream(dut.o)])
    kept, room = [], 255
    for frame in frames:
        if (need := len(beats(frame, 64))) <= room:
            kept.append(frame)
            room -= need
    assert got == [item for frame in kept for item in out(frame, 64)]
    assert 0 < len(kept) < 40 and seen == {"dropped": 40 - len(kept), "damaged": 0}


@pytest.mark.parametrize("lossy", [False, True])
def test_frame_longer_than_the_queue_ends_no_wait(lossy, rng):
    """It is taken out; what comes before and behind it passes, whether somebody takes it meanwhile or not."""
    dut = FrameQueue(TINY, 256, lossy=lossy)
    before, monster, behind = rng.randbytes(100), rng.randbytes(5000), rng.randbytes(60)
    sent = [item for frame in (before, monster, behind) for item in beats(frame, 64)]
    expected = out(before, 64) + out(behind, 64)
    assert bench(dut, sent, expected, stall=0.5, seed=3) == {"dropped": 1, "damaged": 0}


@pytest.mark.parametrize("idle", [0.0, 0.6, 0.95])
def test_a_frame_that_has_begun_has_no_gap(idle, rng):
    """Whatever the source does: from a frame's first beat to its last ``valid`` stays high (a MAC's frame would break off)."""
    dut = FrameQueue(TINY, 256, lossy=False)
    frames = [rng.randbytes(length) for length in (60, 1514, 61, 700, 1514)]
    total = sum(len(beats(frame, 64)) for frame in frames)

    async def source(ctx):
        await send_all(ctx, dut.i, [item for frame in frames for item in beats(frame, 64)], idle=idle, rng=rng)

    async def sink(ctx):
        ctx.set(dut.o.ready, 1)
        inside, count = False, 0
        while count < total:
            _, _, valid, beat = await ctx.tick().sample(dut.o.valid, dut.o.payload)
            assert valid or not inside, "a gap inside a frame"
            inside = bool(valid and not beat.last)
            count += valid

    run_bench(dut, source, sink, max_cycles=100_000)


def test_queue_that_holds_no_frame_is_refused():
    with pytest.raises(ValueError, match="power of two, and more than a frame of 1514 bytes"):
        FrameQueue(TINY, 128, lossy=True)
