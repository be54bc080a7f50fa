"""Placing payload in the receive ring, and the out-of-order intervals: RFC 9293 sections 3.10.7.3, 3.10.7.4, SHLD-31; RFC 2018
section 4: which interval the peer is to hear of first.

Invariant: the intervals are sorted, do not touch each other, and the first ones are valid. So those left of a segment, those it
touches and those right of it follow each other, and what becomes of the list is: the touched ones go, the ones right of them
close up, and the segment with all it touched is put in between; or, in order, goes to rcv_nxt.

Text on a SYN,ACK goes to the beginning of the ring: rcv_nxt says nothing yet, and no text is too long, since the smallest ring,
all of which our SYN grants, is longer than any segment (``EngineConfig.ring_log2_min``). That of a SYN without ACK comes again
(figure 8).
"""

from amaranth.hdl import Cat, Mux

from ...messages import PSH
from ...wire.choice import select
from ...wire.sequence import seq_gt, seq_lt
from . import choose, choose_one

QUICK_LOG2 = 18
"""So many bytes of a connection, as a power of two, are acknowledged segment by segment (and again with every 2**32, which is no
harm)."""


def _exactly(bits, most):
    """Of bits whose ones stand side by side: bit k says that there are k of them, from 0 to ``most``."""
    runs, at_least = bits, [1]
    for _ in range(most):
        at_least.append(runs.any())
        runs = runs & (bits << len(at_least) - 1)[: len(bits)]
    return Cat(now & ~more for now, more in zip(at_least, at_least[1:] + [0], strict=True))


def compare(s):
    """Step 1: the segment against each interval; a block of the scoreboard likewise; in the connection's turn what is not
    acknowledged and has been sent again, against the scoreboard."""
    spots = range(len(s.ooo))
    start, end = Mux(s.is_output, s.snd_una, s.e_seq), Mux(s.is_output, s.high_rxt, s.e_payload_end)
    return dict(
        e_payload_end=end,
        received=(s.rcv_nxt - s.irs)[QUICK_LOG2:32],
        after=Cat(seq_gt(start, s.ooo[k].end) for k in spots),
        before=Cat(seq_lt(end, s.ooo[k].start) for k in spots),
        starts_in=Cat(seq_gt(start, s.ooo[k].start) for k in spots),
        ends_in=Cat(seq_lt(end, s.ooo[k].end) for k in spots),
    )


def overlap(s):
    """Step 2: which intervals the segment touches; whether it brings anything; which right edge cuts it.

    An interval never reaches beyond the window, so comparing with the uncut end of the segment gives the same answer.

    In the connection's turn ``left`` is what snd_una has passed, or points into: that would be a peer's that has taken back
    what it said (RFC 2018 section 8).
    """
    seq_before_nxt = s.d_seq[31]
    valid = s.ooo_valid & (~s.on_board | s.board).replicate(len(s.ooo))
    left = valid & Mux(s.is_output, s.starts_in, s.after)
    starts_inside = seq_before_nxt | (s.seq_before_adv & s.seq_before_lim)
    bits = len(s.d_adv) - 1  # of a length
    return dict(
        ooo_valid=valid,
        left=left,
        touch=valid & ~left & ~s.before,
        right=valid & s.before,
        brings_data=s.e_any_payload & s.payload_after_nxt & starts_inside,
        cut_right=(s.payload_after_adv | s.payload_after_lim) & ~s.on_board,
        in_order=~s.seq_after_nxt & ~s.on_board,
        edge=Mux(s.lim_before_adv, s.rcv_lim, s.rcv_adv),
        d_edge=Mux(s.lim_before_adv, s.d_lim, s.d_adv),
        front=Mux(seq_before_nxt, -s.d_seq[:bits], 0)[:bits],
        d_start=Mux(seq_before_nxt, 0, s.d_seq[: bits + 1]),
        fin_at_nxt=s.rcv_nxt == s.fin_seq,
        # A sender in slow start learns of a queue by the eighth acknowledgement of a round (RFC 9406 section 4.2; Linux too), and
        # of every second segment that is a round too late. With PSH, nothing may follow, and an answer take the ACK along:
        # unless the segment is full, and PSH says where a buffer of the sender's ends.
        quick=s.quick_ack & ~s.received.any() & (~s.e_flags[PSH] | (s.e_length >= s.maxseg)),
        ends_at_nxt=~s.d_payload_end[31] & ~s.payload_after_nxt,
    )


