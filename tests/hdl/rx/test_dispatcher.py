"""Dispatcher against a bench that plays the connection table and the listen unit."""

import random

import pytest

from tests.hdl.listen.bench import EC, M32, A, F, R, S, info, seg
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

CONNECTION, HALF_OPEN, NOBODY, LISTENER, HOST, STALE, FULL, OLD = range(8)
"""Kinds of four-tuples: the bench's tables and listen unit see the kind in laddr. LISTENER and FULL have a listener, FULL no
place in the table; STALE is found half-open first, and a connection when it is asked for again; OLD is the host's after all."""


def tuple_of(kind, number):
    return four_tuple(kind, 0x0A000000 + number, 80, number)


async def table(ctx, dut, latency, rng=None):
    """Tables that know the kind of each four-tuple; results in order, ``latency`` cycles after the lookup, those of the listen
    table up to seven."""
    waiting, listening, seen, cycle = [], [], set(), 0
    while True:
        ready = rng is None or rng.random() < 0.7
        ctx.set(dut.lookup.ready, int(ready))
        due = bool(waiting) and waiting[0][0] <= cycle
        ctx.set(dut.result.valid, int(due))
        if due:
            ctx.set(dut.result.payload, waiting[0][1])
        found = bool(listening) and listening[0][0] <= cycle
        ctx.set(dut.found.valid, int(found))
        if found:
            ctx.set(dut.found.payload, listening[0][1])
        _, _, asked, wanted, taken, found_taken, find_valid, find = await ctx.tick().sample(
            dut.lookup.valid, dut.lookup.payload, dut.result.ready, dut.found.ready, dut.find.valid, dut.find.payload
        )
        cycle += 1
        if due and taken:
            waiting.pop(0)
        assert (due and taken) == (found and found_taken), "results of one lookup go together"
        if found and found_taken:
            listening.pop(0)
        assert find_valid == (asked and ready)
        if asked and ready:
            kind, number = wanted.laddr, wanted.fport
            assert (find.laddr, find.lport) == (wanted.laddr, wanted.lport)
            listens = {"hit": int(kind in (LISTENER, FULL)), "listener": number % 4}
            listening.append((cycle + min(7, latency) - 1, listens))
            half_open = kind in (HALF_OPEN, OLD) or (kind == STALE and number not in seen)
            seen.add(number)
            hit = half_open or kind in (CONNECTION, STALE)
            result = {
                "hit": int(hit), "is_syncache": int(half_open), "full": int(kind == FULL),
                "index": number % (4 if half_open else 16),
            }  # fmt: skip
            waiting.append((cycle + latency - 1, result))


async def listener(ctx, dut, seen, rng):
    """A listen unit: segments of half-open connections are dealt with, STALE ones to be retried, OLD ones left to the host."""
    while True:
        request = await stream_get(ctx, dut.handshake)
        seen.append(request)
        for _ in range(rng.randrange(30)):
            await ctx.tick()
        kind = request["meta"]["tuple"]["laddr"]
        verdict = {STALE: Verdict.RETRY, OLD: Verdict.HOST}.get(kind, Verdict.DROP)
        await stream_put(ctx, dut.verdict, verdict)


COUNTS = ("rx_unknown_segment", "syn_received", "syn_dropped_full", "syn_queue_full", "rst_suppressed")


