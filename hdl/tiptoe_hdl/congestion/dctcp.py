"""DCTCP, RFC 8257: cwnd is cut by as much as was marked.

Of each window of data it is counted how many of the acknowledged bytes came with ECE (section 3.3); alpha is the running mean of
that share with the weight g = 1/16, in 2**-20, and begins with 1. At an acknowledgement with ECE 1 - alpha / 2 of cwnd remains
(step 9 there), in 256ths, never less than half nor more than 255 of them; at a loss half (section 3.5). Otherwise it is NewReno.

A window ends when as many bytes have been acknowledged as cwnd had when it began, which is SND.NXT if all of cwnd is used. On a
connection without ECN nothing is ever marked, and nothing cut but by losses.
"""

from .program import Algorithm, Program

ONE = 1 << 20
G_SHIFT = 4
STATE = ("alpha", "una_seen", "marked_seen", "window")


def _begin() -> Program:
    p = Program(STATE)
    p.set("alpha", ONE)
    p.copy("una_seen", "una")
    p.copy("marked_seen", "marked")
    p.copy("window", "cwnd")
    return p


def _ack() -> Program:
    p = Program(STATE)
    p.set("one", 1)
    p.diff("acked", "una", "una_seen")
    p.less("acked", "window", "steers")
    # Section 3.3, steps 4 to 9.
    p.diff("share", "marked", "marked_seen")
    p.min("share", "share", "acked")
    p.set("whole", ONE)
    p.div("share", "share", "whole", "acked")
    p.mul("share", "share", "one", G_SHIFT)
    p.mul("old", "alpha", "one", G_SHIFT)
    p.sub("alpha", "alpha", "old")
    p.add("alpha", "alpha", "share")
    p.copy("una_seen", "una")
    p.copy("marked_seen", "marked")
    p.copy("window", "cwnd")
    p.label("steers")
    p.mul("share", "alpha", "one", 13)  # alpha / 2, in 256ths
    p.set("whole", 256)
    p.sub("share", "whole", "share")
    p.copy("decrease", "share")
    return p


DCTCP = Algorithm(
    name="dctcp",
    text="RFC 8257.",
    accurate=True,
    programs={"begin": _begin(), "ack": _ack()},
)
