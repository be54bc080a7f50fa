"""Loss recovery in the pipeline: RFC 6298, RFC 5681, RFC 6582, and probing of a closed window (RFC 9293 section 3.8.6.1)."""

import pytest

from tests.hdl.flow.bench import FlowBench, FlowOp, Reason, Segment, State, Status
from tiptoe_hdl.messages import Congestion


def data(sent):
    """(seq, length) of the segments that carry payload."""
    return [(s.seq, s.length) for s in sent if s.length]


def test_syn_sent_timeout_doubles_then_gives_up():
    b = FlowBench(rto_initial=10, rto_min=1, rexmt_max=4)
    b.syn_sent()
    for wait in (10, 20, 40, 80):
        assert b.ticks_until_sent(200) == wait
        assert [s.flags for s in b.sent()] == ["S"]
    b.ticks(160)
    report = b.report()
    assert report.terminal and Reason(report.reason) == Reason.TIMEOUT and not report.established
    assert State(report.state) == State.CLOSED


def shown_times(b):
    tcb = b.tcb()
    return tcb["rtt_valid"], tcb["srtt"] / 8, tcb["rttvar"] / 4, tcb["rto"]


def test_syn_sent_the_handshake_is_the_first_measurement():
    b = FlowBench(rto_min=1)
    b.syn_sent()
    b.ticks(30)
    b.receive(Segment("SA", seq=0, ack=1, wnd=8192, mss=1000))
    # RFC 6298 section 2.2: SRTT is the measurement, RTTVAR half of it, RTO = SRTT + 4 * RTTVAR.
    assert shown_times(b) == (1, 30, 15, 90)
    b.ticks(500)  # idle time is not measured
    b.bell(0, 1000)
    b.ticks(30)
    b.receive(Segment("A", ack=1001))
    assert shown_times(b) == (1, 30, 11.25, 75)


def test_syn_sent_a_repeated_syn_measures_nothing():
    b = FlowBench(rto_initial=10, rto_min=1)
    b.syn_sent()
    assert b.ticks_until_sent(20) == 10
    b.ticks(3)
    b.receive(Segment("SA", seq=0, ack=1, wnd=8192, mss=1000))
    assert b.tcb()["rtt_valid"] == 0, "which of the two was acknowledged? (section 3, Karn's algorithm)"


def test_established_timeout_goes_back_and_shrinks_cwnd():
    b = FlowBench(rto_initial=10, rto_min=10)
    b.established(mss=1000)
    b.bell(0, 3000)
    b.cycles(80)
    b.ticks(12)
    sent = b.sent()
    assert data(sent) == [(1, 1000)], sent
    # One segment of congestion window: the next one goes when the first is acknowledged.
    sent, _ = b.receive(Segment("A", ack=1001))
    assert data(sent) == [(1001, 1000), (2001, 1000)]


def test_established_three_duplicate_acks_retransmit():
    b = FlowBench()
    b.established(mss=1000, wnd=60000)
    sent = b.bell(0, 10000)
    assert data(sent) == [(1 + 1000 * k, 1000) for k in range(10)]
    for _ in range(2):
        sent, _ = b.receive(Segment("A", ack=1, wnd=60000))
        assert sent == []
    sent, _ = b.receive(Segment("A", ack=1, wnd=60000))
    assert data(sent) == [(1, 1000)]
    # Partial acknowledgement: the next hole at once.
    sent, _ = b.receive(Segment("A", ack=3001, wnd=60000))
    assert data(sent) == [(3001, 1000)]
    sent, _ = b.receive(Segment("A", ack=10001, wnd=60000))
    assert sent == []
    report = b.report()
    assert report.snd_una_position == 10000


def lossy(b, algorithm):
    """Ten segments sent by this algorithm, the first one lost, and repeated after three duplicate ACKs."""
    b.established(mss=1000, wnd=60000)
    assert b.request(FlowOp.CONGESTION, a=algorithm.value) == Status.OK
    b.bell(0, 10000)
    for _ in range(3):
        sent, _ = b.receive(Segment("A", ack=1, wnd=60000))
    assert data(sent) == [(1, 1000)]


@pytest.mark.parametrize("algorithm, repeated", [(Congestion.NEWRENO, [(3001, 1000)]), (Congestion.RENO, [])])
def test_established_partial_ack_by_algorithm(algorithm, repeated):
    b = FlowBench()
    lossy(b, algorithm)
    sent, _ = b.receive(Segment("A", ack=3001, wnd=60000))
    assert data(sent) == repeated
    assert b.tcb()["in_recovery"] == (algorithm == Congestion.NEWRENO)


def test_established_reno_leaves_recovery_with_half_the_flight():
    b = FlowBench()
    lossy(b, Congestion.RENO)
    b.receive(Segment("A", ack=3001, wnd=60000))
    tcb = b.tcb()
    assert tcb["cwnd"] == tcb["ssthresh"] == 5000 and tcb["algorithm"] == Congestion.RENO.value


