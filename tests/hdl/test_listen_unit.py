"""Listen unit in its surroundings: the handshake as a table of segments, floods, commands, timers, nothing left behind."""

import random
from collections import deque

import pytest

from tests.hdl.listen_bench import LISTENER, LOCAL, M32, A, F, R, S, info, peer_tuple, run_front_end, seg
from tiptoe_hdl.config import TINY
from tiptoe_hdl.listen.handshake import Verdict
from tiptoe_hdl.listen.listen_unit import ListenUnit
from tiptoe_hdl.messages import FlowOp, Status, TableOp
from tiptoe_verif.streams import run_bench, stream_get, stream_put

WND, MSS, SCALE = 60000, 1460, 7  # of the bench's listener
ENTRIES = TINY.syncache_entries
SEQUENCES = [(0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFE, 0), (0x7FFFFFFF, 0x80000000), (0xFFFFFFFF - WND, 0xFFFFFFFE)]
"""(irs, iss) next to where something wraps."""


def syn_ack(tuple_, irs, iss, **overrides):
    return {
        "tuple": tuple_, "dmac": seg()["smac"], "seq": iss, "ack": irs + 1 & M32, "flags": S | A, "wnd": WND,
        "mss": MSS, "ws_present": 0, "ws": SCALE,
    } | overrides  # fmt: skip


def rx_segment(id_, **overrides):
    meta = seg(**overrides)
    return {"id": id_, "length": meta["payload_length"],
            **{name: meta[name] for name in ("seq", "ack", "flags", "wnd", "mss", "ws_present", "ws")}}  # fmt: skip


def refused(control):
    """The fields of a reset that count."""
    return {name: control[name] for name in ("tuple", "dmac", "seq", "ack", "flags")}


# ------------------------------------------------------------------------------ one handshake


@pytest.mark.parametrize(
    "options, offered, flow",
    [
        ({}, (0, SCALE), {"mss": 536, "snd_scale": 0, "rcv_scale": 0}),
        ({"mss": 1400, "ws": 3}, (0, SCALE), {"mss": 1400, "snd_scale": 0, "rcv_scale": 0}),
        ({"mss": 1460, "ws_present": 1, "ws": 14}, (1, SCALE), {"mss": 1460, "snd_scale": 14, "rcv_scale": SCALE}),
        ({"mss": 9000, "ws_present": 1, "ws": 0}, (1, SCALE), {"mss": 1460, "snd_scale": 0, "rcv_scale": SCALE}),
    ],
    ids=["none", "mss", "mss_ws", "jumbo_ws0"],
)
def test_handshake_negotiates_options(options, offered, flow):
    async def scenario(ctx, net):
        tuple_, irs = peer_tuple(1), 0xFFFFFFFF
        net.set_clock(ctx, 0xFFFFFFFF, tuple_)
        await net.stock(ctx, 5, 9)
        assert await net.listen(ctx) == Status.OK
        control, event = await net.half_open(ctx, 1, irs, **options)
        assert control == syn_ack(tuple_, irs, 0xFFFFFFFF, ws_present=offered[0], ws=offered[1])
        ref = event["syncache_ref"]
        assert event == {
            "gone": 0, "syncache_ref": ref, "listener": 0, "tuple": tuple_, "iss": 0xFFFFFFFF, "irs": irs,
            "mss": options.get("mss", 536), "ws_present": options.get("ws_present", 0), "ws": options.get("ws", 0),
        }  # fmt: skip
        # The ACK carries data and the FIN: all of it reaches the pipeline.
        last = {"number": 1, "seq": irs + 1, "ack": 0, "flags": A | F, "payload_length": 100, "frame_length": 154}
        await net.send(ctx, **last)
        assert await net.next(ctx, "segment") == rx_segment(5, **last)
        assert await net.next(ctx, "info") == info(ask=1, **last)
        assert await net.next(ctx, "endpoint") == {
            "id": 5,
            "endpoint": {"tuple": tuple_, "dmac": seg()["smac"], "use_next_hop": 0, "next_hop": 0},
        }
        assert await net.next(ctx, "flow") == {
            "op": FlowOp.ACCEPT, "id": 5, "generation": 0, "a": 0xFFFFFFFF, "b": irs, "snd_log2": 0, "rcv_log2": 0,
            "wnd": WND, "syncache_ref": ref, **flow,
        }  # fmt: skip
        await net.nothing(ctx)
        await net.release(ctx, tuple_, 5)
        counted = {name: count for name, count in net.counts.items() if count}
        assert counted == {"syn_received": 1, "accepted": 1}

    run_front_end(TINY, scenario)


# (name, segment relative to irs and iss of the half-open connection, what must happen)
SYN_RECEIVED_CASES = [
    ("rst_next", {"flags": R, "seq": 1}, "removed"),
    ("rst_ack_next", {"flags": R | A, "seq": 1, "ack": 77}, "removed"),
    ("rst_in_window", {"flags": R, "seq": 2}, "challenge"),
    ("rst_end_of_window", {"flags": R, "seq": WND}, "challenge"),
    ("rst_behind_window", {"flags": R, "seq": WND + 1}, "ignored"),
    ("rst_before_window", {"flags": R, "seq": 0}, "ignored"),
    ("syn_again", {"flags": S, "seq": 0}, "syn_ack"),
    ("syn_elsewhere", {"flags": S, "seq": 100}, "challenge"),
    ("syn_before", {"flags": S, "seq": -100}, "challenge"),
    ("syn_ack", {"flags": S | A, "seq": 0, "ack": 1}, "challenge"),
    ("no_flags", {"flags": 0, "seq": 1}, "ignored"),
    ("fin_without_ack", {"flags": F, "seq": 1}, "ignored"),
    ("ack_of_nothing", {"flags": A, "seq": 1, "ack": 0}, "reset"),
    ("ack_too_high", {"flags": A, "seq": 1, "ack": 2}, "reset"),
    ("ack_far_off", {"flags": A, "seq": 1, "ack": 0x80000001}, "reset"),
    ("bad_ack_bad_seq", {"flags": A, "seq": -5, "ack": 3}, "reset"),
    ("ack_before_window", {"flags": A, "seq": 0, "ack": 1}, "challenge"),
    ("ack_behind_window", {"flags": A, "seq": WND + 1, "ack": 1}, "challenge"),
    ("ack_far_behind", {"flags": A, "seq": 0x80000001, "ack": 1}, "challenge"),
    ("ack_next", {"flags": A, "seq": 1, "ack": 1}, "accepted"),
    ("ack_with_data", {"flags": A, "seq": 1, "ack": 1, "payload_length": 1460, "frame_length": 1514}, "accepted"),
    ("ack_out_of_order", {"flags": A, "seq": 1461, "ack": 1, "payload_length": 40}, "accepted"),
    ("ack_end_of_window", {"flags": A, "seq": WND, "ack": 1}, "accepted"),
]


