"""HyStart++ (RFC 9406) in the flow: what the pipeline tells of round trips, and what becomes of the first slow start."""

import pytest

from tests.hdl.flow.bench import M32, FlowBench, FlowOp, Segment, Status
from tests.hdl.flow.test_congestion import Transfer
from tiptoe_hdl.config import TINY
from tiptoe_hdl.congestion.program import GENTLE_SHIFT
from tiptoe_hdl.messages import Congestion

STAMPED = TINY.with_(name="cubic_stamped", congestion=("cubic", "newreno", "reno"), timestamps=True)
FIRST = 2**24 - 1
"""ssthresh that no loss has lowered."""
BOTH = pytest.mark.parametrize("algorithm", [Congestion.CUBIC, Congestion.NEWRENO], ids=lambda a: a.name.lower())


class Round(Transfer):
    """Round trips in which each segment is acknowledged."""

    def round_trip(self, ticks=20):
        """Returns (cwnd at the end, segments acknowledged)."""
        self.write()
        end, segments = self.una + self.flight(), 0
        self.b.ticks(ticks)
        while self.una < end:
            self.ack(min(self.una + 1000, end))
            segments += 1
        self.b.cycles(6000)
        return self.tcb()["cwnd"], segments


@BOTH
def test_a_round_trip_that_grows_ends_slow_start(algorithm):
    t = Round(algorithm)
    sizes = [t.round_trip(ticks) for ticks in (20, 20, 30, 50, 50)]
    (first, _), (second, count), (third, more), (fourth, most), (last, _) = sizes
    assert second - first == 1000 * count
    assert 1000 * more // 2**GENTLE_SHIFT <= third - second <= 1000 * more // 2**GENTLE_SHIFT + 3000
    assert third < fourth <= third + 1000 * most // 2**GENTLE_SHIFT + 2000
    tcb = t.tcb()
    assert fourth <= tcb["ssthresh"] <= last <= fourth + 3000, "it waits, and ends"
    assert tcb["losses"] == 0
    t.round_trip(50)
    assert t.tcb()["ssthresh"] == tcb["ssthresh"] and t.tcb()["cwnd"] <= last + 3000


@BOTH
def test_a_round_trip_that_stays_as_it_is_does_not_end_it(algorithm):
    t = Round(algorithm)
    for ticks in (20, 23, 20, 23, 22):
        (cwnd, _), before = t.round_trip(ticks), t.tcb()["cwnd"]
        assert before == cwnd
    assert cwnd >= 10_000 * 2**5 - 5000 and t.tcb()["ssthresh"] == FIRST


@pytest.mark.parametrize("ages, grows", [
    ([20] * 22, 1000),  # no queue
    ([*[20] * 12, *[40] * 10], 1000 >> GENTLE_SHIFT),  # one that grows within the round trip: before the next one
], ids=["the same", "growing"])  # fmt: skip
def test_with_timestamps_each_acknowledgement_tells_of_the_line(ages, grows):
    """RFC 9406 section 4.2: of a round trip's samples the shortest; the one timed segment of a window is the one that found the
    shortest queue, and comes back a round trip later."""
    b = FlowBench(STAMPED, timestamps=1, algorithm=Congestion.CUBIC, rto_min=1000)
    assert b.provision(snd_log2=22) == Status.OK
    b.request(FlowOp.OPEN, a=b.iss, mss=1012)
    b.ticks(20)
    b.receive(Segment("SA", seq=0, ack=1, wnd=65535, mss=1012, ws=6, stamp=(7, 20)))
    b.bell(0, 2_000_000, settle=3000)
    b.ticks(40)
    una = 0
    for age in ages:
        una += 1000
        before = b.tcb()["cwnd"]
        b.receive(Segment("A", ack=1 + una, wnd=65535, stamp=(8, age)), settle=4000)
    tcb = b.tcb()
    assert tcb["ssthresh"] == FIRST and tcb["cwnd"] - before == grows
    assert tcb["srtt"] == 8 * 20, (
        "RFC 6298's gains are those of one sample a round trip: the next one is still under way"
    )


def stamped(b, id=1):
    """A connection with timestamps, three ticks long, that has much to send."""
    assert b.provision(id=id, snd_log2=22) == Status.OK
    b.request(FlowOp.OPEN, id=id, a=b.iss, mss=1012)
    b.ticks(3)
    b.receive(Segment("SA", seq=0, ack=1, wnd=65535, mss=1012, ws=8, stamp=(7, 3)), id=id)
    b.bell(0, 2_000_000, id=id, settle=3000)


def test_slow_start_behind_a_time_out_is_as_before_whatever_was_to_be_told_of_the_first_one():
    """The unit is busy with another connection for longer than a time-out: it hears of both at once."""
    b = FlowBench(STAMPED, timestamps=1, algorithm=Congestion.CUBIC, rto_min=2, rto_initial=100, tick_us=20_000)
    stamped(b, id=2)
    for _ in range(4):
        b.receive(Segment("A", wnd=65535, stamp=(7, 3)), id=2)
    sent = (b.tcb(2)["snd_max"] - b.iss) & M32
    b.receive(Segment("A", ack=sent, wnd=65535, stamp=(7, 3)), id=2, settle=4000)
    stamped(b)
    for una in range(1000, 27_000, 1000):
        b.receive(Segment("A", ack=1 + una, wnd=65535, stamp=(8, 3 if una < 13_000 else 5)), settle=4000)
    b.offer(Segment("A", ack=sent + 2000, wnd=65535, stamp=(7, 3)), id=2)  # it looks for K, which takes long
    b.cycles(60)
    b.offer(Segment("A", ack=1 + 27_000, wnd=65535, stamp=(8, 5)))
    for _ in range(14):
        b.sim["tick"] = 1
        b.cycles(1)
        b.sim["tick"] = 0
        b.cycles(STAMPED.connections + 12)
    b.cycles(30_000)
    tcb = b.tcb()
    assert (tcb["rexmt_shift"], tcb["cwnd"]) == (1, 1000)
    for una in range(28_000, 33_000, 1000):
        b.receive(Segment("A", ack=1 + una, wnd=65535, stamp=(8, 1)))
    assert b.tcb()["cwnd"] == 6000


def test_an_application_that_sends_little_tells_nothing_of_the_line():
    """One segment at a time, whose acknowledgement the peer delays."""
    t = Transfer(Congestion.CUBIC)
    t.ack(t.una + t.flight())
    while t.written > t.una + t.flight():
        t.ack(t.una + t.flight())
    t.ack(t.una + t.flight())
    t.b.cycles(6000)
    for ticks in (1, 40, 60, 90, 140, 200, 300, 400):
        t.written += 1000
        t.b.bell(0, t.written, settle=40)
        t.b.ticks(ticks)
        t.ack(t.una + 1000, settle=6000)
    assert t.tcb()["ssthresh"] == FIRST


def test_without_programs_slow_start_ends_with_a_loss():
    """The smallest engine has no unit that runs them."""
    b = FlowBench(algorithm=Congestion.NEWRENO)
    b.established(mss=1000)
    assert b.tcb()["ssthresh"] == FIRST
