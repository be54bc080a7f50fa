"""The retransmission time-out: RFC 6298 with Karn's algorithm; how often, and when, something is sent again."""

import pytest

from tests.hdl.flow.bench import M32, FlowBench, FlowOp, Reason, Segment, State, Status


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


# --- accepted connections: the SYN,ACK was the listen unit's

ACCEPTED = pytest.mark.parametrize("wrap", [-1, 0, 1, 40000])
"""iss passes 0 so many bytes after the SYN,ACK."""


def accept(b, wrap, *, elapsed=0, repeats=0, **segment):
    """A passive open whose SYN,ACK is so old, and was repeated so often; its ACK comes now."""
    b.iss = -(1 + wrap) & M32
    assert b.provision() == Status.OK
    status = b.request(
        FlowOp.ACCEPT, port=1, a=b.iss, b=b.irs, mss=1000, rcv_scale=0, wnd=8000, elapsed=elapsed, repeats=repeats
    )
    assert status == Status.OK
    b.receive(Segment("A", **{"wnd": 60000, **segment}))
    assert b.state() == State.ESTABLISHED
    return b.tcb()


@ACCEPTED
@pytest.mark.parametrize("elapsed, rto", [(0, 10), (1, 10), (5, 15), (15, 45), (999, 2997)])
def test_accepted_the_handshake_is_the_first_sample(wrap, elapsed, rto):
    """RFC 6298 section 2.2: SRTT = R, RTTVAR = R/2, RTO = R + 4 R/2, here at least 10. The tick clock passes 0 as well."""
    b = FlowBench(rto_initial=10, rto_min=10)
    tcb = accept(b, wrap, elapsed=elapsed)
    assert tcb["rtt_valid"] and (tcb["srtt"], tcb["rttvar"], tcb["rto"]) == (8 * elapsed, 2 * elapsed, rto)
    assert tcb["cwnd"] == 10000 and tcb["rexmt_shift"] == 0
    b.bell(0, 100)
    b.ticks(5)
    b.receive(Segment("A", ack=101, wnd=60000))  # the next sample is the data's own
    srtt = b.tcb()["srtt"]
    assert abs(srtt - (8 * elapsed + (5 - elapsed))) <= 1


@ACCEPTED
def test_accepted_round_trip_is_the_acks_not_its_handlings(wrap):
    """The ACK that carries data, and one in the middle of the window, end the round trip as well."""
    b = FlowBench(rto_initial=10, rto_min=10)
    assert accept(b, wrap, elapsed=7, length=500, seq=501)["srtt"] == 56


@ACCEPTED
@pytest.mark.parametrize("rto_max, rto", [(25, 25), (60000, 30)])
def test_accepted_after_syn_ack_repeated_once(wrap, rto_max, rto):
    """Karn: no sample. RFC 6298 section 5.7: 3 s for 1 s. RFC 6928: ten segments, the way alone may be that long."""
    b = FlowBench(rto_initial=10, rto_min=10, rto_max=rto_max)
    tcb = accept(b, wrap, elapsed=400, repeats=1)
    assert (tcb["rtt_valid"], tcb["srtt"], tcb["rto"], tcb["cwnd"], tcb["rexmt_shift"]) == (0, 0, rto, 10000, 0)
    b.bell(0, 100)
    assert rto - 1 <= b.ticks_until_sent(60) <= rto + 1


@ACCEPTED
def test_accepted_after_syn_ack_repeated_twice_one_segment_first(wrap):
    b = FlowBench(rto_initial=10, rto_min=10)
    tcb = accept(b, wrap, elapsed=400, repeats=2)
    assert (tcb["rtt_valid"], tcb["rto"], tcb["cwnd"]) == (0, 30, 1000)
    assert data(b.bell(0, 5000)) == [(1, 1000)]


@pytest.mark.parametrize("elapsed, srtt", [(0xFFE, 8 * 0xFFE), (0xFFF, 0)])
def test_accepted_and_nobody_knows_when_the_syn_ack_went(elapsed, srtt):
    """All ones: no sample, and otherwise a beginning like any (RFC 6298 section 2.1)."""
    b = FlowBench(rto_initial=10, rto_min=10)
    tcb = accept(b, 0, elapsed=elapsed)
    assert (tcb["rtt_valid"], tcb["srtt"], tcb["cwnd"]) == (int(srtt > 0), srtt, 10000)
    assert srtt or tcb["rto"] == 10


