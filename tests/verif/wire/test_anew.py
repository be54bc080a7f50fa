"""Connections that begin anew with both numbers of before, to the wire monitor (RFC 4987 section 3.6, RFC 9293 section 3.10.7).

A SYN cookie is a function of four-tuple, IRS and a slow clock: whoever says the SYN or returns the cookie once more when his
connection has ended gets another one of the same ISS. The engine is right then; the monitor must not take it for the old one.
"""

from __future__ import annotations

import pytest

from tests.verif.wire.test_wire import OUR_MAC, US, ours, theirs
from tiptoe_verif.wire.monitor import WireError, WireMonitor
from tiptoe_verif.wire.segment import ip_number, mac_number

TEXT = bytes(400)  # sequence numbers wrap around inside it, in either direction
SYN_ACK = ours("SA", seq=0, options=[("MSS", 1460)])


@pytest.fixture
def monitor():
    """A cookie, returned: the SYN,ACK comes twice; the peer's text has been acknowledged, and ours is under way."""
    monitor = WireMonitor(mac=mac_number(OUR_MAC), ip=ip_number(US))
    monitor.to_engine(theirs("S", seq=0, options=[("MSS", 600)]))
    monitor.from_engine(SYN_ACK)
    monitor.to_engine(theirs("A"))
    monitor.from_engine(SYN_ACK)
    monitor.to_engine(theirs("A"))
    monitor.to_engine(theirs("A", data=TEXT))
    monitor.from_engine(ours("A", ack=401, wnd=600, data=TEXT))
    return monitor


THEIRS, OURS = "to_engine", "from_engine"
CLOSED = [
    (THEIRS, theirs("FA", seq=401, ack=401)),
    (OURS, ours("FA", seq=401, ack=402)),
    (THEIRS, theirs("A", seq=402, ack=402)),
]
# What shows of an end, in either direction.
ENDS = {
    "the peer's reset": [(THEIRS, theirs("RA", seq=401))],
    "our reset": [(OURS, ours("RA", seq=401, ack=401))],
    "both FINs": CLOSED,
    "both FINs, ours first": [
        (OURS, ours("FA", seq=401, ack=401, wnd=600)),
        (THEIRS, theirs("FA", seq=401, ack=402)),
        (OURS, ours("A", seq=402, ack=402)),
    ],
    "time-out": [(OURS, ours("A", ack=401, wnd=600, data=TEXT))] * 3,
    "time-out of a FIN": [(OURS, ours("FA", seq=401, ack=401, wnd=600))] * 2,
    "time-out of a closed window": [
        (OURS, ours("A", seq=401, ack=401, wnd=600, data=bytes(600))),
        (THEIRS, theirs("A", seq=401, ack=1001, wnd=0)),
        (OURS, ours("A", seq=1001, ack=401, wnd=600, data=b"p")),
    ],
}
# What makes the engine send the SYN,ACK once more.
ASKED = {
    "its SYN": theirs("S", seq=0, options=[("MSS", 600)]),
    "its ACK of the cookie": theirs("A"),
    "its first text": theirs("A", data=TEXT),
    "its FIN, all text lost": theirs("FA"),
}


def play(monitor, frames):
    for way, frame in frames:
        getattr(monitor, way)(frame)


def ids(table):
    return [name.replace(" ", "-") for name in table]


@pytest.mark.parametrize("asked", ASKED.values(), ids=ids(ASKED))
@pytest.mark.parametrize("end", ENDS.values(), ids=ids(ENDS))
def test_begins_anew(monitor, end, asked):
    play(monitor, end)
    monitor.to_engine(asked)
    monitor.from_engine(SYN_ACK)
    monitor.to_engine(theirs("A", data=b"x"))
    monitor.from_engine(ours("A", ack=2, wnd=999, data=b"other bytes"))
    assert [flow.bytes_sent for _, flow in monitor.all_flows()][1:] == [11]
    with pytest.raises(WireError, match="less than before"):
        monitor.from_engine(SYN_ACK)  # this one lives


