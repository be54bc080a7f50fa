"""One engine attached to the stack: interface, offload device, and the way of every event to its handler."""

from __future__ import annotations

from . import abi_gen as abi
from .device import Device
from .engine import Engine
from .hostif import HostInterface
from .offload import sockaddr_in, toe_usrreqs, toedev
from .options import EngineOptions
from .routes import parse_ipv4, parse_mac, route
from .stack import Stack
from .structures import IFCAP_TOE, TP_EVENTS_PENDING, TP_STOCK, TP_TERMINAL, ifnet, socket, toepcb
from .toe_calls import ToeCalls
from .toe_connect import ActiveOpens
from .toe_events import ToeEvents
from .toe_listen import PassiveOpens


class Tiptoe(toedev):
    """One engine attached to the stack as interface and offload device.

    Parameters
    ----------
    stack : Stack
        The stack; it gets the interface, its routes, and the device to poll.
    device : Device
        The seam to the hardware or its simulation.
    name : str
        Interface name.
    address : str
        Own IPv4 address with the prefix length of its subnet, ``10.0.0.1/24``.
    mac : str
        Own MAC address.
    gateway : str
        Next hop of the default route; empty: none.
    mtu : int
        Longest IP packet in bytes.
    """

    def __init__(self, stack: Stack, device: Device, *, address: str, mac: str, name: str = "tiptoe0",
                 gateway: str = "", mtu: int = 1500, options: EngineOptions | None = None) -> None:
        ip, _, prefix = address.partition("/")
        self.stack = stack
        self.tod_ifp = ifnet(name, parse_ipv4(ip), int(prefix or 32), parse_mac(mac), mtu,
                             IFCAP_TOE, IFCAP_TOE, True, self)
        self.engine = Engine(device, self, self.tod_ifp.if_lladdr, self.tod_ifp.if_addr, options or EngineOptions())
        self.counters = self.engine.counters
        self.hostif = HostInterface(stack, self.engine, self.tod_ifp, self._neighbour_changed)
        mss = min(mtu, self.engine.capabilities.max_frame_bytes - 14) - 40
        self.calls = calls = ToeCalls(self.engine)
        self.events = ToeEvents(stack, calls)
        self.active = ActiveOpens(stack, calls, self.hostif, mss)
        self.passive = PassiveOpens(stack, calls, self.tod_ifp, mss)
        self.tod_usrreqs = calls.usrreqs = toe_usrreqs(
            calls.tu_send, calls.tu_rcvd, calls.tu_disconnect, calls.tu_reset, calls.tu_detach,
            self.passive.tu_syncache_event)
        stack.attach_interface(self.tod_ifp, parse_ipv4(gateway))
        stack.devices.append(self)
        stack.tcp_offload_listen_start.register(PassiveOpens.start, self.passive)
        stack.tcp_offload_listen_stop.register(PassiveOpens.stop, self.passive)
        for tp in stack.listeners():
            self.passive.start(tp)

    def set_capenable(self, capenable: int) -> None:
        """SIOCSIFCAP: switch capabilities of the interface on and off (contract: CAP-1). Without IFCAP_TOE new connections,
        passive ones too, are the software stack's; old ones live on."""
        changed = (self.tod_ifp.if_capenable ^ capenable) & IFCAP_TOE
        self.tod_ifp.if_capenable = capenable & self.tod_ifp.if_capabilities
        if not changed or self.stack.offload_disabled:
            return
        for tp in list(self.stack.listeners()):
            if self.tod_ifp.if_capenable & IFCAP_TOE:
                self.passive.start(tp)
            else:
                self.passive.stop(tp)

    # ------------------------------------------------------------------ Pollable

    def poll(self) -> bool:
        """Handle what the engine has reported; whether there was anything."""
        busy = self.engine.poll()
        self.hostif.flush()
        return busy

    def wait(self, timeout_us: int | None) -> bool:
        """Let time pass until the engine reports something."""
        busy = self.engine.wait(timeout_us)
        self.hostif.flush()
        return busy

    def now_us(self) -> int:
        """The device's clock."""
        return self.engine.device.now_us()

    # ------------------------------------------------------------------ toedev

    def tod_connect(self, so: socket, ro: route, nam: sockaddr_in) -> int:
        """Begin an active open."""
        return self.active.connect(so, ro, nam)

    def tod_four_tuple_busy(self, four_tuple: tuple[int, int, int, int]) -> bool:
        """Whether the engine still has a connection with this four-tuple."""
        return four_tuple in self.calls.four_tuples

    # ------------------------------------------------------------------ EngineClient

    def connection_event(self, toep: toepcb, event: abi.ConnectionEvent) -> None:
        """A snapshot of a connection; the first one of an id in stock tells of a passive open."""
        if toep.flags & TP_STOCK:
            if not event.established and not event.terminal:
                return  # not yet
            if event.terminal:
                toep.flags |= TP_TERMINAL
            self.passive.accept(toep, event)
        if toep.flags & TP_EVENTS_PENDING:
            self.events.snapshot(toep, event)
        else:
            self.counters["stale_events"] += 1

    def open_failed(self, toep: toepcb, status: int) -> None:
        """OPEN was refused."""
        self.active.failed(toep, status)

    def syn_received(self, event: abi.SynReceivedEvent) -> None:
        """A half-open connection exists."""
        self.passive.syn_received(event)

    def syncache_gone(self, event: abi.SyncacheGoneEvent) -> None:
        """A half-open connection is no more."""
        self.passive.syncache_gone(event)

    def frame_received(self, frame: memoryview) -> None:
        """A frame for the host."""
        self.hostif.input(frame)

    def _neighbour_changed(self, ip: int, mac: int) -> None:
        self.active.neighbour_changed(ip, mac)
