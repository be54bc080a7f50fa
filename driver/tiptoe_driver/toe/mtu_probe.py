"""Probes for larger segments (RFC 4821 section 7.3, netinet/tcp_blackhole.py) on an engine that sends all its data in segments of
one size.

A probe is alone on the line: one segment, or, where windows and data allow, two, for a peer may hold back the acknowledgement
of a single one for half a second (RFC 9293 section 3.8.6.3). When one is due, data is not told to the engine until all that
it was told is acknowledged; then PATH_MTU raises the segment size, and the send doorbell tells of the probe and no more. If
its first segment is acknowledged, the size stays. If not, PATH_MTU takes it back before the retransmission timer of the
engine ends: what was lost goes again in smaller segments, no time-out is counted, and no window falls (section 7.6.2: a
probe's loss alone is no congestion).

So a probe costs a round trip in which the line runs dry, and one, or when it is lost most of a time-out, in which it carries a
probe. It goes only where its data is there, and fits both windows. Every wait ends: the first with the acknowledgement of what
is under way, or the connection, the second with READ_TCB's answer, the third with a time. Urgent data and the FIN are not held
back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..hardware.engine import Engine
from ..hardware.positions import advance, distance, is_after
from ..hardware.toepcb import TP_FIN_SENT, TP_TERMINAL, toepcb
from ..netinet.offload import tcp_gen_send
from ..netinet.sockbuf import sockbuf
from ..netinet.stack import Stack
from ..netinet.structures import tcpcb
from ..netinet.tcp_blackhole import (
    tcp_mtup_lost,
    tcp_mtup_passed,
    tcp_mtup_postpone,
    tcp_mtup_progress,
    tcp_mtup_size,
)
from ..netinet.tcp_errors import tcp_output_error
from .socket_options import ToeOptions, pages_of

_PAGES = pages_of("snd_wnd", "maxseg", "cwnd", "srtt", "rto")


@dataclass(slots=True, eq=False)
class Probe:
    """A probe of one connection: the line runs dry for it (``asked`` False), the engine is asked for its windows and times,
    or it is on its way up to position ``end``."""

    size: int
    asked: bool = False
    end: int | None = None
    first: int = 0
    """Where its first segment ends."""


class MtuProbes:
    """The probes of one engine's connections."""

    def __init__(self, stack: Stack, engine: Engine, options: ToeOptions) -> None:
        self._stack = stack
        self._engine = engine
        self._options = options
        self._probes: dict[toepcb, Probe] = {}

    def forget(self, toep: toepcb) -> None:
        """The connection is over."""
        self._probes.pop(toep, None)

    def under_way(self, toep: toepcb) -> bool:
        """Whether the send doorbell is about to tell of a probe: the engine must know its size first."""
        probe = self._probes.get(toep)
        return probe is not None and probe.end is not None

    def sendable(self, toep: toepcb, tp: tcpcb, sb: sockbuf, end: int) -> int:
        """Position up to which the engine may be told to send, where without a probe it were ``end``. I is held."""
        if tp.t_mtup is None:
            return end
        probe = self._probes.get(toep)
        if probe is None:
            size = tcp_mtup_size(tp)
            idle = toep.snd_told == toep.snd_una
            # So much that there is enough for it yet when what is under way is acknowledged; a small buffer is full before.
            enough = size if idle else max(size, min(2 * size, sb.sb_hiwat))
            if not size or distance(end if idle else sb.tail, toep.snd_una) < enough:
                return end  # not due, or not enough data
            probe = self._probes[toep] = Probe(size)
        if probe.end is not None:
            if tp.t_maxseg == probe.size:
                return probe.end if is_after(probe.end, toep.snd_told) else toep.snd_told
            self.forget(toep)  # the path's MTU has become known otherwise
            return end
        if toep.snd_told != toep.snd_una:
            return toep.snd_told
        if not probe.asked:
            if distance(end, toep.snd_told) < probe.size or self._ask(toep, tp, probe):
                self._give_up(toep, tp)
                return end
            probe.asked = True
        return toep.snd_told

    def progress(self, toep: toepcb, tp: tcpcb) -> None:
        """Something was acknowledged. I is held."""
        if tp.t_mtup is None:
            return
        tcp_mtup_progress(tp)
        probe = self._probes.get(toep)
        if probe is None or probe.end is None or is_after(probe.first, toep.snd_una):
            return
        self.forget(toep)
        if tp.t_maxseg == probe.size:
            self._engine.counters["pmtud_probes_passed"] += 1
            tcp_mtup_passed(tp, probe.size)

    def _give_up(self, toep: toepcb, tp: tcpcb) -> None:
        """No probe now."""
        self.forget(toep)
        tcp_mtup_postpone(tp)

    def _ask(self, toep: toepcb, tp: tcpcb, probe: Probe) -> int:
        """All is acknowledged: do the windows take the probe, and how long may it take?"""
        return self._options.read_tcb(toep, _PAGES, lambda tcb: self._told(toep, tp, probe, tcb))

    def _told(self, toep: toepcb, tp: tcpcb, probe: Probe, tcb: Mapping[str, int] | None) -> None:
        if toep.tp is not tp or self._probes.get(toep) is not probe:
            return
        with tp.t_inpcb.lock:
            if toep.tp is not tp:
                return
            so = tp.t_inpcb.inp_socket
            tick_us = self._engine.options.tick_us
            begins = toep.snd_told == toep.snd_una and not toep.flags & (TP_FIN_SENT | TP_TERMINAL)
            # User, interface or a black hole may have decided otherwise meanwhile.
            wanted = tcp_mtup_size(tp) == probe.size
            windows = 0 if tcb is None else min(tcb["snd_wnd"], tcb["cwnd"])
            if tcb is None or so is None or not (begins and wanted) or windows < probe.size:
                self._give_up(toep, tp)
            else:
                payload = probe.size - (toep.maxseg - tcb["maxseg"])  # beside timestamps
                waiting, two = distance(so.so_snd.tail, toep.snd_told), windows >= 2 * probe.size
                probe.first = advance(toep.snd_told, min(payload, waiting))
                probe.end = advance(toep.snd_told, min(2 * payload, waiting)) if two else probe.first
                tp.t_maxseg = probe.size
                # Less than a time-out, more than a round trip.
                rto, srtt = tcb["rto"], tcb["srtt"] >> 3
                wait = rto - max(rto - srtt, 0) // 4
                self._stack.callout(wait * tick_us, lambda: self._over(toep, tp, probe))
            tcp_output_error(tp, tcp_gen_send(tp))

    def _over(self, toep: toepcb, tp: tcpcb, probe: Probe) -> None:
        """The probe should have been acknowledged by now."""
        if toep.tp is not tp or self._probes.get(toep) is not probe:
            return
        with tp.t_inpcb.lock:
            if toep.tp is not tp:
                return
            self.forget(toep)
            if probe.end is not None and is_after(probe.end, toep.snd_told):
                tcp_mtup_postpone(tp)  # the link is down: it was never told
            elif tp.t_maxseg == probe.size:
                self._engine.counters["pmtud_probes_lost"] += 1
                tcp_mtup_lost(tp, probe.size)
            tcp_output_error(tp, tcp_gen_send(tp))
