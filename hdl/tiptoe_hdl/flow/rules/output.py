"""What to send now: RFC 9293 sections 3.8.6 (windows, silly windows) and 3.10.2, in the order of BSD's tcp_output."""

from amaranth.hdl import Cat, Const, Mux

from ...messages import ACK, MOST_SACKS, RST, SACK_BITS
from ...wire.choice import select
from ...wire.sequence import distance, seq_gt
from ..tcb import TICK_BITS
from . import choose, power, timestamps
from .reassembly import fin_now

BASE_PLUS_1, END, END_PLUS_1, EDGE = range(4)
"""Where snd_nxt goes: behind one byte (or SYN, or FIN alone), the data, data and FIN, at the edge of the window."""


def _less(a, b, one_more):
    """a - b - one_more modulo 2**32 in one carry chain: a + ~b + (1 - one_more)."""
    return (Cat(Const(1, 1), a) + Cat(~one_more, ~b))[1:33]


def _below(value, limit):
    """A 32-bit value, not negative, is less than one of fewer bits."""
    return ~value[len(limit) :].any() & (value[: len(limit)] < limit)


def _up_to(value, limit):
    """... or equal to it."""
    return ~value[len(limit) :].any() & ~(limit < value[: len(limit)])


def prepare(s):
    """Step 4: what a segment carries beside so many blocks that tell what has come out of order (RFC 6691).

    ``narrow``: data goes without blocks where the peer's window has no room for two segments. Shortened by them, a segment would
    leave a rest of some bytes in the window, to which Linux then keeps for good (it does not enlarge a window that is less than
    a segment short of its buffer); and what has come out of order was told when it came.
    """
    return dict(
        tells_blocks=s.sack_ok & s.established,
        narrow=s.recent_wnd < (s.maxseg << 1),
        **{
            f"room_beside_{k}": (s.maxseg_now - (4 + 8 * k if k else 0))[: len(s.maxseg_now)]
            for k in range(len(s.ooo_valid) + 1)
        },
    )


def measure(s):
    """Step 5: how much there is, how much may go, how far the receive window could open.

    A retransmission never crosses snd_max; the octet of a probe goes with what follows it, when the window opens.
    """
    base = Mux(s.again, s.again_base, s.snd_nxt)
    up_to_max = s.fills_to_end | ((s.behind | s.again) & ~s.fin_sent & ~s.takes_probe_along)
    highest = Mux(s.fills_to_end, s.hole_end, s.snd_max)
    fin = fin_now(s)
    # Sorted: as many as the highest one valid says. What lies behind the peer's FIN is none of its data, and may touch rcv_nxt.
    tells_blocks = s.tells_blocks & ~s.peer_closed & ~fin
    shortens = tells_blocks & ~s.narrow
    valid = Cat(1, s.ooo_valid, 0)
    told = [Mux(s.on_board, s.told == k, valid[k] & ~valid[k + 1]) for k in range(len(s.ooo_valid) + 1)]
    if len(told) > MOST_SACKS:  # beside timestamps one less has room
        told[MOST_SACKS - 1] |= told[MOST_SACKS] & s.ts_ok
        told[MOST_SACKS] &= ~s.ts_ok
    number = Cat(Cat(told[k] for k in range(len(told)) if k >> bit & 1).any() for bit in range(SACK_BITS))
    return dict(
        base=base,
        up_to_max=up_to_max,
        avail_max=distance(highest, base),
        avail_end=distance(s.snd_end, base),
        some_max=seq_gt(highest, base),
        some_end=seq_gt(s.snd_end, base),
        # In recovery by the scoreboard, ``held`` is what cwnd says.
        wnd_smaller=(s.snd_wnd < s.cwnd_allowed) | s.paced,
        room_wnd=distance(s.snd_wnd, s.flight_nxt),
        room_cwnd=distance(s.cwnd_allowed, s.flight_nxt),
        wnd_open=seq_gt(s.snd_wnd, s.flight_nxt),
        cwnd_open=seq_gt(s.cwnd_allowed, s.flight_nxt),
        flight_zero=s.flight_nxt == 0,
        gain=distance(s.rcv_lim, s.rcv_adv),
        w_lim=_less(s.rcv_lim, s.data_nxt, fin),
        w_adv=_less(s.rcv_adv, s.data_nxt, fin),
        half_ring=power(s.rcv_log2, 25)[1:],
        round_up=Cat(s.rcv_scale > k for k in range(14)),  # (1 << rcv_scale) - 1
        half_wnd=s.recent_wnd >> 1,
        force_one=s.force & s.wnd_zero,  # a probe; with a window open it is an override
        two_segments=(s.maxseg << 1)[: len(s.maxseg) + 1],
        told=number,
        sacks=number & tells_blocks.replicate(SACK_BITS),
        segment_room=Mux(shortens, select(told, [getattr(s, f"room_beside_{k}") for k in range(len(told))]), s.maxseg),
    )


