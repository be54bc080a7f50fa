"""SEGMENT ARRIVES: what an incoming segment is, RFC 9293 section 3.10.7, with RFC 5961's challenge ACKs."""

from ...messages import ACK, FIN, RST, SYN, State
from ...wire.sequence import distance
from . import in_states


def measure(s):
    """Step 1: distances between the segment and the connection."""
    return dict(
        d_seq=distance(s.e_seq, s.rcv_nxt),
        d_payload_end=distance(s.e_payload_end, s.rcv_nxt),
        d_end=distance(s.e_end, s.rcv_nxt),
        d_adv=distance(s.rcv_adv, s.rcv_nxt),
        d_lim=distance(s.rcv_lim, s.rcv_nxt),
        lim_before_adv=distance(s.rcv_lim, s.rcv_adv)[31],
        d_ack=distance(s.e_ack, s.snd_una),
        d_max=distance(s.snd_max, s.e_ack),
        d_nxt=distance(s.snd_nxt, s.e_ack),
        flight_nxt=distance(s.snd_nxt, s.snd_una),
        d_wl1=distance(s.e_seq, s.snd_wl1),
        wl2_ok=~distance(s.e_ack, s.snd_wl2)[31],
    )


def classify(s):
    """Step 2: acceptability of the sequence number, standing of the acknowledgement, state decoded."""
    begins_in_window = (s.d_seq < s.d_adv) & (s.d_seq < s.d_lim)
    # A segment without length may also stand at the right edge: what the peer sends when its last data was lost.
    empty_in_window = (s.d_seq <= s.d_adv) & (s.d_seq <= s.d_lim)
    end_inside = (s.d_end <= s.d_adv) & (s.d_end <= s.d_lim)
    ends_in_window = end_inside & (s.d_end != 0)
    ack_after_una = ~s.d_ack[31] & (s.d_ack != 0)
    ack_future = s.d_max[31]
    flags = s.e_flags
    is_syn_received = s.state == State.SYN_RECEIVED.value
    segment = s.is_segment & s.provisioned
    return dict(
        acceptable=(s.e_zero_length & empty_in_window)
        | (~s.e_zero_length & (begins_in_window | ends_in_window)),
        end_inside=end_inside,
        begins_in_window=begins_in_window,
        seq_exact=s.d_seq == 0,
        seq_left=s.d_seq[31],
        repeats_syn=s.d_seq == 0xFFFFFFFF,
        ack_new=ack_after_una & ~ack_future,
        ack_same=s.d_ack == 0,
        ack_future=ack_future,
        ack_all=s.d_max == 0,
        ack_fine=~ack_future & (ack_after_una | ~is_syn_received),
        wnd_newer=(~s.d_wl1[31] & (s.d_wl1 != 0)) | ((s.d_wl1 == 0) & s.wl2_ok),
        synchronised=s.state >= State.SYN_RECEIVED.value,
        in_closed=segment & (s.state == State.CLOSED.value),
        opening=segment & (s.state == State.SYN_SENT.value),
        open_=segment & (s.state >= State.SYN_RECEIVED.value),
        is_syn_received=is_syn_received,
        plain=flags[ACK] & ~flags[RST] & ~flags[SYN],
        takes_data=in_states(
            s.state, State.SYN_RECEIVED, State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2
        ),
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
    challenge = open_ & s.acceptable & ((s.has_rst & ~s.seq_exact) | (s.has_syn & ~s.has_rst))
    proceed = open_ & s.acceptable & s.plain
    # Simultaneous open (figure 8, line 6): the peer's SYN,ACK repeats the SYN we have, so it lies left of the window,
    # and yet it acknowledges ours. Its window is not taken: it is not scaled, and the first SYN's was taken.
    crossed = open_ & s.is_syn_received & s.repeats_syn & s.has_syn & s.has_ack & ~s.has_rst & s.ack_new
    syn_received_reset = proceed & s.is_syn_received & ~s.ack_new
    ack_too_new = proceed & ~s.is_syn_received & s.ack_future
    go = proceed & s.ack_fine
    ends_persist = s.persist & s.wnd_nonzero & (s.wnd_newer | s.is_syn_received)
    return dict(
        reset_reply=closed_reset | syn_sent_reset | syn_received_reset,
        refused=refused | (reset & s.is_syn_received),
        peer_reset=reset & ~s.is_syn_received,
        segment_ends=refused | reset,
        syn_taken=syn_taken,
        simultaneous=syn_taken & ~s.has_ack,
        syn_acked=syn_taken & s.has_ack,
        becomes_established=(syn_taken & s.has_ack) | (go & s.is_syn_received) | crossed,
        outside=outside,
        challenge=challenge | ack_too_new,
        go=go,
        took_ack=(proceed & s.ack_new) | (syn_taken & s.has_ack) | crossed,
        fin_is_acked=go & s.ack_new & s.ack_all & s.fin_sent,
        takes_wnd=(go & s.wnd_newer) | syn_taken | (go & s.is_syn_received),
        ends_persist=ends_persist,
        if_to_una=ends_persist & ~s.ack_new,
        if_to_ack=s.ack_new & ends_persist,
        retime_wait=outside & (s.state == State.TIME_WAIT.value),
        fin_valid=go & s.has_fin & s.end_inside & s.takes_data,
    )
