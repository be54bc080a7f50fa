"""Stop, restart, reset and removal of a device in use (contract: "what later drivers added").

A connection of a device that goes away ends with ECONNABORTED, as those of FreeBSD's drivers do; an open not yet
established with ENETDOWN, as a connect would from then on. In TIME_WAIT there is nothing left to fail.
"""

from __future__ import annotations

import errno
from enum import Enum
from typing import Protocol

from ..hardware import abi_gen as abi
from ..hardware.engine import Engine
from ..hardware.options import DeviceError
from ..hardware.toepcb import TP_EVENTS_PENDING, TP_RELEASING, toepcb
from ..netinet.clock import Callout, Pollable
from ..netinet.eventhandler import EventHandlerList, Subscription
from ..netinet.if_var import ifnet
from ..netinet.stack import Stack
from ..netinet.tcp_fsm import TCPS_CLOSED, TCPS_ESTABLISHED, TCPS_TIME_WAIT
from ..netinet.tcp_subr import tcp_close
from .active_open import ActiveOpens
from .calls import ToeCalls
from .events import ToeEvents
from .hostif import HostInterface
from .link import LinkChanges
from .passive_open import PassiveOpens
from .standstill import Action, Standstills


class DeviceState(Enum):
    """Whether the device can be used."""

    RUNNING = 1
    STOPPING = 2  # connections are being aborted
    STOPPED = 3
    REMOVED = 4


class AttachedDevice(Pollable, Protocol):
    """The parts of a device that stop and start with it."""

    stack: Stack
    tod_ifp: ifnet
    engine: Engine
    calls: ToeCalls
    events: ToeEvents
    active: ActiveOpens
    passive: PassiveOpens
    link: LinkChanges
    hostif: HostInterface
    listen_tags: list[tuple[EventHandlerList, Subscription]]


