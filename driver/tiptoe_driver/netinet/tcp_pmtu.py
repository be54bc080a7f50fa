"""The path's MTU rises again (RFC 1191 section 6.3): a route that carries less may have been there for a while only.

Ten minutes after a router has complained the next larger of the Internet's usual MTUs is tried, two minutes later the next
one if nobody has, up to what held before. An attempt that fails costs the segments under way: they go again, smaller.
"""

from __future__ import annotations

import errno

from .clock import Deadline
from .offload import tcp_gen_send
from .pcbinfo import INP_DROPPED
from .structures import INP_IPV6, inpcb, tcpcb
from .tcp_fsm import TCPS_ESTABLISHED, TCPS_TIME_WAIT

IP_TCP_HEADERS = 40
"""Bytes of an IPv4 and a TCP header without options."""


def ip_tcp_headers(inp: inpcb) -> int:
    """Likewise of the version that a connection, or a listener, has."""
    return IP_TCP_HEADERS + (20 if inp.inp_vflag == INP_IPV6 else 0)


PLATEAUS = (32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68)
"""MTUs of the Internet's links, RFC 1191 section 7.1."""
AFTER_COMPLAINT_US, AFTER_ATTEMPT_US = 600_000_000, 120_000_000
"""Not sooner than five minutes and one, says the RFC, and twice that is better."""
AFTER_HINT_US = 1_000_000
"""From a complaint of a probe to a probe of what it named."""


def tcp_pmtu_proven(tp: tcpcb) -> int:
    """The largest segment that passes, or is taken to: t_maxseg, but while a probe of more is under way. I is held."""
    return tp.t_maxseg if tp.t_mtup is None else min(tp.t_maxseg, tp.t_mtup.search_low)


def tcp_pmtu_fell(tp: tcpcb, mss: int) -> None:
    """The path carries no more than ``mss``, which is less than t_maxseg: that falls. I is held."""
    m = tp.t_mtup
    tp.t_maxseg_most = max(tp.t_maxseg_most, tp.t_maxseg)
    if m is not None:
        # A path that has swallowed segments in silence is not trusted to complain: it rises by probes (tcp_blackhole.py).
        now_us = tp.t_inpcb.stack.now_us()
        if mss > m.search_low:
            # A probe was too long. That so much passes is a hint, and is probed (RFC 8899 section 4.6.2).
            m.hinted, m.probes_lost, m.due_us = mss, 0, now_us + AFTER_HINT_US
        else:
            m.search_low, m.search_high, m.hinted = mss, tp.t_maxseg_most, 0
            m.due_us = now_us + AFTER_COMPLAINT_US
        tp.t_maxseg = m.search_low
        return
    tp.t_maxseg = mss
    if tp.t_pmtu_timer is None:
        tp.t_pmtu_timer = Deadline(tp.t_inpcb.stack, lambda: _over(tp))
    tp.t_pmtu_timer.set(AFTER_COMPLAINT_US)


def tcp_pmtu_most(tp: tcpcb) -> int:
    """What t_maxseg may rise to: the interface may carry less now than when the connection began. I is held."""
    inp = tp.t_inpcb
    mtus = (ifp.if_mtu for ifp in inp.stack.interfaces if inp.inp_laddr in ifp.addresses)
    return min(tp.t_maxseg_most, *(mtu - ip_tcp_headers(inp) for mtu in mtus), tp.t_maxseg_most)


def _over(tp: tcpcb) -> None:
    """Nobody has complained for long enough: more, if there was more."""
    inp = tp.t_inpcb
    with inp.stack.tcbinfo.lock, inp.lock:
        timer = tp.t_pmtu_timer
        if timer is None or inp.inp_flags & INP_DROPPED or not TCPS_ESTABLISHED <= tp.t_state < TCPS_TIME_WAIT:
            tp.t_pmtu_timer = None
            return
        headers = ip_tcp_headers(inp)
        mtu = tp.t_maxseg + headers
        larger = min((plateau for plateau in PLATEAUS if plateau > mtu), default=PLATEAUS[0]) - headers
        wanted = min(larger, tcp_pmtu_most(tp))
        if wanted <= tp.t_maxseg:
            timer.set(AFTER_COMPLAINT_US)
            return
        before, tp.t_maxseg = tp.t_maxseg, wanted
        if tcp_gen_send(tp) == errno.ENETDOWN:
            tp.t_maxseg = before  # the device was not told
        if tp.t_maxseg < tp.t_maxseg_most:
            timer.set(AFTER_ATTEMPT_US)
        else:
            tp.t_pmtu_timer = None
