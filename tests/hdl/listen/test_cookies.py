"""SYN cookies: whoever answers one gets in, however many SYNs there are; nobody else does."""

import pytest

from tests.hdl.listen.bench import EC, M32, A, F, R, S, info, peer_tuple, run_front_end
from tests.hdl.listen.cookie_model import cookie, half_siphash
from tests.hdl.listen.expected import ENTRIES, refused, syn_ack
from tiptoe_hdl.config import TINY
from tiptoe_hdl.flow.event import SMALLEST_MSS
from tiptoe_hdl.listen.cookie_maker import cookie_mss

PERIOD = 1 << 16


def test_published_vector():
    """The first of the reference implementation's vectors: key 00 01 .. 07, no message."""
    assert half_siphash(0x0706050403020100, [0]).to_bytes(4, "little").hex() == "a9359f5b"


async def crowd(ctx, net, ids=2 * ENTRIES):
    """Cookies on, and as many half-open connections as SYNs alone may make."""
    ctx.set(net.dut.syn_cookies, 1)
    await net.listen(ctx)
    await net.stock(ctx, *range(ids))
    for number in range(min(ENTRIES, ids) - 1):
        await net.half_open(ctx, number)


async def ask(ctx, net, number, time=0, irs=1000, mss=0):
    """A SYN without room, whose options but MSS nothing remembers; returns the ISS of its answer."""
    await net.send(ctx, number=number, seq=irs, flags=S | EC, mss=mss, ws_present=1, ws=3, sack_ok=1)
    assert await net.next(ctx, "info") == info(drop=True)
    answer = await net.next(ctx, "cookie")
    key = net.key & (1 << 64) - 1
    iss = irs + cookie(key, peer_tuple(number), irs, mss, time) & M32
    assert answer == syn_ack(peer_tuple(number), irs, iss, says_options=1)
    return iss


async def get_in(ctx, net, number, iss, id_, irs=1000, mss=536):
    """The ACK of a cookie is answered with the same SYN,ACK; the one of that makes the connection."""
    await net.send(ctx, number=number, seq=irs + 1, ack=iss + 1, flags=A | EC)
    assert await net.next(ctx, "info") == info(drop=True)
    again, event = await net.next(ctx, "control"), await net.next(ctx, "event")
    assert again == syn_ack(peer_tuple(number), irs, iss, says_options=1)
    assert (event["iss"], event["irs"], event["mss"], event["ws_present"], event["sack_ok"]) == (iss, irs, mss, 0, 0)
    await net.send(ctx, number=number, seq=irs + 1, ack=iss + 1, payload_length=100)
    assert (await net.next(ctx, "segment"))["id"] == id_
    flow = await net.next(ctx, "flow")
    assert (flow["a"], flow["b"], flow["rcv_scale"], flow["snd_scale"], flow["sack_ok"], flow["ecn_ok"]) == (
        iss,
        irs,
        0,
        0,
        0,
        0,
    )
    assert flow["repeats"] == 1  # which of both is acknowledged nobody knows: no round trip is measured
    assert (await net.next(ctx, "info"))["ask"] and (await net.next(ctx, "endpoint"))["id"] == id_


@pytest.mark.parametrize("irs", [1000, 0xFFFFFFFF, 0])
def test_whoever_returns_a_cookie_gets_in(irs):
    """Again and again, while the SYNs before it keep their entries; the MSS is remembered, rounded down."""

    async def scenario(ctx, net):
        await crowd(ctx, net, ids=3 * ENTRIES)
        for id_, (said, kept) in enumerate(
            [(0, 536), (1460, 1460), (9000, 1460), (1399, 1300), (100, 48), (63, 48), (1, 48)]
        ):
            iss = await ask(ctx, net, 50 + id_, irs=irs, mss=said)
            await get_in(ctx, net, 50 + id_, iss, id_, irs=irs, mss=kept)
        assert net.counts["syn_cookies"] == 7 and net.counts["syn_dropped_full"] == 0
        await net.nothing(ctx)

    run_front_end(TINY, scenario)


def test_no_cookie_says_more_than_the_peers_mss():
    """Below the least that the engine sends at all, what stands for it is that."""
    for frame in (1514, 1515, 1534, 9014):
        known = cookie_mss(TINY.with_(max_frame_bytes=frame))
        assert known[0] == SMALLEST_MSS and list(known) == sorted(known) and len(known) == 8


