"""SYN cookies (RFC 4987 section 3.6) beside half-open connections of the same peer: its SYN came twice, one found room."""

import pytest

from tests.hdl.listen.bench import M32, A, S, info, peer_tuple, run_front_end
from tests.hdl.listen.expected import ENTRIES, refused, syn_ack
from tests.hdl.listen.test_cookies import ask, crowd
from tiptoe_hdl.config import TINY


async def one_place_left(ctx, net, ids=2 * ENTRIES):
    """Cookies on; one SYN more finds room. Returns what answered the others."""
    ctx.set(net.dut.syn_cookies, 1)
    await net.listen(ctx)
    await net.stock(ctx, *range(ids))
    return [await net.half_open(ctx, number) for number in range(ENTRIES - 2)]


async def accept(ctx, net, number, iss, id_, irs=1000):
    """The ACK of a half-open connection."""
    await net.send(ctx, number=number, seq=irs + 1, ack=iss + 1)
    assert (await net.next(ctx, "segment"))["id"] == id_
    assert (await net.next(ctx, "flow"))["a"] == iss
    assert (await net.next(ctx, "info"))["ask"] and (await net.next(ctx, "endpoint"))["id"] == id_


@pytest.mark.parametrize("apart", [1, 5, 20, 60, 100])
@pytest.mark.parametrize("irs", [1000, 0xFFFFFFFF])
def test_a_syn_that_the_line_doubles_while_the_last_place_is_taken_has_one_number(apart, irs):
    """The entry's: the other copy is dropped, or answered with that."""

    async def scenario(ctx, net):
        await one_place_left(ctx, net)
        for _ in range(2):
            await net.send(ctx, number=50, seq=irs, flags=S)
            await ctx.tick().repeat(apart)
        await net.settle(ctx)
        numbers = {answer["seq"] for port in ("control", "cookie") for answer in net.out[port]}
        assert len(numbers) == 1 and not net.out["cookie"]
        net.out["control"].clear()
        assert [await net.next(ctx, "info") for _ in range(2)] == [info(drop=True)] * 2
        assert (await net.next(ctx, "event"))["iss"] in numbers
        await ask(ctx, net, 51)  # the place is taken now: cookies go on
        await accept(ctx, net, 50, numbers.pop(), 0, irs=irs)
        await net.nothing(ctx)

    run_front_end(TINY, scenario)


def alone(net):
    """No cookie for peer 50, and one number."""
    assert not [answer for answer in net.out["cookie"] if answer["tuple"] == peer_tuple(50)]
    assert len({answer["seq"] for answer in net.out["control"] if answer["tuple"] == peer_tuple(50)}) == 1


def test_the_other_copy_was_looked_up_before_and_waits_for_its_frame_s_place():
    """Its look-up is older than the entry: what it told is not believed."""

    async def scenario(ctx, net):
        await one_place_left(ctx, net)
        net.hold.add("info")
        for _ in range(2):
            await net.send(ctx, number=50, flags=S)
        await ctx.tick().repeat(300)
        net.hold.clear()
        await ctx.tick().repeat(net.IRREVOCABLE)
        await net.settle(ctx)
        alone(net)

    run_front_end(TINY, scenario)


@pytest.mark.parametrize("apart", range(24, 72, 4))
def test_the_other_copy_was_looked_up_before_and_waits_behind_a_verdict(apart):
    """The last ACK of another handshake stands between them, and takes until the entry is there. Ids are what is short: the
    connection that it makes leaves no more room."""

    async def scenario(ctx, net):
        net.flow_delay = 200
        (first, _), *_ = await one_place_left(ctx, net, ids=ENTRIES)
        await net.send(ctx, number=50, flags=S)
        await ctx.tick().repeat(apart)
        await net.send(ctx, number=0, seq=1001, ack=first["seq"] + 1)
        await net.send(ctx, number=50, flags=S)
        assert (await net.next(ctx, "segment", cycles=500))["id"] == 0
        await ctx.tick().repeat(net.IRREVOCABLE)
        await net.settle(ctx)
        alone(net)

    run_front_end(TINY, scenario)


async def cookie_and_entry(ctx, net, irs=1000, again=None):
    """A SYN got a cookie; then a place got free, and one with number ``again`` got an entry. Returns both numbers and the entry's
    event; one id has gone."""
    ctx.set(net.dut.syn_cookies, 1)
    await net.listen(ctx)
    await net.stock(ctx, *range(2 * ENTRIES))
    (first, _), *_ = [await net.half_open(ctx, number) for number in range(ENTRIES - 1)]
    cookie = await ask(ctx, net, 50, irs=irs, mss=1460)
    await accept(ctx, net, 0, first["seq"], 0)
    answer, event = await net.half_open(ctx, 50, irs=irs if again is None else again, mss=1460)
    assert answer["seq"] != cookie
    return cookie, answer["seq"], event