def test_accepted_sample_does_not_touch_another_use_of_the_id():
    """A repeated SYN,ACK's numbers end with the connection: the id opened anew begins as any other."""
    b = FlowBench(rto_initial=10, rto_min=10)
    accept(b, 0, elapsed=50, repeats=2)
    b.receive(Segment("R"))
    assert b.request(FlowOp.RELEASE) == Status.OK
    b.established(rtt=4)
    tcb = b.tcb()
    assert abs(tcb["srtt"] - 32) <= 8 and tcb["cwnd"] == 14600


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


@pytest.mark.parametrize("wrap", [0, 150, 40000])
def test_the_timer_that_a_clean_sample_starts_has_its_time_out(wrap):
    """RFC 6298 sections 5.3 and 5.7: the RTO that has been backed off collapses with the sample, and what goes with the
    acknowledgement that brings it is not to wait for the one of before."""
    b = FlowBench(rto_initial=20, rto_min=20, rexmt_max=15)
    b.iss = -(1 + wrap) & M32
    b.established(mss=100, wnd=60000, rtt=5)
    assert request(b, 0, 600) > 4, "an outage"
    assert b.tcb()["rto"] > 300
    assert data(b.bell(0, 1000)) == [(101, 100), (201, 100)]
    b.ticks(5)
    sent, _ = b.receive(Segment("A", ack=201, wnd=60000))
    assert data(sent) == [(301, 100)] and b.tcb()["rto"] <= 30
    assert b.ticks_until_sent(40) is not None


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
    b.bell(0, 16000)
    for acknowledged in range(1000, 15000, 1000):
        b.receive(Segment("A", ack=1 + acknowledged, wnd=60000))
        b.bell(0, 16000 + acknowledged)
    b.receive(Segment("A", ack=30001, wnd=60000))
    b.sent()
    assert b.tcb()["cwnd"] == 25000
    return 30000


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


# --- probes of a closed window: for ever while they are answered, R2 when nothing is heard (RFC 9293 section 3.8.6.1)

AROUND_THE_WRAP = pytest.mark.parametrize("wrap", [-1, 0, 1, 40000])


def closed_window(wrap=0, rexmt_max=4, **fields):
    """1,000 bytes wait behind a closed window, nothing is under way; our sequence numbers pass 0 ``wrap`` bytes later."""
    b = FlowBench(rto_initial=10, rto_min=10, rto_max=80, rexmt_max=rexmt_max)
    b.iss = -(501 + wrap) & M32
    b.established(mss=1000, wnd=500, **fields)
    b.bell(0, 1500)
    b.receive(Segment("A", ack=501, wnd=0))
    b.sent()
    return b