def test_a_cookie_is_good_for_one_to_two_periods_of_its_clock():
    async def scenario(ctx, net):
        await crowd(ctx, net)
        begin = 7 * PERIOD
        ctx.set(net.dut.tick_time, begin)
        await ctx.tick().repeat(5)
        old = await ask(ctx, net, 50, time=7)
        ctx.set(net.dut.tick_time, begin + PERIOD)
        await ctx.tick().repeat(5)
        await get_in(ctx, net, 50, old, 0)
        young = await ask(ctx, net, 51, time=8)
        for period in (2, 3, 32):  # after 32 the clock's bits are the same
            ctx.set(net.dut.tick_time, begin + (1 + period) * PERIOD)
            await ctx.tick().repeat(5)
            await ask(ctx, net, 52, time=8 + period)
            await net.send(ctx, number=51, seq=1001, ack=young + 1)
            assert refused(await net.next(ctx, "reset"))["seq"] == young + 1 & M32
            assert await net.next(ctx, "info") == info(drop=True)
        await net.nothing(ctx)

    run_front_end(TINY, scenario)


def test_segments_that_return_no_cookie_are_of_nobody(rng):
    """Another peer's cookie, a bit wrong, another sequence number, a FIN; and without cookies sent, nobody looks."""

    async def scenario(ctx, net):
        await crowd(ctx, net)
        iss = await ask(ctx, net, 50)
        for fields in (
            {"number": 51}, {"ack": iss + 2}, {"seq": 1002}, {"seq": 1000}, {"tuple": peer_tuple(50, 81)},
            *({"seq": 1001 + more, "ack": iss + 1 + more} for more in (1, 2, 9, 1461, 8191, 8192, 8193, 1 << 16)),
            *({"ack": (iss ^ 1 << bit) + 1} for bit in range(32)),
        ):  # fmt: skip
            fields = {"number": 50, "seq": 1001, "ack": iss + 1} | fields
            if "tuple" in fields:
                del fields["number"]
            await net.send(ctx, **fields)
            assert await net.next(ctx, "info") == info(drop=True)
            assert refused(await net.next(ctx, "reset"))["seq"] == fields["ack"] & M32
        for flags in (R | A, F, 0):
            await net.send(ctx, number=50, seq=1001, ack=iss + 1, flags=flags)
            assert await net.next(ctx, "info") == info(drop=True)
        ctx.set(net.dut.rst_unknown, 0)  # the frame is still there for the host
        await net.send(ctx, number=50, seq=1001, ack=iss)
        assert await net.next(ctx, "info") == info()
        await net.nothing(ctx)

    run_front_end(TINY, scenario)


def test_without_an_id_in_stock_there_are_no_cookies_and_a_returned_one_makes_no_connection():
    """No id is lost either: the one that comes serves the peer when it says its ACK again."""

    async def scenario(ctx, net):
        await crowd(ctx, net, ids=1)
        iss = await ask(ctx, net, 50)  # the only id is kept for those who return a cookie
        other = await ask(ctx, net, 51)
        await get_in(ctx, net, 50, iss, 0)
        for _ in range(2):
            await net.send(ctx, number=51, seq=1001, ack=other + 1)
            assert await net.next(ctx, "info") == info(drop=True)
        await net.send(ctx, number=52, flags=S)
        assert await net.next(ctx, "info") == info(drop=True)
        await net.nothing(ctx)
        assert net.counts["syn_dropped_full"] == 3 and net.counts["syn_cookies"] == 2
        await net.stock(ctx, 9)
        await get_in(ctx, net, 51, other, 9)
        await net.nothing(ctx)

    run_front_end(TINY, scenario)


def test_a_listener_that_has_gone_meanwhile_takes_no_cookie():
    async def scenario(ctx, net):
        await crowd(ctx, net)
        iss = await ask(ctx, net, 50)
        await net.unlisten(ctx)
        await net.settle(ctx)
        for port in net.out.values():
            port.clear()
        await net.send(ctx, number=50, seq=1001, ack=iss + 1)
        assert (await net.next(ctx, "reset"))["flags"] == R
        assert await net.next(ctx, "info") == info(drop=True)
        await net.nothing(ctx)

    run_front_end(TINY, scenario)


def test_the_silent_make_room_for_those_who_return_cookies():
    """When ids run short, half-open connections that have waited for a quarter of a second go, and no others."""

    async def scenario(ctx, net):
        await crowd(ctx, net, ids=ENTRIES)
        first = await ask(ctx, net, 50)
        await get_in(ctx, net, 50, first, 0)  # the id that was kept
        await net.send(ctx, number=51, flags=S)
        assert await net.next(ctx, "info") == info(drop=True)
        await net.nothing(ctx)
        net.ticks, net.ticking = 0, True
        gone = await net.next(ctx, "event", cycles=2000)
        net.ticking = False
        assert gone["gone"] and 256 <= net.ticks < 600
        await net.settle(ctx)
        assert not net.pending() and net.half_open_entries(ctx) == ENTRIES - 2
        second = await ask(ctx, net, 51)
        await get_in(ctx, net, 51, second, 1)
        await net.nothing(ctx)

    run_front_end(TINY, scenario)