@pytest.mark.parametrize("end", ENDS.values(), ids=ids(ENDS))
def test_does_not_begin_anew_by_itself(monitor, end):
    play(monitor, end)
    with pytest.raises(WireError, match=r"less than before|after the connection's RST"):
        monitor.from_engine(SYN_ACK)


@pytest.mark.parametrize("end", ["the peer's reset", "both FINs"])
def test_does_not_begin_anew_by_what_came_before_the_peer_ended_it(monitor, end):
    monitor.to_engine(theirs("A"))
    play(monitor, ENDS[end])
    with pytest.raises(WireError, match="less than before"):
        monitor.from_engine(SYN_ACK)


@pytest.mark.parametrize("end", ["the peer's reset", "our reset", "both FINs"])
@pytest.mark.parametrize(
    "other",
    [
        theirs("SA", seq=0),
        theirs("A", seq=2),
        theirs("A", ack=2),
        theirs("A", seq=401, ack=401),
        theirs("RA"),
        theirs("R"),
    ],
    ids=["SYN,ACK", "another-SEQ", "another-ACK", "the-last-ACK", "RST,ACK", "RST"],
)
def test_does_not_begin_anew_by_what_is_neither_its_syn_nor_returns_the_cookie(monitor, end, other):
    play(monitor, ENDS[end])
    monitor.to_engine(other)
    with pytest.raises(WireError, match=r"less than before|after the connection's RST"):
        monitor.from_engine(SYN_ACK)


@pytest.mark.parametrize("asked", ASKED.values(), ids=ids(ASKED))
def test_connection_that_lives_does_not_begin_anew(monitor, asked):
    """Its SYN gets a challenge ACK, and old text an ACK (RFC 9293 section 3.10.7.4)."""
    monitor.to_engine(asked)
    with pytest.raises(WireError, match="less than before"):
        monitor.from_engine(SYN_ACK)


def test_asked_while_our_reset_waits_for_the_line(monitor):
    monitor.to_engine(theirs("A"))
    monitor.from_engine(ours("RA", seq=401, ack=401))
    monitor.from_engine(SYN_ACK)


@pytest.mark.parametrize("asked", ["the cookie's second ACK", "a SYN within a step of the clock of sequence numbers"])
def test_half_open_connection_that_we_have_reset(asked):
    """The host drops it, while the ACK of its SYN,ACK is on its way and returns the cookie; or the peer says its SYN at once."""
    syn = theirs("S", seq=0, options=[("MSS", 600)])
    fresh = WireMonitor(mac=mac_number(OUR_MAC), ip=ip_number(US))
    play(fresh, [(THEIRS, syn), (OURS, SYN_ACK)])
    if asked == "the cookie's second ACK":
        play(fresh, [(THEIRS, theirs("A")), (OURS, SYN_ACK), (THEIRS, theirs("A")), (OURS, ours("RA"))])
    else:
        play(fresh, [(OURS, ours("RA")), (THEIRS, syn)])
    fresh.from_engine(SYN_ACK)
    assert len(fresh.all_flows()) == 2
    fresh.to_engine(theirs("A"))
    fresh.from_engine(ours("A", data=b"x"))


def test_what_came_before_its_syn_ack_left_is_of_the_new_one(monitor):
    """The line stands still: the handshake's ACK with a window, and text, are there before the SYN,ACK shows."""
    monitor.to_engine(theirs("RA", seq=401))
    monitor.to_engine(theirs("A", wnd=0))
    monitor.to_engine(theirs("A", wnd=1100, data=bytes(300)))
    monitor.from_engine(SYN_ACK)
    monitor.from_engine(ours("A", ack=301, wnd=700, data=bytes(600)))
    monitor.from_engine(ours("A", seq=601, ack=301, wnd=700, data=bytes(500)))
    with pytest.raises(WireError, match="acknowledges 1 bytes the engine was never given"):
        monitor.from_engine(ours("A", seq=1101, ack=302, wnd=699))
    with pytest.raises(WireError, match="2 bytes beyond the peer's window"):
        monitor.from_engine(ours("A", seq=1101, ack=301, wnd=700, data=b"xx"))
