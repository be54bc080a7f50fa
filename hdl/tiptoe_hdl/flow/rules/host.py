"""Doorbells and commands of the host: positions turned into sequence numbers and checked, requests judged.

Contract rows SEND-1, SEND-3, RCVD-1..3, DISC-1, RESET-1 and CONN-1 rest on these rules.
"""

from amaranth.hdl import Mux

from ...messages import FlowOp, Reason, State, Status
from ...wire.sequence import distance
from . import choose, in_states


def measure(s):
    """Step 1: the position as a sequence number (position + isn + 1 = position - ~isn), ring sizes.

    The receive ring counts only as far as the window field can tell: 65,535 << scale.
    """
    isn = Mux(s.is_doorbell & s.e_which, s.irs, s.iss)
    scale = choose(
        s.rcv_scale, (s.is_request, s.e_rcv_scale), (s.is_segment & ~s.e_ws_present & ~s.established, 0)
    )
    whole_ring = s.rcv_log2 < (scale + 16)
    return dict(
        host_seq=distance(s.e_seq, ~isn),
        snd_size=(1 << s.snd_log2)[:25],
        usable=Mux(whole_ring, 1 << s.rcv_log2, 0xFFFF << scale)[:25],
        lim_base=choose(s.e_seq_plus_1, (s.is_request, Mux(s.op_open, 0, s.e_ack_plus_1))),
        accept_adv=(s.e_ack_plus_1 + s.e_wnd)[:32],
        generation_ok=s.generation == s.e_generation,
        terminal=s.provisioned & (s.state == State.CLOSED.value) & (s.reason != Reason.NONE.value),
        virgin=s.provisioned & (s.state == State.CLOSED.value) & (s.reason == Reason.NONE.value),
        maxseg_smaller=s.e_mss < s.maxseg,
    )


def compare(s):
    """Step 2."""
    base = Mux(s.is_doorbell, s.host_seq, s.lim_base)
    return dict(
        end_advance=distance(s.host_seq, s.snd_end),
        end_room=distance(s.host_seq, s.snd_una),
        lim_next=(base + s.usable)[:32],
        user_ok=~distance(s.rcv_nxt, s.host_seq)[31],
        maxseg_now=choose(
            s.maxseg,
            (s.is_request & s.op_open, s.e_mss[:12]),
            (s.is_request & s.op_accept, s.e_mss[:12]),
            (s.is_request & s.op_path_mtu & s.maxseg_smaller, s.e_mss[:12]),
            (s.is_segment & s.maxseg_smaller & (s.state == State.SYN_SENT.value), s.e_mss[:12]),
        ),
    )


def judge(s):
    """Step 3: is the doorbell sound, may the request be done, and with what status is it answered."""
    alive = s.state != State.CLOSED.value
    end_ok = ~s.end_advance[31] & (s.end_room <= s.snd_size)
    sendable = (
        in_states(s.state, State.SYN_SENT, State.SYN_RECEIVED, State.ESTABLISHED, State.CLOSE_WAIT)
        & ~s.fin_queued
    )
    lim_ok = s.user_ok & ~distance(s.lim_next, s.rcv_lim)[31]
    snd_bell, rcv_bell = s.is_doorbell & ~s.e_which, s.is_doorbell & s.e_which
    close_ok = s.op_close & sendable & end_ok
    closing = s.op_close & alive & s.fin_queued
    status = choose(
        Status.OK.value,
        (s.op_provision, Mux(s.provisioned, Status.BAD_STATE.value, Status.OK.value)),
        (s.op_accept, Mux(s.virgin, Status.OK.value, Status.BAD_STATE.value)),
        (s.op_dma_abort, Mux(alive, Status.OK.value, Status.BAD_STATE.value)),
        (~s.provisioned, Status.BAD_ID.value),
        (~s.generation_ok, Status.BAD_GENERATION.value),
        (s.op_open, Mux(s.virgin, Status.OK.value, Status.BAD_STATE.value)),
        (s.op_release, Mux(s.terminal | s.virgin, Status.OK.value, Status.BAD_STATE.value)),
        (~alive, Status.BAD_STATE.value),
        (s.op_close & ~sendable & ~s.fin_queued, Status.BAD_STATE.value),
        (s.op_close & ~closing & ~end_ok, Status.BAD_ARGUMENT.value),
    )
    ok = s.is_request & (status == Status.OK.value)
    return dict(
        status=status,
        do_provision=ok & s.op_provision,
        do_open=ok & s.op_open,
        do_accept=ok & s.op_accept,
        do_close=ok & close_ok,
        do_abort=ok & (s.op_abort | s.op_dma_abort),
        do_release=ok & s.op_release,
        do_path_mtu=ok & s.op_path_mtu,
        fresh=ok & (s.op_open | s.op_accept | s.op_provision),
        end_taken=(snd_bell & s.provisioned & sendable & end_ok) | (ok & close_ok),
        lim_taken=rcv_bell & alive & s.established & lim_ok,
        # A doorbell that comes after the connection has died is no fault; one outside the ring is.
        bell_bad=(snd_bell & sendable & ~end_ok)
        | (rcv_bell & alive & s.established & ~lim_ok)
        | (s.is_doorbell & ~s.provisioned),
        bell_sticks=s.provisioned,
    )


def decode(op):
    """Before step 1: one bit for each request."""
    return {"op_" + member.name.lower(): op == member.value for member in FlowOp}
