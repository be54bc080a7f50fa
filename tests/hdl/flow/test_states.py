"""State transitions of the pipeline, RFC 9293 section 3.3.2, figure 5: one test per state and event."""

import pytest

from tests.hdl.flow.bench import FlowBench, FlowOp, Reason, Segment, State, Status

ACK, FIN_ACK, RST, SYN, SYN_ACK = (
    Segment("A"),
    Segment("FA"),
    Segment("R"),
    Segment("S", seq=0),
    Segment("SA", seq=0),
)


@pytest.fixture
def b():
    bench = FlowBench()
    yield bench
    bench.sim.close()


def reach(b, state):
    """A connection in ``state``; sequence numbers: ours 1 (2 with FIN), the peer's 1 (2 with FIN)."""
    if state == State.SYN_SENT:
        b.syn_sent()
    elif state == State.SYN_RECEIVED:
        b.syn_sent()
        sent, _ = b.receive(SYN)
        assert [s.flags for s in sent] == ["SA"]
    else:
        b.established()
        if state in (State.FIN_WAIT_1, State.FIN_WAIT_2, State.CLOSING, State.TIME_WAIT):
            assert [s.flags for s in b.close()] == ["AF"]
        if state in (State.FIN_WAIT_2, State.TIME_WAIT):
            b.receive(ACK.but(ack=2))
        if state == State.TIME_WAIT:
            b.receive(FIN_ACK.but(ack=2))
        if state == State.CLOSING:
            b.receive(FIN_ACK)
        if state in (State.CLOSE_WAIT, State.LAST_ACK):
            b.receive(FIN_ACK)
        if state == State.LAST_ACK:
            assert [s.flags for s in b.close()] == ["AF"]
    assert b.state() == state
    b.sent()


SYNCHRONISED = [s for s in State if s.value >= State.SYN_RECEIVED.value]
PEER_OPEN = [State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2]


def right_edge(state):
    """rcv_nxt in that state: the peer's SYN, and its FIN once taken."""
    return 1 if state in PEER_OPEN or state == State.SYN_RECEIVED else 2


# --- opening


def test_closed_open_sends_syn(b):
    assert b.syn_sent(rcv_scale=2) == Segment("S", seq=0, ack=0, wnd=16384, mss=1460, ws=2)
    assert b.state() == State.SYN_SENT


def test_syn_sent_syn_ack_establishes(b):
    b.syn_sent()
    sent, verdict = b.receive(SYN_ACK.but(mss=1000))
    assert sent == [Segment("A", seq=1, ack=1, wnd=16384)]
    assert verdict.notify and verdict.upto == 0 and verdict.length == 0
    report = b.report()
    assert State(report.state) == State.ESTABLISHED and report.established
    assert (report.iss, report.irs, report.mss) == (b.iss, b.irs, 1000)
    assert report.snd_una_position == 0 and report.rcv_nxt_position == 0


def test_syn_sent_no_mss_option_uses_default(b):
    b.syn_sent()
    b.receive(SYN_ACK)
    assert b.report().mss == 536


@pytest.mark.parametrize(
    "stray",
    [
        SYN_ACK.but(ack=7),
        SYN_ACK.but(ack=0),
        SYN_ACK.but(flags="A"),
        SYN_ACK.but(flags="A", ack=7),
        SYN_ACK.but(flags="SAR", ack=7),
        SYN_ACK.but(flags="R"),
    ],
)
def test_syn_sent_stray_segment_says_nothing_of_the_largest_segment(b, stray):
    """Only a SYN that answers ours or crosses it does (RFC 9293 section 3.7.1)."""
    b.syn_sent()
    b.receive(stray)
    b.receive(SYN_ACK.but(mss=1460))
    assert b.report().mss == 1460


def test_syn_sent_window_scale_only_when_both_offer(b):
    b.syn_sent(rcv_scale=3)
    sent, _ = b.receive(SYN_ACK.but(ws=5, wnd=100))
    assert [s.wnd for s in sent] == [16384 >> 3]
    report = b.report()
    assert (report.snd_scale, report.rcv_scale) == (5, 3)


def test_syn_sent_no_window_scale_back_turns_it_off(b):
    b.syn_sent(rcv_scale=3)
    sent, _ = b.receive(SYN_ACK)
    assert [s.wnd for s in sent] == [16384]
    report = b.report()
    assert (report.snd_scale, report.rcv_scale) == (0, 0)


