"""Dispatcher against a bench that plays the connection table and the listen unit."""

import random

import pytest

from tests.hdl.listen.bench import M32, A, F, R, S, info, seg
from tests.hdl.table_model import four_tuple
from tiptoe_hdl.config import TINY
from tiptoe_hdl.listen.handshake import Verdict
from tiptoe_hdl.rx.dispatcher import Dispatcher
from tiptoe_verif.streams import (
    STREAM_CASES,
    expect_empty,
    recv_n,
    run_bench,
    send_all,
    stream_get,
    stream_put,
    watch_stream,
)

CONNECTION, HALF_OPEN, NOBODY, LISTENER, HOST, STALE, FULL = range(7)
"""Kinds of four-tuples: the bench's table and listen unit see the kind in laddr."""


def tuple_of(kind, number):
    return four_tuple(kind, 0x0A000000 + number, 80, number)


async def table(ctx, dut, latency, rng=None):
    """A table that knows the kind of each four-tuple; results in order, ``latency`` cycles after the lookup. A STALE one is
    found half-open first, and a connection when it is asked for again."""
    waiting, seen, cycle = [], set(), 0
    while True:
        ready = rng is None or rng.random() < 0.7
        ctx.set(dut.lookup.ready, int(ready))
        due = bool(waiting) and waiting[0][0] <= cycle
        ctx.set(dut.result.valid, int(due))
        if due:
            ctx.set(dut.result.payload, waiting[0][1])
        _, _, asked, wanted, taken = await ctx.tick().sample(dut.lookup.valid, dut.lookup.payload, dut.result.ready)
        cycle += 1
        if due and taken:
            waiting.pop(0)
        if asked and ready:
            kind, number = wanted.laddr, wanted.fport
            half_open = kind == HALF_OPEN or (kind == STALE and number not in seen)
            seen.add(number)
            hit = half_open or kind in (CONNECTION, STALE)
            result = {"hit": int(hit), "is_syncache": int(half_open), "index": number % (4 if half_open else 16)}
            waiting.append((cycle + latency - 1, result))


async def listener(ctx, dut, seen, rng):
    """A listen unit: SYNs to LISTENER and half-open segments are dealt with, STALE ones to be retried, those to FULL left to
    the host."""
    while True:
        request = await stream_get(ctx, dut.handshake)
        seen.append(request)
        for _ in range(rng.randrange(30)):
            await ctx.tick()
        kind = request["meta"]["tuple"]["laddr"]
        verdict = {STALE: Verdict.RETRY, NOBODY: Verdict.UNKNOWN, FULL: Verdict.HOST}.get(kind, Verdict.DROP)
        await stream_put(ctx, dut.verdict, verdict)


def run_dispatcher(metas, *, rst_unknown=1, idle=0.0, stall=0.0, seed=0, latency=5):
    """Everything that came out for ``metas``."""
    dut = Dispatcher(TINY)
    out = {"handshake": []}
    expected = expectation(metas, rst_unknown)

    async def setup(ctx):
        ctx.set(dut.rst_unknown, rst_unknown)

    async def source(ctx):
        await send_all(ctx, dut.meta, metas, idle=idle, rng=random.Random(f"{seed}:source"))

    def sink(name):
        async def run(ctx):
            port = getattr(dut, name)
            out[name] = await recv_n(ctx, port, len(expected[name]), stall=stall, rng=random.Random(f"{seed}:{name}"))
            ctx.set(port.ready, 1)
            await expect_empty(ctx, port, cycles=60)

        return run

    async def play_table(ctx):
        await table(ctx, dut, latency, random.Random(f"{seed}:table") if stall else None)

    async def play_listener(ctx):
        await listener(ctx, dut, out["handshake"], random.Random(f"{seed}:listener"))

    out["unknown"] = 0

    async def count(ctx):
        async for _, _, pulse in ctx.tick().sample(dut.count_rx_unknown_segment):
            out["unknown"] += pulse

    run_bench(
        dut, setup, source, sink("segment"), sink("info"), sink("control"),
        background=[play_table, play_listener, count, watch_stream(dut.segment), watch_stream(dut.info),
                    watch_stream(dut.control), watch_stream(dut.handshake), watch_stream(dut.lookup)],
        max_cycles=100_000,
    )  # fmt: skip
    return out, expected


def expectation(metas, rst_unknown):
    """What must come out, by RFC 9293 section 3.10.7."""
    out = {"segment": [], "info": [], "control": [], "handshake": [], "unknown": 0}
    for meta in metas:
        kind, number, flags = meta["tuple"]["laddr"], meta["tuple"]["fport"], meta["flags"]
        frame = {name: meta[name] for name in ("payload_offset", "frame_length")}
        if meta["to_host"]:
            out["info"].append({"ask": 0, "to_host": 1, **frame})
            continue
        if kind in (HALF_OPEN, STALE) or (kind in (LISTENER, NOBODY, FULL) and flags & (S | A | R | F) == S):
            hit = kind in (HALF_OPEN, STALE)
            out["handshake"].append({"hit": int(hit), "index": number % 4 if hit else 0, "meta": meta})
        if kind in (CONNECTION, STALE):
            out["info"].append({"ask": 1, "to_host": 0, **frame})
            out["segment"].append(
                {
                    "id": number % 16,
                    "length": meta["payload_length"],
                    **{name: meta[name] for name in ("seq", "ack", "flags", "wnd", "mss", "ws_present", "ws")},
                }
            )
        elif kind == HALF_OPEN or (kind == LISTENER and flags & (S | A | R | F) == S):
            out["info"].append({"ask": 0, "to_host": 0, **frame})
        elif kind == FULL and flags & (S | A | R | F) == S:
            out["info"].append({"ask": 0, "to_host": 1, **frame})
        else:
            out["unknown"] += 1
            out["info"].append({"ask": 0, "to_host": int(not rst_unknown), **frame})
            if rst_unknown and not flags & R:
                length = meta["payload_length"] + bool(flags & S) + bool(flags & F)
                reset = {"seq": meta["ack"], "ack": 0, "flags": R} if flags & A else {
                    "seq": 0, "ack": meta["seq"] + length & M32, "flags": R | A,
                }  # fmt: skip
                out["control"].append({"tuple": meta["tuple"], "dmac": meta["smac"], **reset})
    return out


