"""Standstills: work that waits while nothing moves, as the engine's watchdog tells of it, or as the driver sees it itself.

The engine's word is STATUS, read at an interval and whenever an ERROR event WATCHDOG or a look gives cause to: an event ring
that stands still can tell nothing. For an engine that says nothing at all the driver looks whether its commands get on.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from ..hardware import abi_gen as abi
from ..hardware.engine import Engine
from ..netinet.if_var import ifnet
from ..netinet.stack import Stack

BITS = {
    "commands": abi.STATUS_COMMANDS_STALLED,
    "doorbells": abi.STATUS_DOORBELLS_STALLED,
    "events": abi.STATUS_EVENTS_STALLED,
    "host": abi.STATUS_HOST_STALLED,
}
"""What may stand still, and its bit in STATUS."""
STALLED = sum(BITS.values())
_FATAL = {"commands", "events"}
"""Without these nothing can be opened, closed, or heard of. Doorbells hold up the register bus, and a reset with it; a host that
does not read is no fault of the engine."""
_WORDS = {
    "commands": "its commands stand still",
    "doorbells": "its doorbells stand still",
    "events": "its events stand still",
    "host": "this host was too slow to read its events",
    "reset": "it does not come out of the reset",
    "back": "it has come out of the reset",
}


class Action(Enum):
    """What was done about a standstill; the value is for people."""

    REPORTED = ""
    LINK_DOWN = "the link is down, so no reset"
    RESET = "reset; its connections end, its listeners come back"
    STOPPED = "so often that it is stopped; its connections end"
    WAITING = "stopped until it does"


@dataclass(frozen=True, slots=True)
class Standstill:
    """Something stood still.

    Attributes
    ----------
    time_us : int
        On the stack's clock.
    what : tuple of str
        "commands", "doorbells", "events", "host"; or "reset", of an engine that does not come out of one, and "back" when
        it has after all.
    by : str
        Who says so, "engine" or "driver".
    """

    time_us: int
    what: tuple[str, ...]
    by: str
    action: Action

    def __str__(self) -> str:
        """A line for people, to be put behind the device's name."""
        told = " and ".join(_WORDS[name] for name in self.what) + (
            " (it says so itself)" if self.by == "engine" else ""
        )
        return f"{told}: {self.action.value}" if self.action.value else told


class WatchedDevice(Protocol):
    """What is looked at."""

    stack: Stack
    tod_ifp: ifnet
    engine: Engine


class Standstills:
    """Notices what stands still on one device, counts it, tells of it, and has the device reset.

    Nothing is done in the midst of events or calls: causes are looked into by a callout.

    Parameters
    ----------
    running : callable
        Whether the device runs, so that it can be reset; None: its engine is off, nothing stands still.
    recover : callable
        Resets the device and brings it up again, or leaves it off (False). Waits for nothing.

    Attributes
    ----------
    noticed : deque of Standstill
        The last ones, the newest at the end.
    listener : callable or None
        Called with each.
    """

    LOOKS = 5
    """Looks in a row at which commands waited and none had got on. Looks, not time: a pause of the whole host is one."""
    KEPT = 32

    def __init__(self, dev: WatchedDevice, running: Callable[[], bool | None], recover: Callable[[bool], None]) -> None:
        self._stack, self._ifp, self._engine = dev.stack, dev.tod_ifp, dev.engine
        self._counters: Counter[str] = dev.engine.counters
        self._running, self._recover = running, recover
        self.noticed: deque[Standstill] = deque(maxlen=self.KEPT)
        self.listener: Callable[[Standstill], None] | None = None
        self._asked = False
        self._resets: deque[int] = deque()
        self.begin()

    def begin(self) -> None:
        """The engine begins anew."""
        self._progress = self._engine.commands.progress
        self._looks = 0
        self._known = False  # that commands stand still

    def forgive(self) -> None:
        """Somebody has restarted the device: earlier resets do not count any more."""
        self._resets.clear()

    # ------------------------------------------------------------------ causes

    def suspect(self) -> None:
        """There may be something in STATUS: look soon, with nothing under way."""
        if not self._asked:
            self._asked = True
            self._stack.callout(0, self._look)

    def status(self, status: int) -> None:
        """STATUS was read."""
        if status & STALLED:
            self.suspect()

    def look_at_commands(self) -> None:
        """To be called at an interval: whether commands get on."""
        commands = self._engine.commands
        unfinished = commands.unfinished()
        if self._engine.device.gone:
            return
        if not unfinished or commands.progress != self._progress:
            self._progress = commands.progress
            self._looks, self._known = 0, False
        elif self._ifp.if_up:
            self._looks += 1
        else:
            self._looks = 0  # they may wait for the link
        if self._looks >= self.LOOKS and not self._known:
            self._notice(("commands",), "driver")

    def _look(self) -> None:
        self._asked = False
        device = self._engine.device
        if self._running() is None:
            return
        status = device.read32(abi.REG_STATUS)
        if device.gone or not status & STALLED:
            return
        device.write32(abi.REG_STATUS, status & STALLED)
        self._notice(tuple(name for name, bit in BITS.items() if status & bit), "engine")

    # ------------------------------------------------------------------ consequences

    def _notice(self, what: tuple[str, ...], by: str) -> None:
        for name in what:
            self._counters[f"watchdog_{name}"] += 1
        action = self._decide(what)
        if "commands" in what and action is not Action.LINK_DOWN:
            commands = self._engine.commands
            commands.unfinished()  # learns how far they have got
            self._known, self._progress = True, commands.progress
        if action is Action.RESET:
            self._resets.append(self._stack.now_us())
            self._counters["watchdog_resets"] += 1
        elif action is Action.STOPPED:
            self._counters["watchdog_stops"] += 1
        if action in (Action.RESET, Action.STOPPED):
            self._recover(action is Action.RESET)
        self.tell(what, by, action)

    def _decide(self, what: tuple[str, ...]) -> Action:
        options = self._engine.options
        fatal = _FATAL.intersection(what)
        if not fatal or not self._running() or options.on_standstill == "report":
            return Action.REPORTED
        if not self._ifp.if_up and fatal == {"commands"}:
            return Action.LINK_DOWN
        since = self._stack.now_us() - options.resets_within_us
        while self._resets and self._resets[0] <= since:
            self._resets.popleft()
        return Action.RESET if len(self._resets) < options.resets_most else Action.STOPPED

    def tell(self, what: tuple[str, ...], by: str, action: Action) -> None:
        """Note it, and tell who listens."""
        standstill = Standstill(self._stack.now_us(), what, by, action)
        self.noticed.append(standstill)
        if self.listener is not None:
            self.listener(standstill)
