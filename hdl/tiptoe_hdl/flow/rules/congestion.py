"""Congestion control and loss recovery, as far as all algorithms share them: RFC 5681 with byte counting (RFC 3465, L =
1), loss recovery of NewReno (RFC 6582) or Reno; limited transmit (RFC 3042).

It owns cwnd, ssthresh, bytes_acked, dupacks, in_recovery, recover, recover_valid, algorithm, rexmt_one. How fast cwnd
grows in congestion avoidance (``growth``, ``by_cwnd``, ``holds``) and what remains of it at a loss (``decrease``) the unit
beside the pipeline says (``flow/congestion``), which hears of what happens here from ``tell``.

Invariant: recover is compared only while it lies less than a window from snd_una. Once an ACK beyond it has come outside of
recovery it has no say any more (recover_valid); else, after 2 GiB without loss, it would seem to lie ahead.

What is lost at recover itself is a new loss that an ACK of just recover shows no other way than what went again without need
would. What the peer tells to have beyond it does (RFC 6675 section 5.1: HighACK at RecoveryPoint is enough); without that the
time-out has to repair it (RFC 6582 section 3.2).

Limited transmit is a matter of one pass: the output of a first or second duplicate ACK works with ``cwnd_allowed``, one or
two segments more than cwnd, which itself stays. So behind such ACKs, and only there, more than cwnd may be under way.

cwnd grows only while more than half of it is in use: what the peer's window or the application keeps unused says nothing of
the path, and would leave as a burst when that opens (RFC 7661 section 4, whose measure is half, too; Linux's in slow
start).
"""

from amaranth.hdl import Cat, Const, Mux

from ...config import ETHERNET_LENGTH_BITS
from ...congestion import ALGORITHM_BITS
from ...congestion.program import DECREASE_BITS, GENTLE_SHIFT, Slow
from ...wire.sequence import distance, seq_ge, seq_gt
from ..tcb import CWND_BITS, DUPACK_THRESHOLD
from . import choose, choose_one, enters_recovery, una_after, undoes

HALF = CWND_BITS // 2

MOST_INITIAL = 14_600
"""Bytes: ten segments of Ethernet's frames."""

CWND_MAX = 2**CWND_BITS - 1


def _saturate(value):
    """Cut to CWND_BITS, all ones on overflow."""
    return Mux(value[CWND_BITS], CWND_MAX, value[:CWND_BITS])


def _initial_window(maxseg):
    """Ten segments; of long ones no more than 14,600 bytes, or two (RFC 6928 section 2)."""
    ten, two = (maxseg << 3) + (maxseg << 1), maxseg << 1
    if len(maxseg) <= ETHERNET_LENGTH_BITS:
        return ten
    return Mux(two > MOST_INITIAL, two, Mux(ten > MOST_INITIAL, MOST_INITIAL, ten))


def measure(s):
    """Step 1."""
    return dict(
        flight=distance(s.snd_max, s.snd_una)[:CWND_BITS],
        in_flight=s.snd_max != s.snd_una,
        ack_covers_recover=seq_ge(s.e_ack, s.recover),
        ack_beyond_recover=seq_gt(s.e_ack, s.recover),
        una_covers_recover=seq_ge(s.snd_una, s.recover),
        twice_maxseg=(s.maxseg << 1)[:CWND_BITS],
        thrice_maxseg=((s.maxseg << 1) + s.maxseg)[:CWND_BITS],
        slow_start=s.cwnd < s.ssthresh,
        first_slow=s.ssthresh.all(),  # no loss has lowered it
        cwnd_but_one=Mux(s.cwnd > s.maxseg, s.cwnd - s.maxseg, 0)[:CWND_BITS],
        restart_window=_initial_window(s.maxseg)[:CWND_BITS],
    )


