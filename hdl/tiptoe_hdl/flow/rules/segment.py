"""SEGMENT ARRIVES: what an incoming segment is, RFC 9293 section 3.10.7, with RFC 5961's challenge ACKs."""

from amaranth.hdl import Mux

from ...messages import ACK, FIN, RST, SYN, State
from ...wire.sequence import distance, seq_gt, seq_le, seq_lt
from . import in_states, timestamps


def measure(s):
    """Step 1: distances between the segment and the connection; mostly their signs are looked at."""
    bits = len(s.e_length) + 1  # of what lies within a segment's length
    return dict(
        d_seq=distance(s.e_seq, s.rcv_nxt),
        seq_after_nxt=seq_gt(s.e_seq, s.rcv_nxt),
        d_payload_end=distance(s.e_payload_end, s.rcv_nxt),
        payload_after_nxt=seq_gt(s.e_payload_end, s.rcv_nxt),
        end_before_nxt=seq_lt(s.e_end, s.rcv_nxt),
        end_after_nxt=seq_gt(s.e_end, s.rcv_nxt),
        # Both right edges count: the one advertised and the one that the receive ring allows.
        seq_before_adv=seq_lt(s.e_seq, s.rcv_adv),
        seq_before_lim=seq_lt(s.e_seq, s.rcv_lim),
        seq_upto_adv=seq_le(s.e_seq, s.rcv_adv),
        seq_upto_lim=seq_le(s.e_seq, s.rcv_lim),
        seq_near_adv=seq_le(s.e_seq_minus_1, s.rcv_adv),
        seq_near_lim=seq_le(s.e_seq_minus_1, s.rcv_lim),
        end_upto_adv=seq_le(s.e_end, s.rcv_adv),
        end_upto_lim=seq_le(s.e_end, s.rcv_lim),
        payload_after_adv=seq_gt(s.e_payload_end, s.rcv_adv),
        payload_after_lim=seq_gt(s.e_payload_end, s.rcv_lim),
        lim_before_adv=seq_lt(s.rcv_lim, s.rcv_adv),
        d_adv=distance(s.rcv_adv, s.rcv_nxt)[:bits],
        d_lim=distance(s.rcv_lim, s.rcv_nxt)[:bits],
        seq_plus_1_before_nxt=seq_lt(s.e_seq_plus_1, s.rcv_nxt),
        d_ack=distance(s.e_ack, s.snd_una),
        ack_after_una=seq_gt(s.e_ack, s.snd_una),
        ack_after_max=seq_gt(s.e_ack, s.snd_max),
        ack_before_max=seq_lt(s.e_ack, s.snd_max),
        d_nxt=distance(s.snd_nxt, s.e_ack),
        flight_nxt=distance(s.snd_nxt, s.snd_una),
        nxt_before_max=seq_lt(s.snd_nxt, s.snd_max),
        seq_before_wl1=seq_lt(s.e_seq, s.snd_wl1),
        wnd_was_zero=s.snd_wnd == 0,
    )


def classify(s):
    """Step 2: acceptability of the sequence number, standing of the acknowledgement, state decoded."""
    seq_before_nxt = s.d_seq[31]
    seq_exact = ~seq_before_nxt & ~s.seq_after_nxt
    begins_in_window = ~seq_before_nxt & s.seq_before_adv & s.seq_before_lim
    # A segment without length may also stand at the right edge: what the peer sends when its last data was lost; and
    # always at rcv_nxt, which a FIN moves beyond the edge of a full window.
    empty_in_window = seq_exact | (~seq_before_nxt & s.seq_upto_adv & s.seq_upto_lim)
    end_inside = ~s.end_before_nxt & s.end_upto_adv & s.end_upto_lim
    ends_in_window = end_inside & s.end_after_nxt
    # Up to 64 KiB to the left, and one beyond the right edge: the payload may be refused there, the acknowledgement not.
    near = Mux(seq_before_nxt, s.d_seq[16:].all(), s.seq_near_adv & s.seq_near_lim)
    ack_before_una = s.d_ack[31]
    ack_new = s.ack_after_una & ~s.ack_after_max
    ack_same = ~s.ack_after_una & ~ack_before_una
    flags = s.e_flags
    plain = flags[ACK] & ~flags[RST] & ~flags[SYN]
    is_syn_received = s.state == State.SYN_RECEIVED.value
    segment = s.is_segment & s.provisioned
    synchronised = s.state >= State.SYN_RECEIVED.value
    return dict(
        acceptable=(s.e_zero_length & empty_in_window) | (~s.e_zero_length & (begins_in_window | ends_in_window)),
        near=near,
        begins_in_window=begins_in_window,
        # What the peer may send again because our ACK was lost: at most the largest ring to the left.
        lately=Mux(seq_before_nxt, s.d_seq[24:].all(), s.seq_near_adv & s.seq_near_lim),
        e_wnd_zero=s.e_wnd == 0,
        # Nothing but control information, right of the window: it is not answered.
        quiet=s.e_zero_length & ~seq_before_nxt,
        end_inside=end_inside,
        seq_exact=seq_exact,
        repeats_syn=seq_before_nxt & ~s.seq_plus_1_before_nxt,  # it stands just before rcv_nxt
        ack_new=ack_new,
        ack_same=ack_same,
        ack_future=s.ack_after_max,
        ack_all=~s.ack_after_max & ~s.ack_before_max,
        acks_fin=ack_new & ~s.ack_before_max & s.fin_sent,
        ack_fine=~s.ack_after_max & (s.ack_after_una | ~is_syn_received),
        # SEG.ACK and SEG.WND make the edge together. A greater SEG.ACK was sent later, whatever its SEG.SEQ, and a smaller
        # one's window would be counted from the wrong place; with the same SEG.ACK, SEG.SEQ tells (SND.WL2 is not needed).
        wnd_newer=ack_new | (ack_same & ~s.seq_before_wl1),
        synchronised=synchronised,
        in_closed=segment & (s.state == State.CLOSED.value),
        opening=segment & (s.state == State.SYN_SENT.value),
        # PAWS comes first (RFC 7323 section 5.3): what is old is nothing else.
        open_=segment & synchronised & ~timestamps.is_old(s),
        old_stamp=segment & synchronised & timestamps.is_old(s),
        is_syn_received=is_syn_received,
        plain=plain,
        # RFC 5961 section 5.2: older than anything that can still be under way.
        ack_stale=ack_before_una & (s.d_ack + s.max_sndwnd)[31],
        repeats_fin=plain & flags[FIN] & ~s.end_before_nxt & ~s.end_after_nxt,
        takes_data=in_states(s.state, State.SYN_RECEIVED, State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2),
        has_ack=flags[ACK],
        has_rst=flags[RST],
        has_syn=flags[SYN],
        has_fin=flags[FIN],
    )