def limit(s):
    """Step 6: data and window compared, and what can be said without the outcome.

    Both candidates are compared before one is chosen: the choice is the last level of logic, not the first.

    ``short``: the window ends before the segment that could go. The FIN goes ``alone`` behind data sent before.
    """
    room = Mux(s.wnd_smaller, s.room_wnd, s.room_cwnd)
    avail = Mux(s.up_to_max, s.avail_max, s.avail_end)
    some = Mux(s.up_to_max, s.some_max, s.some_end)
    negative = avail[31]
    fin_possible = s.fin_queued & s.can_fin & ~negative & ~s.up_to_max
    unlimited = s.again | s.force_one
    smaller = Mux(s.up_to_max, _below(s.avail_max, s.segment_room), _below(s.avail_end, s.segment_room))
    fits = Mux(s.up_to_max, _up_to(s.avail_max, s.segment_room), _up_to(s.avail_end, s.segment_room))
    one_left = Mux(s.up_to_max, s.avail_max == 1, s.avail_end == 1)
    room_in_segment = Mux(s.wnd_smaller, _below(s.room_wnd, s.segment_room), _below(s.room_cwnd, s.segment_room))
    return dict(
        room=room[: len(s.segment_room)],
        short=room[31] | (~negative & room_in_segment & (room < avail)),
        # Silly-window avoidance of the sender: a segment cut by the window goes if it repeats old data or fills half of
        # the largest window the peer has offered of late; or all of the window when it has waited long enough (MUST-38).
        cut_goes=Mux(s.wnd_smaller, s.wnd_open, s.cwnd_open) & (s.behind | s.force | (room >= s.half_wnd)),
        edge=(s.snd_una + Mux(s.wnd_smaller, s.snd_wnd, s.cwnd_allowed))[:32],
        unlimited=unlimited,
        permitted=s.may_output & s.alive,
        may_ack=s.may_output & s.alive & ~s.in_syn_sent,
        blocked=s.alive & ~s.may_output,
        tx_syn=s.in_handshake & s.flight_zero,
        ack_reason=~s.in_syn_sent & s.ack_now,
        tells_window=~s.in_syn_sent & s.updates_window,
        first_time=(~s.behind | s.takes_probe_along) & ~s.again,
        snd_round=Cat((s.snd_scale > k) & ~s.wnd_zero for k in range(14)),
        fin_possible=fin_possible,
        fin_alone=fin_possible & ~some,
        rest_goes=~s.force_one | one_left,
        avail_fits=~negative & fits,
        # What was sent ends less than 65,535 bytes behind the segment.
        ends_near=~s.fills & ~s.avail_max[15:].any(),
        some=s.can_send & some,
        fills_none=s.fills & ~some,
        most=Mux(negative, 0, Mux(smaller, avail[: len(s.segment_room)], s.segment_room))[: len(s.segment_room)],
        # Silly-window avoidance of the receiver: the edge moves by two segments or half the ring, or not at all.
        gain_met=~s.gain[31] & ((s.gain >= s.two_segments) | (s.gain >= s.half_ring)),
        w_lim_up=(s.w_lim + s.round_up)[:32],
        w_adv_up=(s.w_adv + s.round_up)[:32],
    )


def decide(s):
    """Step 7: send or not; the window to advertise, rounded up to what its scale can tell."""
    limited = s.short & ~s.unlimited
    ready = s.some & ~s.held & (~s.short | s.unlimited | s.cut_goes)
    data = ready & ~s.rate_held
    fin = s.fin_alone | (s.fin_possible & data & ~limited & s.avail_fits & s.rest_goes)
    goes = data | s.fin_alone | s.tx_syn
    wanted = goes | s.ack_reason | (s.gain_met & s.tells_window)
    sent, emit = s.permitted & goes, s.permitted & wanted
    window = Mux(s.gain_met, s.w_lim_up, s.w_adv_up) & ~(s.round_up | Const(0, 31))
    return dict(
        data=data,
        fin=fin,
        emit=emit,
        sent=sent,
        new=sent & s.first_time,
        acks=s.may_ack & wanted,
        advance=sent & ~s.again,
        behind_segment=choose(
            END,
            ((~data & (~s.fills | s.fin_alone)) | (s.force_one & ~fin), BASE_PLUS_1),
            (fin, END_PLUS_1),
            (limited, EDGE),
        )[:2],
        length=choose(s.most, (s.force_one, s.some), (s.again, s.most), (s.short, s.room))[: len(s.most)],
        psh=data & s.avail_fits & ~limited,
        more=sent & data & (~s.avail_fits | s.up_to_max) & ~s.paced & ~s.has_rate,
        blocked=s.blocked & wanted,
        waiting=s.some & ~ready,  # a gap ends with a turn: no timer is needed for that
        found_none=s.fills_none & ~s.held,
        asks_in_vain=s.turn & s.frto[1] & ~sent & (s.turns == 2),
        base_plus_1=(s.base + 1)[:32],
        end=(s.base + s.most)[:32],
        end_plus_1=(Cat(Const(1, 1), s.base) + Cat(Const(1, 1), s.most))[1:33],
        window=Mux(window[30], 0, window)[:31],
        # Where the peer's window ends; and where it may end in truth, since a scale rounds it.
        # A keepalive stands one before what the peer has acknowledged: it is not acceptable there, and so answered.
        granted=(s.snd_una + (s.snd_wnd | s.do_keepalive.replicate(32)))[:32],
        granted_most=(s.snd_una + (s.snd_wnd | s.snd_round))[:32],
    )


