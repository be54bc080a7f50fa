"""HyStart++ (RFC 9406) in a model of the line: slow start ends before the queue is full, and not before it is needed."""

from collections import deque
from dataclasses import dataclass, field

import pytest

from tests.hdl.congestion.interpreter import Interpreter
from tiptoe_hdl.congestion import CUBIC, NEWRENO
from tiptoe_hdl.congestion.program import GENTLE_SHIFT, Slow

MSS = 1460
M32 = 0xFFFFFFFF
NEWS = dict(srtt=0, now=0, limited=1, mss=MSS)


@dataclass
class Line:
    """A bottleneck: milliseconds a segment, milliseconds there and back, segments that its queue takes; ``more`` says how much
    longer a segment is under way besides, by its number."""

    per_segment: float
    rtt: float
    queue: int
    more: dict = field(default_factory=dict)


class SlowStart:
    """One connection with as much to send as it may, and a peer that acknowledges each segment; the pipeline's part of slow
    start, and one timed segment a round trip, or (``every``) a sample for each acknowledgement; in ticks."""

    def __init__(self, algorithm, line: Line, tick_us=1000, una=2**32 - 20 * MSS, every=False):
        self.programs, self.line, self.tick_us = Interpreter(algorithm), line, tick_us
        self.every = every
        self.cwnd, self.una, self.slow, self.ended = 10 * MSS, una, 0, 0
        self.samples, self.said, self.dropped, self.most = [], [], 0, 0
        self._run("begin", 0)

    def _run(self, event, sample):
        news = NEWS | dict(cwnd=self.cwnd, una=self.una & M32, before=sample, tick_us=self.tick_us)
        self.slow = self.programs.run(event, **news)["slow"]

    def run(self, segments: int):
        """Until so many are acknowledged, or slow start has ended, or a segment was dropped."""
        line, sent, free, timed = self.line, 0, 0.0, None
        under_way, now = deque(), 0.0
        for number in range(segments):
            while self.cwnd // MSS > sent - number and not self.dropped:
                waits = max(0.0, free - now) / line.per_segment
                if waits > line.queue:
                    self.dropped += 1
                    return self
                self.most = max(self.most, waits)
                free = max(free, now) + line.per_segment
                under_way.append((free + line.rtt + line.more.get(sent, 0), now))
                timed = timed or (sent, now)
                sent += 1
            arrives, began = under_way.popleft()
            now = max(now, arrives)  # nothing overtakes
            self.una += MSS
            if not self.ended:
                self.cwnd += {Slow.STARTS: MSS, Slow.GENTLY: MSS >> GENTLE_SHIFT, Slow.WAITS: 0}[self.slow]
            if self.every or timed[0] == number:
                ticks = [int(at * 1000 / self.tick_us) for at in (began, now)]
                timed = None
                self.samples.append(ticks[1] - ticks[0])
                self._run("rtt", self.samples[-1])
                self.said.append(self.slow)
                if self.slow == Slow.ENDS:
                    self.ended = self.cwnd
                    return self
        return self


ALGORITHMS = pytest.mark.parametrize("algorithm", [NEWRENO, CUBIC], ids=lambda algorithm: algorithm.name)
FRAME_MS = 1514 / 500


LINES = {
    "1 ms": (Line(FRAME_MS, 1, 64), 20, 30),
    "20 ms": (Line(FRAME_MS, 20, 64), 20, 30),
    "100 ms": (Line(FRAME_MS, 100, 64), 60, 95),
}
"""Of the benchmark; and between how many segments slow start is to end."""

DEEP = {
    "20 ms, a segment in 0.1 ms": Line(0.1, 20, 400),
    "100 ms, a segment in 0.3 ms": Line(0.3, 100, 670),
    "200 ms, a segment in 0.5 ms": Line(0.5, 200, 800),
}
"""With queues of twice what is under way on the line."""


@ALGORITHMS
@pytest.mark.parametrize("every", [False, True], ids=["one sample a round trip", "one each acknowledgement"])
@pytest.mark.parametrize("line, least, most", LINES.values(), ids=LINES)
def test_slow_start_ends_when_the_line_is_full_and_its_queue_is_not(algorithm, line, least, most, every):
    s = SlowStart(algorithm, line, every=every).run(5000)
    assert not s.dropped and s.cwnd > line.rtt / line.per_segment * MSS
    assert least <= s.ended / MSS <= most


@pytest.mark.parametrize("line", DEEP.values(), ids=DEEP)
def test_samples_of_each_acknowledgement_tell_a_round_earlier(line):
    s = SlowStart(CUBIC, line, every=True).run(5000)
    assert s.ended and not s.dropped and s.ended > line.rtt / line.per_segment * MSS


