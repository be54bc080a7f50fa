"""Limited transmit, RFC 3042: the first two duplicate ACKs let out a new segment each, and so bring about the third."""

import pytest

from tests.hdl.flow.bench import M32, FlowBench, FlowOp, Segment, Status
from tiptoe_hdl.messages import Congestion

AROUND_THE_WRAP = pytest.mark.parametrize("wrap", [-1, 0, 1, 9999, 10000, 10001, 11000, 40000])


def data(sent):
    """(seq, length) of the segments that carry payload."""
    return [(s.seq, s.length) for s in sent if s.length]


def established(wrap=40000, waiting=16000, wnd=60000, **settings):
    """Ten segments of 1,000 bytes under way, which is the initial window; ``waiting`` bytes have been written. Our sequence
    numbers pass 0 ``wrap`` bytes behind the first one's."""
    b = FlowBench(**settings)
    b.iss = -(1 + wrap) & M32
    b.established(mss=1000, wnd=wnd)
    assert len(data(b.bell(0, waiting))) == 10
    return b


def duplicate(b, wnd=60000, ack=1):
    return data(b.receive(Segment("A", ack=ack, wnd=wnd))[0])


@AROUND_THE_WRAP
@pytest.mark.parametrize("algorithm", Congestion)
def test_first_and_second_duplicate_ack_let_out_a_new_segment_each(wrap, algorithm):
    b = established(wrap)
    assert b.request(FlowOp.CONGESTION, a=algorithm.value) == Status.OK
    assert duplicate(b) == [(10001, 1000)] and b.tcb()["cwnd"] == 10000
    assert duplicate(b) == [(11001, 1000)] and b.tcb()["cwnd"] == 10000
    assert duplicate(b) == [(1, 1000)]
    tcb = b.tcb()
    assert tcb["ssthresh"] == 5000 and tcb["cwnd"] == 8000, "half of what was under way before (RFC 5681 section 3.2)"
    b.receive(Segment("A", ack=12001, wnd=60000))
    assert b.tcb()["cwnd"] == 5000 and not b.tcb()["in_recovery"]


def test_three_segments_of_window_the_first_lost_no_timeout_is_needed():
    """What limited transmit is for: two duplicate ACKs come back of a flight of three."""
    b = FlowBench(rto_initial=10, rto_min=10)
    b.syn_sent()
    b.ticks(31)  # the SYN went three times: one segment of window
    b.receive(Segment("SA", seq=0, ack=1, wnd=60000, mss=1000))
    assert len(data(b.bell(0, 8000))) == 1
    assert len(data(b.receive(Segment("A", ack=1001, wnd=60000))[0])) == 2
    assert len(data(b.receive(Segment("A", ack=2001, wnd=60000))[0])) == 2
    assert duplicate(b, ack=2001) == [(5001, 1000)]
    assert duplicate(b, ack=2001) == [(6001, 1000)]
    assert duplicate(b, ack=2001) == [(2001, 1000)], "fast retransmit"


@pytest.mark.parametrize("wnd", [10000, 10999])
def test_receiver_s_window_does_not_allow_it(wnd):
    b = established(wnd=wnd)
    assert duplicate(b, wnd) == duplicate(b, wnd) == []
    assert duplicate(b, wnd) == [(1, 1000)] and b.tcb()["ssthresh"] == 5000


def test_receiver_s_window_allows_one():
    b = established(wnd=11000)
    assert duplicate(b, 11000) == [(10001, 1000)]
    assert duplicate(b, 11000) == []


def test_no_new_data_nothing_goes():
    b = established(waiting=10000)
    assert duplicate(b) == duplicate(b) == []
    assert duplicate(b) == [(1, 1000)] and b.tcb()["ssthresh"] == 5000


def test_less_than_a_segment_is_left():
    b = established(waiting=10300)
    assert duplicate(b) == [(10001, 300)]
    assert duplicate(b) == []
    assert duplicate(b) == [(1, 1000)]


def test_fin_goes_with_what_is_let_out():
    b = established(waiting=10300)
    b.close(10300)
    sent, _ = b.receive(Segment("A", ack=1, wnd=60000))
    assert [(s.flags, s.seq, s.length) for s in sent] == [("AFP", 10001, 300)]


def test_segments_only_out_of_order_window_and_flight_are_as_before():
    b = established()
    duplicate(b)
    duplicate(b)
    sent, _ = b.receive(Segment("A", ack=3001, wnd=60000))
    tcb = b.tcb()
    assert tcb["dupacks"] == 0 and tcb["cwnd"] == 11000 and tcb["in_recovery"] == 0
    assert sum(length for _, length in data(sent)) == 11000 - 9000, "what was let out counts as under way"


@pytest.mark.parametrize(
    "other",
    [
        Segment("A", length=10),  # data of the peer's
        Segment("A", wnd=59999),  # a window update
        Segment("R", seq=2),
        Segment("S", seq=2),
        Segment("A", seq=40000),
        Segment("A", ack=50000),
        Segment("A", ack=-100),
    ],
)
def test_other_segments_let_out_nothing(other):
    b = established()
    assert data(b.receive(other.but(wnd=59999 if other.wnd == 59999 else 60000))[0]) == []
    assert b.tcb()["snd_max"] == (b.iss + 10001) & M32


def test_timers_and_doorbells_between_let_out_nothing():
    b = established()
    duplicate(b)
    assert data(b.bell(0, 16300)) == [] and data(b.bell(1, 0)) == []
    b.ticks(5)
    assert data(b.sent()) == []
    assert duplicate(b) == [(11001, 1000)]


def test_after_a_timeout_duplicate_acks_repeat_nothing():
    b = established(rto_initial=10, rto_min=10)
    b.ticks(12)
    assert data(b.sent()) == [(1, 1000)]
    assert duplicate(b) == duplicate(b) == duplicate(b) == []
    assert b.tcb()["cwnd"] == 1000


def test_timeout_behind_limited_transmit_halves_what_was_under_way_before():
    b = established(rto_initial=10, rto_min=10)
    duplicate(b)
    duplicate(b)
    b.ticks(12)
    assert b.tcb()["ssthresh"] == 5000


def test_in_recovery_each_duplicate_ack_inflates_as_ever():
    b = established()
    for _ in range(3):
        duplicate(b)
    assert b.tcb()["cwnd"] == 8000
    assert [duplicate(b) for _ in range(4)] == [[], [], [], []], "12 segments under way"
    assert duplicate(b) == [(12001, 1000)] and b.tcb()["cwnd"] == 13000


def test_transmit_path_has_no_room_nothing_is_lost():
    b = established()
    b.tx_ready = False
    for _ in range(3):
        b.receive(Segment("A", ack=1, wnd=60000))
    b.tx_ready = True
    b.cycles(400)
    sent = data(b.sent())
    assert (1, 1000) in sent and all(seq == 1 or 10001 <= seq <= 11001 for seq, _ in sent)
    assert b.tcb()["ssthresh"] == 5000
