"""A live run on a device: driver and sockets are here, engine and line are there."""

from __future__ import annotations

from rich.table import Table

from .device_engine import DeviceEngine, open_device
from .session import Session
from .setup import LiveSetup, check_device
from .summary import device_table


class DeviceSession(Session):
    """A live run on the device that ``setup.device`` names; use it as a context manager.

    Attributes
    ----------
    engine : DeviceEngine
    """

    engine: DeviceEngine
    pace_unit = "packets"

    def __init__(self, setup: LiveSetup) -> None:
        check_device(setup)
        super().__init__(setup)
        try:
            device = open_device(setup.device)
            self._stack.callback(device.close)
            ipv6 = {"ipv6": f"{setup.ip6}/{setup.prefix6}"} if setup.ip6 else {}
            self.engine = DeviceEngine(
                device, ip=setup.ip, mac=setup.mac, prefix=setup.prefix, gateway=setup.gateway, mtu=setup.mtu,
                time_wait_s=setup.time_wait_s, driver=ipv6 | setup.driver,
            )  # fmt: skip
            self._stack.callback(self.engine.close)
            self._offer()
        except BaseException:
            self._stack.close()
            raise

    @property
    def headline(self) -> str:
        """What runs here, for people."""
        device = self.engine.device
        return (
            f"engine [bold]{self.setup.ip}[/] on {device.name}: build {device.build:08x}, {device.clock_hz / 1e6:g} MHz, "
            f"{len(device.memory) >> 10} KiB of memory"
        )

    def totals(self) -> Table:
        """What has happened, for the summary."""
        return device_table(self.engine)

    @property
    def pace(self) -> int:
        """Packets or commands sent to the board."""
        return self.engine.device.counters()["sent"]
