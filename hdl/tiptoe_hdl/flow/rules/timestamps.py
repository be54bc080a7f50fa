"""Timestamps: RFC 7323 sections 3 to 5; what of them is RTTM's goes on in ``rtt.py``.

TSval of a connection is the engine's clock and ISS: the offset of section 7.1, which nothing has to store. The clock counts
ticks, 32 bits, and begins with a secret of the driver's.

**PAWS** (section 5.3): a segment whose TSval lies before TS.Recent is not acceptable, whatever its numbers; resets are exempt
(section 5.2). Its ACK is one of those that ``ack_limit.py`` limits. TS.Recent counts for 2^31 ticks (section 5.5, 24.8 days),
known by the clock's highest 8 bits; what comes later is taken however it compares, and begins anew. So no comparison that has
wrapped holds up a connection for good. The age has no more bits than the clock: a connection on which nothing came for 2^32 to
1.5 * 2^32 ticks (49.7 to 74.6 days) is taken for a young one, and holds up a peer whose clock has not run as fast as ours until
it has caught up. Keep-alive is what prevents that.

**TS.Recent** (section 4.3) is that of the last segment that moved what is acknowledged: SEG.SEQ <= Last.ACK.sent. The latter is
RCV.NXT while nothing waits for its ACK (``delack``, ``ack_now``), and while something does no segment counts, which may leave out
one that comes again, never one too many.

A segment without the option is processed (section 3.2 permits to drop it, "SHOULD"): something on the way, or a layout that the
parser does not know (``rx/sack_walker.py``), would otherwise end the connection, and what PAWS protects from, old segments of
this connection, carry the option.

**TSecr** counts as a round trip if it is between now and RTO_MAX ago: neither from the future nor never sent. A peer that lies
within that gets no less than RTO_MIN.
"""

from ...messages import ACK, RST
from ...wire.sequence import seq_lt
from ..tcb import TICK_BITS
from . import choose

AGE_BITS = 8
"""Of the clock, the highest, for TS.Recent's age: half of them is half of the clock."""


def measure(s):
    """Step 1: against TS.Recent; how long ago what the peer echoes was sent."""
    stamped = s.ts_ok & s.e_ts_present
    return dict(
        stamped=stamped,
        stamp_counts=stamped & s.ts_known & ~s.e_flags[RST],
        stamp_before=seq_lt(s.e_tsval, s.ts_recent),
        stamp_expired=(s.ts_now[-AGE_BITS:] - s.ts_age)[AGE_BITS - 1],
        echo_age=(s.e_since_echo + s.iss)[:32],
    )


def is_old(s):
    """Step 2: PAWS (section 5.3, R1)."""
    return s.stamp_counts & s.stamp_before & ~s.stamp_expired


def classify(s):
    """Step 2."""
    return dict(
        echo_valid=s.stamped & s.e_flags[ACK] & ~s.echo_age[TICK_BITS:].any() & (s.echo_age[:TICK_BITS] <= s.rto_max),
    )


def judge(s):
    """Step 3: would it be TS.Recent (section 4.3 (2); section 5.3, R3), if the segment is processed."""
    return dict(if_stamp=s.stamped & s.acceptable & ~s.seq_after_nxt & ~s.delack & ~s.ack_now)


def apply(s):
    """Step 4. Of an accepted connection the SYN's is the first: what makes it may be data behind a gap, which does not count."""
    return dict(
        ts_ok=choose(
            s.ts_ok,
            (s.do_open, s.timestamps),
            (s.do_accept, s.e_ts_present),
            (s.syn_taken, s.stamped),
        ),
        takes_stamp=s.fresh | (s.go & s.if_stamp) | (s.syn_taken & s.stamped),
        ts_known=~s.fresh | (s.do_accept & s.e_ts_present),
        ts_recent=s.e_tsval,
        ts_age=s.ts_now[-AGE_BITS:],
    )


def retimed(s):
    """From step 5 on: what is sent again may be timed."""
    return s.ts_ok & s.established