@pytest.mark.parametrize("irs, iss, stall", [(*pair, 0.7 * (n % 2)) for n, pair in enumerate(SEQUENCES)])
def test_segments_of_half_open_connections(irs, iss, stall):
    async def scenario(ctx, net):
        assert await net.listen(ctx) == Status.OK
        id_ = 0
        await net.stock(ctx, id_)
        for number, (name, relative, outcome) in enumerate(SYN_RECEIVED_CASES):
            tuple_, before = peer_tuple(number), dict(net.counts)
            net.set_clock(ctx, iss, tuple_)
            first, event = await net.half_open(ctx, number, irs)
            assert first == syn_ack(tuple_, irs, iss), name
            fields = relative | {
                "number": number,
                "seq": irs + relative["seq"],
                "ack": iss + relative.get("ack", 0),
            }
            await net.send(ctx, **fields)
            assert await net.next(ctx, "info") == info(ask=int(outcome == "accepted"), drop=True, **fields), name
            control = {"tuple": tuple_, "dmac": seg()["smac"]}
            match outcome:
                case "accepted":
                    assert await net.next(ctx, "segment") == rx_segment(id_, **fields), name
                    assert (await net.next(ctx, "flow"))["id"] == id_
                    assert (await net.next(ctx, "endpoint"))["id"] == id_
                    counts = {"accepted": 1}
                case "removed":
                    assert await net.next(ctx, "event") == event | {"gone": 1}, name
                    counts = {}
                case "challenge":
                    got = refused(await net.next(ctx, "control"))
                    assert got == control | {"seq": iss + 1 & M32, "ack": irs + 1 & M32, "flags": A}, name
                    counts = {"challenge_acks": 1}
                case "reset":
                    got = refused(await net.next(ctx, "control"))
                    assert got == control | {"seq": fields["ack"] & M32, "ack": 0, "flags": R}, name
                    counts = {"syncache_bad_ack": 1}
                case "syn_ack":
                    assert await net.next(ctx, "control") == first, name
                    counts = {}
                case "ignored":
                    counts = {}
            # What is left of it goes away by the host's word; and exactly that is left.
            if outcome in ("accepted", "removed"):
                expected = Status.BAD_GENERATION
                assert await net.drop(ctx, event["syncache_ref"]) == expected, name
                if outcome == "accepted":
                    await net.release(ctx, tuple_, id_)
                    id_ += 1
                    await net.stock(ctx, id_)
            else:
                assert await net.drop(ctx, event["syncache_ref"]) == Status.OK, name
                got = refused(await net.next(ctx, "control"))
                assert got == control | {"seq": iss + 1 & M32, "ack": irs + 1 & M32, "flags": R | A}, name
                assert await net.next(ctx, "event") == event | {"gone": 1}, name
            changed = {key: net.counts[key] - before[key] for key in net.counts if net.counts[key] != before[key]}
            assert changed == counts | {"syn_received": 1}, name
        await net.nothing(ctx)

    run_front_end(TINY, scenario, stall=stall)


# ------------------------------------------------------------------------------ listeners


def test_exact_address_wins():
    cases = [  # (local address, port) -> listener or None
        (LOCAL, 80, 2), (LOCAL + 1, 80, 0), (LOCAL, 81, 3), (LOCAL + 1, 81, None), (LOCAL, 82, None),
    ]  # fmt: skip

    async def scenario(ctx, net):
        await net.stock(ctx, 0)
        assert await net.listen(ctx, listener=0, laddr=0, lport=80, mss=1000, wnd=1) == Status.OK
        assert await net.listen(ctx, listener=1, laddr=LOCAL + 7, lport=80, mss=1001, wnd=2) == Status.OK
        assert await net.listen(ctx, listener=2, laddr=LOCAL, lport=80, mss=1002, wnd=3) == Status.OK
        assert await net.listen(ctx, listener=3, laddr=LOCAL, lport=81, mss=1003, wnd=4) == Status.OK
        for number, (laddr, lport, listener) in enumerate(cases):
            tuple_ = peer_tuple(number) | {"laddr": laddr, "lport": lport}
            if listener is None:
                await net.send(ctx, tuple=tuple_, flags=S, seq=7)
                assert refused(await net.next(ctx, "reset"))["flags"] == R | A
                assert await net.next(ctx, "info") == info(drop=True)
                continue
            control, event = await net.half_open(ctx, number, tuple=tuple_)
            assert (event["listener"], control["mss"], control["wnd"]) == (listener, 1000 + listener, 1 + listener)
            assert await net.drop(ctx, event["syncache_ref"]) == Status.OK
            assert (await net.next(ctx, "control"))["flags"] == R | A
            assert (await net.next(ctx, "event"))["gone"]
        await net.nothing(ctx)

    run_front_end(TINY, scenario)


