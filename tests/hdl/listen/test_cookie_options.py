"""SYN cookies and the SYN's options: what TSval says of them its echo gives back (RFC 7323, RFC 2018, RFC 3168)."""

import itertools

import pytest

from tests.hdl.listen.bench import EC, M32, A, E, S, info, peer_tuple, run_front_end
from tests.hdl.listen.cookie_model import cookie
from tests.hdl.listen.expected import SCALE, syn_ack
from tests.hdl.listen.test_cookies import crowd
from tiptoe_hdl.config import TINY

NONE = 15
"""In TSval: the SYN says no scale."""
IDS = TINY.connections
MOST = 10
"""Connections that an engine of so many ids makes in a test."""
CLOCKS = (0, 0xFFFFFFC0, 0x80000000, 0x12345640)
"""What TSval has above its options: nobody looks at it."""


def stamp(options):
    """The lowest bits of a TSval."""
    return options["ws"] | options["sack_ok"] << 4 | options["ecn_ok"] << 5


async def ask(ctx, net, number, tsval, *, irs=1000, ws=None, sack_ok=0, ecn=0, offers=(1, 1, 1)):
    """A SYN with timestamps and without room; returns ISS and what the answer's TSval says. ``offers``: CONTROL's SACK, ECN,
    TIMESTAMPS."""
    for name, value in zip(("sack", "ecn", "timestamps"), offers, strict=True):
        ctx.set(getattr(net.dut, name), value)
    await net.send(
        ctx, number=number, seq=irs, flags=S | EC * ecn, mss=1460, ws_present=ws is not None, ws=ws or 0, sack_ok=sack_ok,
        ts_present=1, tsval=tsval,
    )  # fmt: skip
    assert await net.next(ctx, "info") == info(drop=True)
    answer = await net.next(ctx, "cookie")
    iss = irs + cookie(net.key & (1 << 64) - 1, peer_tuple(number), irs, 1460, 0) & M32
    if offers[2]:
        sack_ok, ecn = sack_ok & offers[0], ecn & offers[1]
        said = {"ws": NONE if ws is None else ws, "sack_ok": sack_ok, "ecn_ok": ecn}
        assert answer == syn_ack(
            peer_tuple(number), irs, iss, ws_present=ws is not None, sack_ok=sack_ok, flags=S | A | E * ecn, ts_ok=1,
            tsecr=tsval, says_options=1, options=said,
        )  # fmt: skip
    else:
        assert answer == syn_ack(peer_tuple(number), irs, iss, says_options=1, tsecr=tsval)  # without the option
    return iss, answer["options"]


async def get_in(ctx, net, number, iss, id_, tsval, tsecr, *, irs=1000, length=0, ts_present=1, flags=A):
    """The ACK returns the cookie; the same SYN,ACK goes once more, and the ACK of that makes the connection. Returns the event
    and what the pipeline is told."""
    stamps = {"ts_present": ts_present, "tsval": tsval, "tsecr": tsecr}
    ack = {"number": number, "seq": irs + 1, "ack": iss + 1, "flags": flags, **stamps}
    await net.send(ctx, **ack, payload_length=length)
    assert await net.next(ctx, "info") == info(drop=True)
    again, event = await net.next(ctx, "control"), await net.next(ctx, "event")
    assert (again["seq"], again["ack"], again["tsecr"]) == (iss, irs + 1 & M32, tsval if ts_present else again["tsecr"])
    await net.send(ctx, **ack, payload_length=length)
    assert (await net.next(ctx, "segment"))["id"] == id_
    flow = await net.next(ctx, "flow")
    assert (await net.next(ctx, "info"))["ask"] and (await net.next(ctx, "endpoint"))["id"] == id_
    return again, event, flow


def agreed(event, flow):
    """Scales, and the other options, which driver and pipeline are told alike."""
    assert (event["ws_present"], event["sack_ok"], event["ts_ok"]) == (
        int(bool(flow["rcv_scale"])), flow["sack_ok"], flow["ts_present"],
    )  # fmt: skip
    return flow["snd_scale"], flow["rcv_scale"], flow["sack_ok"], flow["ecn_ok"], flow["ts_present"]


SYNS = [(ws, ws is None or ws & 1, ws is None or ws >> 1 & 1) for ws in (None, *range(15))]
SYNS += [(None, 0, 0), (14, 1, 1), (0, 0, 1), (0, 1, 0)]


@pytest.mark.parametrize("length", [0, 1, 100], ids=["ACK", "octet", "data"])
@pytest.mark.parametrize("irs, first", [(1000, 0), (0xFFFFFFFF, MOST), (0, MOST)])
def test_a_cookie_keeps_what_the_syn_said(irs, first, length):
    """Every scale, with and without the rest. It is the ACK that returns it, or the first data, if that was lost."""

    async def scenario(ctx, net):
        await crowd(ctx, net, ids=IDS)
        for id_, (ws, sack_ok, ecn) in enumerate(SYNS[first : first + MOST]):
            iss, said = await ask(ctx, net, 50 + id_, 0xFFFFFFFE, irs=irs, ws=ws, sack_ok=sack_ok, ecn=ecn)
            tsecr = CLOCKS[id_ % len(CLOCKS)] | stamp(said)
            again, event, flow = await get_in(ctx, net, 50 + id_, iss, id_, 3, tsecr, irs=irs, length=length)
            assert again == syn_ack(
                peer_tuple(50 + id_), irs, iss, ws_present=ws is not None, sack_ok=sack_ok, flags=S | A | E * ecn, ts_ok=1,
                tsecr=3, says_options=1, options=said,
            )  # fmt: skip
            assert agreed(event, flow) == (ws or 0, 0 if ws is None else SCALE, sack_ok, ecn, 1)
            assert flow["repeats"] == 1 and flow["mss"] == 1460
        await net.nothing(ctx)

    run_front_end(TINY, scenario)


