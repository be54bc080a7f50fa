"""Which of the peer's SYNs the engine's first acknowledgement means, to the wire monitor (RFC 9293 section 3.10.7.3).

The SYNs of a four-tuple's former connections stay known: the peer may send them again.
"""

from __future__ import annotations

import pytest

from tests.verif.wire.test_wire import OUR_MAC, US, ours, theirs
from tiptoe_verif.wire.monitor import WireError, WireMonitor
from tiptoe_verif.wire.segment import ip_number, mac_number

MSS, SCALE = ("MSS", 600), ("WScale", 7)
TEXT = bytes(100)


def opening(*, before=(), behind, options=(("MSS", 1460),)) -> WireMonitor:
    """The engine has sent a SYN of a window of 1000, and the peer, ``before`` and ``behind`` it, these frames."""
    monitor = WireMonitor(mac=mac_number(OUR_MAC), ip=ip_number(US))
    for frame in before:
        monitor.to_engine(frame)
    monitor.from_engine(ours("S", seq=0, options=options))
    for frame in behind:
        monitor.to_engine(frame)
    return monitor


ANSWER = theirs("SA", seq=0, data=TEXT, options=[MSS])  # the numbers wrap around inside its text
# What the peer has sent before our SYN and behind it. In each case the engine takes ANSWER with all of its text, and the window's
# edge stays where our SYN has put it, 1000 behind IRS + 1.
TAKEN = {
    "alone": ([], [ANSWER]),
    "a former SYN stands inside its text": ([theirs("S", seq=50)], [ANSWER]),
    "a former SYN with text of its own": ([theirs("S", seq=50, data=TEXT)], [ANSWER]),
    "a former SYN stands before it": ([theirs("S", seq=-50)], [ANSWER]),
    "a former SYN comes again behind our SYN": ([], [theirs("S", seq=100), ANSWER]),
    "a SYN,ACK of what we have not sent": ([theirs("SA", seq=50, ack=5000)], [ANSWER]),
    "a SYN,ACK of a former SYN of ours": ([], [theirs("SA", seq=50, ack=-5000), ANSWER]),
    "another SYN,ACK behind it": ([], [ANSWER, theirs("SA", seq=50)]),
    "another SYN,ACK, to the left, was lost": ([], [theirs("SA", seq=-50), ANSWER]),
    "another SYN,ACK, inside its text, was lost": ([], [theirs("SA", seq=50), ANSWER]),
}


@pytest.mark.parametrize(("before", "behind"), TAKEN.values(), ids=[name.replace(" ", "-") for name in TAKEN])
def test_first_ack_of_text_on_the_syn_ack(before, behind):
    monitor = opening(before=before, behind=behind)
    monitor.from_engine(ours("A", ack=101, wnd=900))
    with pytest.raises(WireError, match="right edge 1 bytes to the left"):
        monitor.from_engine(ours("A", ack=101, wnd=899))


@pytest.mark.parametrize(
    "former", [[], [theirs("S", seq=50)], [theirs("SA", seq=50, ack=5000)]], ids=["none", "SYN", "SYN,ACK"]
)
def test_first_ack_takes_back_what_our_syn_has_granted(former):
    monitor = opening(before=former, behind=[ANSWER])
    with pytest.raises(WireError, match="right edge 1 bytes to the left"):
        monitor.from_engine(ours("A", ack=101, wnd=899))


@pytest.mark.parametrize("former", [theirs("S", seq=50, options=[("MSS", 1460), SCALE]), theirs("S", seq=50)])
def test_options_are_those_of_the_syn_taken(former):
    """Not a former SYN's: neither its largest segment nor its scale, or that it had none."""
    monitor = opening(before=[former], behind=[ANSWER], options=[("MSS", 1460), ("WScale", 2)])
    monitor.from_engine(ours("A", ack=101, wnd=900))
    with pytest.raises(WireError, match="right edge 675 bytes to the left"):
        monitor.from_engine(ours("A", ack=101, wnd=225))  # 900 >> 2
    with pytest.raises(WireError, match="601 bytes, but the peer takes segments of 600"):
        monitor.from_engine(ours("A", ack=101, wnd=900, data=bytes(601)))


def test_scale_is_that_of_the_syn_taken():
    answer = theirs("SA", seq=0, data=TEXT, options=[MSS, SCALE])
    monitor = opening(before=[theirs("S", seq=50)], behind=[answer], options=[("MSS", 1460), ("WScale", 2)])
    monitor.from_engine(ours("A", ack=101, wnd=225))
    with pytest.raises(WireError, match="right edge 4 bytes to the left"):
        monitor.from_engine(ours("A", ack=101, wnd=224))


def test_window_before_it_is_known_which_syn_was_taken():
    """The peer's next window comes before our ACK has left, and behind another SYN of a smaller scale."""
    small, answer = (
        theirs("S", seq=50, wnd=10, options=[MSS, ("WScale", 2)]),
        theirs("SA", seq=0, wnd=10, options=[MSS, SCALE]),
    )
    monitor = opening(behind=[small, answer, theirs("A", wnd=10)], options=[("MSS", 1460), ("WScale", 2)])
    monitor.from_engine(ours("A", data=bytes(600)))
    monitor.from_engine(ours("A", seq=601, data=bytes(600)))
    with pytest.raises(WireError, match="2 bytes beyond the peer's window"):
        monitor.from_engine(ours("A", seq=1201, data=bytes((10 << 7) - 1200 + 2)))


@pytest.mark.parametrize("ack", [0, 2, 5000])
def test_syn_ack_of_another_number_is_never_taken(ack):
    """SEG.ACK =< ISS, or SEG.ACK > SND.NXT: a reset, and nothing else."""
    monitor = opening(behind=[theirs("SA", seq=0, ack=ack)])
    with pytest.raises(WireError, match="SYN the engine was never given"):
        monitor.from_engine(ours("A", ack=1))


def test_syn_that_crosses_ours_is_acknowledged_beside_a_former_one():
    """Figure 8: the SYN,ACK says which SYN was taken; our ACK of the peer's SYN,ACK says no more."""
    monitor = opening(before=[theirs("S", seq=-50)], behind=[theirs("S", seq=0)])
    monitor.from_engine(ours("SA", seq=0, ack=1, options=[("MSS", 1460)]))
    monitor.to_engine(theirs("SA", seq=0))
    with pytest.raises(WireError, match="right edge 1 bytes to the left"):
        monitor.from_engine(ours("A", ack=1, wnd=999))