def test_first_loss_after_two_gibibytes_is_repeated_by_duplicate_acks():
    """recover, of before, must not seem to lie ahead."""
    b = FlowBench(rto_initial=1000)
    at = b.two_gibibytes()
    b.bell(0, at + 40_000 & 0xFFFFFFFF)
    for _ in range(3):
        sent, _ = b.receive(Segment("A", ack=1 + at, wnd=65535))
    assert data(sent) == [((1 + at) & 0xFFFFFFFF, 4000)]


@pytest.mark.parametrize("algorithm", Congestion)
def test_established_algorithm_may_change_in_recovery(algorithm):
    b = FlowBench()
    lossy(b, Congestion.NEWRENO)
    assert b.request(FlowOp.CONGESTION, a=algorithm.value) == Status.OK
    b.receive(Segment("A", ack=3001, wnd=60000))
    b.receive(Segment("A", ack=10001, wnd=60000))
    assert b.tcb()["in_recovery"] == 0


@pytest.mark.parametrize("wrap", [0, 5000, 9999, 10000, 10001])
def test_spoofed_duplicate_acks_open_the_window_by_what_is_under_way_only(wrap):
    b = FlowBench()
    b.iss = -(1 + wrap) & 0xFFFFFFFF
    b.established(mss=1000, wnd=60000)
    b.bell(0, 10000)
    for _ in range(3 + 100):
        b.receive(Segment("A", ack=1, wnd=60000), settle=40)
    tcb = b.tcb()
    assert tcb["ssthresh"] == 5000 and 15000 <= tcb["cwnd"] < 15000 + 1000
    b.receive(Segment("A", ack=10001, wnd=60000))
    assert b.tcb()["cwnd"] == 5000 and not b.tcb()["in_recovery"]


def test_a_new_life_of_the_id_begins_with_newreno():
    b = FlowBench()
    b.established()
    assert b.request(FlowOp.CONGESTION, a=Congestion.RENO.value) == Status.OK
    assert b.request(FlowOp.ABORT) == b.request(FlowOp.RELEASE) == Status.OK
    assert b.request(FlowOp.CONGESTION, a=0) == Status.BAD_ID
    assert b.provision() == Status.OK
    assert b.request(FlowOp.CONGESTION, a=1) == Status.BAD_STATE, "not open"
    b.request(FlowOp.RELEASE)
    b.established()
    assert b.tcb()["algorithm"] == Congestion.NEWRENO.value


def test_established_window_closed_is_probed_forever():
    b = FlowBench(rto_initial=10, rto_min=10, rexmt_max=3, rto_max=320)
    b.established(mss=1000, wnd=500)
    sent = b.bell(0, 1500)
    assert data(sent) == [(1, 500)]
    sent, _ = b.receive(Segment("A", ack=501, wnd=0))
    assert sent == []
    for wait in (10, 20, 40, 80, 160, 320, 320):
        b.ticks(wait + 1)
        sent = b.sent()
        assert data(sent) == [(501, 1)], (wait, sent)
        sent, _ = b.receive(Segment("A", ack=501, wnd=0))
        assert sent == []
    sent, _ = b.receive(Segment("A", ack=501, wnd=5000))
    assert data(sent) == [(501, 1000)], "the probe's byte goes with the rest"
    assert b.state() == State.ESTABLISHED


def test_established_shrunk_window_with_data_in_flight_is_probed():
    b = FlowBench(rto_initial=10, rto_min=10)
    b.established(mss=1000, wnd=4000)
    b.bell(0, 2000)
    sent, _ = b.receive(Segment("A", ack=1001, wnd=0))
    assert data(sent) == []
    b.ticks(12)
    assert data(b.sent()) == [(1001, 1)]
    sent, _ = b.receive(Segment("A", ack=1001, wnd=4000))
    assert data(sent) == [(1001, 1000)]


def test_established_silly_window_is_not_filled():
    b = FlowBench()
    b.established(mss=1000, wnd=4000)
    b.bell(0, 4000)
    b.sent()
    sent = b.bell(0, 6000)
    assert data(sent) == []
    sent, _ = b.receive(Segment("A", ack=1001, wnd=3100))  # 100 bytes more
    assert data(sent) == []
    sent, _ = b.receive(Segment("A", ack=2001, wnd=4000))
    assert data(sent) == [(4001, 1000), (5001, 1000)]