@pytest.mark.parametrize("irs", [1000, 0xFFFFFFFF, 0xFFFFFFFE])
@pytest.mark.parametrize("apart", [0, 100, -100, 1 << 31], ids=["the same SYN", "later", "before", "far"])
def test_the_ack_of_a_cookie_finds_the_entry_of_another_syn_of_its_four_tuple(irs, apart):
    """The SYN came again, or a stranger has sent one. Who returns the cookie has our SYN,ACK: he gets in, without a reset."""

    async def scenario(ctx, net):
        cookie, _, event = await cookie_and_entry(ctx, net, irs, irs + apart & M32)
        await net.send(ctx, number=50, seq=irs + 1, ack=cookie + 1)
        gone = await net.next(ctx, "event")
        assert gone["gone"] and gone["syncache_ref"] == event["syncache_ref"]
        assert await net.next(ctx, "info") == info(drop=True)
        again, event = await net.next(ctx, "control"), await net.next(ctx, "event")
        assert again == syn_ack(peer_tuple(50), irs, cookie, says_options=1)
        assert (event["iss"], event["irs"], event["mss"], event["gone"]) == (cookie, irs, 1460, 0)
        await accept(ctx, net, 50, cookie, 1, irs=irs)
        await net.nothing(ctx)
        assert net.counts["syncache_bad_ack"] == 0

    run_front_end(TINY, scenario)


def test_the_entry_stays_for_any_other_ack():
    """A reset for one from the window, nothing for one of nowhere; its own ACK makes the connection."""

    async def scenario(ctx, net):
        cookie, iss, _ = await cookie_and_entry(ctx, net)
        for bit in range(32):
            wrong = (cookie ^ 1 << bit) + 1
            await net.send(ctx, number=50, seq=1001, ack=wrong)
            assert refused(await net.next(ctx, "control"))["seq"] == wrong & M32
            assert await net.next(ctx, "info") == info(drop=True)
        await net.send(ctx, number=50, seq=1002, ack=cookie + 2)  # the same difference
        assert refused(await net.next(ctx, "control"))["seq"] == cookie + 2 & M32
        assert await net.next(ctx, "info") == info(drop=True)
        await accept(ctx, net, 50, iss, 1)
        await net.nothing(ctx)

    run_front_end(TINY, scenario)


def test_without_room_for_who_returns_a_cookie_the_entry_stays_and_nobody_is_reset():
    """The ACK comes again, with data; by then there may be room."""

    async def scenario(ctx, net):
        cookie, iss, _ = await cookie_and_entry(ctx, net)
        other = await ask(ctx, net, 60)
        await net.send(ctx, number=60, seq=1001, ack=other + 1)  # takes the place that is kept
        assert await net.next(ctx, "info") == info(drop=True)
        assert (await net.next(ctx, "control"))["seq"] == other
        assert (await net.next(ctx, "event"))["iss"] == other
        for _ in range(2):
            await net.send(ctx, number=50, seq=1001, ack=cookie + 1)
            assert await net.next(ctx, "info") == info(drop=True)
            await net.nothing(ctx)
        await accept(ctx, net, 60, other, 1)
        await net.send(ctx, number=50, seq=1001, ack=cookie + 1)
        assert (await net.next(ctx, "event"))["gone"]
        assert (await net.next(ctx, "control"))["seq"] == cookie
        assert (await net.next(ctx, "event"))["iss"] == cookie
        assert await net.next(ctx, "info") == info(drop=True)
        await accept(ctx, net, 50, cookie, 2)
        await net.nothing(ctx)

    run_front_end(TINY, scenario)


@pytest.mark.parametrize("apart", [1, 10, 40, 70])
def test_segments_right_behind_the_ack_of_a_cookie_are_not_reset(apart):
    """Its entry is not there yet, and their numbers are no cookie's: they come again."""

    async def scenario(ctx, net):
        await crowd(ctx, net, ids=3 * ENTRIES)
        iss = await ask(ctx, net, 50)
        await net.send(ctx, number=50, seq=1001, ack=iss + 1)
        await ctx.tick().repeat(apart)
        for sent in (0, 100, 200):
            await net.send(ctx, number=50, seq=1001 + sent, ack=iss + 1, payload_length=100, flags=A)
        await net.settle(ctx)
        assert not net.out["reset"] and [answer["flags"] for answer in net.out["control"]][:1] == [S | A]
        assert not [answer for answer in net.out["control"] if answer["flags"] & ~(S | A)]
        for port in ("control", "event", "info", "segment", "flow", "endpoint"):
            net.out[port].clear()
        await net.send(ctx, number=51, seq=1001, ack=iss + 1)  # of nobody, and nothing on its way
        assert refused(await net.next(ctx, "reset"))["seq"] == iss + 1 & M32

    run_front_end(TINY, scenario)