def run_dispatcher(metas, *, rst_unknown=1, syn_to_host=0, room=1, may_reset=1, idle=0.0, stall=0.0, seed=0, latency=5):
    """Everything that came out for ``metas``. Ports that nothing may wait for are always taken at once."""
    dut = Dispatcher(TINY)
    out = {"handshake": []} | dict.fromkeys(COUNTS, 0)
    expected = expectation(metas, rst_unknown, syn_to_host, room, may_reset)

    async def setup(ctx):
        ctx.set(dut.rst_unknown, rst_unknown)
        ctx.set(dut.syn_to_host, syn_to_host)
        ctx.set(dut.room, room)
        ctx.set(dut.may_reset, may_reset)

    async def source(ctx):
        await send_all(ctx, dut.meta, metas, idle=idle, rng=random.Random(f"{seed}:source"))

    async def blocks(ctx):
        all_blocks = [{"start": start, "end": end} for meta in metas for start, end in blocks_of(meta)]
        await send_all(ctx, dut.block, all_blocks, idle=idle, rng=random.Random(f"{seed}:blocks"))

    async def order(ctx):
        """Segments and blocks, as the pipeline's arbiter takes them."""
        out["order"] = []
        ports = [(port.valid, port.ready, port.payload.id) for port in (dut.segment, dut.sack)]
        async for _, _, *taken in ctx.tick().sample(*(signal for port in ports for signal in port)):
            for name, (valid, ready, ident) in zip(("segment", "sack"), (taken[:3], taken[3:]), strict=True):
                if valid and ready:
                    out["order"].append((name, ident))

    def sink(name):
        async def run(ctx):
            port = getattr(dut, name)
            slow = 0 if name == "syn" else stall
            out[name] = await recv_n(ctx, port, len(expected[name]), stall=slow, rng=random.Random(f"{seed}:{name}"))
            ctx.set(port.ready, 1)
            await expect_empty(ctx, port, cycles=60)

        return run

    async def play_table(ctx):
        await table(ctx, dut, latency, random.Random(f"{seed}:table") if stall else None)

    async def play_listener(ctx):
        await listener(ctx, dut, out["handshake"], random.Random(f"{seed}:listener"))

    async def count(ctx):
        async for _, _, *pulses in ctx.tick().sample(*(getattr(dut, f"count_{name}") for name in COUNTS)):
            for name, pulse in zip(COUNTS, pulses, strict=True):
                out[name] += pulse

    run_bench(
        dut, setup, source, blocks, sink("segment"), sink("sack"), sink("info"), sink("control"), sink("syn"),
        background=[play_table, play_listener, count, order, watch_stream(dut.segment), watch_stream(dut.info),
                    watch_stream(dut.sack),
                    watch_stream(dut.control), watch_stream(dut.syn), watch_stream(dut.handshake), watch_stream(dut.lookup)],
        max_cycles=100_000,
        key=repr(TINY),
    )  # fmt: skip
    return out, expected


def blocks_of(meta):
    """The SACK blocks that a segment comes with."""
    return [(meta["seq"] + 16 * block & M32, meta["ack"] + block & M32) for block in range(meta["sacks"])]


