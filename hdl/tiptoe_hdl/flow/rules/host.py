"""Doorbells and commands of the host: positions turned into sequence numbers and checked, requests judged.

Contract rows SEND-1, SEND-3, RCVD-1..3, DISC-1, RESET-1 and CONN-1 rest on these rules.
"""

from amaranth.hdl import Cat, Mux

from ...messages import ACK, RST, SYN, FlowOp, Reason, State, Status
from ...wire.sequence import distance
from ..tcb import CWND_BITS, STAMP_BYTES
from . import choose, in_states, power


def _widest_window(scale):
    """0xFFFF << scale, 25 bits."""
    steps = [scale == k for k in range(15)]
    return Cat(Cat(steps[max(0, k - 15) : k + 1]).any() for k in range(25))


def measure(s):
    """Step 1: the position as a sequence number (position + isn + 1 = position - ~isn), the scale of our window."""
    isn = Mux(s.is_doorbell & s.e_which, s.irs, s.iss)
    # The receive ring counts only as far as the window field can tell: 65,535 << scale.
    own, asked = (~s.rcv_log2[4] | (s.rcv_log2[:4] < scale) for scale in (s.rcv_scale, s.e_rcv_scale))
    unscaled = s.is_segment & ~s.e_ws_present & ~s.established
    # What maxseg is to be: as others speak of it, or, if segments carry timestamps, less these.
    agreed = s.ts_ok & (s.state != State.SYN_SENT.value)
    stamped = s.is_request & ((s.op_accept & s.e_ts_present) | (s.op_path_mtu & agreed))
    mss_smaller = Mux(stamped, s.e_mss_stamped < s.maxseg, s.e_mss < s.maxseg)
    return dict(
        host_seq=distance(s.e_seq, ~isn),
        own_whole=own,
        own_ring=power(s.rcv_log2, 25),
        own_window=_widest_window(s.rcv_scale),
        ring_end=(s.snd_una + power(s.snd_log2, 25))[:32],
        scale=choose(s.rcv_scale, (s.is_request, s.e_rcv_scale), (unscaled, 0)),
        whole_ring=choose(own, (s.is_request, asked), (unscaled, ~s.rcv_log2[4])),  # rcv_log2 < scale + 16
        lim_base=choose(s.e_seq_plus_1, (s.is_request, Mux(s.op_open, 0, s.e_ack_plus_1))),
        generation_ok=s.generation == s.e_generation,
        terminal=s.provisioned & (s.state == State.CLOSED.value) & (s.reason != Reason.NONE.value),
        virgin=s.provisioned & (s.state == State.CLOSED.value) & (s.reason == Reason.NONE.value),
        sets_mss=s.is_request & (s.op_open | s.op_accept),
        # A path's MTU may rise again (RFC 1191 section 6.3); before the connection is established only fall.
        changes_mss=(s.is_request & s.op_path_mtu & s.provisioned & (s.established | mss_smaller)),
        # Only a SYN says something of the largest segment (RFC 9293 section 3.7.1), if it is an answer to ours, or crosses it.
        says_mss=s.is_segment & (s.state == State.SYN_SENT.value) & s.e_flags[SYN] & ~s.e_flags[RST],
        mss_smaller=mss_smaller,
        mss_asked=Mux(stamped, s.e_mss_stamped, s.e_mss)[: len(s.e_mss)],
        maxseg_stamped=(s.maxseg - STAMP_BYTES)[: len(s.maxseg)],
        cwnd_below_mss=s.cwnd < s.e_mss,
        ssthresh_asked=Mux(s.e_ack[:CWND_BITS] < s.maxseg, s.maxseg, s.e_ack[:CWND_BITS])[:CWND_BITS],
        cwnd_asked=Mux(s.e_seq[:CWND_BITS] < s.maxseg, s.maxseg, s.e_seq[:CWND_BITS])[:CWND_BITS],
    )


def compare(s):
    """Step 2."""
    said = s.says_mss & (~s.e_flags[ACK] | (s.ack_after_una & ~s.ack_after_max))
    sets_mss = s.sets_mss | (s.changes_mss & s.generation_ok) | (said & s.mss_smaller)
    return dict(
        bell_lim=(s.host_seq + Mux(s.own_whole, s.own_ring, s.own_window))[:32],
        usable=Mux(s.whole_ring, power(s.rcv_log2, 25), _widest_window(s.scale)),
        end_ok=~distance(s.host_seq, s.snd_end)[31] & ~distance(s.ring_end, s.host_seq)[31],
        end_was=distance(s.host_seq, s.snd_end)[24:].all(),  # in a ring that ends at snd_end
        user_ok=~distance(s.rcv_nxt, s.host_seq)[31],
        maxseg_now=Mux(
            said & s.stamped,
            Mux(s.mss_smaller, s.e_mss_stamped, s.maxseg_stamped),
            Mux(sets_mss, s.mss_asked, s.maxseg),
        ),
    )