def test_listen_statuses():
    async def scenario(ctx, net):
        await net.stock(ctx, 0)
        for listener in (3, 0, 2):
            assert await net.unlisten(ctx, listener) == Status.BAD_STATE
            assert await net.listen(ctx, listener=listener, lport=80 + listener) == Status.OK
            assert await net.listen(ctx, listener=listener, lport=90) == Status.EXISTS
        for listener in (3, 2, 0):  # the searched part of the table shrinks and grows
            assert await net.unlisten(ctx, listener) == Status.OK
            assert await net.unlisten(ctx, listener) == Status.BAD_STATE
            await net.send(ctx, tuple=peer_tuple(0, 80 + listener), flags=S)
            assert (await net.next(ctx, "reset"))["flags"] == R | A
            assert await net.next(ctx, "info") == info(drop=True)
        assert await net.listen(ctx, listener=1) == Status.OK
        assert (await net.half_open(ctx, 0))[1]["listener"] == 1
        await net.nothing(ctx)

    run_front_end(TINY, scenario)


@pytest.mark.parametrize("stall", [0.0, 0.8])
def test_unlisten_resets_children(stall):
    """Stopping a listener with k half-open children: k resets, then the status; the other listener's child stays."""

    async def scenario(ctx, net):
        await net.stock(ctx, 0, 1, 2, 3)
        await net.listen(ctx, listener=0, lport=80)
        await net.listen(ctx, listener=1, lport=81)
        for id_, children in enumerate((3, 0, 1)):
            events = {}
            for number in range(children):
                _, event = await net.half_open(ctx, number, 500 + number)
                events[event["tuple"]["fport"]] = event
            _, other = await net.half_open(ctx, 9, tuple=peer_tuple(9, 81))
            assert await net.unlisten(ctx, 0) == Status.OK
            assert len(net.out["control"]) == children, "resets go before the status"
            for _ in range(children):
                reset = await net.next(ctx, "control")
                event = events.pop(reset["tuple"]["fport"])
                assert refused(reset) == {
                    "tuple": event["tuple"], "dmac": seg()["smac"], "seq": event["iss"] + 1 & M32,
                    "ack": event["irs"] + 1, "flags": R | A,
                }  # fmt: skip
            gone_events = [await net.next(ctx, "event") for _ in range(children)]
            assert all(event["gone"] and event["listener"] == 0 for event in gone_events)
            await net.nothing(ctx)
            # The children's segments are nobody's now, the other's still arrive.
            if children:
                await net.send(ctx, number=0, seq=501, ack=1)
                assert (await net.next(ctx, "reset"))["flags"] == R
                assert await net.next(ctx, "info") == info(drop=True)
            await net.send(ctx, tuple=peer_tuple(9, 81), seq=1001, ack=other["iss"] + 1)
            assert (await net.next(ctx, "segment"))["id"] == id_
            await net.next(ctx, "info")
            await net.next(ctx, "flow")
            await net.next(ctx, "endpoint")
            await net.release(ctx, peer_tuple(9, 81), id_)
            await net.stock(ctx, id_)
            await net.listen(ctx, listener=0, lport=80)
        await net.nothing(ctx)

    run_front_end(TINY, scenario, stall=stall)


# ------------------------------------------------------------------------------ scarcity


def test_an_id_is_certain_before_the_syn_ack():
    """As many half-open connections as ids in stock: a SYN beyond them is dropped, whatever came before it stays served,
    and an id that comes free is a later SYN's only after theirs."""

    async def scenario(ctx, net):
        async def refused_syn(number):
            before = net.counts["syn_dropped_full"]
            await net.send(ctx, number=number, flags=S)
            assert await net.next(ctx, "info") == info(drop=True)
            await net.settle(ctx)
            assert net.counts["syn_dropped_full"] == before + 1 and not net.out["control"]

        async def accepted(number, event, id_):
            await net.send(ctx, number=number, seq=1001, ack=event["iss"] + 1)
            for port in ("segment", "endpoint", "flow"):
                assert (await net.next(ctx, port))["id"] == id_
            assert (await net.next(ctx, "info"))["ask"]

        await net.listen(ctx)
        await refused_syn(0)  # none at all
        await net.stock(ctx, 7)
        _, first = await net.half_open(ctx, 1)
        await refused_syn(2)  # exactly one, and promised
        await net.stock(ctx, 8)
        _, second = await net.half_open(ctx, 2)
        await refused_syn(3)
        await accepted(2, second, 7)  # the ACKs may come in any order
        await refused_syn(3)
        await accepted(1, first, 8)
        await refused_syn(3)
        await net.stock(ctx, 9)
        await net.half_open(ctx, 3)
        await net.nothing(ctx)

    run_front_end(TINY, scenario)


@pytest.mark.parametrize("rst_unknown", [0, 1])
@pytest.mark.parametrize("lacking", ["id", "entry"])
def test_a_syn_without_room_is_left_to_the_host(lacking, rst_unknown):
    """With SYN_TO_HOST; the connection's later segments are nobody's, and go the way of these."""

    async def scenario(ctx, net):
        ctx.set(net.dut.syn_to_host, 1)
        ctx.set(net.dut.rst_unknown, rst_unknown)
        await net.listen(ctx)
        room = 2 if lacking == "id" else ENTRIES
        await net.stock(ctx, *range(room + (lacking == "entry")))
        events = [(await net.half_open(ctx, number))[1] for number in range(room)]
        for flags in (S, A, A | F):
            await net.send(ctx, number=50, flags=flags, seq=77, ack=88)
            assert await net.next(ctx, "info") == info(drop=bool(rst_unknown and flags != S))
            if rst_unknown and flags != S:
                assert refused(await net.next(ctx, "reset"))["seq"] == 88
        await net.nothing(ctx)
        assert net.counts["syn_dropped_full"] == 1 and net.counts["rx_unknown_segment"] == 2
        assert await net.drop(ctx, events[0]["syncache_ref"]) == Status.OK
        assert refused(await net.next(ctx, "control"))["flags"] == R | A
        assert (await net.next(ctx, "event"))["gone"]
        await net.half_open(ctx, 51)
        await net.send(ctx, tuple=peer_tuple(52, 81), flags=S)  # nobody listens there
        assert await net.next(ctx, "info") == info(drop=bool(rst_unknown))
        net.out["reset"].clear()
        await net.nothing(ctx)

    run_front_end(TINY, scenario)


