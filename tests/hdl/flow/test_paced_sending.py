"""Connections with a pacing rate: what waits for it and what does not (``flow/rules/pacing.py``); others beside them."""

from itertools import pairwise

import pytest

from tests.hdl.flow.bench import M32, FlowBench, FlowOp, Segment, State, Status
from tiptoe_hdl.config import TINY

PACED = TINY.with_(name="tiny_paced", pacing=True)
ONE = 1 << 12
"""An interval of a cycle a byte."""
MSS = 1000
SLOW = 20 * ONE
GAP = 20 * MSS
SLACK = 20
"""Cycles of the queue's round and of a pass, by which a turn may come later than the one before."""


@pytest.fixture
def b():
    bench = FlowBench(PACED)
    yield bench
    bench.sim.close()


def set_rate(b, interval, id=1, settle=40):
    """Without a look at what is sent thereby."""
    assert b.request(FlowOp.PACING, id=id, a=interval, settle=settle) == Status.OK


def established(b, id=1, interval=SLOW, **fields):
    b.established(id, mss=MSS, **{"wnd": 60_000} | fields)
    set_rate(b, interval, id)


def gaps(b):
    """Cycles between the segments sent since last asked."""
    cycles = b.seen.tx_cycles
    return [later - earlier for earlier, later in pairwise(cycles[len(cycles) - len(b.seen.tx) :])]


def lengths(segments):
    return [segment.length for segment in segments]


def test_without_a_rate_nothing_changes():
    """Segment for segment in the same cycle as in an engine without pacing."""
    seen = []
    for cfg in (TINY, PACED):
        b = FlowBench(cfg)
        b.established(mss=MSS, wnd=60_000)
        b.established(2, mss=MSS, wnd=60_000)
        begin = b.sim.cycle
        for at in range(1, 6):
            for id in (1, 2):
                b.put("doorbell", dict(id=id, which=0, position=8000 * at))
            b.cycles(200)
            b.offer(Segment("A", ack=1 + 8000 * at - 3000, wnd=60_000), 1)
            b.offer(Segment("A", ack=1 + 8000 * at - 3000, wnd=60_000), 2)
            b.cycles(200)
        cycles = b.seen.tx_cycles[-len(b.seen.tx) :]
        seen.append([(cycle - begin, tx.id, tx.seq) for cycle, tx in zip(cycles, b.seen.tx, strict=True)])
        b.sim.close()
    assert seen[0] == seen[1] and len(seen[0]) >= 80


def test_data_leaves_at_the_rate(b):
    established(b)
    assert b.bell(0, 10_000, settle=100) == [Segment("A", seq=1, ack=1, wnd=16384, length=MSS)]
    b.cycles(9 * GAP - 200)
    seen = gaps(b)
    assert len(b.seen.tx) == 8 and all(GAP - SLACK < gap < GAP + SLACK for gap in seen[1:]), seen
    b.cycles(300)
    assert [s.seq for s in b.sent()] == [1001 + MSS * k for k in range(9)]


def test_a_segment_after_a_gap_goes_in_the_doorbell_s_pass(b):
    established(b)
    b.bell(0, 1000, settle=GAP + 100)
    before = b.sim.cycle
    b.bell(0, 2000, settle=100)
    assert b.seen.tx_cycles[-1] - before < 30


def test_small_segments_have_short_gaps(b):
    established(b)
    for at in range(5):
        assert lengths(b.bell(0, 100 * (at + 1), settle=20 * 100 + 60)) == [100]


def test_acks_do_not_wait(b):
    """An ACK that is due goes at once, by itself; a window update too; data waits on."""
    established(b)
    assert lengths(b.bell(0, 5000, settle=100)) == [MSS]
    for at in range(4):
        sent, _ = b.receive(Segment("A", seq=1 + at * MSS, length=MSS, wnd=60_000), settle=100)
        every_second = [(0, 1 + (at + 1) * MSS)] if at % 2 else []
        assert [(s.length, s.ack) for s in sent] == every_second
    update = b.bell(1, 4000, settle=100)
    assert [(s.length, s.ack) for s in update] == [(0, 4001)]
    assert b.state() == State.ESTABLISHED
    b.cycles(GAP)
    assert lengths(b.sent()) == [MSS]


def test_an_ack_without_a_transmit_credit_has_a_turn_within_the_gap(b):
    """The line was behind when the segments came: the ACK's turn comes when it goes on, not when the gap is over."""
    established(b)
    b.established(2, mss=MSS, wnd=60_000)
    b.bell(0, 3000, settle=60)
    b.tx_ready = False
    b.put("doorbell", dict(id=2, which=0, position=16_000))
    b.cycles(300)
    for at in range(2):
        b.offer(Segment("A", seq=1 + at * MSS, length=MSS, wnd=60_000))
    b.cycles(100)
    b.seen.tx.clear()
    b.tx_ready = True
    b.cycles(600)
    mine = [tx for tx in b.seen.tx if tx.id == 1]
    assert [(tx.length, (tx.ack - b.irs) & M32) for tx in mine] == [(0, 2001)]