LATE = {
    "one round trip": dict.fromkeys(range(20, 40), 30),
    "two of them, less the second time": {n: 30 if n < 40 else 20 for n in range(20, 80)},
    "two of them, much more the second time": {n: 30 if n < 40 else 200 for n in range(20, 70)},
    "more each time, but little": {n: 3 * (n // 300) for n in range(3000)},
    "always the same": dict.fromkeys(range(10_000), 50),
}
"""What makes segments late without a queue, in ms by their number."""


@ALGORITHMS
@pytest.mark.parametrize("more", LATE.values(), ids=LATE)
def test_what_is_late_for_a_while_does_not_end_slow_start(algorithm, more):
    line = Line(0.01, 100, 10_000, more)
    s = SlowStart(algorithm, line).run(5000)
    assert not s.ended and s.cwnd > 2500 * MSS


def test_conservative_slow_start_and_back():
    """Section 4.2: it begins with a round trip that is 12.5 ms longer, and a shorter one ends it."""
    s = SlowStart(CUBIC, LINES["100 ms"][0])
    said = []
    for sample in (100, 113, 112, 112, 127, 113):
        s._run("rtt", sample)
        said.append(s.slow)
        s.una += s.cwnd
    assert said == [Slow.STARTS, Slow.GENTLY, Slow.STARTS, Slow.STARTS, Slow.GENTLY, Slow.STARTS]


THRESHOLDS = [
    # base, tick_us, what just does not begin it, what does: all in ticks
    (0, 1000, 3, 4),
    (20, 1000, 23, 24),
    (80, 1000, 89, 90),
    (100, 1000, 112, 113),
    (400, 1000, 415, 416),
    (40, 100, 79, 80),
    (2, 10_000, 3, 4),  # two ticks
    (0, 65_535, 1, 2),
]


@pytest.mark.parametrize("base, tick_us, less, enough", THRESHOLDS)
def test_how_much_longer_a_round_trip_has_to_be(base, tick_us, less, enough):
    for sample, said in ((less, Slow.STARTS), (enough, Slow.GENTLY)):
        s = SlowStart(CUBIC, LINES["20 ms"][0], tick_us)
        s._run("rtt", base)
        s.una += s.cwnd
        s._run("rtt", sample)
        assert s.slow == said


@pytest.mark.parametrize("algorithm", [NEWRENO, CUBIC], ids=lambda algorithm: algorithm.name)
def test_it_ends_with_the_fifth_round_of_no_shorter_a_round_trip(algorithm):
    s = SlowStart(algorithm, LINES["20 ms"][0])
    said = []
    for sample in (20, 30, 31, 30, 32, 30, 33):
        s._run("rtt", sample)
        said.append(s.slow)
        s.una += s.cwnd
    assert said == [Slow.STARTS, *[Slow.GENTLY] * 5, Slow.ENDS]


@pytest.mark.parametrize("algorithm", [NEWRENO, CUBIC], ids=lambda algorithm: algorithm.name)
def test_it_waits_a_round_when_the_round_trip_has_grown_by_half_and_then_ends(algorithm):
    for last, said in ((46, Slow.ENDS), (40, Slow.GENTLY), (29, Slow.STARTS)):
        s = SlowStart(algorithm, LINES["20 ms"][0])
        for sample, expected in ((20, Slow.STARTS), (30, Slow.GENTLY), (46, Slow.WAITS), (last, said)):
            s._run("rtt", sample)
            assert s.slow == expected
            s.una += s.cwnd


@pytest.mark.parametrize("algorithm", [NEWRENO, CUBIC], ids=lambda algorithm: algorithm.name)
def test_a_loss_is_the_end_of_it(algorithm):
    """RFC 9406 section 4.3: the first slow start only."""
    s = SlowStart(algorithm, LINES["20 ms"][0])
    s._run("rtt", 20)
    s._run("loss", s.cwnd)
    for sample in (60, 90, 200):
        s.una += s.cwnd
        s._run("rtt", sample)
        assert s.slow == Slow.STARTS


def test_a_new_connection_knows_nothing_of_the_one_before():
    s = SlowStart(CUBIC, LINES["20 ms"][0])
    for sample in (20, 60):
        s._run("rtt", sample)
        s.una += s.cwnd
    assert s.slow == Slow.GENTLY
    s._run("begin", 0)
    s._run("rtt", 200)
    assert s.slow == Slow.STARTS


@pytest.mark.parametrize("idle", [2**31 - 10**6, 2**31 + 10**6, 2**32 - 10**7])
@pytest.mark.parametrize("before", [[20], [20, 30], [20, 30, 46]], ids=["no queue", "a queue", "a long one"])
def test_more_than_two_gibibytes_between_two_samples_are_more_than_a_round(before, idle):
    """Of an application that has left the window unused for so long, nothing was told."""
    s = SlowStart(CUBIC, LINES["20 ms"][0])
    for sample in before:
        s._run("rtt", sample)
        s.una += s.cwnd
    s.una += idle
    said = []
    for sample in (20, *[40] * 6):
        s._run("rtt", sample)
        said.append(s.slow)
        s.una += s.cwnd
    assert said == [Slow.STARTS, *[Slow.GENTLY] * 5, Slow.ENDS]
