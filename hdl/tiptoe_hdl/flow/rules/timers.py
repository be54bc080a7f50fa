"""Retransmission, persist, delayed-ACK and 2MSL timers: RFC 6298, RFC 9293 sections 3.8.3, 3.8.6 and 3.10.8.

The sweep says which deadlines it found due; the pipeline looks again at the deadlines in the TCB, since the timer may
have been stopped or set anew while the event was under way.
"""

from amaranth.hdl import Mux

from ...messages import State
from ..tcb import TICK_BITS, RexmtMode
from . import choose


def _due(s, deadline):
    return ~(s.now - deadline)[TICK_BITS - 1]


def measure(s):
    """Step 2."""
    return dict(
        rexmt_due=s.is_timer & s.e_timers[0] & s.rexmt_on & _due(s, s.rexmt_deadline),
        delack_due=s.is_timer & s.e_timers[1] & s.delack & _due(s, s.delack_deadline),
        msl_due=s.is_timer & s.e_timers[2] & s.msl_on & _due(s, s.msl_deadline),
        tries_used_up=s.rexmt_shift >= s.rexmt_max,
        wnd_closed=s.wnd_was_zero & s.established,
        probes_used_up=s.wnd_was_zero & s.established & (s.unanswered >= s.rexmt_max),
    )


def expire(s):
    """Step 3. With the peer's window closed a time-out probes it, for ever if need be, as long as probes are answered
    (MUST-36, MUST-37; section 3.8.6.1): silence is not what those speak of, and ends the connection after as many probes as
    retransmissions. With a window open that is too small for avoiding silly segments the time-out overrides that (section
    3.8.6.2.1), and the window counts as the largest from then on. When nothing is under way or waits, the time-out says
    that the connection has been idle.
    """
    is_timeout = s.rexmt_mode == RexmtMode.TIMEOUT.value
    probing = s.rexmt_due & is_timeout & (s.persist | (s.wnd_closed & s.in_flight))
    probe = probing & ~s.probes_used_up
    open_ = s.rexmt_due & ~s.persist & ~s.wnd_closed & s.in_flight
    timeout = open_ & is_timeout & ~s.tries_used_up
    silent = open_ & is_timeout & s.tries_used_up
    give_up = silent | (probing & s.probes_used_up)
    time_wait_over = s.msl_due & (s.state == State.TIME_WAIT.value)
    return dict(
        probe=probe,
        early=s.rexmt_due & ~is_timeout,
        tail_probe=open_ & (s.rexmt_mode == RexmtMode.TAIL.value) & ~s.in_recovery & ~s.paced,
        reorder_over=open_ & (s.rexmt_mode == RexmtMode.REORDER.value) & ~s.in_recovery & ~s.paced & s.board,
        overrides=probe & ~s.wnd_closed,
        timeout=timeout,
        first_timeout=s.rexmt_shift == 0,
        # With SACK only what the peer has not got goes again (``scoreboard.py``), else all behind snd_una.
        timeout_paced=timeout & s.sack_ok & s.established,
        timer_rewinds=probe | (timeout & ~(s.sack_ok & s.established)),
        give_up=give_up,
        idle=s.rexmt_due & ~s.persist & ~s.in_flight,
        idle_falls=s.rexmt_due & ~s.persist & ~s.in_flight & s.above_restart,
        time_wait_over=time_wait_over,
        timer_ends=give_up | time_wait_over,
        next_shift=Mux(s.rexmt_shift == 15, 15, s.rexmt_shift + 1)[:4],
        delack_deadline_next=(s.now + s.delack_ticks)[:TICK_BITS],
        unanswered_next=(s.unanswered + 1)[:4],  # not beyond 15: no probe goes when it has reached REXMT_MAX
    )


def prolong(s):
    """Step 5."""
    return dict(msl_deadline_next=(s.now + s.msl_ticks)[:TICK_BITS])


