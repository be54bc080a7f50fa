"""Round-trip time and retransmission time-out, RFC 6298; times in ticks.

srtt is kept times 8 and rttvar times 4, so that the gains of 1/8 and 1/4 are shifts. A timer started in the pass that
takes a sample still uses the time-out of before; the new one counts from the next pass on.

Invariant: ``rto`` is the time-out in force, with all its doublings. Only a sample lowers it again, and only what was sent once
gives one, the listen unit's SYN,ACK too (Karn's algorithm, sections 3 and 5.7): an ACK does not. ``rexmt_shift`` counts
time-outs without progress, for R2 and for the interval of probes; a closed window says nothing about the round trip, so its
backoff stays out of ``rto``.
"""

from amaranth.hdl import Mux

from ...wire.sequence import seq_ge
from ..tcb import TICK_BITS
from . import choose


def measure(s):
    """Step 2: the sample; the time-out doubled (section 5.5), a probe's interval as often as it has run out; in two parts."""
    doublings = s.rexmt_shift + 1
    return dict(
        sample=(s.now - s.rtt_start)[:TICK_BITS],
        rtt_done=s.rtt_active & seq_ge(s.e_ack, s.rtt_seq),
        backed_off_fine=s.rto << doublings[:2],
        backoff_coarse=doublings[2:],
        probing=s.persist | (s.wnd_was_zero & s.established),
        # Section 5.7: data begins with 3 s when the SYN had to be repeated, 1 s being the first time-out.
        rto_after_loss=(s.rto_initial + (s.rto_initial << 1))[: TICK_BITS + 2],
    )


def error(s):
    """Step 3."""
    return dict(
        rtt_error=(s.sample - (s.srtt >> 3))[: TICK_BITS + 1],  # signed
        backed_off=Mux(s.probing, s.backed_off_fine << (s.backoff_coarse << 2), s.rto << 1),
        rto_established=Mux(
            s.rexmt_shift == 0,
            s.rto_initial,
            Mux(s.rto_after_loss > s.rto_max, s.rto_max, s.rto_after_loss),
        )[:TICK_BITS],
    )


def smooth(s):
    """Step 4."""
    negative = s.rtt_error[TICK_BITS]
    return dict(
        srtt_next=(s.srtt + s.rtt_error)[:TICK_BITS],
        rtt_deviation=Mux(negative, -s.rtt_error, s.rtt_error)[:TICK_BITS],
        rttvar_decayed=(s.rttvar - (s.rttvar >> 2))[:TICK_BITS],
        backoff=Mux(
            s.backed_off[TICK_BITS:].any() | (s.backed_off[:TICK_BITS] > s.rto_max),
            s.rto_max,
            s.backed_off[:TICK_BITS],
        ),
    )


def apply(s):
    """Step 5. The first sample R gives srtt = R, rttvar = R/2; it is the handshake's, of either side."""
    take = s.took_ack & s.rtt_done
    first = ~s.rtt_valid
    return dict(
        srtt=choose(s.srtt, (s.fresh, 0), (take & first, (s.sample << 3)[:TICK_BITS]), (take, s.srtt_next)),
        rttvar=choose(
            s.rttvar,
            (s.fresh, 0),
            (take & first, (s.sample << 1)[:TICK_BITS]),
            (take, (s.rttvar_decayed + s.rtt_deviation)[:TICK_BITS]),
        ),
        rtt_valid=(s.rtt_valid | take) & ~s.fresh,
        rtt_active=s.rtt_active & ~(take | s.fresh | s.timeout),
        rtt_taken=take,
        rto=Mux(s.timeout_then, s.backoff, s.rto),
        backoff_deadline=(s.now + s.backoff)[:TICK_BITS],
        start_deadline=(s.now + s.rto)[:TICK_BITS],
    )


def total(s):
    """Step 6: RTO = srtt + max(G, 4 rttvar), G one tick."""
    variance = Mux(s.rttvar == 0, 1, s.rttvar)
    return dict(rto_sum=((s.srtt >> 3) + variance)[:TICK_BITS])


def clamp(s):
    """Step 7."""
    return dict(rto_next=choose(s.rto_sum, (s.rto_sum < s.rto_min, s.rto_min), (s.rto_sum > s.rto_max, s.rto_max)))


def renew(s):
    """Step 9: a sample taken in step 5 has its new time-out here."""
    return dict(rto=Mux(s.rtt_taken, s.rto_next, s.rto))