def test_delayed_acks_go_in_time(b):
    established(b)
    b.bell(0, 3000, settle=60)
    b.receive(Segment("A", seq=1, length=10, wnd=60_000), settle=60)
    set_rate(b, (1 << 30) - 1)
    assert not b.sent()
    b.ticks(41)
    acks = [s for s in b.sent() if not s.length]
    assert [s.ack for s in acks] == [11]


def test_a_time_out_s_retransmission_does_not_wait(b):
    """The lowest rate: the gap is longer than many time-outs. What goes again goes when its time is."""
    established(b, interval=(1 << 30) - 1, rtt=10)
    assert lengths(b.bell(0, 3000)) == [MSS]
    again = [b.ticks_until_sent(3000) for _ in range(2) if b.seen.tx.clear() is None]
    assert all(again), again
    assert [(s.seq, s.length) for s in b.sent()] == [(1, MSS)]
    assert b.tcb()["rexmits"] == 2


def test_a_tail_s_probe_does_not_wait():
    b = FlowBench(PACED, sack=1)
    established(b, rtt=10, sack_ok=True)
    b.bell(0, 2000, settle=GAP + 100)
    set_rate(b, (1 << 30) - 1)
    assert b.ticks_until_sent(300)
    assert [(s.seq, s.length) for s in b.sent()] == [(1001, MSS)]
    b.sim.close()


def test_probes_of_a_closed_window_do_not_wait_and_back_off(b):
    """Window closed with the ACK of the first segment; the lowest rate: the octet of each probe goes when its time is."""
    established(b, interval=(1 << 30) - 1, rtt=10)
    b.bell(0, 3000)
    b.receive(Segment("A", ack=1001, wnd=0))
    times = []
    for _ in range(3):
        b.seen.tx.clear()
        times.append(b.ticks_until_sent(5000))
        assert lengths(b.sent()) == [1]
        b.receive(Segment("A", ack=1001, wnd=0))
    assert times[0] and 1.6 < times[1] / times[0] < 2.4 and 1.6 < times[2] / times[1] < 2.4, times


def test_no_timer_probes_while_only_the_gap_is_waited_for(b):
    """All is acknowledged and more waits, for longer than a time-out: nothing is probed, no byte goes before its time."""
    established(b, interval=(1 << 30) - 1, rtt=10)
    b.bell(0, 3000)
    b.receive(Segment("A", ack=1001, wnd=60_000))
    b.ticks(1500)
    assert not b.sent() and not b.tcb()["persist"]
    set_rate(b, 0)
    b.cycles(200)
    assert lengths(b.sent()) == [MSS, MSS]


def test_fast_retransmission_goes_at_once_and_what_follows_at_the_rate(b):
    established(b, rtt=10)
    set_rate(b, 0)
    assert len(b.bell(0, 8000)) == 8
    set_rate(b, SLOW)
    for _ in range(2):
        b.receive(Segment("A", ack=1, wnd=60_000), settle=60)
    sent, _ = b.receive(Segment("A", ack=1, wnd=60_000), settle=100)
    assert [(s.seq, s.length) for s in sent] == [(1, MSS)]
    b.bell(0, 12_000, settle=100)
    sent, _ = b.receive(Segment("A", ack=8001, wnd=60_000), settle=100)
    assert not sent, "the gap behind the retransmission"
    b.cycles(3 * GAP)
    assert [s.seq for s in b.sent()] == [8001, 9001, 10_001] and b.report().snd_una_position == 8000


@pytest.mark.parametrize("loss", [(2001, 3001), (2001, 4001)])
def test_recovery_by_the_scoreboard_goes_at_the_rate(loss):
    """Every gap of the peer's is filled, in turns that are due."""
    b = FlowBench(PACED, sack=1)
    established(b, rtt=10, sack_ok=True)
    set_rate(b, 0)
    assert len(b.bell(0, 9000)) == 9
    set_rate(b, SLOW)
    start, end = loss
    b.receive(Segment("A", ack=start, wnd=60_000), settle=60)
    sent = []
    for at in (end + MSS, end + 2 * MSS, end + 3 * MSS, 9001):
        more, _ = b.receive(Segment("A", ack=start, wnd=60_000), sack=[(end, at)], settle=200)
        sent += more
    b.cycles(200)
    b.seen.tx.clear()
    b.cycles(6 * GAP)
    times = gaps(b)
    assert all(gap > GAP - SLACK for gap in times), times
    sent += b.sent()
    assert {s.seq for s in sent if s.length} == set(range(start, end, MSS))
    b.receive(Segment("A", ack=9001, wnd=60_000))
    assert not b.tcb()["in_recovery"]
    b.sim.close()