def expectation(metas, rst_unknown, syn_to_host=0, room=1, may_reset=1):
    """What must come out, by RFC 9293 section 3.10.7."""
    out = {
        "segment": [],
        "sack": [],
        "order": [],
        "info": [],
        "control": [],
        "handshake": [],
        "syn": [],
    } | dict.fromkeys(COUNTS, 0)
    for meta in metas:
        kind, number, flags = meta["tuple"]["laddr"], meta["tuple"]["fport"], meta["flags"]
        frame = {name: meta[name] for name in ("payload_offset", "frame_length")}
        if meta["to_host"]:
            out["info"].append({"ask": 0, "to_host": 1, **frame})
            continue
        opens = kind in (LISTENER, FULL) and flags & (S | A | R) == S
        again = kind in (HALF_OPEN, STALE, OLD) and flags & (S | R) == S
        if opens or again:
            served = again or (room and kind != FULL)
            out["syn_received"] += opens
            out["syn_dropped_full"] += not served
            out["info"].append({"ask": 0, "to_host": int(not served and syn_to_host), **frame})
            if served:
                out["syn"].append({
                    "hit": int(again), "index": number % 4 if again else 0, "listener": 0 if again else number % 4,
                    "is_ack": int(bool(flags & A)), "returned": 0,
                    "ecn_ok": int(flags & EC == EC),
                    **{name: meta[name] for name in ("tuple", "smac", "seq", "ack", "mss", "ws_present", "ws", "sack_ok",
                                            "ts_present", "tsval")},
                })  # fmt: skip
        elif kind in (HALF_OPEN, STALE, OLD):
            out["handshake"].append({"index": number % 4, "proven": 0, "meta": meta})
        if kind == CONNECTION or (kind == STALE and not again):
            out["info"].append({"ask": 1, "to_host": 0, **frame})
            out["segment"].append(
                {
                    "id": number % 16,
                    "length": meta["payload_length"],
                    "has_sack": int(meta["sacks"] > 0),
                    **{
                        name: meta[name]
                        for name in (
                            "seq",
                            "ack",
                            "flags",
                            "wnd",
                            "mss",
                            "ws_present",
                            "ws",
                            "sack_ok",
                            "urgent",
                            "ecn",
                            "ts_present",
                            "tsval",
                            "tsecr",
                        )
                    },
                }
            )
            out["order"] += [("segment", number % 16)] + [("sack", number % 16)] * meta["sacks"]
            out["sack"] += [
                {"id": number % 16, "start": start, "end": end, "first": int(block == 0)}
                for block, (start, end) in enumerate(blocks_of(meta))
            ]
        elif kind in (HALF_OPEN, OLD) and not again:
            out["info"].append({"ask": 0, "to_host": int(kind == OLD), **frame})
        elif not (opens or again):
            out["rx_unknown_segment"] += 1
            out["info"].append({"ask": 0, "to_host": int(not rst_unknown), **frame})
            silent = kind in (LISTENER, FULL) and not flags & (S | A | R)
            if rst_unknown and not flags & R and not silent and not may_reset:
                out["rst_suppressed"] += 1
            elif rst_unknown and not flags & R and not silent:
                length = meta["payload_length"] + bool(flags & S) + bool(flags & F)
                reset = {"seq": meta["ack"], "ack": 0, "flags": R} if flags & A else {
                    "seq": 0, "ack": meta["seq"] + length & M32, "flags": R | A,
                }  # fmt: skip
                out["control"].append({"tuple": meta["tuple"], "dmac": meta["smac"], **reset})
    return out


def check(out, expected):
    assert {name: out[name] for name in COUNTS} == {name: expected[name] for name in COUNTS}
    for name in ("segment", "info", "handshake"):
        assert out[name] == expected[name], name
    for got, wanted in zip(out["syn"], expected["syn"], strict=True):
        void = {"listener": 0} if wanted["hit"] else {"index": 0}
        assert got | void == wanted
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
    assert out["rx_unknown_segment"] == len(RESETS)


def random_meta(rng, number):
    kinds = [CONNECTION, HALF_OPEN, NOBODY, LISTENER, HOST, STALE, FULL, OLD]
    kind = rng.choices(kinds, [6, 1, 1, 2, 2, 1, 1, 1])[0]
    return seg(
        tuple=tuple_of(kind, number), to_host=int(kind == HOST),
        flags=rng.choice([A, A, A | F, S, S, S | F, R, 0, S | A, F]) | rng.choice([0, 0, EC, EC >> 1 & EC, EC << 1 & EC]),
        seq=rng.getrandbits(32), ack=rng.getrandbits(32), wnd=rng.getrandbits(16), smac=rng.getrandbits(48),
        payload_length=rng.randrange(1461), payload_offset=4 * rng.randrange(14, 30), frame_length=rng.randrange(60, 1515),
        mss=rng.getrandbits(16), ws_present=rng.getrandbits(1), ws=rng.randrange(15),
        sack_ok=rng.getrandbits(1), sacks=rng.choice([0, 0, 1, 2, 3, 4]), urgent=rng.getrandbits(16),
        ecn=rng.getrandbits(2),
        ts_present=rng.getrandbits(1), tsval=rng.getrandbits(32), tsecr=rng.getrandbits(32),
    )  # fmt: skip


@pytest.mark.parametrize("idle, stall", STREAM_CASES)
@pytest.mark.parametrize("rst_unknown", [0, 1])
def test_random_frames_keep_their_order(idle, stall, rst_unknown, rng):
    metas = [random_meta(rng, number) for number in range(100)]
    options = {name: rng.getrandbits(1) for name in ("syn_to_host", "room", "may_reset")}
    check(
        *run_dispatcher(metas, rst_unknown=rst_unknown, idle=idle, stall=stall, latency=rng.randrange(2, 9), **options)
    )


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