def test_the_software_was_faster():
    """The SYN went to the host, came again and found room; but the peer acknowledges the host's SYN,ACK: the half-open
    connection goes without a word, and its segments to the host."""

    async def scenario(ctx, net):
        ctx.set(net.dut.syn_to_host, 1)
        ctx.set(net.dut.rst_unknown, 0)
        await net.listen(ctx)
        await net.send(ctx, number=0, flags=S, seq=1000)
        assert await net.next(ctx, "info") == info()
        await net.stock(ctx, 3)
        _, event = await net.half_open(ctx, 0)
        for length in (0, 100):
            await net.send(ctx, number=0, seq=1001, ack=event["iss"] + 12345, payload_length=length)
            assert await net.next(ctx, "info") == info()
        assert await net.next(ctx, "event") == event | {"gone": 1}
        await net.nothing(ctx)
        _, event = await net.half_open(ctx, 1)  # the id is free again
        await net.send(ctx, number=1, seq=1001, ack=event["iss"] + 1)
        assert (await net.next(ctx, "segment"))["id"] == 3

    run_front_end(TINY, scenario)


@pytest.mark.parametrize("end", ["peer_reset", "drop", "unlisten", "expiry"])
def test_a_promise_ends_with_its_half_open_connection(end):
    """Whatever ends a half-open connection, its id is free for the next SYN: once, not twice."""

    async def scenario(ctx, net):
        ctx.set(net.dut.syn_retries, 0)
        await net.listen(ctx)
        await net.stock(ctx, 5)
        for round_ in range(3):
            _, event = await net.half_open(ctx, 10 * round_)
            match end:
                case "peer_reset":
                    await net.send(ctx, number=10 * round_, flags=R, seq=1001)
                    assert await net.next(ctx, "info") == info(drop=True)
                case "drop":
                    assert await net.drop(ctx, event["syncache_ref"]) == Status.OK
                    assert await net.drop(ctx, event["syncache_ref"]) == Status.BAD_GENERATION
                case "unlisten":
                    assert await net.unlisten(ctx) == Status.OK
                    await net.listen(ctx)
                case "expiry":
                    net.ticking = True
                    while net.counts["syncache_expired"] == round_:
                        await ctx.tick()
                    net.ticking = False
            assert (await net.next(ctx, "event", cycles=4000))["gone"]
            await net.settle(ctx)
            net.out["control"].clear()
            assert net.half_open_entries(ctx) == 0
        await net.half_open(ctx, 100)
        await net.send(ctx, number=101, flags=S)
        assert await net.next(ctx, "info") == info(drop=True)
        await net.nothing(ctx)

    run_front_end(TINY, scenario)


def test_an_id_comes_while_a_syn_is_looked_at(rng):
    """Whenever it comes, the SYN is either served or dropped, and the next one is served."""

    async def scenario(ctx, net):
        await net.listen(ctx)
        for id_ in range(12):
            await net.send(ctx, number=2 * id_, seq=1000, flags=S)
            await ctx.tick().repeat(rng.randrange(1, 40))
            await net.stock(ctx, id_)
            await net.settle(ctx)
            served = bool(net.out["control"])
            if not served:
                await net.half_open(ctx, 2 * id_ + 1)
            else:
                await net.next(ctx, "control")
                event = await net.next(ctx, "event")
                assert event["tuple"] == peer_tuple(2 * id_)
            await net.send(ctx, number=2 * id_ + (not served), flags=R, seq=1001)
            assert (await net.next(ctx, "event"))["gone"]
            await net.half_open(ctx, 100 + id_)
            iss = net.iss(peer_tuple(100 + id_))
            await net.send(ctx, number=100 + id_, seq=1001, ack=iss + 1)
            assert (await net.next(ctx, "segment"))["id"] == id_
            await net.settle(ctx)
            for port in net.out.values():
                port.clear()

    run_front_end(TINY, scenario)


def test_syncache_full_and_reference_reuse():
    """As many entries as configured; a reference is not used twice in a row."""

    async def scenario(ctx, net):
        await net.listen(ctx)
        await net.stock(ctx, *range(ENTRIES))
        seen = set()
        for round_ in range(3):
            events = [(await net.half_open(ctx, number))[1] for number in range(ENTRIES)]
            refs = {event["syncache_ref"] for event in events}
            assert len(refs) == ENTRIES and not refs & seen
            assert {ref & 0xFF for ref in refs} == set(range(ENTRIES))
            seen |= refs
            await net.send(ctx, number=50, flags=S)
            assert await net.next(ctx, "info") == info(drop=True)
            await net.settle(ctx)
            assert net.counts["syn_dropped_full"] == round_ + 1
            for event in events:
                assert await net.drop(ctx, event["syncache_ref"]) == Status.OK
                assert refused(await net.next(ctx, "control"))["flags"] == R | A
                assert await net.next(ctx, "event") == event | {"gone": 1}
            for ref in seen:
                assert await net.drop(ctx, ref) == Status.BAD_GENERATION
        for bad in (ENTRIES, 0x80, 0xFFFF):
            assert await net.drop(ctx, bad) == Status.BAD_ID
        await net.nothing(ctx)

    run_front_end(TINY, scenario)


