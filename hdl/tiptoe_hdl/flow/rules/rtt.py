"""Round-trip time and retransmission time-out, RFC 6298; times in ticks.

srtt is kept times 8 and rttvar times 4, so that the gains of 1/8 and 1/4 are shifts. A timer started in the pass that
takes a sample has the time-out of that sample (``timers.set_retransmission``); whether it is to probe a tail, the one of before
says.

Invariant: ``rto`` is the time-out in force, with all its doublings. Only a sample lowers it again, and only what was sent once
gives one, the listen unit's SYN,ACK too (Karn's algorithm, sections 3 and 5.7), unless a timestamp says which of several was
acknowledged: an ACK does not. ``rexmt_shift`` counts
time-outs without progress, for R2 and for the interval of probes; a closed window says nothing about the round trip, so its
backoff stays out of ``rto``.
"""

from amaranth.hdl import Mux

from ...wire.sequence import seq_ge
from ..tcb import TICK_BITS
from . import choose, timestamps


def measure(s):
    """Step 2: the time-out doubled (section 5.5), a probe's interval as often as it has run out; in two parts."""
    doublings = s.rexmt_shift + 1
    return dict(
        backed_off_fine=s.rto << doublings[:2],
        backoff_coarse=doublings[2:],
        probing=s.persist | (s.wnd_was_zero & s.established),
        # Section 5.7: data begins with 3 s when the SYN had to be repeated, 1 s being the first time-out.
        rto_after_loss=(s.rto_initial + (s.rto_initial << 1))[: TICK_BITS + 2],
    )


def double(s):
    """Step 3."""
    return dict(
        backed_off=Mux(s.probing, s.backed_off_fine << (s.backoff_coarse << 2), s.rto << 1),
        rto_established=Mux(
            s.rexmt_shift == 0,
            s.rto_initial,
            Mux(s.rto_after_loss > s.rto_max, s.rto_max, s.rto_after_loss),
        )[:TICK_BITS],
    )


def sample(s):
    """Step 4: the time since the segment was sent, and whether the event acknowledges it. With timestamps the peer's echo says
    when (RFC 7323 section 4), once a round trip as without, so that RFC 6298's gains are those of a round trip (appendix G has
    others for more samples); and with each acknowledgement behind a time-out, whose doublings the first one ends. HyStart++
    hears of each (``rtt_told``): of a round's samples it takes the shortest (RFC 9406 section 4.2). An acknowledgement that has
    lost its timestamps is timed as without: else a time-out that has been doubled would stay so."""
    covered = s.rtt_active & seq_ge(s.e_ack, s.rtt_seq)
    by_echo = s.ts_ok & s.stamped
    by_clock = covered & ~s.rtt_again
    return dict(
        backoff=Mux(
            s.backed_off[TICK_BITS:].any() | (s.backed_off[:TICK_BITS] > s.rto_max),
            s.rto_max,
            s.backed_off[:TICK_BITS],
        ),
        sample=Mux(by_echo, s.echo_age[:TICK_BITS], (s.now - s.rtt_start)[:TICK_BITS]),
        rtt_covered=covered,
        rtt_done=Mux(by_echo, s.echo_valid & (covered | s.rexmt_shift.any()), by_clock),
        rtt_told=Mux(by_echo, s.echo_valid, by_clock),
    )


def error(s):
    """Step 5; and the time-out of before, doubled by the one that has just come."""
    return dict(
        rtt_error=(s.sample - (s.srtt >> 3))[: TICK_BITS + 1],  # signed
        rto=Mux(s.timeout_then, s.backoff, s.rto),
    )


def smooth(s):
    """Step 6."""
    negative = s.rtt_error[TICK_BITS]
    return dict(
        srtt_next=(s.srtt + s.rtt_error)[:TICK_BITS],
        rtt_deviation=Mux(negative, -s.rtt_error, s.rtt_error)[:TICK_BITS],
        rttvar_decayed=(s.rttvar - (s.rttvar >> 2))[:TICK_BITS],
    )


def apply(s):
    """Step 7. The first sample R gives srtt = R, rttvar = R/2; it is the handshake's, of either side."""
    take = s.took_ack_then & s.rtt_done
    first = ~s.rtt_valid
    return dict(
        srtt=choose(s.srtt, (s.begins, 0), (take & first, (s.sample << 3)[:TICK_BITS]), (take, s.srtt_next)),
        rttvar=choose(
            s.rttvar,
            (s.begins, 0),
            (take & first, (s.sample << 1)[:TICK_BITS]),
            (take, (s.rttvar_decayed + s.rtt_deviation)[:TICK_BITS]),
        ),
        rtt_valid=(s.rtt_valid | take) & ~s.begins,
        rtt_active=s.rtt_active
        & ~((s.took_ack_then & s.rtt_covered) | s.begins | (s.timeout_then & ~timestamps.retimed(s))),
        rtt_taken=take,
        tail_probed=(s.tail_probed | s.tail_probe) & ~take & ~s.begins,
    )


def total(s):
    """Step 8: RTO = srtt + max(G, 4 rttvar), G one tick."""
    variance = Mux(s.rttvar == 0, 1, s.rttvar)
    return dict(rto_sum=((s.srtt >> 3) + variance)[:TICK_BITS])


def renew(s):
    """Step 9: a sample taken in step 7 has its new time-out here."""
    rto_next = choose(s.rto_sum, (s.rto_sum < s.rto_min, s.rto_min), (s.rto_sum > s.rto_max, s.rto_max))
    return dict(rto=Mux(s.rtt_taken, rto_next, s.rto))
