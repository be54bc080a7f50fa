"""State transitions and the fields that go with them, RFC 9293 section 3.3.2, figure 5."""

from amaranth.hdl import Mux

from ...messages import Reason, State
from . import choose, choose_one, in_states, una_after
from .reassembly import fin_now

S = {state.name: state.value for state in State}


def measure(s):
    """Step 2: window of the segment against the largest one seen."""
    return dict(
        wnd_nonzero=s.wnd_scaled != 0,
        wnd_largest=s.wnd_scaled > s.max_sndwnd,
        wnd_recent=s.wnd_scaled > s.recent_wnd,
    )


def apply(s):
    """Step 4: everything but the peer's FIN, which needs the new rcv_nxt."""
    state = s.state
    after_handshake = Mux(s.fin_queued, S["FIN_WAIT_1"], S["ESTABLISHED"])
    dies = s.segment_ends | s.timer_ends | s.do_abort | s.last_acked
    next_state = choose_one(
        state,
        (dies | s.do_provision, S["CLOSED"]),
        (s.do_open, S["SYN_SENT"]),
        (s.do_accept | s.simultaneous, S["SYN_RECEIVED"]),
        (s.becomes_established, after_handshake),
        (s.do_close & (state == S["ESTABLISHED"]), S["FIN_WAIT_1"]),
        (s.do_close & (state == S["CLOSE_WAIT"]), S["LAST_ACK"]),
        (s.fin_is_acked & (state == S["FIN_WAIT_1"]), S["FIN_WAIT_2"]),
        (s.fin_is_acked & (state == S["CLOSING"]), S["TIME_WAIT"]),
    )
    to_una = s.timer_rewinds | s.do_path_mtu | s.simultaneous | s.to_una_by_wnd
    pulls_nxt = (s.took_ack & s.d_nxt[31]) | s.to_ack_by_wnd
    fresh, opens = s.fresh, s.opens
    return dict(
        state=next_state,
        state_before=state,
        dies=dies,
        reason=choose_one(
            s.reason,
            (fresh, Reason.NONE.value),
            (s.refused, Reason.REFUSED.value),
            (s.peer_reset, Reason.PEER_RESET.value),
            (s.give_up, Reason.TIMEOUT.value),
            (s.do_abort, Mux(s.op_dma_abort, Reason.DMA_ERROR.value, Reason.LOCAL_ABORT.value)),
            (s.last_acked | s.time_wait_over, Reason.NORMAL.value),
        ),
        abort_reset=s.do_abort & s.synchronised & (state != S["TIME_WAIT"]),
        provisioned=(s.provisioned | s.do_provision) & ~s.do_release,
        generation=Mux(s.do_provision, s.e_generation, s.generation),
        snd_log2=Mux(s.do_provision, s.e_snd_log2, s.snd_log2),
        rcv_log2=Mux(s.do_provision, s.e_rcv_log2, s.rcv_log2),
        established=(s.established | s.becomes_established) & ~fresh,
        peer_closed=s.peer_closed & ~fresh,
        bad_doorbell=s.bad_doorbell & ~fresh,
        syncache_ref=choose(s.syncache_ref, (s.do_open, 0xFFFF), (s.do_accept, s.e_syncache_ref)),
        maxseg=s.maxseg_now,
        sack_ok=choose(
            s.sack_ok,
            (s.do_open, s.sack),
            (s.do_accept, s.e_sack_ok),
            (s.syn_taken, s.sack_ok & s.e_sack_ok),
        ),
        ws_ok=choose(s.ws_ok, (s.do_open, 1), (s.syn_taken, s.ws_ok & s.e_ws_present)),
        snd_scale=choose(
            s.snd_scale,
            (s.do_accept, s.e_ws),
            (s.do_open, 0),
            (s.syn_taken, Mux(s.ws_ok & s.e_ws_present, s.e_ws, 0)),
        ),
        rcv_scale=choose(s.rcv_scale, (opens, s.e_rcv_scale), (s.syn_taken & ~(s.ws_ok & s.e_ws_present), 0)),
        iss=s.e_seq,  # if fresh
        irs=choose(s.irs, (s.do_accept, s.e_ack), (s.syn_taken, s.e_seq)),
        snd_una=una_after(s),
        snd_nxt=choose_one(
            s.snd_nxt,
            (s.do_accept, s.e_seq_plus_1),
            (fresh & ~s.do_accept, s.e_seq),
            (to_una, s.snd_una),
            (s.timeout_paced, s.snd_max),  # should it have gone back: the scoreboard has its own way through
            (pulls_nxt, s.e_ack),
        ),
        flight_nxt=choose(
            s.flight_nxt,
            (s.do_accept, 1),
            (fresh | s.timer_rewinds | s.do_path_mtu | s.simultaneous | s.reopens, 0),
            (s.took_ack, s.flight_acked),
        ),
        snd_max=choose(s.snd_max, (s.do_accept, s.e_seq_plus_1), (fresh, s.e_seq)),
        # snd_nxt stands before snd_max: what goes out next is a retransmission
        behind=choose(s.nxt_before_max, (fresh, 0), (to_una, s.in_flight), (pulls_nxt, ~s.ack_all)),
        all_acked=choose(~s.in_flight, (s.do_accept, 0), (fresh, 1), (s.took_ack, s.ack_all)),
        snd_end=choose(s.snd_end, (fresh, s.e_seq_plus_1), (s.end_taken, s.host_seq)),
        fin_queued=(s.fin_queued | s.do_close) & ~fresh,
        fin_sent=s.fin_sent & ~fresh,
        fin_acked=(s.fin_acked | s.fin_is_acked) & ~fresh,
        snd_wnd=choose(s.snd_wnd, (s.takes_wnd, s.wnd_scaled), (s.do_accept, s.e_wnd), (fresh, 0)),
        max_sndwnd=choose(s.max_sndwnd, (fresh, 0), (s.takes_wnd & s.wnd_largest, s.wnd_scaled)),
        recent_wnd=choose(
            s.recent_wnd,
            (fresh, 0),
            (s.takes_wnd & s.wnd_recent, s.wnd_scaled),
            (s.overrides, s.snd_wnd),
        ),
        wnd_zero=choose(s.wnd_was_zero, (s.takes_wnd, ~s.wnd_nonzero), (s.do_accept, s.e_wnd_zero), (fresh, 1)),
        snd_wl1=s.e_seq,  # if takes_wnd
        data_nxt=choose(
            s.data_nxt_placed, (s.do_open, 0), (s.do_accept, s.e_ack_plus_1), (s.syn_taken, s.e_payload_end)
        ),
        rcv_adv=choose(s.rcv_adv, (s.do_open, 0), (s.do_accept, s.accept_adv), (s.syn_taken, s.e_seq_plus_1)),
        ack_now=(
            s.ack_now
            | s.answered
            | (s.limited & s.may_say)
            | s.syn_acked
            | s.delack_due
            | (s.go & s.if_ack_now)
            | (s.go & s.if_ecn_ack)
            | s.do_keepalive
            | s.do_urgent  # the pointer goes ahead of the data, whatever holds that back (MUST-32 of the peer's TCP)
        )
        & ~fresh,
        says=s.limited & s.may_say,
        challenged=s.challenge & s.may_say,
        suppressed=s.limited & ~s.may_say,
        begins=fresh,
        delack=(s.delack | s.got_in_order) & ~fresh,
        delack_deadline=Mux(s.got_in_order & ~s.delack, s.delack_deadline_next, s.delack_deadline),
        force=(s.force | s.probe) & ~fresh,
        rexmt_shift=choose(
            s.rexmt_shift,
            (s.do_accept, s.e_timers[:2]),  # how often the SYN,ACK was sent again: as of a SYN of ours
            (fresh | s.took_ack | s.reopens | s.overrides, 0),
            (s.timeout | s.probe, s.next_shift),
        ),
        # Any segment that the checks of sequence and acknowledgement number let through says that the peer lives. Its backoff
        # goes on growing: an answer is no reason to ask more often.
        # What the host asks for counts once: the number limits the engine's own probes.
        unanswered=choose(
            s.unanswered | (s.do_keepalive & ~s.unanswered.any()),
            (fresh | s.go | s.overrides, 0),
            (s.probe, s.unanswered_next),
        ),
        times_accept=s.do_accept & ~s.e_timers[:2].any() & ~s.e_untimed,
        timer_on_then=s.rexmt_on & ~fresh & ~s.idle,
        persist_then=(s.persist | s.probe) & ~fresh,
        # The window opens, and all that is under way is a probe.
        takes_probe_along=s.to_una_by_wnd & s.flight_one & ~s.fin_sent,
        # A probe's interval has grown; one that has not may run out, however often the window closes and opens.
        cuts_backoff=s.reopens & (s.rexmt_shift != 0),
        # All goes again in smaller segments, and has a time-out's time for it; a time that has been doubled runs on.
        resegmented=s.do_path_mtu & s.in_flight & ~s.rexmt_shift.any(),
        timeout_then=s.timeout,
        probe_then=s.probe,
        took_ack_then=s.took_ack,
        rto=choose(s.rto, (fresh, s.rto_initial), (s.becomes_established, s.rto_established)),
        changed=s.took_ack | s.got_in_order | s.becomes_established | s.syn_taken | s.urgent_news | dies,
    )