def merge(s):
    """Step 3: the interval that the segment and all it touches make together; and in SYN_SENT, where its text begins and ends."""
    seg_start = Mux(s.in_order, s.rcv_nxt, s.e_seq)
    seg_end = Mux(s.cut_right, s.edge, s.e_payload_end)
    touches = s.touch.any()
    no_room = ~s.in_order & s.ooo_valid.all() & ~touches
    takes = s.takes_data & s.brings_data & s.acceptable & ~no_room
    takes_ahead = takes & ~s.in_order
    # Only the first one touched can begin before the segment, only the last one end behind it.
    spots = range(len(s.ooo))
    begins = s.touch & s.starts_in & ~(s.touch << 1)[: len(s.ooo)]
    extends = s.touch & s.ends_in
    extended = extends.any()
    goes = _exactly(Mux(s.is_output, s.left, s.touch), len(s.ooo))
    closes_up = Mux(s.is_output, s.ooo_valid & ~s.left, s.right)
    own = s.left & ~s.is_output.replicate(len(s.ooo))
    place = Cat(1, s.left)[: len(s.ooo)] & ~s.left
    bits = len(s.d_start)
    return dict(
        merged_start=select(begins, [s.ooo[k].start for k in spots]) | Mux(begins.any(), 0, seg_start),
        merged_end=select(extends, [s.ooo[k].end for k in spots]) | Mux(extended, 0, seg_end),
        # No interval reaches beyond the segment, and the window does not cut it: its FIN, if any, comes next.
        ends_merged=~extended & ~s.cut_right,
        place_seq=Mux(s.opening, s.e_seq_plus_1, seg_start),
        front=Mux(s.opening, 0, s.front),
        d_start=Mux(s.opening, s.e_seq_plus_1[:bits], s.d_start),
        d_place_end=Mux(s.opening, s.e_payload_end[:bits], Mux(s.cut_right, s.d_edge, s.d_payload_end[:bits])),
        e_payload_end=Mux(s.opening & ~s.has_ack, s.e_seq_plus_1, s.e_payload_end),
        takes=takes,
        board_takes=s.marks & ~no_room,
        takes_in_order=takes & s.in_order,
        takes_ahead=takes_ahead,
        # The list without what is touched: which interval comes to each place, itself or one behind it.
        **{
            f"comes_from_{k}": Cat(
                own[k] | (closes_up[k] & goes[0]), *(closes_up[j] & goes[j - k] for j in spots[k + 1 :])
            )
            for k in spots
        },
        goes_in=place,
        goes_to=Cat(place[1] | place[3:].any(), place[2:].any()),
        lacks_room=s.takes_data & s.brings_data & s.acceptable & no_room,
        # Out of order, a gap filled, the first ones, every second segment, one that repeats something (RFC 2883).
        # And payload or a FIN that brought nothing new although the segment
        # was acceptable: the peer needs to hear where we are.
        if_ack_now=takes_ahead
        | (takes & (s.ooo_valid.any() | s.delack | s.quick | (s.d_seq[31] & s.sack_ok)))
        | (~takes & ~s.e_zero_length),
    )


def apply(s):
    """Step 4: the list without what the segment touches, rcv_nxt without the peer's FIN, and the verdict."""
    placed, in_order, out_of_order = s.go & s.takes, s.go & s.takes_in_order, s.go & s.takes_ahead
    taken, inserts = placed | s.board_takes | s.is_output, out_of_order | s.board_takes
    spots = range(len(s.ooo))
    comes_from = [getattr(s, f"comes_from_{k}") for k in spots]
    left = Cat(Mux(taken, comes_from[k].any(), s.ooo_valid[k]) for k in spots)
    # A FIN counts where it stands when everything before it has arrived: this segment's, or the one seen last.
    own_fin = s.fin_valid & Mux(in_order, s.ends_merged, s.ends_at_nxt)
    may = ~s.peer_closed & s.go & s.fin_seen
    return dict(
        ooo=Cat(
            Mux(
                taken,
                select(comes_from[k], [Cat(s.ooo[j].start, s.ooo[j].end) for j in spots[k:]]),
                s.ooo[k].as_value(),
            )
            for k in spots
        ),
        ooo_valid=choose(s.ooo_valid & left, (s.fresh, 0), (inserts, Cat(1, left)[: len(spots)]), (taken, left)),
        ooo_newest=choose(s.ooo_newest, (inserts, s.goes_to), (in_order | s.fresh, 0)),
        goes_in=s.goes_in & inserts.replicate(len(spots)),
        # Else the list stays, and who is reading it for a header need not begin anew.
        moves_ahead=taken | s.fresh,
        data_nxt_placed=Mux(in_order, s.merged_end, s.rcv_nxt),
        fin_seen=(s.fin_seen | s.fin_valid) & ~s.fresh,
        fin_seq=Mux(s.fin_valid, s.e_payload_end, s.fin_seq),
        fin_decided=(own_fin & ~s.peer_closed & s.go) | (may & ~in_order & s.fin_at_nxt) | s.syn_fin,
        fin_waits=may & in_order,
        fin_same=Cat(s.merged_end.word_select(k, 8) == s.fin_seq.word_select(k, 8) for k in range(4)),
        placed=placed,
        place_length=Mux(placed | s.syn_acked, (s.d_place_end - s.d_start)[: len(s.d_start) - 1], 0),
        got_in_order=in_order,
        got_out_of_order=out_of_order,
        discarded=s.go & s.lacks_room,
    )


def fin_now(s):
    """Step 5: the peer's FIN is taken. Of the one seen last, where it stands is known in parts."""
    return s.fin_decided | (s.fin_waits & s.fin_same.all())


def insert(s):
    """Step 5: the interval that the segment makes takes its place, and those behind it make room."""
    merged = Cat(s.merged_start, s.merged_end)
    whole = [s.ooo[k].as_value() for k in range(len(s.ooo))]
    behind = Cat(s.goes_in[:k].any() for k in range(len(whole)))
    return dict(
        ooo=Cat(choose_one(whole[k], (s.goes_in[k], merged), (behind[k], whole[k - 1])) for k in range(len(whole)))
    )


def forget(s):
    """Step 6: a FIN that data has passed was none; kept, it would count again 4 GiB later."""
    return dict(fin_seen=s.fin_seen & ~seq_gt(s.rcv_nxt, s.fin_seq))
