"""What the peer says it has beyond a gap, and what is sent again for it: RFC 2018 sections 5 and 8, RFC 6675; how fast: PRR,
RFC 9937.

The blocks of a segment's SACK option follow it as events of their own, each of which is put into a sorted list of intervals, the
scoreboard, as data that comes out of order is (``reassembly.py``; the lists lie side by side in one bank). Outside of recovery it
begins anew whenever snd_una moves, since every acknowledgement repeats the newest blocks; in recovery the connection's turn takes
off what snd_una has passed. A time-out forgets it (RFC 2018 section 8: the peer may have dropped what it had); the
acknowledgement of the segment that goes then tells it again.

Outside of recovery a block starts a timer of a quarter of a round trip; if the gap is still there when it ends, it was lost,
however few duplicate acknowledgements there were (RFC 8985 section 6.2, with one time for all segments).

In recovery by the scoreboard (``paced``) data goes only in the connection's turns, the only passes besides a block's in which the
scoreboard is at hand; a pass of a segment has the received intervals. A turn sends the next gap that has not been sent again yet
(``high_rxt``, RFC 6675's HighRxt), up to the next interval; what the peer has not told of below the highest interval counts as
lost, after a time-out all up to ``recover``. Without such a gap it sends new data. It does so while less is under way than cwnd
(``pipe``: what lies between snd_una and snd_max without what is lost and without what the peer has), and as often as segments
have arrived (``turns``): one for a duplicate acknowledgement, two for one that moves snd_una and shows no other loss (RFC 9937's
SafeACK), after a time-out as many as cwnd lets, which grows by slow start, but for F-RTO's two (``spurious.py``). Turns wait for
the last block of the acknowledgement.

What is lost once more shows when the peer has data that was first sent later (``rxt_mark``): all gaps go once more.

Invariant: between snd_una and snd_max, and only there, lie the intervals that count, but for those that a turn takes off.
Invariant: in such a recovery high_rxt lies between snd_una and snd_max, once the segment at snd_una has gone again.
"""

from amaranth.hdl import Mux

from ...wire.choice import select
from ...wire.sequence import distance, seq_ge, seq_gt, seq_lt
from ..tcb import CWND_BITS, RexmtMode
from . import choose, undoes


def measure(s):
    """Step 1: the block's ends; how far has been sent again; the intervals' lengths."""
    return dict(
        on_board=s.is_sack | s.is_output,
        block_beyond_una=seq_gt(s.e_seq, s.snd_una),
        block_in_order=seq_lt(s.e_seq, s.e_ack),
        ack_covers_rxt=seq_ge(s.e_ack, s.high_rxt),
        rxt_before_recover=seq_lt(s.high_rxt, s.recover),
        **{f"interval_length_{k}": distance(s.ooo[k].end, s.ooo[k].start)[:CWND_BITS] for k in range(len(s.ooo))},
    )


def judge(s):
    """Step 2: a block counts if the segment that it came with did, and if it is what can have been sent. One at or below snd_una
    tells of a duplicate (RFC 2883)."""
    possible = s.block_beyond_una & s.block_in_order & ~s.ack_after_max & s.in_flight
    counts = s.is_sack & s.heard & s.sack_ok & s.established
    return dict(
        marks=counts & possible,
        told_twice=counts & s.e_which & ~s.block_beyond_una & ~s.ack_after_una & s.block_in_order,
        tail_lost=s.paced & ~s.in_recovery & s.rxt_before_recover,
        una_less_one=(s.snd_una - s.maxseg)[:32],
        # Were a recovery to begin: the peer tells what it has.
        by_sack=s.sack_ok & (s.board | s.e_has_sack),
    )


def find(s):
    """Step 3: the gap to be sent again ends where the next interval begins; where it begins, ``reassembly.merge`` says. After a
    time-out the last one ends at ``recover``."""
    count = len(s.ooo)
    first_right = s.right & ~(s.right << 1)[:count]
    highest = s.ooo_valid & ~(s.ooo_valid >> 1)
    gap = s.right.any() | s.tail_lost
    turn = s.is_output & s.paced & s.turns.any() & ~s.awaits & ~s.rexmt_one & ~s.in_gap
    passed = [Mux(s.touch[k], getattr(s, f"interval_length_{k}"), 0) for k in range(count)]
    return dict(
        turn=turn,
        fills=turn & gap & ~s.frto[1],
        # Beside a FIN the last gap is not cut: it goes with it.
        fills_to_end=turn & gap & ~s.frto[1] & (s.right.any() | ~s.fin_sent),
        hole_end=select(first_right, [s.ooo[k].start for k in range(count)]) | Mux(s.right.any(), 0, s.recover),
        lost_to=Mux(s.tail_lost & ~s.told_new, s.recover, select(highest, [s.ooo[k].end for k in range(count)])),
        gap=gap,
        **{f"passed_{k // 2}": sum(passed[k : k + 2]) for k in range(0, count, 2)},
    )


