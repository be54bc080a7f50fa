"""The driver's seam on a board behind a cable, on wall time."""

from __future__ import annotations

import select
import time
from typing import Protocol

from ..address_map import STATUS_NAMES, status_address
from ..shadow import Shadow
from .fault import CableError
from .words import Bus, Words

ALL_ONES = 0xFFFF_FFFF
"""What a card that was pulled reads as; the driver knows what to do then."""
_LEAST_PAUSE_S, _MOST_PAUSE_S = 0.0005, 0.005
"""Between two looks at the interrupt line: short while there is news."""
_LOSSES = ("rx_dropped", "rx_damaged", "tx_dropped", "host_dropped")


class Cable(Words, Protocol):
    """A cable that is open."""

    name: str
    greeting: dict[str, int]
    once: bool
    """Whether every write is carried out once, even when it has to be sent again."""

    def counters(self) -> dict[str, int]:
        """What had to be done for it."""

    def close(self) -> None:
        """End it."""


class CableDevice:
    """``tiptoe_driver.hardware.device.Device`` on a board: registers over the cable, host memory as a shadow.

    When the board does not answer any more, registers read as all ones, as of a card that was pulled: the driver ends its
    connections and removes the device. ``failure`` says what happened.

    Attributes
    ----------
    name : str
        The cable's URL.
    clock_hz, build : int
        What the board says of itself.
    memory : memoryview
    failure : CableError or None
    wake : int
        Descriptor that ends a :meth:`wait` when it becomes readable; -1: none.
    """

    def __init__(self, cable: Cable, *, events_at_once: int = 4) -> None:
        self._cable = cable
        self.name = cable.name
        self.build, self.clock_hz = cable.greeting["build"], cable.greeting["clock"]
        self.shadow = Shadow(Bus(cable), cable.greeting["memory"], events_at_once=events_at_once)
        self.memory = self.shadow.memory
        self.failure: CableError | None = None
        self.wake = -1
        self._pause_s = _LEAST_PAUSE_S
        self._start_ns = time.monotonic_ns()

    def close(self) -> None:
        """End the cable. Twice does no harm."""
        self._cable.close()

    def counters(self) -> dict[str, int]:
        """What the cable had to do, and words of host memory that went over it each way."""
        return self._cable.counters() | {"pushed": self.shadow.words_pushed, "pulled": self.shadow.words_pulled}

    def losses(self) -> dict[str, int]:
        """Frames that the board has lost in its queues since power-up (docs/board.md); empty without an answer."""
        if self.failure:
            return {}
        try:
            return dict(zip(_LOSSES, self._cable.read_at([status_address(name) for name in _LOSSES]), strict=True))
        except CableError as error:
            self._lost(error)
            return {}

    # --- Device ---

    def read32(self, address: int) -> int:
        """A register; all ones when the board does not answer."""
        if self.failure is None:
            try:
                return self.shadow.read32(address)
            except CableError as error:
                self._lost(error)
        return ALL_ONES

    def write32(self, address: int, value: int) -> None:
        """Write a register or doorbell, and before it what it speaks of."""
        if self.failure is None:
            try:
                self.shadow.write32(address, value)
            except CableError as error:
                self._lost(error)

    def now_us(self) -> int:
        """Wall time since the device was opened."""
        return (time.monotonic_ns() - self._start_ns) // 1000

    def wait(self, timeout_us: int | None) -> bool:
        """Until the interrupt line is high, ``wake`` is readable or the time is over; news is in the shadow then."""
        end = None if timeout_us is None else time.monotonic() + timeout_us / 1e6
        while not (irq := self._look()):
            left = _MOST_PAUSE_S if end is None else end - time.monotonic()
            pause = min(self._pause_s, left)
            if left <= 0 or select.select([self.wake] if self.wake >= 0 else [], [], [], pause)[0]:
                break
            self._pause_s = min(2 * self._pause_s, _MOST_PAUSE_S)
        else:
            self._pause_s = _LEAST_PAUSE_S
        return irq

    def _look(self) -> bool:
        if self.failure is not None:
            return False
        try:
            irq = bool(self._cable.read_at([status_address("irq")])[0])
            if irq:
                self.shadow.fetch()
        except CableError as error:
            self._lost(error)
            return False
        return irq

    def _lost(self, error: CableError) -> None:
        self.failure = error


assert set(_LOSSES) <= set(STATUS_NAMES)