def check(out, expected):
    assert out["unknown"] == expected["unknown"]
    for name in ("segment", "info"):
        assert out[name] == expected[name], name
    for got, wanted in zip(out["handshake"], expected["handshake"], strict=True):
        if not wanted["hit"]:
            got = got | {"index": 0}
        assert got == wanted
    for got, wanted in zip(out["control"], expected["control"], strict=True):
        assert {name: got[name] for name in wanted} == wanted


# (flags, seq, ack, payload length) -> reset's (seq, ack, flags), None for none
RESETS = [
    ((A, 100, 0xFFFFFFFF, 0), (0xFFFFFFFF, 0, R)),
    ((A | F, 100, 7, 1000), (7, 0, R)),
    ((S, 0xFFFFFFFF, 0, 0), (0, 0, R | A)),
    ((S, 0xFFFFFFFE, 55, 0), (0, 0xFFFFFFFF, R | A)),
    ((S | A, 9, 77, 0), (77, 0, R)),
    ((S | F, 0xFFFFFFFE, 0, 0), (0, 0, R | A)),
    ((F, 0xFFFFFFFF, 1, 1460), (0, 1460, R | A)),
    ((0, 0xFFFFFF00, 1, 0x200), (0, 0x100, R | A)),
    ((R, 5, 0, 0), None),
    ((R | A, 5, 6, 0), None),
    ((R | S, 5, 6, 0), None),
]


@pytest.mark.parametrize("rst_unknown", [0, 1])
def test_segments_of_nobody(rst_unknown):
    metas = [
        seg(
            tuple=tuple_of(NOBODY, number),
            flags=flags,
            seq=seq,
            ack=ack,
            payload_length=length,
            frame_length=54 + length,
        )
        for number, ((flags, seq, ack, length), _) in enumerate(RESETS)
    ]
    out, expected = run_dispatcher(metas, rst_unknown=rst_unknown)
    check(out, expected)
    got = [(reset["seq"], reset["ack"], reset["flags"]) for reset in out["control"]]
    assert got == ([reset for _, reset in RESETS if reset] if rst_unknown else [])
    assert out["info"] == [info(drop=rst_unknown, frame_length=meta["frame_length"]) for meta in metas]
    assert out["unknown"] == len(RESETS)


def random_meta(rng, number):
    kind = rng.choices([CONNECTION, HALF_OPEN, NOBODY, LISTENER, HOST, STALE, FULL], [6, 1, 1, 2, 2, 1, 1])[0]
    return seg(
        tuple=tuple_of(kind, number), to_host=int(kind == HOST), flags=rng.choice([A, A, A | F, S, S, R, 0, S | A, F]),
        seq=rng.getrandbits(32), ack=rng.getrandbits(32), wnd=rng.getrandbits(16), smac=rng.getrandbits(48),
        payload_length=rng.randrange(1461), payload_offset=4 * rng.randrange(14, 30), frame_length=rng.randrange(60, 1515),
        mss=rng.getrandbits(16), ws_present=rng.getrandbits(1), ws=rng.randrange(15),
    )  # fmt: skip


@pytest.mark.parametrize("idle, stall", STREAM_CASES)
@pytest.mark.parametrize("rst_unknown", [0, 1])
def test_random_frames_keep_their_order(idle, stall, rst_unknown, rng):
    metas = [random_meta(rng, number) for number in range(100)]
    check(*run_dispatcher(metas, rst_unknown=rst_unknown, idle=idle, stall=stall, latency=rng.randrange(2, 9)))


@pytest.mark.parametrize("idle", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("latency", [2, 5, 12])
def test_retry_between_lookups_of_the_next(latency, idle):
    """The head asks again while the next one's lookup is under way or done, whatever the latency."""
    kinds = [STALE, CONNECTION, STALE, STALE, HOST, STALE, NOBODY, STALE, LISTENER, CONNECTION]
    metas = [
        seg(tuple=tuple_of(kind, number), to_host=int(kind == HOST), seq=number, flags=S if kind == LISTENER else A)
        for number, kind in enumerate(kinds * 6)
    ]
    check(*run_dispatcher(metas, latency=latency, idle=idle))


def test_rate_and_latency():
    """Minimum-size segments of connections: one every 5 cycles with the table's latency of 7."""
    dut = Dispatcher(TINY)
    accepted, passed = [], []

    async def play_table(ctx):
        await table(ctx, dut, 7)

    async def measure(ctx):
        for port in (dut.segment, dut.info):
            ctx.set(port.ready, 1)
        ctx.set(dut.meta.payload, seg(tuple=tuple_of(CONNECTION, 3)))
        ctx.set(dut.meta.valid, 1)
        cycle = 0
        while len(passed) < 50:
            _, _, ready, valid = await ctx.tick().sample(dut.meta.ready, dut.segment.valid)
            cycle += 1
            if ready:
                accepted.append(cycle)
            if valid:
                passed.append(cycle)

    run_bench(dut, measure, background=[play_table])
    assert passed[0] - accepted[0] <= 9
    assert passed[-1] - passed[0] <= 5 * 49
