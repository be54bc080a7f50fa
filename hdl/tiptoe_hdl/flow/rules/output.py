"""What to send now: RFC 9293 sections 3.8.6 (windows, silly windows) and 3.10.2, in the order of BSD's tcp_output."""

from amaranth.hdl import Cat, Const, Mux

from ...messages import ACK, RST
from ...wire.sequence import distance
from ..tcb import TICK_BITS
from . import choose


def _less(a, b, one_more):
    """a - b - one_more modulo 2**32 in one carry chain: a + ~b + (1 - one_more)."""
    return (Cat(Const(1, 1), a) + Cat(~one_more, ~b))[1:33]


def measure(s):
    """Step 5: how much there is, how much may go, how far the receive window could open.

    A retransmission never crosses snd_max, so that only one of snd_nxt and snd_max moves.
    """
    base = Mux(s.rexmt_one, s.snd_una, s.snd_nxt)
    up_to_max = (s.behind | s.rexmt_one) & ~s.fin_sent
    fin = s.fin_now
    return dict(
        base=base,
        up_to_max=up_to_max,
        flight_nxt=distance(s.snd_nxt, s.snd_una),
        avail=distance(Mux(up_to_max, s.snd_max, s.snd_end), base),
        wnd_smaller=s.snd_wnd < s.cwnd,
        gain=distance(s.rcv_lim, s.rcv_adv),
        w_lim=_less(s.rcv_lim, s.data_nxt, fin),
        w_adv=_less(s.rcv_adv, s.data_nxt, fin),
        half_ring=((1 << s.rcv_log2) >> 1)[:24],
        round_up=((1 << s.rcv_scale) - 1)[:14],
    )


def limit(s):
    """Step 6."""
    gain_positive = ~s.gain[31]
    return dict(
        room=(Mux(s.wnd_smaller, s.snd_wnd, s.cwnd) - s.flight_nxt)[:32],
        avail_negative=s.avail[31],
        avail_zero=s.avail == 0,
        avail_fits=~s.avail[31] & (s.avail <= s.maxseg),
        most=Mux(s.avail[31], 0, Mux(s.avail < s.maxseg, s.avail, s.maxseg))[:12],
        flight_zero=s.flight_nxt == 0,
        # Silly-window avoidance of the receiver: the edge moves by two segments or half the ring, or not at all.
        gain_met=gain_positive & ((s.gain >= (s.maxseg << 1)) | (s.gain >= s.half_ring)),
        half_wnd=s.max_sndwnd >> 1,
        w_lim_up=(s.w_lim + s.round_up)[:32],
        w_adv_up=(s.w_adv + s.round_up)[:32],
    )


def size(s):
    """Step 7: the payload length and whether it may go; the window to advertise, rounded up to what its scale can tell."""
    short = s.room[31] | (~s.room[12:].any() & (s.room[:12] < s.most))
    roomy = Mux(s.room[31], 0, s.room[:12])
    room_left = ~s.room[31] & s.room.any()
    half_ok = ~s.room[31] & (s.room >= s.half_wnd)
    window = Mux(s.gain_met, s.w_lim_up, s.w_adv_up) & ~(s.round_up | Const(0, 31))
    unlimited = s.rexmt_one | s.force
    syn = s.in_handshake & s.flight_zero
    return dict(
        length=choose(s.most, (s.force, s.most != 0), (s.rexmt_one, s.most), (short, roomy))[:12],
        # Silly-window avoidance of the sender: a segment cut by the window goes if it repeats old data or fills half of the
        # largest window the peer has offered.
        data=s.can_send & (s.most != 0) & (unlimited | ~short | (room_left & (s.behind | half_ok))),
        limited=short & ~unlimited,
        fin_possible=s.fin_queued & s.can_fin & ~s.avail_negative & ~s.up_to_max,
        rest_goes=s.avail_fits & (~s.force | (s.avail[:12] == 1)),
        syn=syn,
        permitted=s.may_output & s.alive,
        other_reason=syn | (~s.in_syn_sent & (s.ack_now | (s.gain_met & s.updates_window))),
        base_plus_1=(s.base + 1)[:32],
        window=Mux(window[30], 0, window)[:31],
        waiting_data=s.can_send & ~s.avail_negative & ~s.avail_zero,
    )


def send(s):
    """Step 8: send or not, and what that changes."""
    data, syn = s.data, s.syn
    fin = s.fin_possible & (s.avail_zero | (data & ~s.limited & s.rest_goes))
    emit = s.permitted & (data | fin | s.other_reason)
    sent = s.permitted & (data | fin | syn)
    advance = sent & ~s.rexmt_one
    # Three sums side by side, so that the decision selects rather than adds.
    behind_data = (s.base + s.length)[:32]
    behind_data_and_fin = (Cat(Const(1, 1), s.base) + Cat(Const(1, 1), s.length))[1:33]
    after = choose(s.base_plus_1, (data & fin, behind_data_and_fin), (data, behind_data))
    new = sent & ~s.behind & ~s.rexmt_one
    acks = emit & ~s.in_syn_sent
    reset = s.may_output & (s.reset_reply | s.abort_reset)
    more = sent & data & (~s.avail_fits | s.up_to_max)
    blocked = s.alive & ~s.may_output & (data | fin | s.other_reason)
    flags = Cat(fin, syn, Const(0, 1), data & s.avail_fits & ~s.limited, ~s.in_syn_sent, Const(0, 3))
    return dict(
        emit=emit,
        sent=sent,
        reset=reset,
        tx_flags=Mux(reset, Mux(s.reset_reply, 1 << RST, 1 << RST | 1 << ACK), flags)[:8],
        tx_length=Mux(data & emit & ~reset, s.length, 0),
        tx_seq=choose(s.snd_max, (reset & s.reset_reply, s.e_ack), (sent, s.base)),
        tx_syn=syn,
        snd_nxt=Mux(advance, after, s.snd_nxt),
        snd_max=Mux(new, after, s.snd_max),
        fin_sent=s.fin_sent | (sent & fin),
        rexmt_one=s.rexmt_one & ~s.may_output,
        force=s.force & ~s.may_output,
        ack_now=s.ack_now & ~emit,
        delack=s.delack & ~acks,
        rcv_adv=Mux(acks, (s.rcv_nxt + s.window)[:32], s.rcv_adv),
        rtt_active=(s.rtt_active & ~(sent & ~new)) | new,
        rtt_seq=Mux(new & ~s.rtt_active, after, s.rtt_seq),
        rtt_start=Mux(new & ~s.rtt_active, s.now, s.rtt_start)[:TICK_BITS],
        retransmitted=sent & ~new,
        push=(more | blocked) & (~s.tx_queued | s.is_output),
        tx_queued=more | blocked | (s.tx_queued & ~s.is_output),
        waiting=s.waiting_data & ~data,
    )
