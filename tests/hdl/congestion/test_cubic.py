"""CUBIC's programs against RFC 9438 in floating point: the window over time."""

import pytest

from tests.hdl.congestion.interpreter import Interpreter
from tests.hdl.congestion.rfc9438 import C, Cubic
from tiptoe_hdl.congestion.cubic import BETA, CUBIC
from tiptoe_hdl.congestion.program import MOST_STEPS, NEVER

M32 = 0xFFFFFFFF


class Sender:
    """The pipeline's part of congestion avoidance, with whole segments, around the programs. Times in seconds."""

    def __init__(self, segments: int, *, mss=1460, tick_us=1000):
        self.programs = Interpreter(CUBIC)
        self.mss, self.tick_us = mss, tick_us
        self.cwnd, self.acked, self.growth = segments * mss, 0, 0
        self.una, self.time, self.srtt, self.most_steps = 2**32 - 5000, 0.0, 0, 0
        self._run("begin")

    def _run(self, event, before=0, limited=1):
        ticks = int(self.time * 1e6 / self.tick_us) + 2**20 - 100
        settings = self.programs.run(
            event, cwnd=self.cwnd, una=self.una, mss=self.mss, srtt=self.srtt, now=ticks << 12 & M32, before=before,
            limited=limited, tick_us=self.tick_us,
        )  # fmt: skip
        self.growth, self.decrease = settings["growth"], settings["decrease"]
        self.most_steps = max(self.most_steps, self.programs.steps)

    def ack(self, time, rtt, segments=1, limited=1):
        self.time, self.srtt = time, round(rtt * 1e6 / self.tick_us * 8)
        self.una = self.una + segments * self.mss & M32
        if self.growth < NEVER:
            self.acked += segments * self.mss
            if self.acked >= (self.growth or self.cwnd):
                self.acked -= self.growth or self.cwnd
                self.cwnd += self.mss
        self._run("ack", limited=limited)

    def loss(self):
        before, self.acked = self.cwnd, 0
        self.cwnd = max(self.cwnd * self.decrease >> 8, 2 * self.mss)
        self._run("loss", before)

    def timeout(self):
        """And the slow start behind it."""
        before, self.acked = self.cwnd, 0
        self.cwnd = max(self.cwnd * self.decrease >> 8, 2 * self.mss)
        self._run("timeout", before)


def pair(segments, **sizes):
    ours, meant = Sender(segments, **sizes), Cubic(cwnd=segments)
    return ours, meant