@pytest.mark.parametrize(
    "order", [(1, 0, 2), (2, 1, 0), (2, 0, 1), (1, 2, 0), (3, 1, 0, 2), (3, 1, 2, 0), (1, 3, 0, 2)]
)
def test_established_out_of_order_data_is_placed(order):
    b = FlowBench()
    b.established()
    have = set()
    for k in order:
        sent, verdict = b.receive(Segment("A", seq=1 + 100 * k, length=100))
        have.add(k)
        contiguous = next(n for n in range(10) if n not in have)
        assert verdict.position == 100 * k and verdict.length == 100 and verdict.skip == 0
        assert verdict.upto == 100 * contiguous
        gap_before = set(range(k)) - have
        fills = any(n > k for n in have)
        if gap_before or fills:
            assert [s.ack for s in sent] == [1 + 100 * contiguous], "an ACK at once, RFC 5681 section 4.2"


def test_established_gap_beyond_what_it_remembers_is_not_placed():
    b = FlowBench()
    b.established()
    gaps = [2 + 2 * k for k in range(b.cfg.ooo_intervals)]
    for k in gaps:
        _, verdict = b.receive(Segment("A", seq=1 + 100 * k, length=100))
        assert verdict.length == 100
    beyond = gaps[-1] + 2
    sent, verdict = b.receive(Segment("A", seq=1 + 100 * beyond, length=100))
    assert verdict.length == 0 and [s.ack for s in sent] == [1]
    # Still extends an interval it touches, and joins two.
    _, verdict = b.receive(Segment("A", seq=301, length=100))
    assert verdict.length == 100
    _, verdict = b.receive(Segment("A", seq=1 + 100 * beyond, length=100))
    assert verdict.length == 100
    _, verdict = b.receive(Segment("A", seq=1, length=200))
    assert verdict.upto == 500
    for k in (*gaps[2:], beyond):
        _, verdict = b.receive(Segment("A", seq=1 + 100 * (k - 1), length=150))
        assert verdict.upto == 100 * (k + 1)


def test_established_overlapping_data_is_cut():
    b = FlowBench()
    b.established()
    b.receive(Segment("A", seq=1, length=100))
    sent, verdict = b.receive(Segment("A", seq=51, length=100))
    assert (verdict.position, verdict.skip, verdict.length, verdict.upto) == (100, 50, 50, 150)
    sent, verdict = b.receive(Segment("A", seq=1, length=100))
    assert verdict.length == 0 and [s.ack for s in sent] == [151]


def test_established_beyond_window_is_cut_and_refused():
    b = FlowBench()
    b.established()
    for k in range(16):
        b.receive(Segment("A", seq=1 + 1000 * k, length=1000))
    sent, verdict = b.receive(Segment("A", seq=16001, length=1000))
    assert (verdict.position, verdict.length, verdict.upto) == (16000, 384, 16384)
    sent, verdict = b.receive(Segment("A", seq=16385, length=1))
    assert verdict.length == 0 and [(s.ack, s.wnd) for s in sent] == [(16385, 0)]
    # A little room is not told; two segments' worth is.
    assert b.bell(1, 1000) == []
    assert [(s.ack, s.wnd) for s in b.bell(1, 3000)] == [(16385, 3000)]


def test_established_timeout_follows_the_round_trip_time():
    b = FlowBench(rto_initial=100, rto_min=5)
    b.established(mss=1000, wnd=60000, rtt=20)
    position = 0
    for _ in range(30):  # a steady round trip of 20 ticks
        position += 100
        b.bell(0, position)
        b.ticks(20)
        assert b.sent() == []
        b.receive(Segment("A", ack=1 + position, wnd=60000))
    b.bell(0, position + 100)
    # srtt is 20 and rttvar has decayed: a little more than one round trip, far from the 100 it began with.
    assert 20 <= b.ticks_until_sent(100) <= 26


def test_established_retransmitted_segment_gives_no_sample():
    b = FlowBench(rto_initial=50, rto_min=5)
    b.established(mss=1000, wnd=60000, rtt=10)  # R = 10: the time-out is 10 + 4 * 5 = 30
    b.bell(0, 100)
    assert 29 <= b.ticks_until_sent(60) <= 31
    b.sent()
    b.ticks(2)
    b.receive(Segment("A", ack=101, wnd=60000))  # Karn: which transmission this acknowledges is unknown
    b.bell(0, 200)
    assert 59 <= b.ticks_until_sent(70) <= 61, "doubled by the loss, and no sample since"


def test_established_congestion_window_opens():
    b = FlowBench(rto_initial=10, rto_min=10)
    b.established(mss=1000, wnd=60000)
    assert len(b.bell(0, 16000)) == 10, "RFC 6928's initial window"
    b.ticks(11)
    assert data(b.sent()) == [(1, 1000)], "everything lost: one segment, then slow start again"
    acked, flights = 1001, []
    for _ in range(3):
        sent, _ = b.receive(Segment("A", ack=acked, wnd=60000))
        flights.append(len(data(sent)))
        acked += 1000 * flights[-1]
    # Each ACK covers a whole flight and opens the window by one segment (RFC 3465 with L = 1).
    assert flights == [2, 3, 4]