def take_fin(s):
    """Step 5: the peer's FIN, figure 5 again; what the state allows."""
    state, fin = s.state, fin_now(s)
    next_state = choose_one(
        state,
        (fin & in_states(state, State.ESTABLISHED, State.SYN_RECEIVED), S["CLOSE_WAIT"]),
        (fin & (state == S["FIN_WAIT_1"]), S["CLOSING"]),
        (fin & (state == S["FIN_WAIT_2"]), S["TIME_WAIT"]),
    )
    in_time_wait = next_state == S["TIME_WAIT"]
    return dict(
        state=next_state,
        in_time_wait=in_time_wait,
        alive=next_state != S["CLOSED"],
        runs_rexmt=(next_state != S["CLOSED"]) & ~in_time_wait,
        can_send=in_states(
            next_state,
            State.ESTABLISHED,
            State.CLOSE_WAIT,
            State.FIN_WAIT_1,
            State.CLOSING,
            State.LAST_ACK,
        ),
        can_fin=in_states(next_state, State.FIN_WAIT_1, State.CLOSING, State.LAST_ACK),
        in_handshake=in_states(next_state, State.SYN_SENT, State.SYN_RECEIVED),
        in_syn_sent=next_state == S["SYN_SENT"],
        updates_window=in_states(next_state, State.ESTABLISHED, State.FIN_WAIT_1, State.FIN_WAIT_2),
        rcv_nxt=(s.data_nxt + fin)[:32],
        peer_closed=s.peer_closed | fin,
        ack_now=(s.ack_now | fin) & (next_state != S["CLOSED"]),
        delack=s.delack & (next_state != S["CLOSED"]),
        changed=s.changed | fin | (state != s.state_before) | (s.bell_bad & s.provisioned & ~s.bad_doorbell),
    )


def wait(s):
    """Step 6: entering TIME_WAIT, or seeing the peer's FIN again there, (re)starts the 2MSL timer."""
    start = s.in_time_wait & ((s.state_before != S["TIME_WAIT"]) | s.retime_wait)
    return dict(
        msl_on=s.in_time_wait & (s.msl_on | start),
        msl_deadline=Mux(start, s.msl_deadline_next, s.msl_deadline),
    )