def test_host_that_takes_no_events():
    """Entries of which the host does not know are neither accepted nor reused, and nothing stands still."""

    async def scenario(ctx, net):
        await net.listen(ctx)
        await net.stock(ctx, *range(ENTRIES))
        net.hold.add("event")
        controls = []
        for number in range(ENTRIES):
            await net.send(ctx, number=number, seq=9, flags=S)
            controls.append(await net.next(ctx, "control"))
        for number in range(ENTRIES):
            await net.send(ctx, number=number, seq=10, ack=controls[number]["seq"] + 1)  # ignored
        await net.send(ctx, number=0, seq=10, flags=R)  # gone, but not free
        await net.send(ctx, number=77, flags=S)
        for _ in range(2 * ENTRIES + 2):
            assert await net.next(ctx, "info") == info(drop=True)
        await net.settle(ctx)
        assert not net.pending()
        assert net.counts["syn_dropped_full"] == 1 and net.counts["accepted"] == 0
        net.hold.clear()
        events = [await net.next(ctx, "event") for _ in range(ENTRIES + 1)]
        assert [event["gone"] for event in events] == [0] * ENTRIES + [1]
        assert events[-1]["syncache_ref"] == events[0]["syncache_ref"]
        await net.half_open(ctx, 77)
        await net.send(ctx, number=1, seq=10, ack=controls[1]["seq"] + 1)
        assert (await net.next(ctx, "segment"))["id"] == 0
        assert (await net.next(ctx, "flow"))["syncache_ref"] == events[1]["syncache_ref"]

    run_front_end(TINY, scenario)


def test_connection_table_full():
    """A SYN whose rows are full is dropped, its entry free again and its id not promised any more."""
    cfg = TINY.with_(buckets_per_hash=2)

    async def scenario(ctx, net):
        await net.listen(ctx)
        await net.stock(ctx, *range(ENTRIES))
        statuses = [await net.table(ctx, TableOp.INSERT, peer_tuple(500 + n), n % 16) for n in range(40)]
        assert statuses.count(Status.OK) > 12 and Status.TABLE_FULL in statuses
        full = [number for number, status in enumerate(statuses) if status == Status.TABLE_FULL]
        for number in full * 2:
            await net.send(ctx, number=500 + number, flags=S)
            assert await net.next(ctx, "info") == info(drop=True)
        await net.nothing(ctx)
        assert net.counts["syn_dropped_full"] == net.counts["syn_received"] == 2 * len(full) > ENTRIES
        for number, status in enumerate(statuses):
            if status == Status.OK:
                await net.release(ctx, peer_tuple(500 + number), number % 16)
        for number in range(ENTRIES):
            await net.half_open(ctx, number)

    run_front_end(cfg, scenario)


def test_id_refused_by_pipeline():
    """The id is spent, the half-open connection as before; the next id serves, and before any later SYN."""

    async def scenario(ctx, net):
        net.flow_result = lambda request: Status.BAD_STATE if request["id"] == 4 else Status.OK
        await net.listen(ctx)
        await net.stock(ctx, 4)
        _, event = await net.half_open(ctx, 0)
        for ask in (0, 1):
            if ask:
                await net.stock(ctx, 5)
                await net.send(ctx, number=1, flags=S)
                assert await net.next(ctx, "info") == info(drop=True)
            await net.send(ctx, number=0, seq=1001, ack=event["iss"] + 1)
            assert await net.next(ctx, "info") == info(ask=ask, drop=True)
            assert (await net.next(ctx, "flow"))["id"] == 4 + ask
            assert (await net.next(ctx, "endpoint"))["id"] == 4 + ask
        assert (await net.next(ctx, "segment"))["id"] == 5
        assert await net.drop(ctx, event["syncache_ref"]) == Status.BAD_GENERATION
        await net.nothing(ctx)
        assert net.counts["accepted"] == 1

    run_front_end(TINY, scenario)


def test_back_to_back_segments_of_one_handshake():
    """Two equal SYNs make one entry; the ACK and the data behind it both reach the new connection."""

    async def scenario(ctx, net):
        await net.listen(ctx)
        await net.stock(ctx, 6, 7)
        for _ in range(2):
            await net.send(ctx, number=0, seq=1000, flags=S)
        control, event = await net.next(ctx, "control"), await net.next(ctx, "event")
        for _ in range(2):
            assert await net.next(ctx, "info") == info(drop=True)
        await net.nothing(ctx)
        for length in (0, 100, 200):
            await net.send(ctx, number=0, seq=1001 + length, ack=control["seq"] + 1, payload_length=length)
        for length in (0, 100, 200):
            assert await net.next(ctx, "segment") == rx_segment(
                6, seq=1001 + length, ack=control["seq"] + 1 & M32, payload_length=length
            )
            assert (await net.next(ctx, "info"))["ask"]
        assert (await net.next(ctx, "flow"))["syncache_ref"] == event["syncache_ref"]
        assert (await net.next(ctx, "endpoint"))["id"] == 6
        await net.nothing(ctx)

    run_front_end(TINY, scenario)


