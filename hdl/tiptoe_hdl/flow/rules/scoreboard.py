"""What the peer says it has beyond a gap, and which gap is sent again: RFC 2018 section 5, RFC 6675.

The blocks of a segment's SACK option follow it as events of their own, each of which is put into a sorted list of intervals, the
scoreboard, as data that comes out of order is (``reassembly.py``; the lists lie side by side in one bank). Every acknowledgement
repeats the newest blocks, so the scoreboard holds since snd_una moved last and need not be cut there. A time-out forgets it
(RFC 2018 section 8: the peer may have dropped what it had).

Outside of recovery a block starts a timer of a quarter of a round trip; if the gap is still there when it ends, it was lost,
however few duplicate acknowledgements there were (RFC 8985 section 6.2, with one time for all segments).

In recovery a segment leaves for each that has arrived: every acknowledgement whose first block, the newest, is believed sends the
next gap again that has not been sent again yet (``high_rxt``, RFC 6675's HighRxt), up to the next interval. That happens in the
connection's turn, the only pass besides a block's in which the scoreboard is at hand; a pass of a segment has the received
intervals. What is lost once more shows when the peer has data that was first sent later (``rxt_mark``): all gaps go once more.

Invariant: between snd_una and snd_max, and only there, lie the intervals that count.
"""

from amaranth.hdl import Mux

from ...wire.choice import select
from ...wire.sequence import seq_ge, seq_gt, seq_lt
from ..tcb import RexmtMode


def measure(s):
    """Step 1: the block's ends; how far has been sent again."""
    return dict(
        on_board=s.is_sack | s.is_output,
        block_beyond_una=seq_gt(s.e_seq, s.snd_una),
        block_in_order=seq_lt(s.e_seq, s.e_ack),
        ack_covers_rxt=seq_ge(s.e_ack, s.high_rxt),
        rxt_before_una=seq_lt(s.high_rxt, s.snd_una),
    )


def judge(s):
    """Step 2: a block counts if the segment that it came with did, and if it is what can have been sent. One at or below snd_una
    tells of a duplicate (RFC 2883)."""
    possible = s.block_beyond_una & s.block_in_order & ~s.ack_after_max & s.in_flight
    return dict(marks=s.is_sack & s.heard & s.sack_ok & s.established & possible)


def find(s):
    """Step 3: the gap to be sent again ends where the next interval begins; where it begins, ``reassembly.merge`` says."""
    count = len(s.ooo)
    first_right = s.right & ~(s.right << 1)[:count]
    return dict(
        fills=s.is_output & s.rexmt_hole & ~s.rexmt_one & s.in_recovery & s.right.any() & ~s.rxt_before_una,
        hole_end=select(first_right, [s.ooo[k].start for k in range(count)]),
    )


def apply(s):
    """Step 4."""
    # A block of data first sent after all that was sent again: what of that is not acknowledged was lost once more.
    lost_again = s.board_takes & s.in_recovery & seq_gt(s.e_ack, s.rxt_mark)
    moved = s.took_ack | s.fresh | s.timeout
    # A partial acknowledgement up to what has been sent again already: the next gap rather than this one.
    next_gap = s.go & s.if_partial & ~s.ack_covers_rxt & s.sack_ok
    return dict(
        heard=Mux(s.is_segment, s.go, s.heard) & ~s.fresh,
        lost_again=lost_again,
        # Outside of recovery the first gap gets a little time to be filled (RFC 8985 section 6.2); not while what a time-out
        # or a recovery was for is still being acknowledged: the loss is the same one (RFC 6582 section 3.2).
        doubts=(
            s.board_takes
            & s.e_which
            & ~s.in_recovery
            & ~s.recover_valid
            & ~s.persist
            & ~s.wnd_was_zero
            & (s.rexmt_mode != RexmtMode.REORDER.value)
        ),
        board=(s.board | s.board_takes) & ~moved,
        rexmt_hole=((s.rexmt_hole | (s.board_takes & s.e_which & s.in_recovery)) & ~moved) | next_gap,
    )
