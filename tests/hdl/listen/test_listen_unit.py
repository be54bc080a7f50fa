"""Listen unit in its surroundings: listeners, commands, timers, nothing left behind; and the unit alone."""

from collections import deque

import pytest

from tests.hdl.listen.bench import LISTENER, LOCAL, M32, A, R, S, info, peer_tuple, run_front_end, seg
from tests.hdl.listen.expected import ENTRIES, refused
from tiptoe_hdl.config import TINY
from tiptoe_hdl.listen.handshake import Verdict
from tiptoe_hdl.listen.listen_unit import ListenUnit
from tiptoe_hdl.messages import Status
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


def test_listen_again_at_the_same_endpoint_changes_the_next_syn_acks_and_loses_no_syn():
    """TCP_MAXSEG of a listening socket: the old SYN,ACK or the new one for every SYN, whatever it comes beside."""

    async def scenario(ctx, net):
        await net.stock(ctx, *range(4))
        where = {"listener": 2, "laddr": LOCAL, "lport": 81}
        to = {"tuple": peer_tuple(0, 81), "flags": S}
        assert await net.listen(ctx, **where, mss=1460) == Status.OK
        assert await net.listen(ctx, listener=2, laddr=0, lport=81, mss=600) == Status.EXISTS
        assert await net.listen(ctx, listener=2, laddr=LOCAL, lport=0x8051, mss=600) == Status.EXISTS
        await net.send(ctx, **to)
        assert (await net.next(ctx, "control"))["mss"] == 1460
        assert await net.listen(ctx, **where, mss=700) == Status.OK
        await net.send(ctx, **to | {"tuple": peer_tuple(1, 81)})
        assert (await net.next(ctx, "control"))["mss"] == 700
        await net.send(ctx, **to)  # the SYN again: half open as it was
        assert (await net.next(ctx, "control"))["mss"] == 1460
        assert await net.unlisten(ctx, 2) == Status.OK
        assert await net.listen(ctx, **where, mss=500) == Status.OK

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


@pytest.mark.parametrize("lacking", ["id", "entry"])
def test_the_slow_are_waited_for_where_the_host_takes_the_others(lacking):
    """With SYN_TO_HOST nobody is locked out: an ACK that needs four seconds still finds its half-open connection."""

    async def scenario(ctx, net):
        ctx.set(net.dut.syn_to_host, 1)
        ctx.set(net.dut.rst_unknown, 0)
        await net.listen(ctx)
        room = 2 if lacking == "id" else ENTRIES
        await net.stock(ctx, *range(room + (lacking == "entry")))
        net.ticks, net.ticking = 0, True
        events = [(await net.half_open(ctx, number))[1] for number in range(room)]
        while net.ticks < 4000:
            await net.send(ctx, number=50, seq=1000, flags=S)
            assert await net.next(ctx, "info") == info()
            await ctx.tick().repeat(200)
        net.ticking = False
        net.out["control"].clear()
        assert net.counts["syncache_expired"] == 0
        for number, event in enumerate(events):
            await net.send(ctx, number=number, seq=event["irs"] + 1, ack=event["iss"] + 1)
            assert (await net.next(ctx, "segment"))["id"] == number

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
        for one in range(3):
            await stream_put(ctx, dut.stock, one)
        await stream_put(ctx, dut.listen, LISTENER)
        assert (await stream_get(ctx, dut.listen_status))["status"] == Status.OK
        await scenario(ctx, dut, controls)

    run_bench(dut, bench, background=[play_table, play_isn, take_controls])


async def verdict(ctx, dut, index, meta):
    await stream_put(ctx, dut.handshake, {"index": index, "meta": meta})
    return await stream_get(ctx, dut.verdict)


async def syn(ctx, dut, number, **fields):
    """A SYN of a peer; void fields as they come."""
    meta = seg(number=number)
    await stream_put(ctx, dut.syn, {name: meta[name] for name in ("tuple", "smac", "seq")} | fields)


def test_results_older_than_the_table():
    """A lookup from before an entry's index changed hands must not touch the new entry: it is to be repeated."""

    async def scenario(ctx, dut, controls):
        for index in range(ENTRIES):
            assert await verdict(ctx, dut, index, seg(number=0, ack=101)) == Verdict.RETRY
        for number in range(2):
            await syn(ctx, dut, number)
            event = await stream_get(ctx, dut.event)
            index = event["syncache_ref"]  # a first generation has no bits above
            for changed in ({"laddr": 1}, {"faddr": 1}, {"lport": 1}, {"fport": 1}):
                other = seg(tuple=peer_tuple(number) | changed, seq=1, ack=101, flags=R)
                assert await verdict(ctx, dut, index & 0xFF, other) == Verdict.RETRY
            controls.clear()
            for stale in ({"number": number + 5}, {"number": number, "index": index + 1 & ENTRIES - 1}):
                await syn(ctx, dut, **{"hit": 1, "index": index & 0xFF} | stale)
            await syn(ctx, dut, number, hit=1, index=index & 0xFF)
            await ctx.tick().repeat(100)
            mine = seg(number=number, seq=1, flags=R)
            assert await verdict(ctx, dut, index & 0xFF, mine) == Verdict.DROP
            assert (await stream_get(ctx, dut.event))["gone"]
            assert await verdict(ctx, dut, index & 0xFF, mine) == Verdict.RETRY
            assert [control["flags"] for control in controls] == [S | A]

    run_alone(TINY, scenario)


@pytest.mark.parametrize("entries, generation_at", [(2, 8), (512, 9), (4096, 12)])
def test_reference_layout(entries, generation_at):
    """The index below, the generation above bit 8 or above the index."""
    cfg = TINY.with_(connections=4096, syncache_entries=entries)

    async def scenario(ctx, dut, controls):
        refs = []
        for number in range(entries if entries == 2 else 3):
            await syn(ctx, dut, number)
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
