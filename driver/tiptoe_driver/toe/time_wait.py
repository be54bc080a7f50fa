"""TIME_WAIT on its way from the engine to the stack (contract row TW-1): at once where ``EngineOptions.time_wait`` is "host";
where it is "shared" the engine keeps it while there are ids, and the oldest goes to the stack when they run short.

READ_TCB tells what the stack needs; ABORT, which sends no RST in TIME_WAIT, then ends the connection on the engine, and after
the terminal event the id is released as ever. What keeps READ_TCB from being answered leaves TIME_WAIT to the engine.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..hardware import abi_gen as abi
from ..hardware.toepcb import TP_ABORT_SENT, TP_TERMINAL, TP_TIME_WAIT, toepcb
from ..netinet.stack import Stack
from ..netinet.tcp_fsm import TCPS_TIME_WAIT
from .calls import ToeCalls

_PAGES = [
    number
    for number, page in enumerate(abi.TCB_PAGES)
    if {name for name, _, _ in page} & {"snd_nxt", "rcv_nxt", "rcv_adv", "iss", "irs", "rcv_scale", "state"}
]
"""Pages of the TCB with what a ``tcptw`` needs."""


class TimeWaitHandover:
    """The connections of one engine that come to TIME_WAIT."""

    RETRY_US = 10_000
    """How long to wait when the command ring has no room."""
    SHORT = 2
    """Ids run short when fewer than one in so many is free, in stock or on its way there: a burst may want them."""

    def __init__(self, stack: Stack, calls: ToeCalls) -> None:
        self._stack = stack
        self._calls = calls
        self._engine = calls.engine
        self._mode = calls.engine.options.time_wait
        self._kept: dict[int, toepcb] = {}  # by id, the oldest first
        self._leaving: set[toepcb] = set()  # handed over, and not at their end yet
        self._watching = False

    def begin(self, toep: toepcb) -> None:
        """The engine has a connection in TIME_WAIT, all data in host memory; called again, does nothing."""
        if toep.flags & TP_TIME_WAIT:
            return
        if self._mode == "host":
            toep.flags |= TP_TIME_WAIT
            self._read(toep)
        elif self._mode == "shared" and self._kept.get(toep.tep_id) is not toep:
            self._kept.pop(toep.tep_id, None)
            self._kept[toep.tep_id] = toep

    def relieve(self) -> None:
        """Something has happened: hand over as many of the oldest as there are ids lacking."""
        if not self._kept:
            return
        ids = self._engine.ids
        lacking = len(ids.toepcbs) // self.SHORT - ids.available - ids.stocked - ids.releasing
        while self._kept and len(self._leaving) < lacking:
            toep = self._kept.pop(next(iter(self._kept)))
            if self._over(toep):
                continue
            toep.flags |= TP_TIME_WAIT
            self._leaving.add(toep)
            self._read(toep)

    def end(self, toep: toepcb) -> None:
        """The engine has told of the connection's end."""
        self._leaving.discard(toep)
        if self._kept.get(toep.tep_id) is toep:
            del self._kept[toep.tep_id]

    def reset(self) -> None:
        """The engine was reset: it has no connection any more."""
        self._kept.clear()
        self._leaving.clear()

    def _answer_unknown(self, waits: bool) -> None:
        """What comes for connections in the stack's TIME_WAIT is for the host to answer, as long as there are any: with
        RST_UNKNOWN the engine would reset a peer that sends its FIN again."""
        self._engine.unknown_to_host(waits)
        self._watching = waits
        if waits:
            again = self._engine.options.time_wait_us
            self._stack.callout(again, lambda: self._answer_unknown(bool(len(self._stack.time_wait))))

    def _read(self, toep: toepcb) -> None:
        if self._over(toep):
            return
        if self._calls.options.read_tcb(toep, _PAGES, lambda tcb: self._hand_over(toep, tcb)):
            self._stack.callout(self.RETRY_US, lambda: self._read(toep))

    def _over(self, toep: toepcb) -> bool:
        """Whether the connection has ended otherwise, or the engine was reset."""
        return bool(toep.flags & (TP_TERMINAL | TP_ABORT_SENT)) or self._engine.ids.find(toep.tid) is not toep

    def _hand_over(self, toep: toepcb, tcb: Mapping[str, int] | None) -> None:
        """READ_TCB was answered; None: with an error."""
        if tcb is None or tcb["state"] != TCPS_TIME_WAIT or self._over(toep):
            return
        time_wait = self._stack.time_wait
        time_wait.make_room()
        if not self._watching:
            self._answer_unknown(True)  # before ABORT
        limit_us = self._engine.options.time_wait_us
        iss = tcb["iss"]
        ts_clock = (lambda: self._engine.timestamp(iss)) if tcb["ts_ok"] else None
        tp = toep.tp
        with self._stack.tcbinfo.lock:
            if tp is not None:
                with tp.t_inpcb.lock:
                    if toep.tp is tp:
                        if tp.t_state != TCPS_TIME_WAIT:
                            return  # the device contradicts itself: let it
                        self._calls.abort(toep)
                        self._calls.detach(toep)
                        time_wait.start(tp.t_inpcb, toep.four_tuple, tcb, limit_us, ts_clock)
                        return
            self._calls.abort(toep)
            time_wait.start(None, toep.four_tuple, tcb, limit_us, ts_clock)