class Lifecycle:
    """What becomes of sockets, listeners and the engine when a device is stopped, reset or removed.

    Attributes
    ----------
    state : DeviceState
        Events are taken and time passes for RUNNING and STOPPING only.
    standstills : Standstills
        What the watchdogs have noticed.
    """

    RECOVERY_US = 1_000
    """How often an engine that the watchdog resets is asked whether it has come out."""
    RECOVERY_LOOKS = 1_000
    """So often; then it is told of, and asked once a second."""
    RECOVERY_LATE_US = 1_000_000

    def __init__(self, dev: AttachedDevice) -> None:
        self._dev = dev
        self._stack = dev.stack
        self._engine = dev.engine
        self.state = DeviceState.RUNNING
        self._watchdog: Callout | None = None
        self._recovery: Callout | None = None
        self.standstills = Standstills(dev, self._may_recover, self._recover)
        self._watch()

    # ------------------------------------------------------------------ from above

    def stop(self, timeout_us: int) -> None:
        """Reset every connection, wait for their ends at most ``timeout_us``, switch the engine off."""
        if self.state is not DeviceState.RUNNING:
            self._end_recovery()
            return
        self.state = DeviceState.STOPPING
        self._dev.tod_ifp.if_running = False
        self._dev.passive.withdraw()
        self._dev.passive.forget_half_open()
        self._abort_connections()
        self._stack.sleep(self._quiet, timeout_us)
        self._halt()

    def restart(self) -> None:
        """Bring a stopped device up again; listeners are published again. DeviceError when it does not come."""
        if self.state is DeviceState.REMOVED:
            raise DeviceError("the device was removed: attach it anew")
        self.standstills.forgive()
        try:
            self._engine.restart()
        except DeviceError:
            self.look()
            raise
        self._begin()

    def reset(self) -> None:
        """Recover a device that misbehaves: nothing is expected of it but to come out of a soft reset."""
        self._halt()
        self.restart()

    def remove(self) -> None:
        """The device leaves the stack. One that still answers is switched off first."""
        self._halt()
        if self.state is DeviceState.REMOVED:
            return
        self.state = DeviceState.REMOVED
        dev, stack = self._dev, self._stack
        for handlers, tag in dev.listen_tags:
            handlers.deregister(tag)
        dev.tod_ifp.if_toedev = None
        stack.detach_interface(dev.tod_ifp)
        stack.detach_device(dev)
        self._engine.device.shut()
        self._engine.ids.ring_pool.move_out()
        self._engine.buffers.move_out()

    def look(self) -> bool:
        """Whether the device still answers; if it was found gone, it is removed now. One slow read at most."""
        if self.state is DeviceState.REMOVED:
            return False
        status = self._engine.device.read32(abi.REG_STATUS)
        if not self.found():
            return False
        self.standstills.status(status)
        return True

    def found(self) -> bool:
        """Like ``look``, by what the last slow read has found."""
        if self._engine.device.gone:
            self.remove()
        return self.state is not DeviceState.REMOVED

    # ------------------------------------------------------------------ what they are made of

    def _begin(self) -> None:
        """The engine is up again."""
        self.state = DeviceState.RUNNING
        self._dev.tod_ifp.if_running = True
        self.standstills.begin()
        self._watch()
        self._dev.passive.resume()

    def _watch(self) -> None:
        """Look whether the device answers and gets on, again and again."""
        interval_us = self._engine.options.watchdog_us
        if interval_us:
            self._watchdog = self._stack.callout(interval_us, self._turn)

    def _turn(self) -> None:
        if self.look():
            self._watch()
            self.standstills.look_at_commands()

    # ------------------------------------------------------------------ recovery from a standstill

    def _may_recover(self) -> bool | None:
        if self.state in (DeviceState.STOPPED, DeviceState.REMOVED):
            return None
        return self.state is DeviceState.RUNNING

    def _recover(self, again: bool) -> None:
        """Like ``reset``, or with ``again`` False like ``stop``, but by callouts: others live on meanwhile."""
        self._give_up()
        self._engine.begin_stop()
        self._look_for_end(again, 0)

    def _look_for_end(self, again: bool, looks: int) -> None:
        """Whether the engine has come out of the reset."""
        self._recovery = None
        if self._engine.stopped():
            if looks > self.RECOVERY_LOOKS:
                self.standstills.tell(("back",), "driver", Action.REPORTED)
            if again:
                try:
                    self._engine.restart(fresh=True)
                except DeviceError:  # another card in its place
                    self._engine.counters["reset_failed"] += 1
                    return
                self._begin()
        elif self._engine.device.gone:
            self._engine.stop()
            self.remove()
        else:
            if looks == self.RECOVERY_LOOKS:
                self._engine.counters["reset_failed"] += 1
                self.standstills.tell(("reset",), "driver", Action.WAITING)
            pause_us = self.RECOVERY_US if looks < self.RECOVERY_LOOKS else self.RECOVERY_LATE_US
            self._recovery = self._stack.callout(pause_us, lambda: self._look_for_end(again, looks + 1))

    def _end_recovery(self) -> None:
        """Somebody wants something else of the device: its reset is waited for now, and nothing follows."""
        if self._recovery is not None:
            self._recovery.cancel()
            self._recovery = None
            self._engine.stop()

    # ------------------------------------------------------------------ the end of connections

    def _abort_connections(self) -> None:
        """RST to every peer. Connections whose socket is gone are reset too; ids in stock are no connections yet."""
        for toep in list(self._engine.ids.toepcbs):
            if toep is not None and toep.refcount:
                self._dev.calls.abort(toep)
                self._end(toep)

    def _quiet(self) -> bool:
        """Whether the engine has told the end of every connection, half-open ones too, or is gone."""
        commands = self._engine.commands
        return self._engine.device.gone or not (
            commands.backlog
            or commands.waiting
            or self._dev.passive.half_open
            or any(
                toep is not None and toep.flags & (TP_EVENTS_PENDING | TP_RELEASING) == TP_EVENTS_PENDING
                for toep in self._engine.ids.toepcbs
            )
        )

    def _halt(self) -> None:
        """End what there is without another word to the device but its reset."""
        if self.state in (DeviceState.STOPPED, DeviceState.REMOVED):
            self._end_recovery()
            return
        self._give_up()
        self._engine.stop()

    def _give_up(self) -> None:
        """End what there is; the engine has still to be told."""
        self.state = DeviceState.STOPPED
        dev = self._dev
        dev.tod_ifp.if_running = False
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._engine.commands.close()
        for toep in list(self._engine.ids.toepcbs):
            if toep is not None:
                self._end(toep)
        dev.calls.four_tuples.clear()
        dev.passive.reset()
        dev.events.reset()
        dev.active.reset()
        dev.link.stop()
        dev.hostif.stop()

    def _end(self, toep: toepcb) -> None:
        """The connection is no more, whatever the engine thinks, and its socket is told."""
        for timer in (toep.fin_wait_2, toep.cork):
            if timer is not None:
                timer.cancel()
        tp = toep.tp
        if tp is None:
            return
        with self._stack.tcbinfo.lock, tp.t_inpcb.lock:
            so = tp.t_inpcb.inp_socket
            if so is not None:
                so.so_error = so.so_error or lost_errno(tp.t_state)
            tp.t_state = TCPS_CLOSED
            self._dev.calls.detach(toep)
            tcp_close(tp)


def lost_errno(t_state: int) -> int:
    """What the user is told when the device of a connection in state ``t_state`` goes away."""
    if t_state == TCPS_TIME_WAIT:
        return 0
    return errno.ENETDOWN if t_state < TCPS_ESTABLISHED else errno.ECONNABORTED