@pytest.mark.parametrize("events_held", [False, True])
def test_syn_flood(events_held, rng):
    """Ten times more SYNs than entries, between segments of a connection: those all pass, in order; the entries expire
    in the end, and then the table has no trace of the flood."""
    count = 10 * ENTRIES

    async def scenario(ctx, net):
        await net.listen(ctx)
        await net.stock(ctx, *range(ENTRIES))
        mine = peer_tuple(9999)
        assert await net.table(ctx, TableOp.INSERT, mine, 11) == Status.OK
        ctx.set(net.dut.syn_retries, 0)
        if events_held:
            net.hold.add("event")
        order = ["syn"] * count + ["data"] * count
        rng.shuffle(order)
        start = net.cycles
        for number, kind in enumerate(order):
            if kind == "syn":
                await net.send(ctx, number=number, seq=number, flags=S)
            else:
                await net.send(ctx, tuple=mine, seq=number)
        for number, kind in enumerate(order):
            assert await net.next(ctx, "info") == info(ask=int(kind == "data"), drop=True)
            if kind == "data":
                assert (await net.next(ctx, "segment"))["seq"] == number
        assert net.cycles - start < 60 * ENTRIES + 30 * count, "the flood holds up the connection"
        await net.settle(ctx)
        assert len(net.out["control"]) == ENTRIES
        dropped = count - ENTRIES
        assert net.counts["syn_received"] == count and net.counts["syn_dropped_full"] == dropped
        net.out["control"].clear()
        net.ticking = True
        while net.counts["syncache_expired"] < ENTRIES:
            await ctx.tick()
        net.ticking = False
        net.hold.clear()
        events = [await net.next(ctx, "event") for _ in range(2 * ENTRIES)]
        assert sorted(event["gone"] for event in events) == [0] * ENTRIES + [1] * ENTRIES
        assert {e["syncache_ref"] for e in events if e["gone"]} == {e["syncache_ref"] for e in events if not e["gone"]}
        for number, kind in enumerate(order):
            if kind == "syn":
                await net.send(ctx, number=number, flags=R | A, seq=number + 1)
                assert await net.next(ctx, "info") == info(drop=True)
        assert net.counts["rx_unknown_segment"] == count
        for number in range(ENTRIES):
            await net.half_open(ctx, number)
        await net.nothing(ctx)

    run_front_end(TINY, scenario, max_cycles=30_000)


# ------------------------------------------------------------------------------ timer


@pytest.mark.parametrize("retries", [0, 2])
def test_syn_ack_is_repeated_then_given_up(retries):
    async def scenario(ctx, net):
        ctx.set(net.dut.syn_retries, retries)
        await net.listen(ctx)
        await net.stock(ctx, 1)
        first, event = await net.half_open(ctx, 0)
        net.ticks, net.ticking = 0, True
        due = 0
        for number in range(retries):
            due += 1000 << number
            assert await net.next(ctx, "control", cycles=20_000) == first
            assert due <= net.ticks < due + 200 * (number + 1), number
        due += 1000 << retries
        assert await net.next(ctx, "event", cycles=20_000) == event | {"gone": 1}
        assert due <= net.ticks < due + 1000
        net.ticking = False
        assert net.counts["syncache_expired"] == 1
        await net.send(ctx, number=0, seq=1001, ack=event["iss"] + 1)
        assert refused(await net.next(ctx, "reset"))["flags"] == R
        assert await net.next(ctx, "info") == info(drop=True)
        await net.nothing(ctx)

    run_front_end(TINY, scenario)


@pytest.mark.parametrize("lacking", ["id", "entry"])
def test_the_silent_make_room(lacking):
    """While SYNs find no room, half-open connections are given up after their second SYN,ACK: no flood locks others out
    for more than three seconds. Without a need they keep all their tries."""

    async def scenario(ctx, net):
        await net.listen(ctx)
        room = 2 if lacking == "id" else ENTRIES
        await net.stock(ctx, *range(room + (lacking == "entry")))
        net.ticks, net.ticking = 0, True
        for number in range(room):
            await net.half_open(ctx, number)
        while net.ticks < 3500:  # each has sent three
            await ctx.tick()
        assert net.counts["syncache_expired"] == 0 and len(net.out["control"]) == 2 * room
        await net.send(ctx, number=50, seq=1000, flags=S)
        assert await net.next(ctx, "info") == info(drop=True)
        for _ in range(room):
            assert (await net.next(ctx, "event", cycles=600))["gone"]
        net.out["control"].clear()
        # The young ones stay, for one repetition: whoever comes now waits for that.
        net.ticks = 0
        for number in range(room):
            await net.half_open(ctx, 10 + number)
        refusals = 0
        while not net.out["event"]:
            await net.send(ctx, number=50, seq=1000, flags=S)
            refusals += 1
            assert await net.next(ctx, "info") == info(drop=True)
            await ctx.tick().repeat(200)
        assert 3000 <= net.ticks < 3600 and refusals > 10
        assert sum(control["flags"] == S | A for control in net.out["control"]) >= room

    run_front_end(TINY, scenario)


def test_ticks_during_work_are_not_lost(rng):
    """Expiry comes in time while SYNs and segments keep the unit busy."""

    async def scenario(ctx, net):
        ctx.set(net.dut.syn_retries, 0)
        await net.listen(ctx)
        await net.stock(ctx, 1)
        await net.half_open(ctx, 0)
        net.ticks, net.ticking = 0, True
        while not net.counts["syncache_expired"]:
            await net.send(ctx, number=rng.randrange(1, 4), flags=S)
            assert net.ticks < 1400
        assert net.ticks >= 1000

    run_front_end(TINY, scenario)


# ------------------------------------------------------------------------------ random streams against a model


class Model:
    """Half-open connections and connections as the engine must see them."""

    def __init__(self, syn_to_host):
        self.syn_to_host = syn_to_host
        self.half_open = {}  # peer number -> (irs, iss, ref)
        self.connections = {}  # peer number -> id
        self.stock = []

    def expect(self, number, meta):
        """(what the frame becomes, control segment's flags or None) for a segment of peer ``number``."""
        flags, seq, ack = meta["flags"], meta["seq"], meta["ack"]
        if number in self.connections:
            return "segment", None
        if number not in self.half_open:
            if flags & (S | A | R | F) == S:
                if len(self.half_open) < min(ENTRIES, len(self.stock)):
                    return "new", S | A
                return "host" if self.syn_to_host else "drop", None
            return "drop", None if flags & R else (R if flags & A else R | A)
        irs, iss, _ = self.half_open[number]
        offset = seq - irs - 1 & M32
        if flags & R:
            return ("gone", None) if offset == 0 else ("drop", A if offset < WND else None)
        if flags & S:
            return "drop", S | A if seq == irs and not flags & A else A
        if not flags & A:
            return "drop", None
        if ack != iss + 1 & M32:
            return "gone" if self.syn_to_host else "drop", R
        if offset >= WND:
            return "drop", A
        return "accept", None


