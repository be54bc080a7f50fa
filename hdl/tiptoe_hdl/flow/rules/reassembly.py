"""Placing payload in the receive ring, and the out-of-order intervals: RFC 9293 sections 3.10.7.3, 3.10.7.4, SHLD-31.

Text on a SYN,ACK goes to the beginning of the ring: rcv_nxt says nothing yet, and no text is too long, since the smallest ring,
all of which our SYN grants, has 4096 bytes and a segment at most 4095. That of a SYN without ACK comes again (figure 8).
"""

from amaranth.hdl import Cat, Mux

from ...wire.sequence import seq_gt, seq_lt
from ..tcb import OOO_INTERVALS
from . import choose, choose_one


def compare(s):
    """Step 1: the segment against each interval."""
    facts = {}
    for k in range(OOO_INTERVALS):
        start, end = s.ooo[k].start, s.ooo[k].end
        facts[f"after_{k}"] = seq_gt(s.e_seq, end)
        facts[f"before_{k}"] = seq_lt(s.e_payload_end, start)
        facts[f"starts_in_{k}"] = seq_gt(s.e_seq, start)
        facts[f"ends_in_{k}"] = seq_lt(s.e_payload_end, end)
    return facts


def overlap(s):
    """Step 2: which intervals the segment touches; whether it brings anything; which right edge cuts it.

    An interval never reaches beyond the window, so comparing with the uncut end of the segment gives the same answer.
    """
    seq_before_nxt = s.d_seq[31]
    starts_inside = seq_before_nxt | (s.seq_before_adv & s.seq_before_lim)
    return dict(
        touch_0=s.ooo_valid[0] & ~s.after_0 & ~s.before_0,
        touch_1=s.ooo_valid[1] & ~s.after_1 & ~s.before_1,
        brings_data=s.e_any_payload & s.payload_after_nxt & starts_inside,
        cut_right=s.payload_after_adv | s.payload_after_lim,
        in_order=~s.seq_after_nxt,
        edge=Mux(s.lim_before_adv, s.rcv_lim, s.rcv_adv),
        d_edge=Mux(s.lim_before_adv, s.d_lim, s.d_adv),
        front=Mux(seq_before_nxt, -s.d_seq[:12], 0)[:12],
        d_start=Mux(seq_before_nxt, 0, s.d_seq[:13]),
        fin_at_nxt=s.rcv_nxt == s.fin_seq,
        ends_at_nxt=~s.d_payload_end[31] & ~s.payload_after_nxt,
    )


def merge(s):
    """Step 3: the interval that the segment and all it touches make together; and in SYN_SENT, where its text begins and ends."""
    seg_start = Mux(s.in_order, s.rcv_nxt, s.e_seq)
    seg_end = Mux(s.cut_right, s.edge, s.e_payload_end)
    no_room = ~s.in_order & s.ooo_valid.all() & ~s.touch_0 & ~s.touch_1
    takes = s.takes_data & s.brings_data & s.acceptable & ~no_room
    takes_ahead = takes & ~s.in_order
    touch_none = ~s.touch_0 & ~s.touch_1
    goes_first = ~s.ooo_valid[0] | (touch_none & s.before_0) | s.touch_0
    extends_0, extends_1 = s.touch_0 & s.ends_in_0, s.touch_1 & s.ends_in_1
    return dict(
        merged_start=choose(
            seg_start,
            (s.touch_0 & s.starts_in_0, s.ooo[0].start),
            (s.touch_1 & ~s.touch_0 & s.starts_in_1, s.ooo[1].start),
        ),
        merged_end=choose(seg_end, (extends_1, s.ooo[1].end), (extends_0, s.ooo[0].end)),
        # No interval reaches beyond the segment, and the window does not cut it: its FIN, if any, comes next.
        ends_merged=~extends_0 & ~extends_1 & ~s.cut_right,
        place_seq=Mux(s.opening, s.e_seq_plus_1, seg_start),
        front=Mux(s.opening, 0, s.front),
        d_start=Mux(s.opening, s.e_seq_plus_1[:13], s.d_start),
        d_place_end=Mux(s.opening, s.e_payload_end[:13], Mux(s.cut_right, s.d_edge, s.d_payload_end[:13])),
        e_payload_end=Mux(s.opening & ~s.has_ack, s.e_seq_plus_1, s.e_payload_end),
        takes=takes,
        takes_in_order=takes & s.in_order,
        takes_ahead=takes_ahead,
        if_swallow=takes & s.in_order & s.touch_0,
        if_first=takes_ahead & goes_first,
        if_second=takes_ahead & ~goes_first,
        if_shift=takes_ahead & touch_none & s.ooo_valid[0] & s.before_0,
        lacks_room=s.takes_data & s.brings_data & s.acceptable & no_room,
        # Out of order, a gap filled, every second segment; and payload or a FIN that brought nothing new although the segment
        # was acceptable: the peer needs to hear where we are.
        if_ack_now=takes_ahead | (takes & (s.ooo_valid.any() | s.delack)) | (~takes & ~s.e_zero_length),
    )


def apply(s):
    """Step 4: the new list, rcv_nxt without the peer's FIN, and the verdict."""
    taken, in_order, out_of_order = s.go & s.takes, s.go & s.takes_in_order, s.go & s.takes_ahead
    merged = Cat(s.merged_start, s.merged_end)
    first, second = Cat(s.ooo[0].start, s.ooo[0].end), Cat(s.ooo[1].start, s.ooo[1].end)
    new_first = choose_one(first, (s.go & s.if_swallow, second), (s.go & s.if_first, merged))
    new_second = choose_one(second, (s.go & s.if_shift, first), (s.go & s.if_second, merged))
    # In order, an interval is swallowed from the left; out of order, touching both makes one of two.
    keep_second = s.ooo_valid[1] & ~s.touch_1
    valid_in_order = Cat(Mux(s.touch_0, keep_second, s.ooo_valid[0]), keep_second & ~s.touch_0)
    valid_out_of_order = Cat(1, Mux(s.touch_0, keep_second, s.ooo_valid[0]))
    # A FIN counts where it stands when everything before it has arrived: this segment's, or the one seen last.
    own_fin = s.fin_valid & Mux(in_order, s.ends_merged, s.ends_at_nxt)
    seen_fin = s.fin_seen & Mux(in_order, s.merged_end == s.fin_seq, s.fin_at_nxt)
    return dict(
        ooo=Cat(new_first, new_second),
        ooo_valid=choose(s.ooo_valid, (s.fresh, 0), (in_order, valid_in_order), (out_of_order, valid_out_of_order)),
        data_nxt_placed=Mux(in_order, s.merged_end, s.rcv_nxt),
        fin_seen=(s.fin_seen | s.fin_valid) & ~s.fresh,
        fin_seq=Mux(s.fin_valid, s.e_payload_end, s.fin_seq),
        fin_now=((own_fin | seen_fin) & ~s.peer_closed & s.go) | s.syn_fin,
        placed=taken,
        place_length=Mux(taken | s.syn_acked, (s.d_place_end - s.d_start)[:12], 0),
        got_in_order=in_order,
        got_out_of_order=out_of_order,
        discarded=s.go & s.lacks_room,
    )


def forget(s):
    """Step 6: a FIN that data has passed was none; kept, it would count again 4 GiB later."""
    return dict(fin_seen=s.fin_seen & ~seq_gt(s.rcv_nxt, s.fin_seq))