def count(s):
    """Step 2."""
    acked = s.d_ack[:CWND_BITS]
    # What remains at a loss, of the flight; of cwnd, which ECE cuts. With an accurate algorithm ``decrease`` is for ECE, and a
    # loss halves (RFC 8257 section 3.5). Half at least remains, so the highest bit is always set.
    at_loss, by_ece = ~s.accurate, s.decrease_counts
    shares = {
        name: Cat(s.decrease[:-1] & whole.replicate(DECREASE_BITS - 1), Const(1, 1))
        for name, whole in (("flight", at_loss), ("cwnd", by_ece))
    }
    slow_growth = Mux(acked < s.maxseg, acked, s.maxseg)[:CWND_BITS]
    amounts = dict(flight=s.flight, cwnd=s.cwnd)
    used = (s.flight << 1) > s.cwnd
    least = {
        name: Mux(s.keeps_most & whole, s.thrice_maxseg, s.twice_maxseg << 1)
        for name, whole in (("flight", at_loss), ("cwnd", by_ece))
    }
    return dict(
        ack_ends_recovery=s.ack_covers_recover | s.first_ack,
        # Were the segment a duplicate ACK: the third of a new loss (RFC 6582 section 3.2), or one of the first two. These
        # let out new data only: not while what was lost is sent again.
        would_enter=(s.dupacks == DUPACK_THRESHOLD - 1)
        & ~s.in_recovery
        & (s.ack_beyond_recover | ~s.recover_valid | (s.una_covers_recover & s.board)),
        would_limit=~s.dupacks[1] & ~s.in_recovery & ~s.paced & ~s.nxt_before_max,
        would_lessen=s.in_recovery & s.paced,
        cwnd_less=(s.cwnd - (s.maxseg >> 1))[: CWND_BITS + 1],  # the highest bit: less than nothing
        flight_smaller=s.flight < s.cwnd,
        cwnd_used=used,
        grows_by_ack=s.in_recovery | (s.slow_start & used),
        acked=acked,
        slow_growth=Mux(s.slow[0], (slow_growth >> GENTLE_SHIFT) & ~s.slow[1].replicate(CWND_BITS), slow_growth),
        # The unit has seen enough of a first slow start (RFC 9406 section 4.2): from the next event on it is over.
        ssthresh=s.ssthresh & (s.cwnd | ~((s.slow == Slow.ENDS) & s.first_slow).replicate(CWND_BITS)),
        # So much acknowledged makes cwnd a segment more in congestion avoidance.
        due=Mux(s.by_cwnd, s.cwnd, s.growth)[:CWND_BITS],
        # No further full segment had room (RFC 9438 section 5.8).
        cwnd_full=s.flight > s.cwnd_but_one,
        deflated=Mux(s.cwnd > acked, (s.cwnd - acked)[:CWND_BITS], 0),
        bytes_acked_sum=s.bytes_acked + (acked & ~s.holds.replicate(CWND_BITS)),
        above_restart=s.cwnd > s.restart_window,
        flight_one=s.flight == 1,
        # The last segment sent, for a tail loss probe, is no longer than what fits beside the blocks.
        tail_room=(s.maxseg - Mux(s.sack_ok & s.told.any(), Cat(Const(0b100, 3), s.told), 0))[: len(s.maxseg)],
        inflated_most=s.ssthresh + s.flight,
        # Of what is under way, without what limited transmit has added (RFC 5681 section 3.2, step 2).
        beyond_cwnd=s.dupacks.any() & ~s.in_recovery & (s.flight > s.cwnd) & (at_loss | ~s.e_ece),
        cwnd_least=Mux(s.cwnd < s.twice_maxseg, s.cwnd, s.twice_maxseg),
        # The products in two halves, which the next step adds up; and whether the least, two segments, does not count. In whole
        # segments nothing less than three of them is more than two then (four, if less than two thirds remain).
        **{f"reduced_{name}_low": value[:HALF] * shares[name] for name, value in amounts.items()},
        **{f"reduced_{name}_high": value[HALF:] * shares[name] for name, value in amounts.items()},
        **{f"{name}_enough": value > least[name] for name, value in amounts.items()},
        limited_by=Mux(s.dupacks[0], s.twice_maxseg, s.maxseg)[:CWND_BITS],
        duplicate=(
            ~s.ack_after_una
            & ~s.d_ack[31]
            & s.in_flight
            & ~s.persist
            & s.e_zero_length
            # With SACK blocks it is one, whatever it says of the window (RFC 6675 section 2).
            & ((s.wnd_scaled == s.snd_wnd) | (s.e_has_sack & s.sack_ok))
        ),
    )


