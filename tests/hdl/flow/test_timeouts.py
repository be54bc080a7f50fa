"""The retransmission time-out: RFC 6298 with Karn's algorithm; how often, and when, something is sent again."""

import pytest

from tests.hdl.flow.bench import M32, FlowBench, Segment


def data(sent):
    """(seq, length) of the segments that carry payload."""
    return [(s.seq, s.length) for s in sent if s.length]


def request(b, position, round_trip):
    """100 bytes sent, acknowledged ``round_trip`` ticks later; returns what was sent in between."""
    b.bell(0, position + 100)
    b.ticks(round_trip)
    times = len(data(b.sent())) + 1
    b.receive(Segment("A", ack=1 + position + 100, wnd=60000))
    return times


def test_syn_repeated_once_round_trip_of_one_and_a_half_timeouts_no_request_goes_twice():
    b = FlowBench(rto_initial=10, rto_min=10)
    b.syn_sent()
    assert b.ticks_until_sent(12) == 10 and [s.flags for s in b.sent()] == ["S"]
    b.ticks(5)
    b.receive(Segment("SA", seq=0, ack=1, wnd=60000, mss=1000))
    tcb = b.tcb()
    assert tcb["rto"] == 30 and tcb["rtt_valid"] == 0, "RFC 6298 section 5.7: 3 s for 1 s"
    assert tcb["cwnd"] == 10000, "RFC 6928: one repetition may be due to a long way alone"
    b.bell(0, 100)
    assert b.ticks_until_sent(14) is None
    b.receive(Segment("A", ack=101, wnd=60000))
    tcb = b.tcb()
    assert tcb["rtt_valid"] and 14 <= tcb["srtt"] / 8 <= 15 and tcb["rto"] >= 42
    assert [request(b, 100 + 100 * k, 15) for k in range(5)] == [1] * 5


def test_syn_repeated_twice_one_segment_first():
    b = FlowBench(rto_initial=10, rto_min=10)
    b.syn_sent()
    b.ticks(31)
    assert [s.flags for s in b.sent()] == ["S", "S"]
    b.receive(Segment("SA", seq=0, ack=1, wnd=60000, mss=1000))
    assert b.tcb()["cwnd"] == 1000 and b.tcb()["rto"] == 30


@pytest.mark.parametrize("rto_max, rto", [(25, 25), (60000, 30)])
def test_syn_repeated_three_times_its_own_backoff_is_not_kept(rto_max, rto):
    b = FlowBench(rto_initial=10, rto_min=10, rto_max=rto_max)
    b.syn_sent()
    b.ticks(75)
    assert len(b.sent()) >= 3
    b.receive(Segment("SA", seq=0, ack=1, wnd=60000, mss=1000))
    assert b.tcb()["rto"] == rto
    b.bell(0, 100)
    waited = b.ticks_until_sent(40)
    assert rto - 1 <= waited <= rto + 1


@pytest.mark.parametrize("wrap", [0, 50, 100, 40000])
def test_round_trip_grows_beyond_the_timeout_backoff_is_kept_until_a_clean_sample(wrap):
    b = FlowBench(rto_initial=10, rto_min=10)
    b.iss = -(1 + wrap) & M32
    b.established(mss=1000, wnd=60000)
    assert request(b, 0, 25) == 2  # again after 10; the next time after 30
    assert b.tcb()["rto"] == 20, "the ACK of a repeated segment is no sample (Karn), and leaves the time-out"
    assert request(b, 100, 25) == 2
    assert b.tcb()["rto"] == 40 and b.tcb()["rexmt_shift"] == 0
    assert request(b, 200, 25) == 1
    first = b.tcb()["rto"]
    assert first != 40, "measured"
    assert [request(b, 300 + 100 * k, 25) for k in range(5)] == [1] * 5


