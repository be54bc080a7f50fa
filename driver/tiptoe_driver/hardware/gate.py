"""The gate between driver and device: once shut, nothing reaches the device any more.

A device that was pulled reads as all ones. Registers may hold that value too, so ID is read to tell the two apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from . import abi_gen as abi
from .device import Device

ALL_ONES = 0xFFFF_FFFF
"""What a read returns when no device answers."""


class DeviceGate:
    """The seam of device.py in front of a device. Reads through a shut gate return all ones, writes are dropped.

    Attributes
    ----------
    gone : bool
        A read has found that the device answers no more; the gate has shut itself and counted ``device_gone``.
    """

    def __init__(self, device: Device, counters: Counter[str]) -> None:
        self._device = device
        self._counters = counters
        self._shut = False
        self.gone = False
        self.memory = device.memory
        self.write32: Callable[[int, int], None] = device.write32
        """Write a register or doorbell: the device's own function, since doorbells are many."""

    def read32(self, address: int) -> int:
        """Read a register; all ones when there is no device behind the gate."""
        if self._shut:
            return ALL_ONES
        value = self._device.read32(address)
        if value == ALL_ONES and self._device.read32(abi.REG_ID) == ALL_ONES:
            self.gone = True
            self._counters["device_gone"] += 1
            self.shut()
        return value

    def now_us(self) -> int:
        """The device's clock."""
        return self._device.now_us()

    def wait(self, timeout_us: int | None) -> bool:
        """Let time pass; returns the interrupt line's level. False at once when the gate is shut."""
        return not self._shut and self._device.wait(timeout_us)

    def shut(self) -> None:
        """Let nothing through from now on."""
        self._shut = True
        self.write32 = _drop


def _drop(address: int, value: int) -> None:
    """A write to no device."""