def test_syn_sent_bad_ack_is_reset(b):
    b.syn_sent()
    sent, _ = b.receive(SYN_ACK.but(ack=2))
    assert [(s.flags, s.seq) for s in sent] == [("R", 2)]
    assert b.state() == State.SYN_SENT


def test_syn_sent_rst_with_ack_refuses(b):
    b.syn_sent()
    b.receive(Segment("RA", seq=0, ack=1))
    report = b.report()
    assert report.terminal and Reason(report.reason) == Reason.REFUSED


@pytest.mark.parametrize("segment", [Segment("R", seq=0), Segment("RA", seq=0, ack=2)])
def test_syn_sent_blind_rst_is_ignored(b, segment):
    b.syn_sent()
    sent, _ = b.receive(segment)
    assert sent == [] and b.state() == State.SYN_SENT


def test_syn_sent_syn_opens_simultaneously(b):
    b.syn_sent()
    sent, _ = b.receive(SYN)
    assert [(s.flags, s.seq, s.ack) for s in sent] == [("SA", 0, 1)]
    assert b.state() == State.SYN_RECEIVED
    sent, _ = b.receive(SYN_ACK)  # figure 8, line 6: left of the window, and yet it opens the connection
    assert [(s.flags, s.seq, s.ack) for s in sent] == [("A", 1, 1)]
    assert b.state() == State.ESTABLISHED


@pytest.mark.parametrize("answer", [SYN_ACK, ACK])
def test_syn_received_by_simultaneous_open_window_of_the_syn_counts(b, answer):
    """The window of a SYN or SYN,ACK is not scaled; what scaling would make of the second one's must not be sent into."""
    b.syn_sent(rcv_scale=2)
    b.receive(SYN.but(wnd=1000, ws=4, mss=1460))
    b.receive(answer.but(wnd=1000 if answer is SYN_ACK else 1000 >> 4, ws=4 if answer is SYN_ACK else None))
    assert b.state() == State.ESTABLISHED
    assert sum(s.length for s in b.bell(0, 4000)) <= 1000


@pytest.mark.parametrize("answer", [SYN_ACK.but(ack=2), SYN_ACK.but(seq=-1), SYN, SYN_ACK.but(flags="SR")])
def test_syn_received_by_simultaneous_open_other_syns_do_not_open(b, answer):
    b.syn_sent()
    b.receive(SYN)
    b.receive(answer)
    assert b.state() == State.SYN_RECEIVED


def test_syn_sent_close_waits_for_establishment(b):
    b.syn_sent()
    assert b.close() == []
    assert b.state() == State.SYN_SENT
    sent, _ = b.receive(SYN_ACK)
    assert [s.flags for s in sent] == ["AF"]
    assert b.state() == State.FIN_WAIT_1


def test_accept_starts_in_syn_received(b):
    b.provision()
    assert (
        b.request(
            FlowOp.ACCEPT,
            port=1,
            a=b.iss,
            b=b.irs,
            mss=1400,
            snd_scale=2,
            rcv_scale=0,
            wnd=8000,
            syncache_ref=5,
        )
        == Status.OK
    )
    assert b.sent() == []
    sent, verdict = b.receive(ACK.but(wnd=1000, length=10))
    assert b.state() == State.ESTABLISHED
    assert (verdict.position, verdict.length, verdict.upto) == (0, 10, 10)
    report = b.report()
    assert (report.syncache_ref, report.mss, report.snd_scale) == (5, 1400, 2)


# --- closing


def test_established_close_sends_data_then_one_fin(b):
    b.established(wnd=2000, mss=1000)
    assert [(s.seq, s.length) for s in b.bell(0, 3000)] == [(1, 1000), (1001, 1000)]
    assert b.close(3000) == []
    assert b.state() == State.FIN_WAIT_1
    sent, _ = b.receive(ACK.but(ack=2001, wnd=2000))
    assert [(s.flags, s.seq, s.length) for s in sent] == [("APF".replace("PF", "FP"), 2001, 1000)]
    b.receive(ACK.but(ack=3002))
    assert b.state() == State.FIN_WAIT_2


def test_established_close_twice_is_one_fin(b):
    b.established()
    assert [s.flags for s in b.close()] == ["AF"]
    assert b.close() == []


