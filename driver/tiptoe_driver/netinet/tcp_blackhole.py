"""A path that drops large segments and tells nobody (RFC 2923 section 2.1): what RFC 4821 section 7.7 makes of time-outs, and
the search for the largest segment that passes (section 7.3; RFC 8899 section 5.3).

Three time-outs in a row of a segment larger than a base size (RFC 9293's R1; Linux: tcp_retries1 with tcp_mtu_probing 1;
FreeBSD: net.inet.tcp.pmtud_blackhole_detection) may be a black hole: segments fall to that size, and two time-outs later to the
next. They may as well have been plain congestion, or a cable pulled. So what held before is tried again a second after something
is acknowledged, and a false alarm costs seconds; what fails three times (RFC 8899's MAX_PROBES) is none, and the search goes on
between what passes and what does not. What it has found stays for ten minutes; then the largest is tried again, for
routes change back.

Here is what becomes of t_maxseg; how a probe goes without being taken for congestion is the device's (``toe/mtu_probe.py``).
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from .mtup import mtup
from .structures import INP_IPV6, tcpcb
from .tcp_fsm import TCPS_ESTABLISHED, TCPS_TIME_WAIT
from .tcp_pmtu import AFTER_COMPLAINT_US, tcp_pmtu_most

BASES = {4: (1200, 536), 6: (1220,)}
"""Segments tried after time-outs, by the version of IP: FreeBSD's pmtud_blackhole_mss, and what every host takes (RFC 9293
section 3.7.1); over IPv6 what 1280 bytes carry, which every link does (RFC 8200 section 5)."""
RETRIES1 = 3
"""Time-outs in a row for the first fall (R1, RFC 9293 section 3.8.3)."""
RETRIES_MORE = 2
"""Further ones for the next, and for calling it failed (FreeBSD: "each stage is given 2 chances")."""
MAX_PROBES = 3
SEARCH_STEP = 16
"""Closer than so many bytes the search does not look."""
AFTER_ALARM_US, AFTER_PASSED_US, AFTER_LOST_US = 1_000_000, 1_000_000, 5_000_000
"""From the first acknowledgement, from a probe that has passed, and from one that was lost, to the next probe."""
POSTPONED_LOG2_MOST = 6
"""A probe that cannot go is tried again after a second, and after twice the time each time it cannot again, 64 s at most: a line
that runs dry for it is idle for a round trip."""


class Rexmt(NamedTuple):
    """What the device knows of its time-outs: how many in a row, bytes of the segment that went again, whether they probe a
    closed window."""

    shift: int
    length: int
    persist: bool


class Fall(Enum):
    """What a look at the time-outs has led to."""

    NONE = 0
    BASE = 1  # smaller
    LEAST = 2  # as small as it gets
    FAILED = 3  # small as they are, there are time-outs


def _bases(tp: tcpcb) -> tuple[int, ...]:
    """Sizes that t_maxseg may fall to yet, the largest first."""
    return tuple(size for size in BASES[6 if tp.t_inpcb.inp_vflag == INP_IPV6 else 4] if size < tp.t_maxseg)


def tcp_blackhole_suspect(tp: tcpcb) -> bool:
    """Whether time-outs of the connection would tell of a black hole. I is held."""
    if not TCPS_ESTABLISHED <= tp.t_state < TCPS_TIME_WAIT:
        return False
    return bool(_bases(tp)) or (tp.t_mtup is not None and tp.t_mtup.shift > 0 and not tp.t_mtup.failed)


def tcp_blackhole(tp: tcpcb, rexmt: Rexmt) -> Fall:
    """Nothing is acknowledged: t_maxseg falls if it has to; the caller sends then. I is held."""
    m, bases = tp.t_mtup, _bases(tp)
    again = m is not None and m.shift > 0
    enough = m.shift + RETRIES_MORE if m is not None and again else RETRIES1
    if rexmt.persist or rexmt.shift < enough:
        return Fall.NONE
    if not bases:
        if m is None or not again or m.failed:
            return Fall.NONE
        m.failed = True
        return Fall.FAILED
    if rexmt.length <= bases[0]:
        return Fall.NONE  # as large a segment is lost as would go then
    tp.t_maxseg_most = max(tp.t_maxseg_most, tp.t_maxseg)
    if tp.t_pmtu_timer is not None:
        tp.t_pmtu_timer.cancel()
        tp.t_pmtu_timer = None
    tp.t_mtup = mtup(search_low=bases[0], search_high=tp.t_maxseg_most, shift=rexmt.shift)
    tp.t_maxseg = bases[0]
    tp.snd_nxt = tp.snd_una
    return Fall.LEAST if len(bases) == 1 else Fall.BASE


def tcp_mtup_progress(tp: tcpcb) -> None:
    """Something was acknowledged. I is held."""
    m = tp.t_mtup
    if m is not None and m.shift:
        m.shift, m.failed = 0, False
        m.due_us = tp.t_inpcb.stack.now_us() + AFTER_ALARM_US


def tcp_mtup_size(tp: tcpcb) -> int:
    """The size to be probed now; 0: none. I is held."""
    m = tp.t_mtup
    if m is None or m.due_us is None or tp.t_inpcb.stack.now_us() < m.due_us:
        return 0
    most = tcp_pmtu_most(tp)
    if m.search_low >= tp.t_maxseg_most:
        tp.t_mtup = None  # the user wants no more (TCP_MAXSEG)
        return 0
    if m.hinted:
        size = min(m.hinted, most)
    else:
        size = most if m.search_high >= most else (m.search_low + m.search_high + 1) // 2
    return size if size > m.search_low else 0


def tcp_mtup_postpone(tp: tcpcb) -> None:
    """No probe can go now, or the one that was to go has not gone. I is held."""
    m = tp.t_mtup
    if m is None:
        return
    tp.t_maxseg = min(tp.t_maxseg, m.search_low)
    if m.due_us is not None:
        delay_us = AFTER_PASSED_US << min(m.postponed, POSTPONED_LOG2_MOST)
        m.due_us = max(m.due_us, tp.t_inpcb.stack.now_us() + delay_us)
        m.postponed += 1


def tcp_mtup_passed(tp: tcpcb, size: int) -> None:
    """A probe of ``size``, which t_maxseg is, was acknowledged. I is held."""
    m = tp.t_mtup
    if m is None:
        return
    m.search_low, m.probes_lost = size, 0
    if m.hinted:
        m.search_high, m.hinted = size, 0
    if size >= tp.t_maxseg_most:
        tp.t_mtup = None
    else:
        _next(tp, m, AFTER_PASSED_US)


def tcp_mtup_lost(tp: tcpcb, size: int) -> None:
    """A probe of ``size`` was not acknowledged: t_maxseg is what it was; the caller sends then. I is held."""
    m = tp.t_mtup
    if m is None:
        return
    tp.t_maxseg = m.search_low
    tp.snd_nxt = tp.snd_una
    m.probes_lost += 1
    if m.probes_lost == MAX_PROBES:
        m.search_high, m.probes_lost, m.hinted = size - 1, 0, 0
    _next(tp, m, AFTER_LOST_US)


def _next(tp: tcpcb, m: mtup, delay_us: int) -> None:
    """When the next probe goes: later where the search has come to its end."""
    if m.search_high - m.search_low < SEARCH_STEP:
        m.search_high, delay_us = tp.t_maxseg_most, AFTER_COMPLAINT_US
    m.due_us, m.postponed = tp.t_inpcb.stack.now_us() + delay_us, 0
