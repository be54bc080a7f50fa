"""HyStart++, RFC 9406: the first slow start ends where the round trip grows, and not with what a full queue drops.

A program for ``rtt``, shared by algorithms. With timestamps each acknowledgement is a sample: a round is a quarter of a
window, or eight segments, and its minimum counts. Without, the pipeline times one segment a round trip, the first one of a
window, which is the one that finds the shortest queue: a round is judged by that, and not by the eighth as in section 4.2. The
samples are of windows that were full: what an application sends now and then says nothing (a delayed acknowledgement is not
a queue).

Conservative slow start, which lasts CSS_ROUNDS, also ends when the round trip has grown once more by half, and stays so for
a round in which cwnd waits: it comes a round behind what it tells of, and a queue that a round has doubled is full in the
next. For the same reason cwnd grows by an eighth there and not by a quarter (``GENTLE_SHIFT``).

Times are microseconds and one more; 0: there is none. A tick is what they are exact to, so less than two do not count.
"""

from .program import Program, Slow

STARTS = 3
"""The first slow start goes on while ``phase`` is this; what is less means that it is over."""

STATE = ("phase", "other", "base", "shortest", "end", "css", "rounds", "full")
"""base, shortest: of the round before, and of this one; end: sequence number behind this one; css: ``shortest`` when
conservative slow start began, 0: it has not; rounds: of it; full: 1: the round trip has grown by half there, 2: slow start
is over, and the pipeline may not have seen it yet (another sample may be waiting, whose run says the same).
An algorithm has ``phase`` and ``other`` to itself, begins with zeros in the rest, and may use that when slow start is over."""

LEAST_US, MOST_US = 4000, 16000
"""Section 4.3: MIN_RTT_THRESH, MAX_RTT_THRESH."""
CSS_ROUNDS = 5
MOST_AHEAD = 1 << 22
"""Bytes: a round is no longer. What lies further ahead lies behind: between two samples more than 2 GiB may have gone."""


def _begin() -> Program:
    p = Program(STATE)
    for name in STATE[1:]:
        p.set(name, 0)
    p.set("phase", STARTS)
    return p


def _over() -> Program:
    p = Program(STATE)
    p.set("phase", 0)
    return p


def _threshold(p: Program) -> None:
    """Section 4.2, RttThresh."""
    p.set("one", 1)
    p.mul("threshold", "base", "one", 3)
    p.set("bound", LEAST_US)
    p.max("threshold", "threshold", "bound")
    p.set("bound", MOST_US)
    p.min("threshold", "threshold", "bound")
    p.add("bound", "tick_us", "tick_us")
    p.max("threshold", "threshold", "bound")


def _sample() -> Program:
    p = Program(STATE)
    p.set("one", 1)
    p.set("zero", 0)
    p.set("bound", STARTS)
    p.less("phase", "bound", "over")
    p.less("one", "full", "ends")
    p.mul("sample", "before", "tick_us")
    p.add("sample", "sample", "one")
    p.less("shortest", "one", "first")
    p.diff("left", "end", "una")
    p.diff("left", "left", "one")
    p.set("bound", MOST_AHEAD)
    p.less("left", "bound", "within")
    p.jump("next")

    p.label("within")
    p.min("shortest", "shortest", "sample")
    p.less("css", "one", "over")
    p.less("shortest", "css", "resumes")
    p.less("zero", "full", "waits")
    p.jump("gently")

    p.label("next")
    p.copy("base", "shortest")
    p.label("first")
    p.copy("shortest", "sample")
    p.mul("ahead", "cwnd", "one", 2)
    p.set("bound", 8)
    p.mul("bound", "bound", "mss")
    p.max("ahead", "ahead", "bound")
    p.diff("ahead", "zero", "ahead")
    p.diff("end", "una", "ahead")  # a sum that wraps
    p.less("base", "one", "over")  # there is none
    _threshold(p)
    p.less("zero", "css", "conservative")
    p.add("bound", "base", "threshold")
    p.less("shortest", "bound", "over")
    p.copy("css", "shortest")
    p.set("rounds", 0)
    p.set("full", 0)
    p.label("gently")
    p.set("slow", Slow.GENTLY)
    p.end()

    p.label("conservative")
    p.less("shortest", "css", "resumes")
    p.mul("bound", "css", "one", 1)
    p.max("bound", "bound", "threshold")
    p.add("bound", "css", "bound")
    p.add("rounds", "rounds", "one")
    p.less("bound", "shortest", "full")
    p.set("full", 0)
    p.set("bound", CSS_ROUNDS)
    p.less("rounds", "bound", "gently")
    p.jump("ends")
    p.label("full")
    p.less("zero", "full", "ends")
    p.set("full", 1)
    p.label("waits")
    p.set("slow", Slow.WAITS)
    p.end()
    p.label("ends")
    p.set("full", 2)
    p.set("slow", Slow.ENDS)
    p.end()

    p.label("resumes")
    p.set("css", 0)
    p.label("over")
    return p


BEGIN = _begin()
"""For ``begin``: zeros, and the first slow start."""
OVER = _over()
"""For ``loss`` and ``timeout``, of an algorithm that keeps nothing else."""
SAMPLE = _sample()
"""For ``rtt``."""