def test_established_fin_with_data(b):
    b.established()
    sent, verdict = b.receive(FIN_ACK.but(length=100))
    assert (verdict.length, verdict.upto) == (100, 101)
    assert [s.ack for s in sent] == [102]
    assert b.state() == State.CLOSE_WAIT


def test_established_fin_ahead_of_data_waits(b):
    b.established()
    sent, verdict = b.receive(FIN_ACK.but(seq=101, length=100))
    assert (verdict.position, verdict.length, verdict.upto) == (100, 100, 0)
    assert b.state() == State.ESTABLISHED
    sent, verdict = b.receive(ACK.but(length=100))
    assert verdict.upto == 201 and [s.ack for s in sent] == [202]
    assert b.state() == State.CLOSE_WAIT


def test_fin_wait_1_ack_then_fin(b):
    reach(b, State.FIN_WAIT_2)
    sent, _ = b.receive(FIN_ACK.but(ack=2))
    assert [(s.flags, s.ack) for s in sent] == [("A", 2)]
    assert b.state() == State.TIME_WAIT


def test_fin_wait_1_fin_acks_ours(b):
    reach(b, State.FIN_WAIT_1)
    b.receive(FIN_ACK.but(ack=2))
    assert b.state() == State.TIME_WAIT


def test_fin_wait_1_fin_is_simultaneous_close(b):
    reach(b, State.FIN_WAIT_1)
    sent, _ = b.receive(FIN_ACK)
    assert [(s.flags, s.ack) for s in sent] == [("A", 2)]
    assert b.state() == State.CLOSING
    b.receive(ACK.but(seq=2, ack=2))
    assert b.state() == State.TIME_WAIT


def test_fin_wait_2_data_is_taken(b):
    reach(b, State.FIN_WAIT_2)
    _, verdict = b.receive(ACK.but(ack=2, length=50))
    assert (verdict.length, verdict.upto) == (50, 50)


def test_last_ack_ack_ends(b):
    reach(b, State.LAST_ACK)
    b.receive(ACK.but(seq=2, ack=2))
    report = b.report()
    assert report.terminal and Reason(report.reason) == Reason.NORMAL
    assert report.snd_una_position == 0, "the FIN is no byte of the ring"


def test_last_ack_fin_is_retransmitted():
    b = FlowBench(rto_initial=10, rto_min=10)
    reach(b, State.LAST_ACK)
    assert b.ticks_until_sent(30) is not None
    assert [(s.flags, s.seq) for s in b.sent()] == [("AF", 1)]


def test_time_wait_timeout_ends(b):
    reach(b, State.TIME_WAIT)
    b.ticks(490)
    assert b.state() == State.TIME_WAIT
    b.ticks(12)
    report = b.report()
    assert report.terminal and Reason(report.reason) == Reason.NORMAL


def test_time_wait_fin_again_restarts(b):
    reach(b, State.TIME_WAIT)
    b.ticks(300)
    sent, _ = b.receive(FIN_ACK.but(ack=2))
    assert [(s.flags, s.ack) for s in sent] == [("A", 2)]
    b.ticks(300)
    assert b.state() == State.TIME_WAIT


# --- resets and challenges, every synchronised state


@pytest.mark.parametrize("state", SYNCHRONISED)
def test_rst_exact_ends(b, state):
    reach(b, state)
    b.receive(RST.but(seq=right_edge(state)))
    report = b.report()
    assert report.terminal
    assert Reason(report.reason) == (Reason.REFUSED if state == State.SYN_RECEIVED else Reason.PEER_RESET)


@pytest.mark.parametrize("state", SYNCHRONISED)
def test_rst_in_window_is_challenged(b, state):
    reach(b, state)
    sent, _ = b.receive(RST.but(seq=right_edge(state) + 1))
    assert [s.flags for s in sent][-1:] == ["A"]
    assert b.state() == state


@pytest.mark.parametrize("state", SYNCHRONISED)
@pytest.mark.parametrize("seq", [-1, 40000])
def test_rst_outside_is_ignored(b, state, seq):
    reach(b, state)
    sent, _ = b.receive(RST.but(seq=seq))
    assert sent == [] and b.state() == state


@pytest.mark.parametrize("state", SYNCHRONISED)
def test_syn_in_window_is_challenged(b, state):
    reach(b, state)
    sent, _ = b.receive(SYN.but(seq=right_edge(state) + 5))
    assert [s.flags for s in sent][-1:] == ["A"]
    assert b.state() == state