def test_go_back_n_after_a_time_out_goes_at_the_rate(b):
    established(b, rtt=10)
    set_rate(b, 0)
    assert len(b.bell(0, 6000)) == 6
    set_rate(b, SLOW)
    assert b.ticks_until_sent(500)
    b.cycles(GAP)
    assert [s.seq for s in b.sent()] == [1]
    b.offer(Segment("A", ack=1001, wnd=60_000))
    b.cycles(2 * GAP)
    assert all(gap > GAP - SLACK for gap in gaps(b)), gaps(b)
    assert [s.seq for s in b.sent()] == [1001, 2001]


def test_a_fin_without_data_does_not_wait_and_one_with_data_goes_with_it(b):
    established(b)
    b.bell(0, 1000, settle=60)
    assert [s.flags for s in b.close(1000)] == ["AF"]
    established(b, 2)
    b.bell(0, 1000, 2, settle=60)
    assert not b.close(1500, 2)
    b.cycles(GAP)
    assert [(s.length, s.flags) for s in b.sent()] == [(500, "AFP")]
    assert b.state(2) == State.FIN_WAIT_1


def test_an_abort_s_reset_does_not_wait(b):
    established(b)
    b.bell(0, 3000, settle=60)
    b.seen.tx.clear()
    assert b.request(FlowOp.ABORT) == Status.OK
    assert [s.flags for s in b.sent()] == ["AR"]
    b.cycles(2 * GAP)
    assert not b.sent()


@pytest.mark.parametrize("interval", [0, 20, ONE])
def test_a_higher_rate_counts_at_once(b, interval):
    established(b, interval=(1 << 30) - 1)
    b.bell(0, 2000)
    b.cycles(50_000)
    assert not b.sent()
    set_rate(b, interval)
    b.cycles(4200)
    assert lengths(b.sent()) == [MSS]


def test_the_rate_ends_with_many_segments_waiting(b):
    established(b)
    b.bell(0, 9000, settle=100)
    set_rate(b, 0)
    b.cycles(600)
    assert max(gaps(b)) < 100 and lengths(b.sent()) == 8 * [MSS]


def test_an_id_provisioned_anew_within_a_gap_has_no_rate(b):
    """The old gap does not hold up the new connection, nor is the id in the queue twice when it has a rate, too."""
    for interval in (0, SLOW, SLOW):
        established(b, interval=(1 << 30) - 1)
        assert lengths(b.bell(0, 2000, settle=60)) == [MSS]
        assert b.request(FlowOp.ABORT) == b.request(FlowOp.RELEASE) == Status.OK
        b.seen.tx.clear()
        b.established(mss=MSS, wnd=60_000)
        b.seen.tx.clear()
        if interval:
            set_rate(b, interval)
        b.bell(0, 4000, settle=60)
        b.cycles(8 * GAP)
        b.seen.tx.clear()
        b.bell(0, 8000, settle=4 * GAP + 60)
        assert b.report().snd_una_position == 0
        b.receive(Segment("A", ack=8001, wnd=60_000))
        assert b.report().snd_una_position == 8000
        assert b.request(FlowOp.ABORT) == b.request(FlowOp.RELEASE) == Status.OK


def test_other_connections_at_full_speed_beside_paced_ones(b):
    for id in range(1, 15):
        established(b, id)
    for id in range(1, 15):
        b.put("doorbell", dict(id=id, which=0, position=15_000))
    b.established(15, mss=MSS, wnd=65_535)
    b.cycles(200)
    b.seen.tx.clear()
    begin = b.sim.cycle
    b.bell(0, 8000, 15, settle=300)
    mine = [cycle for cycle in b.seen.tx_cycles if cycle >= begin][:8]
    assert len(mine) == 8 and mine[-1] - begin < 200


def test_all_connections_paced_and_a_line_that_stands_still(b):
    for id in range(16):
        established(b, id, interval=ONE // 4)
    for id in range(16):
        b.put("doorbell", dict(id=id, which=0, position=16_000))
    for _ in range(40):
        b.tx_ready = False
        b.cycles(3000)
        b.tx_ready = True
        b.cycles(500)
    sent = {}
    for tx in b.seen.tx:
        if tx.length:
            sent.setdefault(tx.id, []).append((tx.seq - b.iss) & M32)
    assert sorted(sent) == list(range(16))
    for seqs in sent.values():
        assert seqs == list(range(seqs[0], seqs[-1] + MSS, MSS)) and seqs[-1] >= 9001


def test_refused_where_there_is_no_connection(b):
    assert b.request(FlowOp.PACING, a=SLOW) == Status.BAD_ID
    b.provision()
    assert b.request(FlowOp.PACING, a=SLOW) == Status.BAD_STATE
    assert b.request(FlowOp.PACING, a=SLOW, generation=8) == Status.BAD_GENERATION
    b.syn_sent(2)
    assert b.request(FlowOp.PACING, id=2, a=SLOW) == Status.OK
