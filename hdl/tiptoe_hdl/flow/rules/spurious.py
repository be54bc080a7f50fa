"""What was sent again without need, and what a tail's probe repaired: F-RTO (RFC 5682), D-SACK (RFC 2883, RFC 3708), Eifel
(RFC 3522), the response to all of them (RFC 4015), and the end of a probe's episode (RFC 8985 section 7.4).

A time-out outside of recovery sends the segment at snd_una. If its acknowledgement moves snd_una and tells of no gap, two
new segments go in place of what else may be lost (``frto``); if the next one moves snd_una too, it acknowledges what was
sent once: nothing was lost. A duplicate acknowledgement, or no new data to send, ends the question. This is RFC 5682's basic
algorithm (section 2.1): its SACK-enhanced one asks the scoreboard in the pass of a segment, where it is not at hand, and
differs only where data was lost besides.

With timestamps the first acknowledgement behind the beginning of a recovery that moves snd_una answers at once (Eifel): it
echoes something sent before the first repetition, so what has come is the first sending. Of the same tick is not before. It is
no answer if it has SACK blocks, of which the first may say that something came twice, or if it acknowledges all that is under
way: then the data may have come long ago, all acknowledgements been lost, and the repetition been answered with TS.Recent
as it was (section 3.2, step 5; that D-SACKs have been heard of before is not remembered). What moves snd_una without an
answer ends the question. A peer that always echoes what is old keeps us from slowing down, as one does that tells of data
twice, for no longer than RTO_MAX: what is older is no echo (``timestamps.py``).

Each segment sent again since a recovery began is counted (``resent``, up to 6). If the peer tells of as many that came
twice, none was needed (RFC 3708 section 3). Then, as after the other answers, nothing more goes again, and cwnd and ssthresh
are what they were.

An acknowledgement with ECE (RFC 3168) is a reason of its own for the window to have fallen, to which recovery does not react a
second time: then nothing is taken back, as in Linux.

A tail's probe repeats data, so its answer does not tell whether something was lost. Once snd_una has passed all that was
sent then (``high_rxt``), the next acknowledgement that moves it says so: something was, and cwnd is halved; unless the peer
has told before that the probe came twice.
"""

from amaranth.hdl import Mux

from ..tcb import RESENT_MOST, TICK_BITS
from . import choose, undoes
from .scoreboard import begins_paced


def measure(s):
    """Step 2."""
    return dict(since_repair=(s.now - s.repair_began)[:TICK_BITS])


def judge(s):
    """Step 3: the conclusions, if the segment is processed; a block belongs to one that was."""
    moves = s.ack_new & ~s.is_syn_received
    echo_before = s.asks_echo & s.echo_valid & (s.echo_age[:TICK_BITS] > s.since_repair)
    return dict(
        if_original=moves & ~s.e_ece & (s.frto[1] | (echo_before & ~s.e_has_sack & ~s.ack_all)),
        block_undoes=s.told_twice & (s.resent == 1),
        if_tail_repaired=moves & s.tail_open[1] & ~s.ecn_cut,
    )


def apply(s):
    """Step 4."""
    undo, begins = undoes(s), begins_paced(s)
    new_ack, duplicate = s.go & s.if_new_ack, s.go & s.if_duplicate
    asks = s.timeout_paced & s.first_timeout & ~s.paced & ~s.in_recovery & ~s.recover_valid & ~s.nxt_before_max
    return dict(
        frto=choose(
            s.frto,
            (s.timeout_paced, asks),
            (s.fresh | undo | duplicate | s.do_cwnd | (new_ack & (s.if_ends_paced | s.e_has_sack | s.e_ece)), 0),
            (new_ack & s.frto[0], 2),
        )[:2],
        resent=choose(
            s.resent,
            (begins, Mux(s.paced, RESENT_MOST, 0)),
            (s.fresh | undo | (s.go & s.if_passes_recover), 0),
            # What the host has written since stays; what the path says counts.
            (s.do_cwnd | (s.go & s.e_ece), RESENT_MOST),
            (s.told_twice & s.resent.any() & ~s.resent.all(), s.resent - 1),
        )[:3],
        asks_echo=choose(
            s.asks_echo,
            # What the host has written since stays; what the path says counts. A window may stay closed until the clock has
            # come round.
            (s.fresh | undo | new_ack | s.do_cwnd | (s.go & s.e_ece) | s.probe, 0),
            (begins & ~s.paced, s.ts_ok),
        ),
        # Of the recovery that begins, if none is under way.
        saves=begins & ~s.paced,
        repair_began=s.now[:TICK_BITS],  # if saves; what goes again has this time or a later one
        prior_cwnd=s.cwnd,  # if saves
        prior_ssthresh=s.ssthresh,
        tail_open=choose(
            s.tail_open,
            (s.tail_probe, 1),
            # What was too long for the path was not lost to congestion.
            (s.fresh | begins | s.timeout | s.told_twice | (duplicate & ~s.e_has_sack) | s.do_path_mtu, 0),
            (new_ack & s.tail_open[1], 0),
            (new_ack & s.tail_open[0] & s.ack_covers_rxt, 2),
        )[:2],
    )


def count(s):
    """Step 8: what goes again in recovery; and, for F-RTO, that no new data was there."""
    again = s.paced & s.sent & s.again & ~s.resent.all()
    return dict(
        resent=(s.resent + again)[:3],
        frto=Mux(s.asks_in_vain, 0, s.frto),
    )