def begins_paced(s):
    """Step 4: what goes from now on goes by the scoreboard."""
    return (s.go & s.if_third & s.by_sack) | s.reorder_over | s.timeout_paced


def apply(s):
    """Step 4."""
    # A block of data first sent after all that was sent again: what of that is not acknowledged was lost once more.
    lost_again = s.board_takes & s.paced & seq_gt(s.e_ack, s.rxt_mark)
    begins = begins_paced(s)
    undo = undoes(s)
    ends = s.fresh | s.probe | undo | (s.go & s.if_ends_paced)
    paced = (s.paced | begins) & ~ends
    moved = (s.took_ack & ~paced) | s.fresh | s.timeout | undo
    opens_wnd = s.takes_wnd & s.wnd_was_zero & s.wnd_nonzero
    # After a time-out also what the host writes later.
    tells = (s.go & (s.if_new_ack | s.if_duplicate | opens_wnd)) | (s.end_taken & ~s.frto[1])
    by_timeout = s.paced & ~s.in_recovery & tells
    fast = s.go & s.paced & s.in_recovery
    one_more = Mux(s.turns.all(), 3, s.turns + 1)[:2]
    return dict(
        heard=Mux(s.is_segment, s.go, s.heard) & ~s.fresh,
        awaits=Mux(s.is_segment | s.is_sack, s.e_has_sack & s.sack_ok, s.awaits) & ~s.fresh,
        lost_again=lost_again,
        # Outside of recovery the first gap gets a little time to be filled (RFC 8985 section 6.2); not while what a time-out
        # or a recovery was for is still being acknowledged: the loss is the same one (RFC 6582 section 3.2).
        doubts=(
            s.board_takes
            & s.e_which
            & ~s.in_recovery
            & (s.una_covers_recover | ~s.recover_valid)
            & ~s.persist
            & ~s.wnd_was_zero
            & (s.rexmt_mode != RexmtMode.REORDER.value)
        ),
        board=(s.board | s.board_takes) & ~moved,
        paced=paced,
        told_new=(s.told_new | (s.board_takes & s.paced & s.ack_beyond_recover)) & ~(begins | ends),
        turns=choose(
            s.turns,
            (begins | ends, 0),
            (by_timeout & s.if_new_ack & s.frto[0] & ~s.e_has_sack, 2),
            (by_timeout, 3),
            (fast & (s.if_duplicate | opens_wnd), one_more),
            # If the peer has nothing beyond, what stands at snd_una is another loss, goes now, and nothing besides.
            (fast & s.if_partial & (s.e_has_sack | ~s.ack_covers_rxt), Mux(s.turns[1], 3, s.turns + 2)[:2]),
        ),
        unacked=distance(s.merged_end, s.una_less_one)[: CWND_BITS + 1],
        behind_lost=distance(s.snd_max, Mux(s.gap, s.lost_to, s.merged_end))[: CWND_BITS + 1],
        passed=sum(getattr(s, f"passed_{k}") for k in range((len(s.ooo) + 1) // 2)),
    )


def reckon(s):
    """Step 5: what is under way, and a segment more, in two parts; and what of cwnd the second leaves to the first. In a turn."""
    return dict(
        pipe_and_one=(s.unacked - s.passed)[: CWND_BITS + 2],
        cwnd_left=(s.cwnd - s.behind_lost)[: CWND_BITS + 2],
    )


def allow(s):
    """Step 6: no data goes now: another pass than a turn, or as much is under way as may be."""
    full = (s.cwnd_left - s.pipe_and_one)[CWND_BITS + 1]
    return dict(held=s.paced & ~(s.again & ~s.fills) & ~s.force_one & (~s.turn | full))