def candidates(s):
    """Step 3: every value cwnd may take, and which it is if the segment is processed."""
    window_acked = (s.bytes_acked_sum >= s.due) & ~s.holds & s.cwnd_used
    # A whole product is low + (high << HALF), and DECREASE_BITS of it are behind the point.
    low = Mux(s.beyond_cwnd, s.reduced_cwnd_low, s.reduced_flight_low)[DECREASE_BITS:]
    high = Mux(s.beyond_cwnd, s.reduced_cwnd_high, s.reduced_flight_high) << HALF - DECREASE_BITS
    new_ack, duplicate = s.ack_new & ~s.is_syn_received, s.duplicate & s.established & s.acceptable
    third, limited = duplicate & s.would_enter, duplicate & s.would_limit
    # A duplicate ACK says that a segment has left the network: no more of them than are under way (RFC 5681 section 3.2).
    would_inflate = s.in_recovery & ~s.paced & (s.cwnd < s.inflated_most)
    inflates = duplicate & would_inflate
    partial = new_ack & s.in_recovery & ~s.ack_ends_recovery
    lessens, above_ssthresh = (
        (partial | duplicate) & s.would_lessen,
        ~s.cwnd_less[CWND_BITS] & (s.cwnd_less[:CWND_BITS] > s.ssthresh),
    )
    window_full = new_ack & ~s.in_recovery & ~s.slow_start & window_acked
    choice = dict(
        if_full=new_ack & s.in_recovery & s.ack_ends_recovery,
        if_partial=partial,
        if_deflates=partial & ~s.paced,
        if_lessens=lessens & above_ssthresh,
        if_floor=lessens & ~above_ssthresh,
        if_slow_start=new_ack & ~s.in_recovery & s.slow_start & s.cwnd_used,
        if_plus=window_full | inflates,
        if_third=third,
    )
    # What none of these hold for, said shortly: all of it is known late.
    changed_by_ack = new_ack & (s.grows_by_ack | window_acked)
    return choice | dict(
        if_avoidance=new_ack & ~s.in_recovery & ~s.slow_start & ~window_acked & s.cwnd_used,
        if_window_acked=window_full,
        if_new_ack=new_ack,
        if_passes_recover=new_ack & s.ack_beyond_recover & ~s.in_recovery,
        if_duplicate=duplicate,
        if_limited=limited,
        if_ends_paced=new_ack & s.paced & (s.ack_covers_recover | (s.in_recovery & s.first_ack)),
        if_avoids=new_ack & ~s.in_recovery & ~s.slow_start,
        cwnd_stays=~changed_by_ack & ~(duplicate & (s.would_enter | would_inflate | s.would_lessen)),
        cwnd_kept=~changed_by_ack & ~(duplicate & (s.would_enter | would_inflate | s.would_lessen | s.would_limit)),
        cwnd_limited=_saturate(s.cwnd + s.limited_by),
        cwnd_slow=_saturate(s.cwnd + s.slow_growth),
        cwnd_plus=_saturate(s.cwnd + s.maxseg),
        cwnd_partial=_saturate(s.deflated + s.maxseg),
        reduced=(high + low)[:CWND_BITS],
        reduced_enough=Mux(s.beyond_cwnd, s.cwnd_enough, s.flight_enough),
        # Of cwnd, for a loss that a tail's probe has repaired.
        reduced_cwnd=((s.reduced_cwnd_high << HALF - DECREASE_BITS) + s.reduced_cwnd_low[DECREASE_BITS:])[:CWND_BITS],
        # By the scoreboard from what is under way to ssthresh, half a segment for each that has arrived (PRR, RFC 9937); else
        # by inflating ssthresh. 255/256 of 2**CWND_BITS, and three segments, fit.
        recovery_by_sack=Mux(s.flight_smaller, s.flight, s.cwnd),
        recovery_reduced=(high + (low + s.thrice_maxseg))[:CWND_BITS],
        recovery_least=(s.twice_maxseg + s.thrice_maxseg)[:CWND_BITS],
        tail_is_all=s.flight <= s.tail_room,
        tail_base=(s.snd_max - s.tail_room)[:32],
        bytes_acked_rest=(s.bytes_acked_sum - s.due)[:CWND_BITS],
        dupacks_next=Mux(s.dupacks == DUPACK_THRESHOLD, DUPACK_THRESHOLD, s.dupacks + 1)[:2],
        # RFC 6928's ten segments; one if the SYN had to be repeated twice (RFC 5681 section 3.1; RFC 6928 section 2: since the
        # first time-out became 1 s, one repetition may be due to a long way alone).
        initial_window=Mux(~s.rexmt_shift[1:].any(), _initial_window(s.maxseg_now), s.maxseg_now)[:CWND_BITS],
    )


