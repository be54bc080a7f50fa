"""CUBIC, RFC 9438: the window as a cubic function of the time since the last loss.

Bytes instead of segments, so C is 0.4 * mss bytes/s**3. Time is in 1/1024 s where it is raised to the third power, at most
2**17 of these (128 s), which is more than the largest K; elapsed time is kept in microseconds, saturating at 71 minutes.
Only the time counts in which the window was full (section 5.8): of the time between two acknowledgements at most two round
trips and two ticks, what is more is idleness.

The pipeline enlarges cwnd by whole segments, one for each ``growth`` bytes acknowledged: cwnd * mss / (target - cwnd), so
that cwnd has come to the target a round trip later (section 4.4, 4.5). In the Reno-friendly region the target is W_est
(section 4.3), which cwnd so follows at a distance of less than one segment, plus what one round trip adds. Two segments at
least, which the limit of 1.5 * cwnd gives for the cubic function anyway.

Slow start ends by HyStart++ (section 4.10; ``hystart.py``). Not in it: taking back what was a spurious loss (section 4.9).
"""

from . import hystart
from .program import NEVER, Algorithm, Program

BETA = 179
"""256ths: 0.6992 for the 0.7 of section 4.6."""
FAST_CONVERGENCE = round(0.85 * 2**16)
"""(1 + beta) / 2 (section 4.7), times 2**16."""
ALPHA = round(3 * 0.3 / 1.7 * 2**16)
"""3 (1 - beta) / (1 + beta) (section 4.3), times 2**16."""
C = round(0.4 * 2**16)
PER_US = round(1024 / 1e6 * 2**24)
"""1/1024 s a microsecond, times 2**24."""
MOST_K = 1 << 16
"""Highest bit of K."""

AFTER_LOSS, RUNS, PLAIN = 0, 1, 2
"""Phases: the next acknowledgement in congestion avoidance begins an epoch, with K from w_max; an epoch runs; the next one
begins with K = 0 (after a time-out, section 4.8). Likewise after slow start without loss (section 4.10): ``hystart.STARTS``,
which is another phase, or HyStart++ would take for its own what a time-out has left."""

STATE = ("phase", "w_max", "k", "t", "seen", "w_est", "una_seen", "prior")
"""t: microseconds; k: 1/1024 s; seen: ``now`` of the last acknowledgement; w_est, prior (cwnd_prior): bytes times 256."""


def _in_256ths(p: Program, target: str, source: str) -> None:
    """target = source, bytes times 256."""
    p.set("factor", 1 << 8)
    p.mul(target, source, "factor")


def _cube(p: Program, target: str, time: str) -> None:
    """target = 0.4 * mss * time**3 in bytes."""
    p.mul(target, time, time, 4)  # s**2, times 2**16
    p.mul(target, target, time, 16)  # s**3, times 2**10
    p.set("factor", C)
    p.mul(target, target, "factor", 16)
    p.mul(target, target, "mss", 10)


def _window(p: Program, target: str, time: str, name: str) -> None:
    """target = W_cubic(time), figure 1."""
    p.less(time, "k", f"{name}_before_k")
    p.sub("distance", time, "k")
    _cube(p, target, "distance")
    p.add(target, "w_max", target)
    p.jump(f"{name}_done")
    p.label(f"{name}_before_k")
    p.sub("distance", "k", time)
    _cube(p, target, "distance")
    p.sub(target, "w_max", target)
    p.label(f"{name}_done")


def _timeout() -> Program:
    """Section 4.8."""
    p = Program(STATE)
    p.set("phase", PLAIN)
    _in_256ths(p, "prior", "before")
    return p


def _loss() -> Program:
    """Sections 4.6 and 4.7."""
    p = Program(STATE)
    p.set("phase", AFTER_LOSS)
    _in_256ths(p, "prior", "before")
    p.less("before", "w_max", "converges")
    p.copy("w_max", "before")
    p.end()
    p.label("converges")
    p.set("factor", FAST_CONVERGENCE)
    p.mul("w_max", "before", "factor", 16)
    return p


def _ack() -> Program:
    p = Program(STATE)
    p.set("zero", 0)
    p.set("one", 1)
    p.less("phase", "one", "after_loss")
    p.set("more", PLAIN)
    p.less("phase", "more", "runs")

    # An epoch begins: sections 4.2, 4.8.
    p.label("plain")
    p.copy("w_max", "cwnd")
    p.set("k", 0)
    p.jump("begins")
    p.label("after_loss")
    p.less("w_max", "cwnd", "plain")
    p.sub("most", "w_max", "cwnd")
    p.set("k", 0)
    p.set("more", MOST_K)
    p.label("search")  # K is the largest time whose cube is not above w_max - cwnd: bit by bit
    p.add("time", "k", "more")
    _cube(p, "target", "time")
    p.less("most", "target", "too_much")
    p.copy("k", "time")
    p.label("too_much")
    p.mul("more", "more", "one", 1)
    p.less("zero", "more", "search")
    p.label("begins")
    p.set("phase", RUNS)
    p.set("t", 0)
    _in_256ths(p, "w_est", "cwnd")
    p.copy("seen", "now")
    p.copy("una_seen", "una")
    p.jump("compare")

    # Time and bytes since the last acknowledgement.
    p.label("runs")
    p.diff("elapsed", "now", "seen")
    p.copy("seen", "now")
    p.diff("acked", "una", "una_seen")
    p.copy("una_seen", "una")
    p.less("zero", "limited", "counts")
    p.set("growth", NEVER)
    p.end()
    p.label("counts")
    p.mul("elapsed", "elapsed", "tick_us", 12)
    p.mul("most", "srtt", "tick_us", 2)
    p.add("most", "most", "tick_us")
    p.add("most", "most", "tick_us")
    p.min("elapsed", "elapsed", "most")
    p.add("t", "t", "elapsed")
    # Section 4.3, figure 4.
    _in_256ths(p, "more", "mss")
    p.div("more", "acked", "more", "cwnd")
    p.less("w_est", "prior", "slower")
    p.jump("adds")
    p.label("slower")
    p.set("factor", ALPHA)
    p.mul("more", "more", "factor", 16)
    p.label("adds")
    p.add("w_est", "w_est", "more")

    p.label("compare")
    p.set("factor", PER_US)
    p.mul("time", "t", "factor", 24)
    p.mul("rtt", "srtt", "tick_us", 3)
    p.mul("rtt", "rtt", "factor", 24)
    p.set("most", 2 * MOST_K - 1)
    p.min("time", "time", "most")
    p.mul("reno", "w_est", "one", 8)
    _window(p, "target", "time", "now")
    p.less("target", "reno", "friendly")
    p.add("time", "time", "rtt")
    p.min("time", "time", "most")
    _window(p, "target", "time", "then")
    p.set("factor", 3)
    p.mul("most", "cwnd", "factor", 1)
    p.min("target", "target", "most")
    p.jump("steer")
    p.label("friendly")
    p.copy("target", "reno")
    p.label("steer")
    p.less("cwnd", "target", "grows")
    p.set("growth", NEVER)
    p.end()
    p.label("grows")
    p.sub("target", "target", "cwnd")
    p.div("target", "cwnd", "mss", "target")
    p.add("most", "mss", "mss")
    p.max("growth", "target", "most")
    return p


CUBIC = Algorithm(
    name="cubic",
    text="RFC 9438.",
    decrease=BETA,
    programs={"begin": hystart.BEGIN, "timeout": _timeout(), "loss": _loss(), "rtt": hystart.SAMPLE, "ack": _ack()},
)
