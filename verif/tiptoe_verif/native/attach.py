"""Between the simulated engine and tiptoe_driver: bring-up, interrupts, sockets."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from socket import AF_INET
from types import MappingProxyType
from typing import Any, Protocol

from tiptoe_driver import EngineOptions, Socket, Stack, Tiptoe
from tiptoe_driver.hardware.abi_gen import REG_TICK_CYCLES
from tiptoe_driver.netinet.structures import socket
from tiptoe_driver.sockets import Address

from ..standin.tcp import StandInTcp
from ..wire.segment import ip_text, mac_number, mac_text
from ..wire.vlan import VlanPort
from .device import EngineDevice
from .harness import Stop

_SETTLE_CYCLES = 10_000


def attach_driver(
    device: EngineDevice, *, prefix: int, gateway: str | None, tick_cycles: int, options: dict[str, Any], tick_us: int = 1000,
    seed: int | None = None, offload_disabled: bool = False, stand_in: bool = False, mtu: int = 1500,
    external_tick: bool = False, neighbours: Mapping[str, str] = MappingProxyType({}),
) -> None:  # fmt: skip
    """Bring the engine up with the driver, and give ``device`` its ``stack`` and ``toe``.

    ``tick_cycles`` 0: TCP's clock is the tick input, on wall time; ``external_tick``: it is that in simulated time, too.
    ``tick_us``: a tick in microseconds, for what is told of times. ``options`` are those of ``EngineOptions``. ``seed``: of the
    ephemeral ports; live, they are random, since the peer remembers the ones of the run before. ``offload_disabled``:
    TCP_OFFLOAD_DISABLE. ``stand_in``: connections that are not offloaded are carried by a StandInTcp, ``device.software``.
    ``mtu``: of the interface. ``neighbours``: MAC addresses by IP address, known from the start.
    """
    if stand_in:
        options = {"rst_unknown": False} | options
    options = {"seed": device.seed, "external_tick": external_tick or tick_cycles == 0} | options
    if tick_cycles:
        # An engine that stands still is to be found, not to be helped.
        options = {"watchdog_us": 0, "on_standstill": "report", "tick_us": tick_us, **options}
        options = {"clock_hz": tick_cycles * 1_000_000 // tick_us} | options
        options["registers"] = {REG_TICK_CYCLES: tick_cycles} | dict(options.get("registers", {}))
    device.capture.port = VlanPort(options.get("vlan"))
    device.stack = Stack(seed=seed, offload_disabled=offload_disabled)
    device.toe = Tiptoe(
        device.stack, device, address=f"{ip_text(device.ip)}/{prefix}", mac=mac_text(device.mac),
        gateway=gateway or "", mtu=mtu, options=EngineOptions(**options),
    )  # fmt: skip
    if device.monitor is not None:
        device.monitor.ip6 = device.toe.tod_ifp.if_addr6
    if stand_in:
        device.software = StandInTcp(device.stack, device.toe, seed=device.seed)
    for address, neighbour in neighbours.items():
        ip = int(ip_address(address))
        device.toe.hostif.neighbours(ip).add_static(ip, mac_number(neighbour))
    device.harness.run(_SETTLE_CYCLES, Stop.SETTLED)  # enabled when this returns


class Attached(Protocol):
    """A device with its driver."""

    @property
    def stack(self) -> Any:
        """The driver's stack."""

    @property
    def toe(self) -> Any:
        """The stack's device."""


def serve_interrupt(device: Attached) -> None:
    """What an interrupt handler does: look at the rings, then clear the cause; events since then set it again."""
    device.stack.poll()
    device.toe.engine.clear_interrupt()


class NonBlocking(Socket):
    """A non-blocking offloaded socket; what it accepts is so too: in a simulation's tasks nothing may block."""

    def __init__(self, stack: Stack, _so: socket | None = None, *, family: int = AF_INET) -> None:
        super().__init__(stack, _so, family=family)
        self.setblocking(False)

    def accept(self) -> tuple[Socket, Address]:
        """The next connection and its peer's address; BlockingIOError when there is none."""
        made, peer = super().accept()
        made.setblocking(False)
        return made, peer
