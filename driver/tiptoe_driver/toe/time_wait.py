"""TIME_WAIT on its way from the engine to the stack, where ``EngineOptions.time_wait`` is "host" (contract row TW-1).

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

    def __init__(self, stack: Stack, calls: ToeCalls) -> None:
        self._stack = stack
        self._calls = calls
        self._engine = calls.engine
        self._by_host = calls.engine.options.time_wait == "host"

    def begin(self, toep: toepcb) -> None:
        """The engine has a connection in TIME_WAIT, all data in host memory; called again, does nothing."""
        if self._by_host and not toep.flags & TP_TIME_WAIT:
            toep.flags |= TP_TIME_WAIT
            self._read(toep)

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
        limit_us = self._engine.options.time_wait_us
        tp = toep.tp
        with self._stack.tcbinfo.lock:
            if tp is not None:
                with tp.t_inpcb.lock:
                    if toep.tp is tp:
                        if tp.t_state != TCPS_TIME_WAIT:
                            return  # the device contradicts itself: let it
                        self._calls.abort(toep)
                        self._calls.detach(toep)
                        time_wait.start(tp.t_inpcb, toep.four_tuple, tcb, limit_us)
                        return
            self._calls.abort(toep)
            time_wait.start(None, toep.four_tuple, tcb, limit_us)