def test_timeouts_double_from_what_the_last_loss_has_left():
    b = FlowBench(rto_initial=10, rto_min=10, rexmt_max=4)
    b.established(mss=1000, wnd=60000)
    b.bell(0, 200)
    assert b.ticks_until_sent(12) is not None
    b.sent()
    b.receive(Segment("A", ack=101, wnd=60000))  # part of it
    for wait in (20, 40, 80, 160):
        waited = b.ticks_until_sent(200)
        assert wait - 1 <= waited <= wait + 1
        assert data(b.sent()) == [(101, 100)]
    b.ticks(330)
    assert b.report().terminal, "R2 counts since the last progress"


def test_probes_of_a_closed_window_leave_the_timeout_alone():
    b = FlowBench(rto_initial=10, rto_min=10)
    b.established(mss=1000, wnd=1000)
    b.bell(0, 1500)
    b.receive(Segment("A", ack=1001, wnd=0))
    before = b.tcb()["rto"]
    b.sent()
    for wait in (10, 20, 40, 80):
        waited = b.ticks_until_sent(100)
        assert wait - 1 <= waited <= wait + 1
        assert data(b.sent()) == [(1001, 1)]
        b.receive(Segment("A", ack=1001, wnd=0))
    assert b.tcb()["rto"] == before
    b.receive(Segment("A", ack=1001, wnd=2000))
    assert b.tcb()["rexmt_shift"] == 0


def grown(b):
    """A connection whose congestion window has grown to 25 segments of 1,000 bytes; everything is acknowledged."""
    b.established(mss=1000, wnd=60000, rtt=2)
    for position in range(1000, 16000, 1000):
        b.bell(0, position)
        b.receive(Segment("A", ack=1 + position, wnd=60000))
    assert b.tcb()["cwnd"] == 25000
    return 15000


def test_idle_for_longer_than_a_timeout_it_begins_with_the_restart_window():
    b = FlowBench(rto_initial=50, rto_min=20)
    position = grown(b)
    b.ticks(15)
    assert b.tcb()["cwnd"] == 25000, "a pause"
    b.ticks(15)
    tcb = b.tcb()
    assert tcb["cwnd"] == 10000, "RFC 5681 section 4.1"
    assert tcb["rexmt_shift"] == 0 and tcb["rexmits"] == 0 and b.sent() == []
    b.ticks(300)
    assert not b.report().terminal and b.sent() == []
    b.bell(0, position + 100)
    waited = b.ticks_until_sent(60)
    assert waited is not None and 19 <= waited <= 30, "the time-out counts from what was sent now"
    assert b.tcb()["cwnd"] == 1000


def test_idle_window_of_before_was_smaller_it_stays():
    b = FlowBench(rto_initial=10, rto_min=10)
    b.established(mss=1000, wnd=60000)
    b.bell(0, 1000)
    b.ticks(12)
    b.receive(Segment("A", ack=1001, wnd=60000))
    assert b.tcb()["cwnd"] == 2000
    b.ticks(100)
    assert b.tcb()["cwnd"] == 2000


def test_idle_never_while_something_is_under_way_or_sent_again_and_again():
    b = FlowBench(rto_initial=50, rto_min=20)
    position = grown(b)
    for k in range(10):
        b.ticks(12)
        b.bell(0, position + 100 * (k + 1))
        b.ticks(6)
        b.receive(Segment("A", ack=1 + position + 100 * (k + 1), wnd=60000))
        assert b.tcb()["cwnd"] >= 25000
    assert b.tcb()["rexmits"] == 0


def test_idle_then_a_silly_window_the_override_waits_for_a_whole_timeout():
    b = FlowBench(rto_initial=10, rto_min=10)
    b.established(mss=1000, wnd=8000)
    b.bell(0, 100)
    b.receive(Segment("A", ack=101, wnd=300))
    b.ticks(6)
    b.bell(0, 2000)
    assert 9 <= b.ticks_until_sent(20) <= 12
    assert data(b.sent()) == [(101, 300)]
