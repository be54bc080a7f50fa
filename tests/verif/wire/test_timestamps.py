"""The wire monitor on timestamps (RFC 7323): what is right passes; each rule with a segment that breaks it."""

from __future__ import annotations

import pytest

from tests.verif.wire.test_wire import OUR_MAC, US, ours, theirs
from tiptoe_verif.wire.monitor import WireError, WireMonitor
from tiptoe_verif.wire.segment import ACK, SYN, Segment, ip_number, mac_number, pack_tcp, parse_tcp

MSS = ("MSS", 1460)
WND = 60000
OURS, THEIRS = 0xFFFFFFFE, 0x7FFFFFFF
"""Both clocks next to where something wraps."""


def stamps(tsval: int, tsecr: int):
    return [("NOP", None), ("NOP", None), ("Timestamp", (tsval % 2**32, tsecr % 2**32))]


def opened(*, our_own: bool = True, peers: bool = True) -> WireMonitor:
    """After a passive handshake."""
    monitor = WireMonitor(mac=mac_number(OUR_MAC), ip=ip_number(US), max_frame=2000)
    monitor.to_engine(theirs("S", seq=0, wnd=WND, options=[MSS] + stamps(THEIRS, 0) * peers))
    monitor.from_engine(ours("SA", seq=0, wnd=WND, options=[MSS] + stamps(OURS, THEIRS) * our_own))
    monitor.to_engine(theirs("A", wnd=WND, options=stamps(THEIRS + 1, OURS)))
    return monitor


@pytest.mark.parametrize("sent", [[(0, 0)], [(0, 1)], [(0, 0), (5, 1), (5, 0)], [(0, 1), (2**31 - 1, 1)]])
def test_what_the_engine_may_say(sent):
    """(TSval, TSecr) behind the SYNs': the clock may stand still, and an older one may be echoed again."""
    monitor = opened()
    for later, echo in sent:
        monitor.from_engine(ours("A", wnd=WND, data=bytes(1448), options=stamps(OURS + later, THEIRS + echo)))
    ((_, flow),) = monitor.all_flows()
    assert flow.timestamps.agreed and flow.timestamps.sent == 1 + len(sent)


# (name, segment of ours, what is said of it)
WRONG = [
    ("none", ours("A", wnd=WND), "no timestamps"),
    ("the clock goes back", ours("A", wnd=WND, options=stamps(OURS - 1, THEIRS)), "behind"),
    ("an echo of nothing", ours("A", wnd=WND, options=stamps(OURS, THEIRS + 2)), "never given"),
    ("no echo", ours("A", wnd=WND, options=stamps(OURS, 0)), "never given"),
    ("no room", ours("A", wnd=WND, data=bytes(1449), options=stamps(OURS, THEIRS)), "1449 bytes and 12 of options"),
]


@pytest.mark.parametrize(("segment", "said"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_what_the_engine_must_not_say(segment, said):
    monitor = opened()
    with pytest.raises(WireError, match=said):
        monitor.from_engine(segment)


def test_syn_ack_offers_nothing_by_itself():
    with pytest.raises(WireError, match="SYN without"):
        opened(peers=False)


def test_declined_is_declined():
    monitor = opened(our_own=False)
    monitor.from_engine(ours("A", wnd=WND))
    with pytest.raises(WireError, match="not both SYNs"):
        monitor.from_engine(ours("A", wnd=WND, options=stamps(OURS, THEIRS)))


@pytest.mark.parametrize("agreed", [True, False])
def test_active_open(agreed):
    monitor = WireMonitor(mac=mac_number(OUR_MAC), ip=ip_number(US))
    with pytest.raises(WireError, match="without an ACK"):
        monitor.from_engine(ours("S", seq=0, ack=0, wnd=WND, options=[MSS, *stamps(OURS, 7)]))
    monitor = WireMonitor(mac=mac_number(OUR_MAC), ip=ip_number(US))
    monitor.from_engine(ours("S", seq=0, ack=0, wnd=WND, options=[MSS, *stamps(OURS, 0)]))
    monitor.to_engine(theirs("SA", seq=0, wnd=WND, options=[MSS] + stamps(THEIRS, OURS) * agreed))
    monitor.from_engine(ours("A", wnd=WND, options=stamps(OURS, THEIRS) * agreed))
    ((_, flow),) = monitor.all_flows()
    assert flow.timestamps.agreed == agreed
    with pytest.raises(WireError, match="timestamps"):
        monitor.from_engine(ours("A", wnd=WND, options=stamps(OURS, THEIRS) * (not agreed)))


def test_what_is_packed_is_parsed():
    segment = Segment(1, 2, 3, 4, 5, 6, SYN | ACK, 7, 1460, 3, b"", True, (), 0, 2, (0xFFFFFFFF, 0x80000000))
    frame = bytes(12) + b"\x08\x00" + pack_tcp(segment)
    assert parse_tcp(frame) == segment