def advance(s):
    """Step 8: the sequence numbers that the next event's first step works with."""
    behind = Mux(
        s.behind_segment[1],
        Mux(s.behind_segment[0], s.edge, s.end_plus_1),
        Mux(s.behind_segment[0], s.end, s.base_plus_1),
    )
    snd_max = Mux(s.new, behind, s.snd_max)
    return dict(
        snd_nxt=Mux(s.advance, behind, s.snd_nxt),
        snd_max=snd_max,
        # Pulled along by snd_una; and beyond a last gap that there is not, since the peer has all up to ``recover``.
        high_rxt=choose(
            s.high_rxt, ((s.sent & s.again) | s.found_none, behind), (s.took_ack_then & s.ack_covers_rxt, s.e_ack)
        ),
        marks_rxt=s.sent & s.again,
        rxt_mark=s.snd_max,  # if
        rcv_adv=Mux(s.acks, (s.rcv_nxt + s.window)[:32], s.rcv_adv),
        window_scaled=s.window >> s.rcv_scale,
        turns=choose(
            s.turns,
            (s.asks_in_vain, 3),
            (s.turn & s.sent, (s.turns - (s.in_recovery | s.frto[1]))[:2]),
            (s.turn & ~s.found_none, 0),
        )[:2],
        max_not_granted=(seq_gt(s.snd_max, s.granted_most) & s.established) | s.do_keepalive,
        reset=s.may_output & (s.reset_reply | s.abort_reset),
        retransmitted=s.sent & (~s.new | s.takes_probe_along),
        times=(s.new & ~s.rtt_active & ~s.takes_probe_along) | s.times_accept,
        # if times
        rtt_seq=snd_max,
        rtt_start=s.now[:TICK_BITS],
    )


def _field(window):
    """What fits the header's 16 bits."""
    return Mux(window[16:].any(), 0xFFFF, window[:16])


def send(s):
    """Step 9: the segment, and what sending it changes besides."""
    flags = Cat(s.fin, s.tx_syn, Const(0, 1), s.psh, ~s.in_syn_sent, Const(0, 1), s.tx_ece, s.tx_cwr)
    # Behind a gap comes a turn, whatever there is to send.
    waits = (s.charges | s.still_spacing) & s.has_rate
    wants_turn = s.more | s.blocked | s.lost_again | (s.paced & s.alive & s.turns.any() & ~s.awaits & ~waits)
    leaves_queue = s.is_output & ~s.is_due
    tx_twice = s.twice & s.emit & ~s.data & ~s.tx_syn & ~s.reset
    return dict(
        tx_flags=Mux(s.reset, Mux(s.reset_reply, 1 << RST, 1 << RST | 1 << ACK), flags)[:8],
        tx_length=Mux(s.data & s.emit & ~s.reset, s.length, 0),
        # A segment without data stands where the peer must accept it: not behind a probe or a FIN that its window had no
        # room for, nor beyond an edge that it has taken back. An empty segment or RST there would be dropped.
        tx_seq=choose(
            Mux(s.max_not_granted, s.granted, s.snd_max),
            (s.reset & s.reset_reply, s.e_ack),
            (s.sent, s.base),
        ),
        ect=s.ect & ~s.reset,
        cwr_owed=s.cwr_owed & (s.tx_syn | ~s.tx_cwr),
        tx_twice=tx_twice,
        tx_sacks=Mux(s.tx_syn | s.reset | (s.data & s.narrow), 0, Mux(tx_twice, s.sacks_with_twice, s.sacks)),
        # A pointer to 65,535 behind the segment, where SND.UP lies further ahead, must stand behind all that was sent: data that
        # the peer has not got yet then comes with a pointer further on (as in Linux). Else there is none.
        tx_up_cut=Mux(s.sent, s.ends_near, ~s.max_not_granted),
        # The window of a SYN is not scaled (RFC 7323 section 2.2).
        tx_wnd=Mux(s.tx_syn & ~s.reset, _field(s.window), _field(s.window_scaled)),
        fin_sent=s.fin_sent | (s.sent & s.fin),
        rexmits=(Mux(s.begins, 0, s.rexmits) + s.retransmitted)[:16],
        losses=(Mux(s.begins, 0, s.losses) + s.ssthresh_falls)[:8],
        rexmt_one=(s.rexmt_one & ~s.may_output) | s.lost_again,
        force=s.force & ~s.may_output,
        ack_now=s.ack_now & ~s.emit,
        delack=s.delack & ~s.acks,
        rtt_again=(s.rtt_again & ~s.times) | s.retransmitted,
        rtt_active=(s.rtt_active | s.times) & ~(s.retransmitted & ~timestamps.retimed(s)),
        push=wants_turn & (~s.tx_queued | leaves_queue),
        tx_queued=wants_turn | (s.tx_queued & ~leaves_queue),
    )