def probes_until_the_end(b, limit=2000):
    """Nobody answers: how many probes go; the connection must end with reason TIMEOUT within ``limit`` ticks."""
    for _ in range(limit // 5):
        b.ticks(5)
        if b.report().terminal:
            assert b.report().reason == Reason.TIMEOUT.value
            return len(b.sent())
    raise AssertionError("held for ever")


@AROUND_THE_WRAP
def test_closed_window_and_silence_ends_after_as_many_probes_as_retransmissions(wrap):
    b = closed_window(wrap)
    for wait in (10, 20, 40, 80):
        waited = b.ticks_until_sent(100)
        assert wait - 1 <= waited <= wait + 1 and data(b.sent()) == [(501, 1)]
    b.ticks(77)
    assert not b.report().terminal, "the last probe has its time-out, too"
    b.ticks(5)
    assert b.report().terminal and b.report().reason == Reason.TIMEOUT.value and b.sent() == []


@pytest.mark.parametrize("rexmt_max", [1, 12, 15])
def test_closed_window_and_silence_takes_the_register_s_number_of_probes(rexmt_max):
    assert probes_until_the_end(closed_window(rexmt_max=rexmt_max)) == rexmt_max


@AROUND_THE_WRAP
def test_probes_answered_for_longer_than_r2_nothing_is_lost(wrap):
    b = closed_window(wrap)
    for wait in (10, 20, 40, 80, *[80] * 12):
        waited = b.ticks_until_sent(100)
        assert wait - 1 <= waited <= wait + 1, "answers are no reason to probe more often"
        assert data(b.sent()) == [(501, 1)]
        b.receive(Segment("A", ack=501, wnd=0))
    assert b.tcb()["rexmt_shift"] == 15
    sent, _ = b.receive(Segment("A", ack=501, wnd=4000))
    assert data(sent) == [(501, 1000)] and b.tcb()["rexmt_shift"] == 0
    b.receive(Segment("A", ack=1501, wnd=4000))
    assert b.report().snd_una_position == 1500 and not b.report().terminal


def test_probes_answered_then_silence_counts_from_the_last_answer():
    b = closed_window()
    for _ in range(7):
        assert b.ticks_until_sent(100) is not None
        b.sent()
        b.receive(Segment("A", ack=501, wnd=0))
    assert probes_until_the_end(b) == 4


def test_every_third_answer_arrives_it_lives():
    b = closed_window()
    for k in range(15):
        assert b.ticks_until_sent(100) is not None, k
        b.sent()
        if k % 3 == 2:
            b.receive(Segment("A", ack=501, wnd=0))
    assert not b.report().terminal


@pytest.mark.parametrize(
    "answer",
    [
        Segment("A", seq=1, wnd=0),
        Segment("A", seq=0, wnd=0),  # it counts no byte: as a keep-alive
        Segment("A", seq=2, wnd=0),  # it counts a probe of its own
        Segment("A", seq=1, wnd=0, length=100),
        Segment("A", seq=101, wnd=0, length=100),  # out of order
        Segment("A", seq=-99, wnd=0, length=100),  # again
    ],
)
def test_answers_of_a_living_peer_count(answer):
    b = closed_window()
    for _ in range(9):
        assert b.ticks_until_sent(100) is not None
        b.sent()
        b.receive(answer.but(ack=501))
        b.sent()
    assert not b.report().terminal


@AROUND_THE_WRAP
@pytest.mark.parametrize(
    "blind",
    [
        Segment("A", seq=40000, ack=501, wnd=0),  # outside of the window
        Segment("A", seq=-70000, ack=501, wnd=0),
        Segment("A", seq=1 << 31, ack=501, wnd=0, length=1),
        Segment("A", seq=1, ack=5000, wnd=0),  # acknowledges what was never sent
        Segment("A", seq=1, ack=-9000, wnd=0),  # older than the largest window
        Segment("S", seq=5, wnd=0),
        Segment("SA", seq=5, ack=501, wnd=0),
        Segment("R", seq=5, wnd=0),
        Segment("", seq=1, wnd=0),
        Segment("F", seq=1, wnd=0),
    ],
)
def test_blind_segments_do_not_keep_a_silent_peer_s_connection(blind, wrap):
    b = closed_window(wrap)
    for _ in range(60):
        b.ticks(5)
        b.receive(blind)
        b.sent()
        if b.report().terminal:
            break
    assert b.report().terminal and b.report().reason == Reason.TIMEOUT.value


def test_fin_behind_a_closed_window_and_silence_ends():
    b = FlowBench(rto_initial=10, rto_min=10, rto_max=80)
    b.established(mss=1000, wnd=0)
    assert [s.flags for s in b.close()] == ["AF"]
    probes_until_the_end(b)


def test_window_closed_with_data_under_way_and_silence_ends():
    b = FlowBench(rto_initial=10, rto_min=10, rto_max=80)
    b.established(mss=1000, wnd=4000)
    b.bell(0, 2000)
    b.receive(Segment("A", ack=1001, wnd=0))
    b.sent()
    assert probes_until_the_end(b) == 4


def test_data_lost_again_and_again_then_the_window_closes_probes_have_r2_of_their_own():
    b = FlowBench(rto_initial=10, rto_min=10, rto_max=80)
    b.established(mss=1000, wnd=4000)
    b.bell(0, 1000)
    for _ in range(3):
        assert b.ticks_until_sent(100) is not None
        b.sent()
    b.receive(Segment("A", ack=1, wnd=0))
    assert probes_until_the_end(b) == 4


def test_probe_s_octet_taken_each_time_it_lives():
    b = closed_window()
    for k in range(9):
        assert b.ticks_until_sent(100) is not None
        assert data(b.sent()) == [(501 + k, 1)]
        b.receive(Segment("A", ack=502 + k, wnd=0))
    assert not b.report().terminal


def test_a_new_life_of_the_id_begins_with_all_its_probes():
    b = closed_window()
    for _ in range(3):
        assert b.ticks_until_sent(100) is not None
        b.sent()
    assert b.request(FlowOp.ABORT) == b.request(FlowOp.RELEASE) == Status.OK
    b.iss = 0xFFFFFF00
    b.established(mss=1000, wnd=0)
    b.bell(0, 100)
    b.sent()
    assert probes_until_the_end(b) == 4
