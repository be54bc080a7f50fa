"""A connection's pacing rate: which data waits for it. The gaps are reckoned beside the pipeline (``flow/pacing.py``).

Behind each data segment of a connection with a rate (``has_rate``) comes a gap (``spacing``), at whose end the connection has a
turn that is ``due``. Within it no pass sends data, but for three kinds: what the retransmission timer sends (again, or a
probe of a window or a tail: else its next end would come before it had gone, and count as one more silence); the segment
at snd_una whose loss was noticed (``rexmt_one``, one in a pass that notices it); and a window probe's octet. They make the
gap longer, so the rate holds over time. ACKs, window updates, SYN, a FIN without data and resets are no data: they go at
once, and no gap comes behind them.

Invariant: while ``spacing``, the id stands in the pacing queue, once. So it stays when the id begins anew or loses its rate; a
gap without a rate holds up nothing.
"""

from ..tcb import INTERVAL_BITS
from . import choose


def measure(s):
    """Step 2."""
    return dict(
        in_gap=s.has_rate & s.spacing & ~s.is_due,
        still_spacing=s.spacing & ~s.is_due,
        asks_rate=s.e_seq[:INTERVAL_BITS].any(),
    )


def apply(s):
    """Step 4: a new rate, or none; and whether data waits."""
    return dict(
        rate_holds=s.in_gap & (~s.rexmt_due | s.idle),
        has_rate=choose(s.has_rate, (s.fresh, 0), (s.do_pacing, s.asks_rate)),
        sets_rate=s.fresh | s.do_pacing,
    )


def allow(s):
    """Step 6."""
    return dict(rate_held=s.rate_holds & ~s.again & ~s.force_one)


def charge(s):
    """Step 8: data leaves, unless a reset goes in its place."""
    return dict(charges=s.has_rate & s.data & s.emit)


def space(s):
    """Step 9."""
    charged = s.charges & ~s.reset
    return dict(charged=charged, spacing=s.still_spacing | charged)