def test_a_cookie_agrees_to_what_the_engine_agrees_to():
    """And to nothing without timestamps: nothing would remember it."""

    async def scenario(ctx, net):
        await crowd(ctx, net, ids=IDS)
        for id_, offers in enumerate(itertools.product((0, 1), repeat=3)):
            iss, said = await ask(ctx, net, 50 + id_, 7, ws=2, sack_ok=1, ecn=1, offers=offers)
            stamps = dict(tsval=8, tsecr=0xFFFFFFC0 | stamp(said), ts_present=offers[2])
            _, event, flow = await get_in(ctx, net, 50 + id_, iss, id_, **stamps)
            expected = (2, SCALE, offers[0], offers[1], 1) if offers[2] else (0, 0, 0, 0, 0)
            assert agreed(event, flow) == expected
        await net.nothing(ctx)

    run_front_end(TINY, scenario)


@pytest.mark.parametrize("now", [0, 1])
def test_what_was_agreed_upon_holds_when_the_engine_s_options_change_before_the_ack(now):
    """CONTROL's bits are for SYN,ACKs to come: the peer has this one."""

    async def scenario(ctx, net):
        await crowd(ctx, net)
        iss, said = await ask(ctx, net, 50, 7, ws=9, sack_ok=1, ecn=1, offers=(1 - now,) * 3)
        for name in ("sack", "ecn", "timestamps"):
            ctx.set(getattr(net.dut, name), now)
        _, event, flow = await get_in(ctx, net, 50, iss, 0, 8, stamp(said), ts_present=1 - now)
        assert agreed(event, flow) == ((0,) * 5 if now else (9, SCALE, 1, 1, 1))
        await net.nothing(ctx)

    run_front_end(TINY, scenario)


@pytest.mark.parametrize("first", [0, 1, 4])
def test_a_liar_gets_options_of_its_own_choice_and_nothing_else(first):
    """Every echo, and none: the cookie's number decides who gets in."""

    async def scenario(ctx, net):
        await crowd(ctx, net, ids=IDS)
        for id_, lie in enumerate((*range(first, 64, 8), 15)):
            iss, _ = await ask(ctx, net, 50 + id_, 7, ws=1, sack_ok=0, ecn=0)
            _, event, flow = await get_in(ctx, net, 50 + id_, iss, id_, 8, 0x55555540 | lie)
            ws = lie & 15
            scales = (0, 0) if ws == NONE else (ws, SCALE)
            assert agreed(event, flow) == (*scales, lie >> 4 & 1, lie >> 5, 1)
        iss, said = await ask(ctx, net, 200, 7, ws=1, sack_ok=1, ecn=1)
        id_ += 1
        _, event, flow = await get_in(ctx, net, 200, iss, id_, 8, stamp(said), ts_present=0)
        assert agreed(event, flow) == (0, 0, 0, 0, 0)
        await net.nothing(ctx)

    run_front_end(TINY, scenario)


def test_ece_and_cwr_of_the_ack_are_not_a_syn_s():
    async def scenario(ctx, net):
        await crowd(ctx, net)
        iss, said = await ask(ctx, net, 50, 7, ws=1, sack_ok=1, ecn=0)
        _, event, flow = await get_in(ctx, net, 50, iss, 0, 8, stamp(said), flags=A | EC)
        assert agreed(event, flow) == (1, SCALE, 1, 0, 1)
        await net.nothing(ctx)

    run_front_end(TINY, scenario)


def test_without_room_it_says_them_again_when_the_ack_comes_once_more():
    """The first ACK finds the last place taken; the SYN that comes again meanwhile is answered by the same options."""

    async def scenario(ctx, net):
        await crowd(ctx, net, ids=3 * 4)
        iss, said = await ask(ctx, net, 50, 7, ws=5, sack_ok=1, ecn=1)
        other, others = await ask(ctx, net, 51, 7, ws=6, sack_ok=0, ecn=0)
        await net.send(ctx, number=51, seq=1001, ack=other + 1, ts_present=1, tsval=8, tsecr=stamp(others))
        assert await net.next(ctx, "info") == info(drop=True)
        assert (await net.next(ctx, "control"))["seq"] == other and (await net.next(ctx, "event"))["iss"] == other
        await net.send(ctx, number=50, seq=1001, ack=iss + 1, ts_present=1, tsval=8, tsecr=stamp(said))
        assert await net.next(ctx, "info") == info(drop=True)
        await net.nothing(ctx)
        await net.send(ctx, number=51, seq=1001, ack=other + 1, ts_present=1, tsval=8, tsecr=stamp(others))
        assert (await net.next(ctx, "flow"))["snd_scale"] == 6
        await net.settle(ctx)
        for port in net.out.values():
            port.clear()
        _, event, flow = await get_in(ctx, net, 50, iss, 1, 9, stamp(said))
        assert agreed(event, flow) == (5, SCALE, 1, 1, 1)

    run_front_end(TINY, scenario)