@pytest.mark.parametrize("state", [s for s in SYNCHRONISED if s != State.SYN_RECEIVED])
def test_ack_of_the_future_is_answered_and_dropped(b, state):
    reach(b, state)
    sent, verdict = b.receive(ACK.but(seq=right_edge(state), ack=5000, length=10))
    assert [s.flags for s in sent] == ["A"] and verdict.length == 0
    assert b.state() == state


@pytest.mark.parametrize("state", SYNCHRONISED)
@pytest.mark.parametrize("seq", [-100, 40000])
def test_data_outside_window_is_answered(b, state, seq):
    reach(b, state)
    sent, verdict = b.receive(ACK.but(seq=seq, length=10, ack=0))
    assert [s.flags for s in sent][-1:] == ["A"] and verdict.length == 0
    assert b.state() == state


@pytest.mark.parametrize("state", SYNCHRONISED)
def test_segment_without_ack_is_dropped(b, state):
    reach(b, state)
    sent, verdict = b.receive(Segment("", seq=right_edge(state), length=10))
    assert sent == [] and verdict.length == 0 and b.state() == state


@pytest.mark.parametrize("state", [State.SYN_SENT, *SYNCHRONISED])
def test_abort_sends_rst_and_ends(b, state):
    reach(b, state)
    assert b.request(FlowOp.ABORT) == Status.OK
    sent = b.sent()
    if state in (State.SYN_SENT, State.TIME_WAIT):
        assert sent == []
    else:
        assert [(s.flags, s.ack) for s in sent] == [("AR", right_edge(state))]
    report = b.report()
    assert report.terminal and Reason(report.reason) == Reason.LOCAL_ABORT
    assert b.request(FlowOp.ABORT) == Status.BAD_STATE
    assert b.request(FlowOp.RELEASE) == Status.OK
    assert b.request(FlowOp.RELEASE) == Status.BAD_ID
    assert b.provision() == Status.OK


@pytest.mark.parametrize("state", [State.SYN_SENT, *SYNCHRONISED])
def test_wrong_generation_changes_nothing(b, state):
    reach(b, state)
    for op in (
        FlowOp.CLOSE,
        FlowOp.ABORT,
        FlowOp.RELEASE,
        FlowOp.PATH_MTU,
        FlowOp.OPEN,
        FlowOp.READ,
        FlowOp.CONGESTION,
    ):
        assert b.request(op, generation=8) == Status.BAD_GENERATION
    assert b.sent() == [] and b.state() == state


@pytest.mark.parametrize("state", [State.SYN_SENT, *SYNCHRONISED])
def test_requests_out_of_state_are_refused(b, state):
    reach(b, state)
    assert b.provision() == Status.BAD_STATE
    assert b.request(FlowOp.OPEN, a=5, mss=1000) == Status.BAD_STATE
    assert b.request(FlowOp.ACCEPT, port=1, a=5, b=6, mss=1000) == Status.BAD_STATE
    assert b.request(FlowOp.RELEASE) == Status.BAD_STATE
    assert b.sent() == [] and b.state() == state


def test_closed_segment_after_death_draws_rst_but_syn_does_not(b):
    b.established()
    b.receive(RST)
    sent, _ = b.receive(ACK.but(ack=7))
    assert [(s.flags, s.seq) for s in sent] == [("R", 7)]
    assert b.receive(SYN)[0] == [] and b.receive(RST)[0] == []


# --- doorbells


def test_doorbell_same_position_does_nothing(b):
    b.established()
    assert [(s.seq, s.length) for s in b.bell(0, 100)] == [(1, 100)]
    for _ in range(3):
        assert b.bell(0, 100) == []
    for _ in range(3):
        assert b.bell(1, 0) == []
    assert not b.report().bad_doorbell


@pytest.mark.parametrize(("which", "position"), [(0, 16385), (0, 0xFFFFFFFF), (1, 1), (1, 0xFFFFFFFF)])
def test_doorbell_outside_ring_is_flagged(b, which, position):
    b.established()
    b.bell(which, position)
    report = b.report()
    assert report.bad_doorbell and State(report.state) == State.ESTABLISHED
    assert b.seen.notices == [1]


def test_doorbell_unused_id_touches_nothing(b):
    assert b.bell(0, 100, id=3) == []
    assert State(b.report(3).state) == State.CLOSED