def apply(s):
    """Step 4."""
    new_ack, duplicate = s.go & s.if_new_ack, s.go & s.if_duplicate
    full, partial = s.go & s.if_full, s.go & s.if_partial
    enter = enters_recovery(s)
    reduced = Mux(s.reduced_enough, s.reduced, s.twice_maxseg)
    cut_ssthresh = Mux(s.cwnd_enough, s.reduced_cwnd, s.twice_maxseg)
    cut_cwnd = Mux(s.cwnd_enough, s.reduced_cwnd, s.cwnd_least)  # which may be one segment
    inflated = Mux(s.reduced_enough, s.recovery_reduced, s.recovery_least)
    cwnd_recovery = Mux(s.by_sack, s.recovery_by_sack, Mux(s.ecn_cut, s.cwnd, inflated))
    first_timeout = s.timeout & s.first_timeout
    undo, cut = undoes(s), s.go & (s.if_tail_repaired | s.if_cut)
    falls = (first_timeout | enter) & ~s.ecn_cut  # once a window of data (RFC 3168 section 6.1.2)
    changed = choose_one(
        0,
        (s.if_full | s.if_floor, s.ssthresh),
        (s.if_lessens, s.cwnd_less[:CWND_BITS]),
        (s.if_deflates, s.cwnd_partial),
        (s.if_slow_start, s.cwnd_slow),
        (s.if_plus, s.cwnd_plus),
        (s.if_third, cwnd_recovery),
    )

    cuts_by_ece = s.go & (s.if_cut | (s.if_tail_repaired & s.ecn_ok))

    def cwnd(after_segment):
        return choose(
            s.cwnd,
            (s.becomes_established, s.initial_window),
            (s.timeout | s.lifts_cwnd, s.maxseg_now[:CWND_BITS]),
            # Idle for longer than a time-out: RFC 5681 section 4.1's restart window, no more than the initial window.
            (s.idle_falls, s.restart_window),
            (s.do_cwnd, s.cwnd_asked),
            (s.reorder_over, cwnd_recovery),
            (undo, s.prior_cwnd),
            (cut, cut_cwnd),
            (s.go, after_segment),
        )

    acked_by_segment = choose_one(
        s.bytes_acked,
        (s.if_avoidance, s.bytes_acked_sum[:CWND_BITS]),
        (s.if_window_acked, s.bytes_acked_rest),
        (s.if_third, 0),
    )
    # What has been sent again already is not for a partial acknowledgement (RFC 6675 section 5, step C: HighRxt), nor what goes
    # in a turn, since the peer has data beyond it.
    first_gap = partial & ~s.if_original & ((s.ack_covers_rxt & ~s.e_has_sack) | ~s.paced | s.rexmt_one)
    rexmt_one = (
        (s.rexmt_one & ~(s.fresh | s.timeout | full | partial | undo))
        | enter
        | first_gap
        | s.timeout_paced
        | (s.do_path_mtu & s.paced)  # smaller, and at once: the peer may have got nothing that could draw a turn
    )
    return dict(
        cwnd=cwnd(changed | Mux(s.cwnd_stays, s.cwnd, 0)),
        cwnd_allowed=cwnd(changed | Mux(s.cwnd_kept, s.cwnd, 0) | Mux(s.if_limited, s.cwnd_limited, 0)),
        ssthresh=choose(
            s.ssthresh,
            (s.fresh, Const(CWND_MAX, CWND_BITS)),
            (falls, reduced),
            (undo, s.prior_ssthresh),
            (cut, cut_ssthresh),
            (s.do_cwnd, s.ssthresh_asked),
        ),
        bytes_acked=choose(s.bytes_acked, (s.fresh | s.timeout, 0), (s.go, acked_by_segment)),
        # What says that something has come twice is none (RFC 6675 section 2): its first block, behind it, takes it back.
        dupacks=choose(
            s.dupacks,
            (s.fresh | s.timeout | new_ack | undo, 0),
            (duplicate, s.dupacks_next),
            (s.told_twice & s.dupacks.any(), s.dupacks - 1),
        )[:2],
        in_recovery=(s.in_recovery | enter) & ~(s.fresh | s.timeout | full | undo),
        algorithm=choose(s.algorithm, (s.fresh, s.algorithm_initial), (s.do_congestion, s.e_seq[:ALGORITHM_BITS])),
        ssthresh_falls=falls | cut,
        tells_begin=s.fresh | s.do_congestion,
        tells_timeout=first_timeout,
        tells_loss=(enter & ~s.ecn_cut) | cut,
        tells_slow=s.go & s.if_slow_start & s.first_slow & s.cwnd_full,
        tells_ack=s.go & (s.if_avoids | (s.if_new_ack & s.accurate)),
        cwnd_before=s.cwnd,
        recover=s.snd_max,  # if
        moves_recover=s.timeout | enter | cuts_by_ece,
        # That a SYN had to be repeated says nothing of the data behind it.
        recover_valid=(
            (s.recover_valid | s.timeout | enter)
            & ~(s.fresh | s.becomes_established | undo | cuts_by_ece | (s.go & s.if_passes_recover))
        ),
        rexmt_one=rexmt_one,
        again=rexmt_one | s.fills | s.tail_probe,
        again_base=una_after(s, (s.fills, s.merged_end), (s.tail_probe & ~s.tail_is_all, s.tail_base)),
        fast_retransmit=enter,
        is_duplicate=duplicate,
    )


def tell(s):
    """Behind step 4, with srtt as it was before: what the unit hears of, and of what."""
    told = dict(
        algorithm=s.algorithm,
        cwnd=s.cwnd,
        una=s.snd_una,
        mss=s.maxseg,
        srtt=s.srtt,
        limited=s.cwnd_full,
        marked=s.marked,
    )
    rtt = s.tells_slow & s.rtt_told
    events = dict(begin=s.tells_begin, timeout=s.tells_timeout, loss=s.tells_loss, rtt=rtt, ack=s.tells_ack)
    return events, told, Mux(s.tells_loss | s.tells_timeout, s.cwnd_before, s.sample)
