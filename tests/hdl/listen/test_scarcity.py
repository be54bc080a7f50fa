"""Listen unit when something is short: ids, syncache entries, places in the connection table, a host that listens; floods."""

import pytest

from tests.hdl.listen.bench import M32, A, F, R, S, info, peer_tuple, run_front_end
from tests.hdl.listen.expected import ENTRIES, refused, rx_segment
from tiptoe_hdl.config import TINY
from tiptoe_hdl.messages import Status, TableOp


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