def test_path_mtu_resegments(b):
    b.established(wnd=8000, mss=1460)
    assert [(s.seq, s.length) for s in b.bell(0, 2920)] == [(1, 1460), (1461, 1460)]
    assert b.request(FlowOp.PATH_MTU, mss=500) == Status.OK
    b.cycles(300)
    sent = [(s.seq, s.length) for s in b.sent()]
    assert sent == [(1 + 500 * k, 500) for k in range(5)] + [(2501, 420)]
    assert b.report().mss == 500


@pytest.mark.parametrize("under_way", [False, True])
def test_path_mtu_rises_again_and_nothing_goes_twice(b, under_way):
    """RFC 1191 section 6.3: what is under way stays so, what follows is larger."""
    b.established(wnd=8000, mss=1460)
    assert b.request(FlowOp.PATH_MTU, mss=500) == Status.OK
    assert [s.length for s in b.bell(0, 1000)] == [500, 500]
    if not under_way:
        b.receive(ACK.but(ack=1001, wnd=8000))
    before = b.tcb()
    assert b.request(FlowOp.PATH_MTU, mss=1460) == Status.OK
    b.cycles(300)
    assert b.sent() == [] and b.tcb() == before | {"maxseg": 1460}
    assert [(s.seq, s.length) for s in b.bell(0, 3920)] == [(1001, 1460), (2461, 1460)]
    assert b.report().mss == 1460


def test_path_mtu_rises_above_a_congestion_window_that_has_fallen():
    """RFC 5681 section 3.1: one segment of the size there is now, or data would wait for the override timer."""
    b = FlowBench(rto_initial=10, rto_min=10)
    b.established(wnd=8000, mss=1460)
    assert b.request(FlowOp.PATH_MTU, mss=500) == Status.OK
    b.bell(0, 300)
    b.ticks(12)
    assert b.tcb()["cwnd"] == 500
    b.receive(ACK.but(ack=301, wnd=8000))
    b.sent()
    assert b.tcb()["cwnd"] == 800
    assert b.request(FlowOp.PATH_MTU, mss=1460) == Status.OK
    assert b.tcb()["cwnd"] == 1460
    assert [(s.seq, s.length) for s in b.bell(0, 3300)] == [(301, 1460)]
    assert b.request(FlowOp.PATH_MTU, mss=1000) == Status.OK
    assert b.tcb()["cwnd"] == 1460, "smaller ones leave it alone"


def test_path_mtu_of_another_generation_or_of_nobody_changes_nothing(b):
    assert b.request(FlowOp.PATH_MTU, mss=500) == Status.BAD_ID
    b.established(wnd=8000, mss=1460)
    for mss in (500, 3000):
        assert b.request(FlowOp.PATH_MTU, mss=mss, generation=8) == Status.BAD_GENERATION
        assert b.tcb()["maxseg"] == 1460
    assert [s.length for s in b.bell(0, 1460)] == [1460]


def test_path_mtu_before_the_peer_has_said_its_own_only_falls(b):
    b.syn_sent(mss=1000)
    for mss, maxseg in ((1460, 1000), (800, 800), (900, 800)):
        assert b.request(FlowOp.PATH_MTU, mss=mss) == Status.OK
        assert b.tcb()["maxseg"] == maxseg


# --- acknowledging


def test_established_every_second_segment_is_acked_at_once(b):
    b.established()
    assert b.receive(ACK.but(seq=1, length=100))[0] == []
    assert [s.ack for s in b.receive(ACK.but(seq=101, length=100))[0]] == [201]


def test_established_single_segment_is_acked_after_delay(b):
    b.established()
    assert b.receive(ACK.but(seq=1, length=100))[0] == []
    waited = b.ticks_until_sent(60)
    assert waited is not None and 39 <= waited <= 41
    assert [s.ack for s in b.sent()] == [101]


def test_established_without_transmit_credit_nothing_is_lost(b):
    b.established(mss=1000)
    b.tx_ready = False
    b.bell(0, 30000 % 16384)
    b.receive(ACK.but(seq=1, length=100))
    b.receive(ACK.but(seq=101, length=100))
    b.tx_ready = True
    b.cycles(600)
    sent = b.sent()
    # The last 192 bytes of the window would be a silly segment.
    assert sum(s.length for s in sent) == 8000 and sent[-1].ack == 201