def round_trip(ours, meant, time, rtt):
    """All of a window acknowledged, evenly over a round trip, four segments at a time."""
    for k in range(0, count := int(meant.cwnd), 4):
        meant.ack(min(4, count - k), time + k * rtt / count, rtt)
    for k in range(0, count := ours.cwnd // ours.mss, 4):
        ours.ack(time + k * rtt / count, rtt, min(4, count - k))


@pytest.mark.parametrize(
    "rtt, mss, tick_us, segments, losses",
    [
        (0.002, 1460, 1000, 30, [0.1, 0.3]),  # Reno-friendly all the time
        (0.002, 1460, 100, 30, [0.1, 0.3]),
        (0.02, 1460, 1000, 60, [1, 2]),
        (0.1, 1460, 1000, 60, [1, 4, 6]),
        (0.1, 536, 100, 60, [1, 4, 6]),
        (0.1, 8960, 10_000, 200, [1, 6]),
        (0.3, 1460, 1000, 100, [1, 12]),
        (0.3, 48, 65_535, 100, [1, 12]),
    ],
)
def test_window_over_time(rtt, mss, tick_us, segments, losses):
    """Never further apart than 3 % and two segments; behind the second loss fast convergence takes part."""
    ours, meant = pair(segments, mss=mss, tick_us=tick_us)
    time, left = 0.0, [*losses]
    while time < losses[-1] + 1.5 * losses[-1] ** 0.5:
        if left and time >= left[0]:
            left.pop(0)
            ours.loss()
            meant.loss(meant.cwnd)
        round_trip(ours, meant, time, rtt)
        time += rtt
        apart = abs(ours.cwnd / mss - meant.cwnd)
        assert apart <= 0.03 * meant.cwnd + 2, f"at {time:.2f} s: {ours.cwnd / mss:.1f}, RFC 9438: {meant.cwnd:.1f}"
    assert ours.most_steps < MOST_STEPS // 4


@pytest.mark.parametrize("deficit", [1, 10, 300, 5_000, 100_000])
@pytest.mark.parametrize("mss", [48, 536, 1460, 4095])
def test_k(deficit, mss):
    """K is right to a thousandth of a second, or the curve's rounding to bytes."""
    ours = Sender(2, mss=mss)
    w_max = min(deficit * mss * 10 // 3, 2**24 - 1)
    ours.cwnd = w_max
    ours.loss()
    ours.cwnd = w_max * 7 // 10
    ours.ack(1.0, 0.1)
    meant = min(((w_max - ours.cwnd) / mss / C) ** (1 / 3), 128)
    k = ours.programs.state[2] / 1024
    assert abs(k - meant) <= 0.002 + 0.01 * meant, (k, meant)


def test_beta():
    assert BETA / 256 == pytest.approx(0.7, abs=0.001) and CUBIC.decrease == BETA


def test_fast_convergence():
    """Section 4.7: a window that fell short of the last one leaves room."""
    ours = Sender(100)
    ours.cwnd = 100 * 1460
    ours.loss()
    assert ours.programs.state[1] == 100 * 1460
    ours.cwnd = 80 * 1460
    ours.loss()
    assert ours.programs.state[1] == pytest.approx(80 * 1460 * 0.85, abs=2)
    ours.cwnd = 90 * 1460
    ours.loss()
    assert ours.programs.state[1] == 90 * 1460


def test_behind_a_timeout_the_curve_begins_at_the_window():
    """Section 4.8: K is 0, w_max and W_est are the window with which congestion avoidance begins."""
    ours, meant = pair(100)
    ours.timeout()
    meant.timeout(ours.cwnd / 1460)
    time = 0.0
    while time < 4:
        round_trip(ours, meant, time, 0.1)
        time += 0.1
        assert abs(ours.cwnd / 1460 - meant.cwnd) <= 0.03 * meant.cwnd + 2
    assert ours.programs.state[2] == 0


@pytest.mark.parametrize("idle", [5, 200, 1048.0, 2000])
def test_time_in_which_the_application_sends_little_does_not_count(idle):
    """Section 5.8: behind it cwnd goes on from where it was, for whatever time; that is longer than the clock of 2**20 ticks."""
    ours, meant = pair(60)
    ours.loss()
    meant.loss(60)
    for k in range(10):
        round_trip(ours, meant, k * 0.1, 0.1)
    before = ours.cwnd
    for k in range(20):
        ours.ack(1 + k * idle / 20, 0.1, limited=0)
        assert ours.growth == NEVER
    assert ours.cwnd == before
    begin = 1 + idle
    meant.epoch += idle - 0.1
    for k in range(15):
        round_trip(ours, meant, begin + k * 0.1, 0.1)
        assert abs(ours.cwnd / 1460 - meant.cwnd) <= 0.03 * meant.cwnd + 2


def test_a_pause_counts_as_two_round_trips():
    """Nothing is told of a connection that is idle: the time between two acknowledgements is cut."""
    ours = Sender(60)
    ours.loss()
    ours.ack(0.0, 0.1)
    ours.ack(500.0, 0.1)
    assert ours.programs.state[3] == 202_000


@pytest.mark.parametrize("segments", [1, 2, 7800])
def test_largest_and_smallest_windows(segments):
    """Up to 2**24 bytes: products are not cut, cwnd grows by half a round trip at most."""
    ours = Sender(segments, mss=2048)
    ours.cwnd = min(ours.cwnd, 2**24 - 1)
    ours.loss()
    for k in range(50):
        ours.ack(k * 1.0, 4.0)
        assert ours.growth >= 2 * ours.mss
        ours.cwnd = min(ours.cwnd, 2**24 - 1)