def guess(s):
    """Step 7: when the tail is probed, and how long a gap may be due to reordering (RFC 8985 sections 7.2 and 6.2); srtt as
    it was before this event. One segment alone may wait for the peer's delayed ACK, 200 ms at most: RTO_MIN, as in Linux. One
    probe for each sample (section 7.3): a probe that comes too early spoils the sample that would show it.
    """
    return dict(
        tail_after=((s.srtt >> 2) + 2)[:TICK_BITS],
        single_after=((s.srtt >> 2) + s.rto_min)[:TICK_BITS],
        little=s.flight_nxt <= s.maxseg,
        reorder_after=(s.srtt >> 5) + 1,
        may_probe=s.tells_blocks & ~s.in_recovery & s.rtt_valid & ~s.tail_probed & ~s.early & ~s.behind & ~s.paced,
    )


def plan(s):
    """Step 8: what becomes of the retransmission timer behind this pass. ``sent``: data, SYN or FIN went out.

    Invariant: while anything is under way or waits, the timer runs. It runs on when everything is acknowledged, and its end
    then says that the connection is idle.
    """
    outstanding = ~s.all_acked | s.sent
    # Data waits, nothing is under way, and nothing may be sent: only the timer's probe or override can end it. Nothing
    # restarts that timer but what has changed the cause: a segment that the peer acknowledged, its window opened.
    stuck = s.waiting & s.all_acked & ~s.sent
    single = Mux(s.sent, s.all_acked, s.little)
    # What follows a first segment makes it a tail of several; its time counts from the first, or a host that goes on writing
    # would put it off for ever.
    probes_tail = s.may_probe & outstanding & ~stuck & Mux(single, s.single_after < s.rto, s.tail_after < s.rto)
    first = (s.rexmt_mode == RexmtMode.TIMEOUT.value) & ~s.rexmt_shift.any()
    renews = s.new & probes_tail & first
    # What goes into a closed window is a probe or a FIN: it does not end probing.
    start = (
        renews
        | s.early
        | (s.sent & (~s.timer_on_then | Mux(s.persist_then, ~s.wnd_zero, s.all_acked)))
        | s.took_ack_then
        | s.resegmented
    )
    return dict(
        rexmt_outstanding=outstanding,
        rexmt_expired=s.timeout_then | s.probe_then,
        rexmt_stuck=stuck,
        rexmt_starts=start | (stuck & (~s.timer_on_then | ~s.persist_then | s.cuts_backoff)),
        persist_ends=start & ~s.wnd_zero,
        start_deadline=(s.now + s.rto)[:TICK_BITS],
        # With a sample (``rtt.renew``).
        least_deadline=(s.now + s.rto_min)[:TICK_BITS],
        most_deadline=(s.now + s.rto_max)[:TICK_BITS],
        tail_deadline=Mux(single, (s.now + s.single_after)[:TICK_BITS], (s.now + s.tail_after)[:TICK_BITS]),
        reorder_deadline=(s.now + s.reorder_after)[:TICK_BITS],
        probes_tail=probes_tail,
        backoff_deadline=(s.now + s.backoff)[:TICK_BITS],
    )


def set_retransmission(s):
    """Step 9. A timer that starts with a sample has the time-out that this gives (RFC 6298 section 5.3): that of before may have
    been doubled many times."""
    renewed = choose(
        (s.now + s.rto_sum)[:TICK_BITS],
        (s.rto_sum < s.rto_min, s.least_deadline),
        (s.rto_sum > s.rto_max, s.most_deadline),
    )
    start_deadline = Mux(s.rtt_taken, renewed, s.start_deadline)
    running = s.timer_on_then | s.rexmt_starts | s.rexmt_expired
    return dict(
        rexmt_on=s.runs_rexmt & running,
        persist=s.runs_rexmt & (s.rexmt_stuck | (s.persist_then & ~s.persist_ends & s.rexmt_outstanding)),
        rexmt_mode=choose(
            s.rexmt_mode,
            (s.doubts, RexmtMode.REORDER.value),
            (s.rexmt_starts & s.probes_tail, RexmtMode.TAIL.value),
            (s.rexmt_starts | s.rexmt_expired, RexmtMode.TIMEOUT.value),
        ),
        rexmt_deadline=choose(
            s.rexmt_deadline,
            (s.doubts, s.reorder_deadline),
            (s.rexmt_starts, Mux(s.probes_tail, s.tail_deadline, start_deadline)),
            (s.rexmt_expired, s.backoff_deadline),
        ),
    )