@pytest.mark.parametrize("seed", range(4))
def test_random_segments_against_model(seed):
    rng = random.Random(f"listen:{seed}")
    stall = [0.0, 0.3, 0.8, 0.1][seed]

    async def scenario(ctx, net):
        model = Model(syn_to_host=seed == 3)
        ctx.set(net.dut.syn_to_host, int(model.syn_to_host))
        net.flow_delay = rng.randrange(1, 20)
        await net.listen(ctx)
        free_ids = list(range(16))
        for _ in range(150):
            choice = rng.random()
            if choice < 0.08 and free_ids:
                one = free_ids.pop(rng.randrange(len(free_ids)))
                model.stock.append(one)
                await net.stock(ctx, one)
                continue
            if choice < 0.12 and model.half_open:
                number = rng.choice(list(model.half_open))
                ref = model.half_open.pop(number)[2]
                assert await net.drop(ctx, ref) == Status.OK
                assert (await net.next(ctx, "control"))["flags"] == R | A
                assert (await net.next(ctx, "event"))["syncache_ref"] == ref
                assert await net.drop(ctx, ref) == Status.BAD_GENERATION
                continue
            if choice < 0.2 and model.connections:
                number = rng.choice(list(model.connections))
                one = model.connections.pop(number)
                free_ids.append(one)
                await net.release(ctx, peer_tuple(number), one)
                continue
            number = rng.randrange(8)
            irs, iss, _ = model.half_open.get(number, (rng.getrandbits(32), rng.getrandbits(32), 0))
            meta = {
                "flags": rng.choice([S, S, A, A, A, A, A | F, R, R | A, S | A, F, 0, S | F]),
                "seq": irs + rng.choice([0, 1, 1, 1, 1, 2, WND, WND + 1, -1]) & M32,
                "ack": iss + rng.choice([0, 1, 1, 1, 1, 2]) & M32,
                "mss": rng.choice([0, 1000]), "ws_present": rng.getrandbits(1), "ws": rng.randrange(15),
            }  # fmt: skip
            if number not in model.half_open:
                net.set_clock(ctx, rng.choice([M32, 0, rng.getrandbits(32)]), peer_tuple(number))
            frame, flags = model.expect(number, meta)
            await net.send(ctx, number=number, **meta)
            assert await net.next(ctx, "info") == info(ask=int(frame in ("segment", "accept")), drop=frame != "host")
            if flags is not None:
                port = "reset" if (number not in model.half_open or frame == "gone") and flags & R else "control"
                control = await net.next(ctx, port)
                assert (control["flags"], control["tuple"]) == (flags, peer_tuple(number))
            match frame:
                case "new":
                    event = await net.next(ctx, "event")
                    assert event["irs"] == meta["seq"] == control["ack"] - 1 & M32
                    assert event["iss"] == control["seq"] == net.iss(peer_tuple(number))
                    model.half_open[number] = (event["irs"], event["iss"], event["syncache_ref"])
                case "gone":
                    event = await net.next(ctx, "event")
                    assert (event["gone"], event["syncache_ref"]) == (1, model.half_open.pop(number)[2])
                case "segment":
                    assert await net.next(ctx, "segment") == rx_segment(model.connections[number], **meta)
                case "accept":
                    one = model.stock.pop(0)
                    model.connections[number] = one
                    irs, iss, ref = model.half_open.pop(number)
                    flow = await net.next(ctx, "flow")
                    assert (flow["id"], flow["a"], flow["b"], flow["syncache_ref"]) == (one, iss, irs, ref)
                    assert (await net.next(ctx, "endpoint"))["endpoint"]["tuple"] == peer_tuple(number)
                    assert await net.next(ctx, "segment") == rx_segment(one, **meta)
            if rng.random() < 0.3:
                await net.settle(ctx)
                assert not net.pending()
        # Emptiness: everything ends, all entries can be had again, no four-tuple is left in the table.
        assert await net.unlisten(ctx) == Status.OK
        for _ in model.half_open:
            assert (await net.next(ctx, "control"))["flags"] == R | A
            assert (await net.next(ctx, "event"))["gone"]
        for number, one in model.connections.items():
            await net.release(ctx, peer_tuple(number), one)
        for number in range(8):
            await net.send(ctx, number=number, flags=A, ack=5)
            assert refused(await net.next(ctx, "reset"))["seq"] == 5
            await net.next(ctx, "info")
        await net.listen(ctx)
        await net.stock(ctx, *free_ids[:ENTRIES])
        for number in range(ENTRIES):
            await net.half_open(ctx, number)
        await net.nothing(ctx)

    run_front_end(TINY, scenario, stall=stall, seed=seed)


