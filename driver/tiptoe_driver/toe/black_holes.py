"""Connections of the engine whose time-outs may be a path's that swallows large segments (netinet/tcp_blackhole.py, RFC 4821
section 7.7).

The engine tells of no time-out, and need not: a look at all connections every 500 ticks finds those that wait for an
acknowledgement and have had none since the last look; of these, and as long as their segments could be smaller, READ_TCB
tells how many time-outs there were. A connection that gets on costs nothing, one whose peer is silent a few commands, until its
segments are as small as they get. However many are silent, a few are asked about at a time, so there is room for other commands;
and all are, before one is again. What the fall sends it sends at once; the engine's timer and its count of time-outs go on as
they were, so R2 ends a silent connection when it would have ended without.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Mapping
from functools import partial

from ..hardware.engine import Engine
from ..hardware.positions import distance
from ..hardware.toepcb import TP_ABORT_SENT, TP_ESTABLISHED, TP_TERMINAL, toepcb
from ..netinet.clock import Callout
from ..netinet.offload import tcp_gen_send
from ..netinet.stack import Stack
from ..netinet.structures import tcpcb
from ..netinet.tcp_blackhole import Fall, Rexmt, tcp_blackhole, tcp_blackhole_suspect
from ..netinet.tcp_errors import tcp_output_error
from .socket_options import ToeOptions, pages_of

LOOK_TICKS = 500
"""Interval between looks. A first time-out comes after 200 to 1000, the third after seven times as many."""

AT_ONCE = 4
"""Connections that the engine is asked about at a time."""

_PAGES = pages_of("snd_una", "snd_max", "maxseg", "rexmt_shift", "persist")
_COUNTERS = {
    Fall.BASE: "pmtud_blackhole_activated",
    Fall.LEAST: "pmtud_blackhole_activated_min_mss",
    Fall.FAILED: "pmtud_blackhole_failed",
}
"""FreeBSD's, without tcps_."""


class BlackHoles:
    """The looks at one engine's connections, for as long as there are any."""

    def __init__(self, stack: Stack, engine: Engine, options: ToeOptions) -> None:
        self._stack = stack
        self._engine = engine
        self._options = options
        self._interval_us = LOOK_TICKS * engine.options.tick_us
        self._acked: dict[toepcb, int] = {}  # connections that waited at the last look, and up to where they had come
        self._suspects: deque[toepcb] = deque()  # to be asked about
        self._asking = 0
        self._callout: Callout | None = None

    def watch(self) -> None:
        """There is a connection."""
        if self._callout is None and self._engine.options.pmtud_blackhole:
            self._callout = self._stack.callout(self._interval_us, self._look)

    def reset(self) -> None:
        """The engine was reset: it has no connection any more."""
        self._acked.clear()
        self._suspects.clear()
        self._asking = 0
        if self._callout is not None:
            self._callout.cancel()
            self._callout = None

    def _look(self) -> None:
        attached = [toep for toep in self._engine.ids.toepcbs if toep is not None and toep.tp is not None]
        self._callout = self._stack.callout(self._interval_us, self._look) if attached else None
        live = TP_ESTABLISHED, TP_ESTABLISHED | TP_TERMINAL | TP_ABORT_SENT
        before = self._acked
        self._acked = {toep: toep.snd_una for toep in attached if toep.flags & live[1] == live[0] and toep.waits}
        if not self._suspects:  # all of the looks before have been asked about
            self._suspects.extend(toep for toep in self._acked if before.get(toep) == toep.snd_una)
        self._ask()

    def _ask(self) -> None:
        """Ask about the next ones. READ_TCB is always answered, and an answer asks on; without room the next look does."""
        while self._suspects and self._asking < AT_ONCE:
            toep = self._suspects[0]
            tp = toep.tp
            if tp is not None:
                with tp.t_inpcb.lock:
                    if toep.tp is tp and tcp_blackhole_suspect(tp):
                        error = self._options.read_tcb(toep, _PAGES, partial(self._told, toep, tp))
                        if error == errno.ENOBUFS:
                            return
                        self._asking += not error
            self._suspects.popleft()

    def _told(self, toep: toepcb, tp: tcpcb, tcb: Mapping[str, int] | None) -> None:
        self._asking -= 1
        self._judge(toep, tp, tcb)
        self._ask()

    def _judge(self, toep: toepcb, tp: tcpcb, tcb: Mapping[str, int] | None) -> None:
        if tcb is None or toep.tp is not tp:
            return
        with tp.t_inpcb.lock:
            if toep.tp is not tp or tcb["snd_una"] != tp.snd_una:
                return  # over, or acknowledged meanwhile
            length = min(distance(tcb["snd_max"], tcb["snd_una"]), tcb["maxseg"])
            fall = tcp_blackhole(tp, Rexmt(tcb["rexmt_shift"], length, bool(tcb["persist"])))
            if fall is Fall.NONE:
                return
            self._engine.counters[_COUNTERS[fall]] += 1
            if fall is not Fall.FAILED:
                tcp_output_error(tp, tcp_gen_send(tp))
