"""The seam between the driver and a device, simulated or real: registers, host memory, time, one interrupt line."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Device(Protocol):
    """What the driver needs of a device.

    Attributes
    ----------
    memory : memoryview
        Host memory as the device sees it, writable, one byte an item: device address 0 is ``memory[0]``.
    """

    @property
    def memory(self) -> memoryview:
        """Host memory."""

    def write32(self, address: int, value: int) -> None:
        """Write a register or doorbell at byte ``address``; posted, in order, never waits for the device's work."""

    def read32(self, address: int) -> int:
        """Read a register at byte ``address``. Slow: capabilities, counters, a full command ring; never for data."""

    def now_us(self) -> int:
        """The device's clock in microseconds, for timeouts on the host's side."""

    def wait(self, timeout_us: int | None) -> bool:
        """Let time pass until the interrupt line is high or ``timeout_us`` is over (None: no limit); returns
        whether the line is high. A simulation runs its clock here."""
