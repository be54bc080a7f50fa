"""Segments that no honest peer sends, or very late ones, neither harm nor stay (RFC 5961, RFC 1337, RFC 9293 3.10.7.4)."""

import pytest

from tests.hdl.flow.bench import M32, FlowBench, Segment, State
from tests.hdl.flow.test_states import reach

AROUND_THE_WRAP = pytest.mark.parametrize("wrap", [-1, 0, 1, 40000])


@pytest.fixture
def b():
    bench = FlowBench()
    yield bench
    bench.sim.close()


# --- a FIN counts where it stands, when everything before it has arrived


@pytest.mark.parametrize("wrap", [-1, 0, 1, 499, 500, 501, 999, 1000, 1001])
@pytest.mark.parametrize("false_at", [501, 999, 1002, 5000])
def test_false_fin_in_the_window_the_real_one_is_taken(b, false_at, wrap):
    b.irs = -(1 + wrap) & M32
    b.established()
    sent, _ = b.receive(Segment("FA", seq=false_at))
    assert [s.ack for s in sent] == [1], "ahead of its turn: a duplicate ACK at once"
    _, verdict = b.receive(Segment("A", seq=1, length=1000))
    assert verdict.upto == 1000 and b.state() == State.ESTABLISHED
    sent, _ = b.receive(Segment("FA", seq=1001))
    assert [s.ack for s in sent] == [1002] and b.state() == State.CLOSE_WAIT


def test_false_fin_behind_the_real_one_does_not_replace_it_for_good(b):
    b.established()
    b.receive(Segment("FA", seq=101, length=100))  # the real one, ahead of 100 bytes
    b.receive(Segment("FA", seq=900))
    b.receive(Segment("A", seq=1, length=100))
    sent, _ = b.receive(Segment("FA", seq=101, length=100))  # not acknowledged, so it comes again
    assert [s.ack for s in sent] == [202] and b.state() == State.CLOSE_WAIT


def test_false_fin_inside_data_that_waits_out_of_order_is_none(b):
    b.established()
    b.receive(Segment("FA", seq=501))
    b.receive(Segment("A", seq=101, length=1000))
    b.receive(Segment("A", seq=1, length=100))
    assert b.state() == State.ESTABLISHED and b.report().rcv_nxt_position == 1100
    b.receive(Segment("FA", seq=1101))
    assert b.state() == State.CLOSE_WAIT


def test_fin_whose_data_arrives_later_in_pieces(b):
    b.established()
    b.receive(Segment("FA", seq=301))
    for seq in (201, 101, 1):
        b.receive(Segment("A", seq=seq, length=100))
    assert b.state() == State.CLOSE_WAIT and b.report().peer_closed


# --- TIME_WAIT is lengthened by the peer's FIN only


@pytest.mark.parametrize(
    "segment",
    [
        Segment("A", seq=2, ack=2, length=10),
        Segment("A", seq=-100, ack=2, length=10),
        Segment("A", seq=40000, ack=2, length=10),
        Segment("A", seq=1, ack=2),
        Segment("A", seq=40000, ack=2),
        Segment("FA", seq=0, ack=2),
        Segment("FA", seq=40000, ack=2),
        Segment("FA", seq=2, ack=2),
        Segment("FA", seq=1, ack=2, length=1),
        Segment("F", seq=1),
        Segment("S", seq=0),
        Segment("SFA", seq=1, ack=2),
        Segment("RFA", seq=1, ack=2),
    ],
)
def test_time_wait_blind_segments_do_not_hold_it(b, segment):
    reach(b, State.TIME_WAIT)
    for _ in range(5):
        b.ticks(99)
        assert b.state() == State.TIME_WAIT
        b.receive(segment)
    b.ticks(8)
    assert b.report().terminal


@pytest.mark.parametrize("segment", [Segment("FA", seq=1, ack=2), Segment("FPA", seq=1, ack=2)])
def test_time_wait_its_fin_again_lengthens_it(b, segment):
    reach(b, State.TIME_WAIT)
    b.ticks(490)
    assert [s.ack for s in b.receive(segment)[0]] == [2]
    b.ticks(490)
    assert b.state() == State.TIME_WAIT
    b.ticks(12)
    assert b.report().terminal


def test_time_wait_fin_with_its_data_again_lengthens_it(b):
    b.established()
    b.close()
    b.receive(Segment("FA", seq=1, length=100, ack=2))
    assert b.state() == State.TIME_WAIT
    b.ticks(490)
    assert [s.ack for s in b.receive(Segment("FA", seq=51, length=50, ack=2))[0]] == [102]
    b.ticks(100)
    assert b.state() == State.TIME_WAIT


def test_time_wait_new_fin_is_acknowledged(b):
    reach(b, State.TIME_WAIT)
    assert [(s.flags, s.seq, s.ack) for s in b.receive(Segment("FA", seq=2, ack=2))[0]] == [("A", 2, 2)]


# --- RFC 5961 section 5: SND.UNA - MAX.SND.WND <= SEG.ACK <= SND.MAX


@AROUND_THE_WRAP
@pytest.mark.parametrize("older", [8193, 20000, 1 << 30, (1 << 31) - 1])
@pytest.mark.parametrize("segment", [Segment("A", length=10), Segment("FA"), Segment("A", wnd=1)])
def test_ack_older_than_the_largest_window_is_challenged_and_dropped(b, segment, older, wrap):
    b.iss = -(1001 + wrap) & M32
    b.established(wnd=8192, mss=1000)
    b.bell(0, 1000)
    b.receive(Segment("A", ack=1001, wnd=8000))
    sent, verdict = b.receive(segment.but(ack=1001 - older))
    assert [(s.flags, s.seq, s.ack) for s in sent] == [("A", 1001, 1)]
    assert verdict.length == 0 and b.state() == State.ESTABLISHED and b.tcb()["snd_wnd"] == 8000


@AROUND_THE_WRAP
@pytest.mark.parametrize("older", [0, 1, 1000, 8192])
def test_ack_no_older_than_the_largest_window_s_data_is_taken(b, older, wrap):
    b.iss = -(1001 + wrap) & M32
    b.established(wnd=8192, mss=1000)
    b.bell(0, 1000)
    b.receive(Segment("A", ack=1001, wnd=100))
    _, verdict = b.receive(Segment("A", ack=1001 - older, length=10))
    assert verdict.length == 10


def test_ack_of_before_the_window_became_small_its_data_is_taken():
    """The window by which segments count as silly falls, the one that says how old an ACK may be does not."""
    b = FlowBench(rto_initial=10, rto_min=10)
    b.established(wnd=8192, mss=1460)
    b.bell(0, 8192)
    b.receive(Segment("A", ack=8193, wnd=100))
    b.bell(0, 9000)
    b.ticks(12)  # the override
    assert [s.length for s in b.sent()] == [100]
    _, verdict = b.receive(Segment("A", ack=1, length=10))
    assert verdict.length == 10
