"""The driver on a device that is no simulation of ours, on wall time: a board behind a cable, or whatever a package offers."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, Protocol
from urllib.parse import urlsplit

from tiptoe_driver import DeviceError, EngineOptions, Stack, Tiptoe
from tiptoe_driver.hardware import abi_gen as abi

from ..native.attach import serve_interrupt
from ..wire.segment import ip_number
from .rounds import Rounds
from .setup import UsageError

GROUP = "tiptoe.devices"
"""Entry points of packages: a URL's scheme, and what opens a :class:`RemoteDevice` for the URL (ValueError: a wrong one)."""
_SMALL, _LEAST_RING, _MOST_RING = 1 << 20, 1 << 12, 1 << 17
_STOP_US = 1_000_000
_SETTLE_US = 20_000


class RemoteDevice(Protocol):
    """A ``tiptoe_driver.hardware.device.Device`` that tells more of itself."""

    name: str
    build: int
    clock_hz: int
    memory: memoryview
    failure: DeviceError | None
    """Why it answers no more, once it does not."""
    wake: int
    """Descriptor that ends a ``wait`` when it becomes readable; -1: none."""

    def write32(self, address: int, value: int) -> None:
        """Write a register."""

    def read32(self, address: int) -> int:
        """Read a register."""

    def now_us(self) -> int:
        """Wall time."""

    def wait(self, timeout_us: int | None) -> bool:
        """Until the interrupt line is high."""

    def counters(self) -> Mapping[str, int]:
        """What the way to it had to do."""

    def losses(self) -> Mapping[str, int]:
        """Frames that it lost."""

    def close(self) -> None:
        """End it."""


def open_device(url: str) -> RemoteDevice:
    """The device at a URL. UsageError for one that nothing opens."""
    schemes = {entry.name: entry for entry in entry_points(group=GROUP)}
    scheme = urlsplit(url).scheme
    if scheme not in schemes:
        raise UsageError(f"--device {url}: {', '.join(f'{name}://...' for name in sorted(schemes))} is wanted")
    try:
        device: RemoteDevice = schemes[scheme].load()(url)
    except ValueError as error:
        raise UsageError(f"--device {error}") from None
    return device


def fitting(device: RemoteDevice) -> dict[str, Any]:
    """Options for the driver that suit the device's memory and clock."""
    small = len(device.memory) < _SMALL
    connections = 1 << (device.read32(abi.REG_CAPABILITIES) & 0x1F)
    share = len(device.memory) // (4 * connections)  # half of it for rings, two a connection
    ring = 1 << max(_LEAST_RING, min(share, _MOST_RING)).bit_length() - 1
    return {
        "snd_ring_bytes": ring, "rcv_ring_bytes": ring, "frame_slots": 8 if small else 64,
        "frame_buffers": 4 if small else 16, "clock_hz": device.clock_hz,
    }  # fmt: skip


class DeviceEngine(Rounds):
    """The driver attached to a device; see :class:`~tiptoe_verif.live.engine.LiveEngine`, which is it for the simulation.

    Parameters
    ----------
    time_wait_s : float
        Length of TIME_WAIT in the engine.
    driver : dict
        Further options for the driver.

    Attributes
    ----------
    stack, toe
        The driver's.
    tasks : list of functions
        Called in every round; one that returns True wants another round at once.
    """

    def __init__(
        self, device: RemoteDevice, *, ip: str, mac: str, prefix: int, gateway: str | None, mtu: int, time_wait_s: float,
        driver: dict[str, Any],
    ) -> None:  # fmt: skip
        self.device, self.ip = device, ip_number(ip)
        self.tasks = []
        self._stopping = False
        options = fitting(device) | driver
        registers = {
            abi.REG_TICK_CYCLES: device.clock_hz // 1000,
            abi.REG_MSL_TICKS: max(1, round(time_wait_s * 1000)),
        }
        options["registers"] = registers | dict(options.get("registers", {}))
        self.stack = Stack()
        try:
            self.toe = Tiptoe(
                self.stack, device, address=f"{ip}/{prefix}", mac=mac, gateway=gateway or "", mtu=mtu,
                options=EngineOptions(**options),
            )  # fmt: skip
        except DeviceError:
            raise device.failure or DeviceError(f"{device.name}: no engine of ours comes up there") from None

    @property
    def wake(self) -> int:
        """Descriptor that ends a round when it becomes readable; -1: none."""
        return self.device.wake

    @wake.setter
    def wake(self, descriptor: int) -> None:
        self.device.wake = descriptor

    def round(self, limit_us: int = 10_000) -> bool:
        """Wait until something needs the host (at most ``limit_us``), then let driver and tasks do their work.

        Returns False once :meth:`stop` was called. When the device answers no more its connections are ended, and its
        error is raised.
        """
        interrupt = self.device.wait(limit_us)
        self.serve(interrupt)
        if self.device.failure is not None:
            self.toe.alive()
            self.serve(False)
            raise self.device.failure
        return not self._stopping

    def serve(self, interrupt: bool) -> None:
        """Let the driver look at the engine, and the tasks at their sockets until none wants more."""
        if interrupt:
            serve_interrupt(self)
        else:
            self.stack.poll()
        self.run_tasks()

    def settle(self) -> None:
        """Let the engine carry out the commands on their way."""
        self.serve(self.device.wait(_SETTLE_US))

    def stop(self) -> None:
        """Make :meth:`round` return False soon; for signal handlers."""
        self._stopping = True

    def close(self) -> None:
        """Peers of open connections get a reset, the engine is switched off, the way to it ended."""
        self.wake = -1  # the switchboard has gone
        if self.device.failure is None:
            self.toe.stop(_STOP_US)
        self.toe.detach()
        self.device.close()
