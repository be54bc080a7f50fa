"""Listen unit in its surroundings: listeners, floods and scarcity, commands, timers, nothing left behind; and the unit alone."""

from collections import deque

import pytest

from tests.hdl.listen.bench import LISTENER, LOCAL, M32, A, R, S, info, peer_tuple, run_front_end, seg
from tests.hdl.listen.expected import ENTRIES, refused, rx_segment
from tiptoe_hdl.config import TINY
from tiptoe_hdl.listen.handshake import Verdict
from tiptoe_hdl.listen.listen_unit import ListenUnit
from tiptoe_hdl.messages import Status, TableOp
from tiptoe_verif.streams import run_bench, stream_get, stream_put

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
        await net.stock(ctx, 3)
        await net.listen(ctx, listener=0, lport=80)
        await net.listen(ctx, listener=1, lport=81)
        for children in (3, 0, 1):
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
            assert (await net.next(ctx, "segment"))["id"] == 3
            await net.next(ctx, "info")
            await net.next(ctx, "flow")
            await net.next(ctx, "endpoint")
            await net.release(ctx, peer_tuple(9, 81), 3)
            await net.stock(ctx, 3)
            await net.listen(ctx, listener=0, lport=80)
        await net.nothing(ctx)

    run_front_end(TINY, scenario, stall=stall)


# ------------------------------------------------------------------------------ scarcity


def test_no_id_in_stock():
    """Without an id a SYN is dropped; an ACK too, until there is one: the entry stays."""

    async def scenario(ctx, net):
        await net.listen(ctx)
        await net.send(ctx, number=0, flags=S)
        assert await net.next(ctx, "info") == info(drop=True)
        await net.settle(ctx)
        assert net.counts["syn_dropped_full"] == net.counts["syn_received"] == 1
        await net.stock(ctx, 7)
        events = [(await net.half_open(ctx, number))[1] for number in (1, 2)]
        for number, id_ in ((1, 7), (2, None), (2, None), (2, 8)):
            if id_ == 8:
                await net.stock(ctx, 8)
            await net.send(ctx, number=number, seq=1001, ack=events[number - 1]["iss"] + 1)
            assert (await net.next(ctx, "info"))["ask"] == (id_ is not None)
            if id_ is not None:
                for port in ("segment", "endpoint", "flow"):
                    assert (await net.next(ctx, port))["id"] == id_
        await net.nothing(ctx)

    run_front_end(TINY, scenario)


def test_syncache_full_and_reference_reuse():
    """As many entries as configured; a reference is not used twice in a row."""

    async def scenario(ctx, net):
        await net.listen(ctx)
        await net.stock(ctx, *range(3))
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
        await net.stock(ctx, 0, 1)
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
    """A SYN whose rows are full is dropped and its entry free again."""
    cfg = TINY.with_(buckets_per_hash=2)

    async def scenario(ctx, net):
        await net.listen(ctx)
        await net.stock(ctx, 0)
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
    """The id is spent, the half-open connection as before; the next id serves."""

    async def scenario(ctx, net):
        net.flow_result = lambda request: Status.BAD_STATE if request["id"] == 4 else Status.OK
        await net.listen(ctx)
        await net.stock(ctx, 4, 5)
        _, event = await net.half_open(ctx, 0)
        for ask in (0, 1):
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
        await net.stock(ctx, 1)
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
        await stream_put(ctx, dut.stock, 1)
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