def decide(s):
    """Step 3: RFC 9293's order of checks turned into one bit for each outcome."""
    # CLOSED, 3.10.7.1: a dead connection answers with RST; a SYN is left to be sent again, so that a listener gets it
    # once the id is released.
    closed_reset = s.in_closed & s.plain
    # SYN-SENT, 3.10.7.3
    opening = s.opening
    bad_ack = s.has_ack & ~s.ack_new
    syn_sent_reset = opening & bad_ack & ~s.has_rst
    refused = opening & s.has_rst & s.has_ack & s.ack_new
    syn_taken = opening & s.has_syn & ~s.has_rst & ~bad_ack
    # Other states, 3.10.7.4
    open_ = s.open_
    outside = open_ & ~s.acceptable & ~s.has_rst
    reset = open_ & s.has_rst & s.seq_exact
    # A reset has to stand in the window (RFC 5961 section 3.2); that it reaches into it, or stands at its edge, is not enough.
    challenge = open_ & Mux(s.has_rst, s.begins_in_window & ~s.seq_exact, s.acceptable & s.has_syn)
    # Where the payload is refused, the acknowledgement and the window count nevertheless (3.10.7.4: "special allowance
    # should be made to accept valid ACKs"): the peer's probe of a closed window may be all that brings them.
    proceed = open_ & s.plain & (s.acceptable | (s.near & ~s.is_syn_received))
    # Simultaneous open (figure 8, line 6): the peer's SYN,ACK repeats the SYN we have, so it lies left of the window,
    # and yet it acknowledges ours. Its window is not taken: it is not scaled, and the first SYN's was taken.
    crossed = open_ & s.is_syn_received & s.repeats_syn & s.has_syn & s.has_ack & ~s.has_rst & s.ack_new
    syn_received_reset = proceed & s.is_syn_received & ~s.ack_new
    ack_too_new = proceed & ~s.is_syn_received & s.ack_future
    ack_too_old = proceed & ~s.is_syn_received & s.ack_stale
    go = proceed & s.ack_fine & ~s.ack_stale
    # Always answered: data that comes again, probes of a closed window, of an idle connection (just before rcv_nxt), and the
    # peer's SYN,ACK again with what it brought, if the acknowledgement fits. Whatever else is not taken is answered within
    # limits (RFC 5961 section 7): two TCPs that take each other for wrong fall silent, and who does not know the numbers
    # draws no flood.
    fits = s.has_ack & ~s.ack_future & ~s.ack_stale
    answered = outside & fits & (((s.e_any_payload | s.has_fin) & s.lately) | s.repeats_syn)
    challenges = challenge | ack_too_new | ack_too_old
    reopens = s.wnd_was_zero & s.persist & s.wnd_nonzero & s.wnd_newer
    return dict(
        reset_reply=closed_reset | syn_sent_reset | syn_received_reset,
        refused=refused | (reset & s.is_syn_received),
        peer_reset=reset & ~s.is_syn_received,
        segment_ends=refused | reset,
        syn_taken=syn_taken,
        simultaneous=syn_taken & ~s.has_ack,
        syn_acked=syn_taken & s.has_ack,
        syn_fin=syn_taken & s.has_ack & s.has_fin,
        becomes_established=(syn_taken & s.has_ack) | (go & s.is_syn_received) | crossed,
        outside=outside | s.old_stamp,
        answered=answered,
        challenge=challenges,
        limited=challenges | (outside & ~s.quiet & ~answered) | s.old_stamp,
        may_say=~s.e_said & ~s.spent,
        go=go,
        took_ack=(proceed & s.ack_new) | (syn_taken & s.has_ack) | crossed,
        fin_is_acked=go & s.acks_fin,
        last_acked=go & s.acks_fin & (s.state == State.LAST_ACK.value),
        takes_wnd=(go & s.wnd_newer) | syn_taken,
        reopens=go & reopens,
        flight_acked=Mux(s.d_nxt[31], 0, s.d_nxt),  # an ACK beyond snd_nxt pulls it along
        to_una_by_wnd=go & reopens & ~s.ack_new,
        to_ack_by_wnd=go & reopens & s.ack_new,
        # Nothing else lengthens TIME_WAIT: blind traffic would hold it for ever.
        retime_wait=outside & s.repeats_fin & (s.state == State.TIME_WAIT.value),
        fin_valid=go & s.acceptable & s.has_fin & s.end_inside & s.takes_data,
    )
