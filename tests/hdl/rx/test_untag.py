"""Tags of received frames: IEEE 802.1Q clause 9."""

import random

import pytest

from tests.widths import WIDTHS
from tiptoe_hdl.config import TINY
from tiptoe_hdl.rx.untag import Untagger
from tiptoe_verif.streams import FRAME_LENGTHS, STREAM_CASES, expect_empty, frame_beats, recv_n, run_bench, send_all
from tiptoe_verif.wire.vlan import tagged

OWN = 5
LENGTHS = [*FRAME_LENGTHS, 18, 19, 20, 21, 32, 33, 35, 36, 37, 1515, 1516, 1517, 1518]


def random_frame(rng: random.Random, length: int) -> bytes:
    return rng.randbytes(12) + (b"\x08\x00" + rng.randbytes(max(0, length)))[: length - 12]


def exercise(width, sent, settings, *, idle=0.0, stall=0.0, null_end=False) -> list[tuple[bytes, int, int]]:
    """Frames sent as (bytes, error); what comes out as (bytes, error, foreign)."""
    dut = Untagger(TINY.with_(data_width=width))
    items, count = [], 0
    for frame, error in sent:
        beats = frame_beats(frame, width)
        if null_end and len(frame) % (width // 8) == 0:
            beats[-1]["last"] = 0
            beats.append({"data": 0, "keep": 0, "last": 1})
        items += [beat | {"error": error if beat["last"] else 0} for beat in beats]
    got, now = [], b""

    async def source(ctx):
        ctx.set(dut.enable, settings[0])
        ctx.set(dut.id, settings[1])
        await send_all(ctx, dut.i, items, idle=idle, rng=random.Random(1))

    async def sink(ctx):
        nonlocal count, now
        rng = random.Random(2)
        while len(got) < len(sent):
            ready = rng.random() >= stall
            ctx.set(dut.o.ready, int(ready))
            _, _, valid, beat, foreign = await ctx.tick().sample(dut.o.valid, dut.o.payload, dut.foreign)
            if ready and valid:
                size = bin(beat.keep).count("1")
                assert beat.keep == (1 << size) - 1 and (beat.last or size == width // 8), "a hole"
                now += int(beat.data).to_bytes(width // 8, "little")[:size]
                if beat.last:
                    got.append((now, int(beat.error), int(foreign)))
                    now = b""
        ctx.set(dut.o.ready, 1)
        await expect_empty(ctx, dut.o)

    limit = 1000 + int(30 * len(items) / (1 - max(idle, stall)))
    run_bench(dut, source, sink, max_cycles=limit, key=str(width))
    return got


def expected(frame: bytes, error: int, settings, width: int) -> tuple[bytes, int, int]:
    """The table of Untagger's docstring."""
    enable, own = settings
    named = enable and own
    tag = int.from_bytes(frame[14:16], "big") & 0xFFF if len(frame) >= 16 and frame[12:14] == b"\x81\x00" else None
    mine = tag == (own if named else 0)
    whole = width == 32 and len(frame) == 16  # ends with its tag
    return (frame[:12] + frame[16:] if mine and not whole else frame, error, int(bool(named) and not mine))


SETTINGS = {"off": (0, 0), "off, with an id": (0, OWN), "priority tags": (1, 0), "a network": (1, OWN)}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_every_length_tagged_and_not(width, settings, rng):
    sent = []
    for length in LENGTHS:
        frame = random_frame(rng, length)
        sent += [(frame, 0), (tagged(frame, OWN, 7), 0), (tagged(frame, 0, 3), 1), (tagged(frame, 6), 0)]
    rng.shuffle(sent)
    assert exercise(width, sent, settings) == [expected(*one, settings, width) for one in sent]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("idle, stall", STREAM_CASES)
def test_idle_and_backpressure(width, idle, stall, rng):
    settings = SETTINGS["a network"]
    sent = []
    for _ in range(60):
        frame = random_frame(rng, rng.randrange(60, 90))
        sent.append((rng.choice([frame, tagged(frame, OWN), tagged(frame, OWN), tagged(frame, 7)]), rng.getrandbits(1)))
    assert exercise(width, sent, settings, idle=idle, stall=stall) == [expected(*one, settings, width) for one in sent]


@pytest.mark.parametrize("width", WIDTHS)
def test_empty_last_beats(width, rng):
    settings = SETTINGS["a network"]
    sent = [(tagged(random_frame(rng, length), OWN), 0) for length in (60, 64, 68, 72, 76, 80, 92, 124)]
    assert exercise(width, sent, settings, null_end=True) == [expected(*one, settings, width) for one in sent]


@pytest.mark.parametrize("width", WIDTHS)
def test_two_tags_one_is_taken(width, rng):
    frame = tagged(random_frame(rng, 80), 9)
    assert exercise(width, [(tagged(frame, OWN), 0)], SETTINGS["a network"]) == [(frame, 0, 0)]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_beat_a_cycle(width, rng):
    dut = Untagger(TINY.with_(data_width=width))
    beats = [b | {"error": 0} for _ in range(20) for b in frame_beats(tagged(random_frame(rng, 1514), OWN), width)]
    out = sum(len(frame_beats(bytes(1514), width)) for _ in range(20))
    took = 0

    async def source(ctx):
        ctx.set(dut.enable, 1)
        ctx.set(dut.id, OWN)
        await send_all(ctx, dut.i, beats)

    async def sink(ctx):
        nonlocal took
        await recv_n(ctx, dut.o, out)

    async def clock(ctx):
        nonlocal took
        async for _ in ctx.tick():
            took += 1

    run_bench(dut, source, sink, background=[clock], max_cycles=len(beats) + 10)
    assert took <= len(beats) + 3