def judge(s):
    """Step 3: is the send doorbell sound, may the request be done."""
    alive = s.state != State.CLOSED.value
    sendable = (
        in_states(s.state, State.SYN_SENT, State.SYN_RECEIVED, State.ESTABLISHED, State.CLOSE_WAIT) & ~s.fin_queued
    )
    snd_bell = s.is_doorbell & ~s.e_which
    # PROVISION and ACCEPT give the id its generation; a DMA fault concerns whoever has the id.
    known = s.is_request & s.provisioned & s.generation_ok
    close = known & s.op_close & sendable & s.end_ok
    provision = s.is_request & s.op_provision & ~s.provisioned
    accept = s.is_request & s.op_accept & s.virgin
    opens = known & s.op_open & s.virgin
    urgent = known & s.op_urgent & sendable & s.established & s.end_ok
    return dict(
        lim_next=(s.lim_base + s.usable)[:32],
        accept_adv=(s.e_ack_plus_1 + s.e_wnd)[:32],
        bell_lim_ok=s.user_ok & ~distance(s.bell_lim, s.rcv_lim)[31],
        do_provision=provision,
        do_open=opens,
        opens=accept | opens,
        do_accept=accept,
        do_close=close,
        do_abort=alive & ((known & s.op_abort) | (s.is_request & s.op_dma_abort)),
        do_release=known & s.op_release & (s.terminal | s.virgin),
        do_congestion=known & s.op_congestion & alive,
        do_cwnd=known & s.op_cwnd & alive & s.established & s.hosts,
        do_pacing=known & s.op_pacing & alive,
        do_keepalive=known & s.op_keepalive & alive & s.established,
        do_urgent=urgent,
        # Only segments that do not fit any more go again.
        # No congestion window is less than a segment: nothing would go before the override timer.
        lifts_cwnd=known & s.op_path_mtu & alive & s.established & s.cwnd_below_mss,
        do_path_mtu=known & s.op_path_mtu & alive & s.established & s.mss_smaller,
        fresh=provision | accept | opens,
        end_taken=(snd_bell & s.provisioned & sendable & s.end_ok) | close | urgent,
        # A doorbell that comes after the connection has died is no fault, nor is one that URGENT has overtaken; one outside the
        # ring is.
        snd_bell_bad=(snd_bell & sendable & ~s.end_ok & ~(s.snd_urgent & s.end_was)) | (s.is_doorbell & ~s.provisioned),
        rcv_bell=s.is_doorbell & s.e_which & alive & s.established,
        is_alive=alive,
        sendable=sendable,
    )


def apply(s):
    """Step 4: the receive ring's edge; how the request is answered."""
    bad_state, ok = Status.BAD_STATE.value, Status.OK.value
    return dict(
        rcv_lim=choose(s.rcv_lim, (s.rcv_bell & s.bell_lim_ok, s.bell_lim), (s.syn_taken | s.opens, s.lim_next)),
        bell_bad=s.snd_bell_bad | (s.rcv_bell & ~s.bell_lim_ok),
        status=choose(
            ok,
            (s.op_provision, Mux(s.do_provision, ok, bad_state)),
            (s.op_accept, Mux(s.do_accept, ok, bad_state)),
            (s.op_dma_abort, Mux(s.do_abort, ok, bad_state)),
            (~s.provisioned, Status.BAD_ID.value),
            (~s.generation_ok, Status.BAD_GENERATION.value),
            (s.op_open, Mux(s.do_open, ok, bad_state)),
            (s.op_release, Mux(s.do_release, ok, bad_state)),
            (s.op_read, ok),
            (~s.is_alive | (s.op_keepalive & ~s.established) | (s.op_cwnd & ~s.do_cwnd), bad_state),
            (s.op_close & ~s.sendable & ~s.fin_queued, bad_state),
            (s.op_urgent & ~(s.sendable & s.established), bad_state),
            ((s.op_close | s.op_urgent) & s.sendable & ~s.end_ok, Status.BAD_ARGUMENT.value),
        ),
    )


def note(s):
    """Step 5: a bad doorbell sticks until the id is used anew."""
    return dict(bad_doorbell=s.bad_doorbell | (s.bell_bad & s.provisioned))


def decode(op):
    """Before step 1: one bit for each request."""
    return {"op_" + member.name.lower(): op == member.value for member in FlowOp}
