"""Connections that the user has closed and the peer does not let end: FIN_WAIT_1, CLOSING and LAST_ACK without progress.

As long as a peer answers probes of its closed window the engine goes on (RFC 9293 section 3.8.6.1: MUST), and rightly, since the
user may end it. Nobody is left to do so once he has closed. Linux limits such orphans by tcp_orphan_retries and, when they
are many, by their number (tcp_max_orphans), FreeBSD its persisting ones by a minute of silence. Neither ends a peer that takes
a byte now and then; here progress is a share of what waits, so that there is an end to it: by default 40 minutes for 128 KiB.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from ..hardware.engine import Engine
from ..hardware.positions import distance
from ..hardware.toepcb import TP_ABORT_SENT, TP_TERMINAL, toepcb
from ..netinet.clock import Deadline
from ..netinet.if_var import ifnet
from ..netinet.stack import Stack
from ..netinet.structures import INP_SOCKREF, tcpcb
from ..netinet.tcp_fsm import TCPS_CLOSING, TCPS_FIN_WAIT_1, TCPS_LAST_ACK
from ..netinet.tcp_subr import tcp_drop

_FIN_UNACKED = (TCPS_FIN_WAIT_1, TCPS_CLOSING, TCPS_LAST_ACK)

SHARE = 4
"""A quarter of what waits must be acknowledged in the time for it to begin anew."""


class Orphans:
    """How long the closed connections of one engine may wait for the peer: a deadline for each, which progress moves."""

    def __init__(self, stack: Stack, engine: Engine, ifp: ifnet, abort: Callable[[toepcb], None]) -> None:
        self._stack = stack
        self._counters = engine.counters
        self._limit_us = engine.options.orphan_us
        self._ifp = ifp
        self._abort = abort

    def begin(self, toep: toepcb, tp: tcpcb) -> None:
        """The user is gone, or about to go; called again, the time begins anew. I is held."""
        if not self._limit_us or tp.t_state not in _FIN_UNACKED:
            return
        if toep.orphan is None:
            toep.orphan = Deadline(self._stack, lambda: self._over(toep))
        self._anew(toep)

    def progress(self, toep: toepcb) -> None:
        """The peer has acknowledged something."""
        if toep.orphan is not None and _waiting(toep) <= toep.orphan_bytes - -(-toep.orphan_bytes // SHARE):
            self._anew(toep)

    @staticmethod
    def end(toep: toepcb) -> None:
        """The peer has acknowledged our FIN, or the connection is over."""
        if toep.orphan is not None:
            toep.orphan.cancel()
            toep.orphan = None

    def _anew(self, toep: toepcb) -> None:
        assert toep.orphan is not None
        toep.orphan_bytes = _waiting(toep)
        toep.orphan.set(self._limit_us)

    def _over(self, toep: toepcb) -> None:
        """The time is over."""
        if toep.orphan is None or toep.flags & (TP_TERMINAL | TP_ABORT_SENT):
            return
        if not self._ifp.if_up:  # not the peer's fault, and has a limit of its own
            self._anew(toep)
            return
        toep.orphan = None
        tp = toep.tp
        if tp is not None:
            with self._stack.tcbinfo.lock, tp.t_inpcb.lock:
                if toep.tp is tp:
                    if not tp.t_inpcb.inp_flags & INP_SOCKREF:
                        return  # the user lingers: his close comes back when he has waited long enough
                    self._counters["orphans_reset"] += 1
                    tcp_drop(tp, errno.ETIMEDOUT)
                    return
        if not toep.flags & (TP_TERMINAL | TP_ABORT_SENT):
            self._counters["orphans_reset"] += 1
            self._abort(toep)


def _waiting(toep: toepcb) -> int:
    """Bytes that the peer has not acknowledged."""
    return distance(toep.snd_told, toep.snd_una)
