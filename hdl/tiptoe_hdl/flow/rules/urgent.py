"""The urgent mechanism, RFC 9293 sections 3.8.5, 3.10.2 and 3.10.7.4 sixth; RFC 6093: a pointer names the octet behind the
urgent data (MUST-62).

RCV.UP stays where the last advance has put it, also when rcv_nxt has passed it: a report may come later than the data. It is
forgotten when more than a receive ring has passed it, for of that the host has heard all.
"""

from ...messages import URG
from ...wire.sequence import far_behind, seq_gt


def measure(s):
    """Step 1."""
    return dict(
        up_after_nxt=seq_gt(s.e_up, s.rcv_nxt),
        up_after_old=seq_gt(s.e_up, s.rcv_up),
        rcv_up_old=s.rcv_urgent & far_behind(s.rcv_up, s.rcv_nxt),
        snd_up_old=s.snd_urgent & far_behind(s.snd_up, s.snd_una),
    )


def compare(s):
    """Step 2: the pointer advances, and is in advance of what the host can have read. What a write would store, if it comes to
    that."""
    return dict(
        up_advances=s.e_flags[URG] & s.up_after_nxt & (s.up_after_old | ~s.rcv_urgent),
        syn_up=s.e_flags[URG] & s.e_up_behind_syn,
        rcv_up=s.e_up,
        snd_up=s.host_seq,
    )


def judge(s):
    """Step 3: of acceptable segments, out of order too; and of one at rcv_nxt, however little of it fits the window (MUST-66).
    Behind a FIN there is nothing (3.10.7.4), so a state that takes no text takes no pointer."""
    return dict(up_taken=s.up_advances & s.takes_data & (s.acceptable | s.seq_exact))


def apply(s):
    """Step 4. That of a SYN,ACK counts (3.10.7.3)."""
    news = (s.go & s.up_taken) | (s.syn_acked & s.syn_up)
    return dict(
        urgent_news=news,
        rcv_urgent=news,  # if moves_rcv_up
        moves_rcv_up=news | s.fresh | s.rcv_up_old,
        snd_urgent=s.do_urgent,  # if moves_snd_up
        moves_snd_up=s.do_urgent | s.fresh | s.snd_up_old,
    )
