"""Congestion control algorithms in the flow: CUBIC (RFC 9438) beside the pipeline, and the host's own."""

import pytest

from tests.hdl.congestion.rfc9438 import Cubic
from tests.hdl.flow.bench import M32, FlowBench, FlowOp, Segment, Status
from tests.hdl.flow.congestion_bench import ALL
from tiptoe_hdl.congestion.cubic import BETA
from tiptoe_hdl.messages import Congestion

WND, WS = 65535, 8
RTT = 40


class Transfer:
    """A connection with segments of 1,000 bytes that always has data, and a peer that acknowledges every second one. Our sequence
    numbers pass 0 in it."""

    def __init__(self, algorithm=Congestion.CUBIC, **settings):
        self.b = b = FlowBench(ALL, algorithm=algorithm, rto_min=1000, **settings)
        b.iss = -100_000 & M32
        assert b.provision(snd_log2=22) == Status.OK
        b.request(FlowOp.OPEN, a=b.iss, mss=1000)
        b.ticks(RTT)
        b.receive(Segment("SA", seq=0, ack=1, wnd=WND, mss=1000, ws=WS))
        self.una = self.end = self.written = 0
        self.write()

    def write(self, count=2_000_000):
        """So much more than is acknowledged."""
        if self.written < self.una + count:
            self.written = self.una + count
            self.b.bell(0, self.written, settle=3000)

    def tcb(self):
        return self.b.tcb()

    def ack(self, upto, settle=500):
        self.una = upto
        self.b.receive(Segment("A", ack=1 + upto & M32, wnd=WND), settle=settle)

    def flight(self):
        """Bytes under way."""
        return (self.tcb()["snd_max"] - self.b.iss - 1 - self.una) & M32

    def round_trip(self, ticks=RTT):
        """What is under way is acknowledged, in the last tick of a round trip."""
        self.write()
        end = self.una + self.flight()
        self.b.ticks(ticks)
        while self.una < end:
            self.ack(min(self.una + 2000, end))

    def loss(self):
        """Three duplicate acknowledgements; then all that was under way is acknowledged."""
        for _ in range(3):
            self.b.receive(Segment("A", ack=1 + self.una & M32, wnd=WND))
        assert self.tcb()["in_recovery"]
        self.ack(self.una + self.flight())
        assert not self.tcb()["in_recovery"]

    def timeout(self):
        end = self.una + self.flight()
        self.b.ticks(self.tcb()["rto"] + 2)
        self.ack(end)


def grown(algorithm=Congestion.CUBIC, segments=50, **settings):
    """In slow start, up to so many segments."""
    t = Transfer(algorithm, **settings)
    while t.tcb()["cwnd"] < segments * 1000:
        t.ack(t.una + 2000)
    return t


@pytest.mark.parametrize("algorithm, share", [("NEWRENO", 128), ("RENO", 128), ("CUBIC", BETA), ("HOST", 128)])
@pytest.mark.parametrize("how", ["loss", "timeout"])
def test_share_that_remains_at_a_loss(algorithm, share, how):
    t = grown(Congestion[algorithm], 30)
    flight, before = t.flight(), t.tcb()["losses"]
    getattr(t, how)()
    tcb = t.tcb()
    assert tcb["ssthresh"] == flight * share >> 8 and tcb["losses"] == before + 1
    assert tcb["cwnd"] == tcb["ssthresh"] or how == "timeout"


@pytest.mark.parametrize("algorithm, segments, left", [
    ("CUBIC", 1, 2000), ("CUBIC", 2, 2000), ("CUBIC", 3, 2000), ("CUBIC", 4, 4000 * BETA >> 8),
    ("NEWRENO", 1, 2000), ("NEWRENO", 3, 2000), ("NEWRENO", 4, 2000), ("NEWRENO", 5, 2500),
])  # fmt: skip
def test_two_segments_remain_at_least(algorithm, segments, left):
    """Section 4.6; RFC 5681, equation 4."""
    b = FlowBench(ALL, algorithm=Congestion[algorithm], rto_initial=10, rto_min=10)
    b.established(mss=1000)
    b.bell(0, segments * 1000)
    b.ticks(b.tcb()["rto"] + 2)
    tcb = b.tcb()
    assert (tcb["ssthresh"], tcb["cwnd"], tcb["losses"]) == (left, 1000, 1)


def test_cubic_over_time():
    """The window of the engine after a loss, through the plateau and beyond: within 3 % and two segments of RFC 9438's."""
    t = grown(segments=50)
    flight = t.flight() / 1000
    meant = Cubic(cwnd=t.tcb()["cwnd"] / 1000)
    t.loss()
    meant.loss(flight)
    time = 0.0
    for _ in range(120):
        for k in range(0, int(meant.cwnd), 2):
            meant.ack(2, time + k / meant.cwnd * 0.001, RTT / 1000)
        t.round_trip()
        time += RTT / 1000
        cwnd = t.tcb()["cwnd"] / 1000
        assert abs(cwnd - meant.cwnd) <= 0.03 * meant.cwnd + 2, (time, cwnd, meant.cwnd)
    assert meant.cwnd > 50, "beyond w_max"


