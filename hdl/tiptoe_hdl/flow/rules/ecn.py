"""Explicit congestion notification, RFC 3168 section 6.1, and what DCTCP does otherwise, RFC 8257 sections 3.2 to 3.5.

Negotiated (``ecn_ok``) by ECE and CWR in a SYN and ECE alone in its SYN,ACK; a SYN that goes again offers nothing (section
6.1.1.1), but what answers the first one still counts.

Receiver: CE on text that is acceptable is told by ECE in every segment until CWR comes (``ecn_echo``). Under an *accurate*
algorithm ECE says whether the last text had it (RFC 8257 section 3.2). What changes is told at once, and CWR is answered at
once, since the peer's window may have become one segment.

Sender: an acknowledgement of new data with ECE cuts cwnd as a loss does, and nothing goes again; once a window of data: not in
a recovery, nor before ``recover``. That is where cwnd last fell: for a loss while ``recover_valid``, for ECE while ``ecn_cut``.
Only the first keeps duplicate acknowledgements from being a new loss; behind the second there may be one in the same window, and
it is repaired without a second reduction. CWR goes with the next new data (``cwr_owed``).

ECT(0) stands on new data only (sections 6.1.4 to 6.1.6), with an accurate algorithm on everything but SYN and RST, as in Linux.

Invariant: never both recover_valid and ecn_cut; ecn_cut falls with the acknowledgement of ``recover``.
"""

from amaranth.hdl import Mux

from ...congestion import ALGORITHM_BITS, ALGORITHMS
from ...messages import ACK, CWR, ECE
from . import choose, enters_recovery


def is_accurate(algorithm):
    """1 bit: the algorithm wants to know how much was marked, and says so of what it receives."""
    hit = 0
    for number, known in enumerate(ALGORITHMS):
        if known.accurate:
            hit |= algorithm == number
    return hit


def measure(s):
    """Step 1."""
    flags = s.e_flags
    e_ece = s.is_segment & flags[ECE] & s.ecn_ok
    return dict(
        e_ece=e_ece,
        # Of cwnd remains what ``decrease`` says: not at a loss under an accurate algorithm.
        decrease_counts=~s.accurate | e_ece,
        ecn_text=s.ecn_ok & s.e_any_payload,
        e_marked=s.e_ecn.all(),
        # What our SYN offered is taken: by a SYN,ACK with ECE alone, or by a SYN that crosses ours.
        ecn_agreed=s.ecn_ok & flags[ECE] & (flags[ACK] ^ flags[CWR]),
        ecn_offered=s.ecn.any() & (s.ecn[0] | s.e_ecn[0]),
    )


def judge(s):
    """Step 2."""
    cwr = s.e_flags[CWR]
    return dict(
        ecn_echo_next=s.e_marked | (s.ecn_echo & ~cwr & ~s.accurate),
        ecn_news=cwr | (s.e_marked & ~s.ecn_echo) | (s.accurate & ~s.e_marked & s.ecn_echo),
        ece_counts=(s.e_ece & ~s.in_recovery & ~s.paced & (s.ack_beyond_recover | ~(s.recover_valid | s.ecn_cut))),
    )


def decide(s):
    """Step 3: if the segment is processed."""
    told = s.ecn_text & s.acceptable & s.takes_data
    new_ack = s.ack_new & ~s.is_syn_received
    return dict(
        if_ecn_told=told,
        if_ecn_ack=told & s.ecn_news,
        if_cut=new_ack & s.ece_counts,
        if_cut_over=new_ack & s.ack_covers_recover,
        if_marked=Mux(new_ack & s.e_ece, s.acked, 0),
    )


def apply(s):
    """Step 4."""
    told, cut = s.go & s.if_ecn_told, s.go & s.if_cut
    repaired = s.go & s.if_tail_repaired & s.ecn_ok
    enter = enters_recovery(s)
    falls = cut | repaired | (enter & ~s.ecn_cut) | (s.timeout & s.first_timeout)
    return dict(
        ecn_ok=choose(
            s.ecn_ok,
            (s.do_open, s.ecn_offered),
            (s.do_accept, s.e_ecn[0]),
            (s.fresh, 0),
            (s.syn_taken, s.ecn_agreed),
        ),
        accurate=choose(
            s.accurate,
            (s.fresh, is_accurate(s.algorithm_initial)),
            (s.do_congestion, is_accurate(s.e_seq[:ALGORITHM_BITS])),
        ),
        ecn_seen=(s.ecn_seen | (told & s.e_ecn.any())) & ~s.fresh,
        ecn_echo=choose(s.ecn_echo, (s.fresh, 0), (told, s.ecn_echo_next)),
        ecn_cut=choose(s.ecn_cut, (s.fresh | s.timeout | enter, 0), (cut | repaired, 1), (s.go & s.if_cut_over, 0)),
        cwr_owed=(s.cwr_owed | (falls & s.ecn_ok & s.established)) & ~s.fresh,
        marked=(s.marked + (s.if_marked & s.go.replicate(len(s.if_marked))))[:32],
    )


def prepare(s):
    """Step 6: what a segment says, if it is one of these."""
    live = s.ecn_ok & ~s.in_handshake
    return dict(
        says_echo=live & s.ecn_echo,
        # A SYN that goes again offers nothing, its answer holds.
        says_ecn=s.ecn_ok & ~(s.in_syn_sent & s.rexmt_shift.any()),
        ect_always=live & s.accurate,
        ect_possible=live & ~s.force_one & ~s.takes_probe_along,
    )


def mark(s):
    """Step 8: the flags and the codepoint of what is sent."""
    new = s.new & s.data & s.ect_possible
    return dict(
        tx_ece=Mux(s.tx_syn, s.says_ecn, s.says_echo),
        tx_cwr=Mux(s.tx_syn, s.says_ecn & s.in_syn_sent, new & s.cwr_owed),
        ect=new | (s.ect_always & ~s.tx_syn),
    )