@pytest.mark.parametrize("seed", range(2))
def test_promises_in_disorder(seed):
    """Nobody waits for anybody: SYNs back to back and twice, ACKs, resets, drops of any reference, listeners that come and go,
    ids that come and are refused, ticks, a host that looks away. The bench counts promises whenever the unit is idle; at the
    end none is left."""
    rng = random.Random(f"disorder:{seed}")

    async def scenario(ctx, net):
        ctx.set(net.dut.syn_retries, rng.randrange(3))
        ctx.set(net.dut.syn_to_host, seed)
        net.flow_result = lambda request: Status.BAD_STATE if rng.random() < 0.1 else Status.OK
        listening = False
        ids = list(range(16))
        for _ in range(400):
            net.ticking = rng.random() < 0.7
            if rng.random() < 0.1:
                net.hold = {"event"} - net.hold
            kinds = ["syn", "ack", "rst", "drop", "listen", "stock", "wait"]
            match rng.choices(kinds, [6, 8, 1, 1, 0 if listening and rng.random() < 0.8 else 1, 4, 4])[0]:
                case "syn":
                    number = rng.randrange(8)
                    for _ in range(rng.choice([1, 1, 2, 3])):
                        await net.send(ctx, number=number, seq=1000, flags=S)
                case "ack":
                    number = rng.randrange(8)
                    iss = net.iss(peer_tuple(number)) + rng.choice([1, 1, 1, 2])
                    await net.send(ctx, number=number, seq=1001, ack=iss)
                case "rst":
                    await net.send(ctx, number=rng.randrange(8), seq=1001, flags=R)
                case "drop":
                    await net.drop(ctx, rng.randrange(ENTRIES) | rng.randrange(256) << 8)
                case "listen":
                    await (net.unlisten(ctx) if listening else net.listen(ctx))
                    listening = not listening
                case "stock" if ids:
                    await net.stock(ctx, ids.pop())
                case "wait":
                    await ctx.tick().repeat(rng.randrange(1, 200))
            # Who has got an id is gone at once; one that was refused was not found in the table long.
            while net.out["endpoint"]:
                endpoint = net.out["endpoint"].popleft()
                await net.table(ctx, TableOp.DELETE, endpoint["endpoint"]["tuple"], endpoint["id"])
                ids.append(endpoint["id"])
        net.hold.clear()
        net.ticking = False
        if listening:
            await net.unlisten(ctx)
        await net.settle(ctx)
        assert net.half_open_entries(ctx) == 0
        assert ctx.get(net.dut.unit.reservations.spare) == ctx.get(net.dut.unit.ids.level)
        assert net.counts["accepted"] > 5 and net.counts["syn_dropped_full"] > 5

    run_front_end(TINY, scenario, stall=0.2, seed=seed, max_cycles=120_000)


# ------------------------------------------------------------------------------ the unit alone


def run_alone(cfg, scenario):
    """The listen unit with a table that takes everything and sequence numbers that are always 100."""
    dut = ListenUnit(cfg)
    controls = deque()

    async def take_controls(ctx):
        while True:
            controls.append(await stream_get(ctx, dut.control))

    async def play_table(ctx):
        while True:
            await stream_get(ctx, dut.table)
            await stream_put(ctx, dut.table_status, {"status": Status.OK})

    async def play_isn(ctx):
        while True:
            await stream_get(ctx, dut.isn_request)
            await stream_put(ctx, dut.isn, 100)

    async def bench(ctx):
        for one in range(3):
            await stream_put(ctx, dut.stock, one)
        await stream_put(ctx, dut.listen, LISTENER)
        assert (await stream_get(ctx, dut.listen_status))["status"] == Status.OK
        await scenario(ctx, dut, controls)

    run_bench(dut, bench, background=[play_table, play_isn, take_controls])


async def verdict(ctx, dut, **fields):
    await stream_put(ctx, dut.handshake, {"hit": 0, "index": 0} | fields)
    return await stream_get(ctx, dut.verdict)


def test_results_older_than_the_table():
    """A lookup from before an entry's index changed hands must not touch the new entry: it is to be repeated."""

    async def scenario(ctx, dut, controls):
        for index in range(ENTRIES):
            assert await verdict(ctx, dut, hit=1, index=index, meta=seg(number=0, ack=101)) == Verdict.RETRY
        for number in range(2):
            assert await verdict(ctx, dut, meta=seg(number=number, flags=S)) == Verdict.DROP
            event = await stream_get(ctx, dut.event)
            index = event["syncache_ref"]  # a first generation has no bits above
            for changed in ({"laddr": 1}, {"faddr": 1}, {"lport": 1}, {"fport": 1}):
                other = seg(tuple=peer_tuple(number) | changed, seq=1, ack=101, flags=R)
                assert await verdict(ctx, dut, hit=1, index=index & 0xFF, meta=other) == Verdict.RETRY
            mine = seg(number=number, seq=1, flags=R)
            assert await verdict(ctx, dut, hit=1, index=index & 0xFF, meta=mine) == Verdict.DROP
            assert (await stream_get(ctx, dut.event))["gone"]
            assert await verdict(ctx, dut, hit=1, index=index & 0xFF, meta=mine) == Verdict.RETRY

    run_alone(TINY, scenario)


@pytest.mark.parametrize("entries, generation_at", [(2, 8), (512, 9), (4096, 12)])
def test_reference_layout(entries, generation_at):
    """The index below, the generation above bit 8 or above the index."""
    cfg = TINY.with_(connections=4096, syncache_entries=entries)

    async def scenario(ctx, dut, controls):
        refs = []
        for number in range(entries if entries == 2 else 3):
            assert await verdict(ctx, dut, meta=seg(number=number, flags=S)) == Verdict.DROP
            refs.append((await stream_get(ctx, dut.event))["syncache_ref"])
        assert refs == [n | 1 << generation_at for n in range(len(refs))]
        await stream_put(ctx, dut.drop, refs[1])
        assert [control["flags"] for control in controls] == [S | A] * len(refs) + [R | A]
        assert (await stream_get(ctx, dut.drop_status))["status"] == Status.OK
        for stale, status in ((refs[1], Status.BAD_GENERATION), (refs[0] ^ 1 << generation_at, Status.BAD_GENERATION)):
            await stream_put(ctx, dut.drop, stale)
            assert (await stream_get(ctx, dut.drop_status))["status"] == status

    run_alone(cfg, scenario)


def test_needs_two_entries():
    with pytest.raises(ValueError, match="at least 2 syncache entries"):
        ListenUnit(TINY.with_(syncache_entries=1))