def test_the_application_sends_little_the_window_stays():
    """RFC 9438 section 5.8."""
    t = grown(segments=40)
    t.loss()
    t.round_trip()
    before = t.tcb()["cwnd"]
    t.ack(t.una + t.flight())
    while t.written > t.una + t.flight():  # what was written is sent out
        t.ack(t.una + t.flight())
    t.ack(t.una + t.flight())
    before = t.tcb()["cwnd"]
    for _ in range(200):
        t.written += 1000
        t.b.bell(0, t.written, settle=40)
        t.ack(t.una + 1000)
        t.b.cycles(12_000)
    assert t.tcb()["cwnd"] - before <= 1000


def test_a_new_life_begins_as_register_says():
    t = grown(segments=20)
    b = t.b
    assert b.request(FlowOp.CONGESTION, a=Congestion.RENO.value) == Status.OK
    t.loss()
    tcb = b.tcb()
    assert (tcb["algorithm"], tcb["losses"]) == (Congestion.RENO.value, 1)
    assert b.request(FlowOp.ABORT) == b.request(FlowOp.RELEASE) == Status.OK
    b.established(mss=1000)
    tcb = b.tcb()
    assert (tcb["algorithm"], tcb["losses"]) == (Congestion.CUBIC.value, 0)


# ---------------------------------------------------------------------- the host's own


def set_cwnd(t, cwnd, ssthresh):
    return t.b.request(FlowOp.CWND, a=cwnd, b=ssthresh)


@pytest.mark.parametrize("algorithm", [a for a in Congestion if a.name != "HOST"])
def test_others_do_not_leave_the_window_to_the_host(algorithm):
    t = Transfer(algorithm)
    before = t.tcb()["cwnd"]
    assert set_cwnd(t, 5000, 5000) == Status.BAD_STATE and t.tcb()["cwnd"] == before


@pytest.mark.parametrize("cwnd, is_", [(0, 1000), (999, 1000), (1000, 1000), (25_000, 25_000), (2**24 - 1, 2**24 - 1)])
def test_host_writes_the_window(cwnd, is_):
    t = Transfer(Congestion.HOST)
    assert set_cwnd(t, cwnd, 7000) == Status.OK
    assert (t.tcb()["cwnd"], t.tcb()["ssthresh"]) == (is_, 7000)


@pytest.mark.parametrize("ssthresh, is_", [(0, 1000), (999, 1000), (1000, 1000)])
def test_host_s_threshold_is_a_segment_at_least_so_recovery_leaves_one(ssthresh, is_):
    """cwnd becomes ssthresh at recovery's end: with less than a segment nothing would go any more."""
    t = Transfer(Congestion.HOST)
    set_cwnd(t, 20_000, 20_000)
    t.round_trip()
    t.loss()
    assert set_cwnd(t, 10_000, ssthresh) == Status.OK and t.tcb()["ssthresh"] == is_
    for _ in range(5):
        t.round_trip()
    assert t.tcb()["cwnd"] >= 1000


def test_not_before_it_is_established():
    b = FlowBench(ALL, algorithm=Congestion.HOST)
    assert b.request(FlowOp.CWND, a=1, b=1) == Status.BAD_ID
    b.syn_sent()
    assert b.request(FlowOp.CWND, a=1, b=1) == Status.BAD_STATE


def test_host_s_window_is_used_at_once_and_does_not_grow():
    t = Transfer(Congestion.HOST)
    set_cwnd(t, 30_000, 30_000)
    t.ack(t.una + 1000)
    assert t.flight() == 30_000
    for _ in range(5):
        t.round_trip()
    assert t.tcb()["cwnd"] == 30_000


def test_a_host_s_algorithm():
    """AIMD in the host: three segments more a round trip, three quarters at a loss, from nothing but the TCB's pages."""
    t = Transfer(Congestion.HOST)
    cwnd, losses, acked, sizes = 20_000, 0, 0, []
    set_cwnd(t, cwnd, cwnd)
    for number in range(8):
        if number == 4:
            t.loss()
        t.round_trip()
        tcb = t.tcb()
        if tcb["losses"] != losses:
            losses, cwnd, acked = tcb["losses"], cwnd * 3 // 4, tcb["snd_una"]
        elif (tcb["snd_una"] - acked) & M32 >= cwnd:
            cwnd, acked = cwnd + 3000, tcb["snd_una"]
        set_cwnd(t, cwnd, cwnd)
        sizes.append(t.tcb()["cwnd"])
    assert sizes[:4] == [23_000, 26_000, 29_000, 32_000] and sizes[4] == 24_000 and sizes[-1] > sizes[4]
