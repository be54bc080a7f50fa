"""One engine attached to the stack: interface, offload device, and the way of every event to its handler."""

from __future__ import annotations

import errno
from collections.abc import Callable

from ..hardware import abi_gen as abi
from ..hardware.device import Device
from ..hardware.engine import Engine
from ..hardware.options import EngineOptions
from ..hardware.toepcb import TP_EVENTS_PENDING, TP_STOCK, TP_TERMINAL, toepcb
from ..hardware.user_buffers import UserBuffer
from ..netinet.if_var import IFCAP_TOE, ifnet
from ..netinet.in6 import link_local, parse_ipv6, usable
from ..netinet.pcbinfo import FourTuple
from ..netinet.routes import parse_ipv4, parse_mac, route
from ..netinet.stack import Stack
from ..netinet.structures import sockaddr_in, socket, sotoinpcb, sototcpcb, tcpcb, toe_usrreqs, toedev
from ..netinet.tcp_info import tcp_info
from .active_open import ActiveOpens
from .calls import ToeCalls
from .events import ToeEvents
from .hostif import HostInterface
from .lifecycle import DeviceState, Lifecycle
from .link import LinkChanges
from .passive_open import PassiveOpens
from .policy import OffloadPolicy, Opening
from .standstill import Standstill


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
        Longest IP packet in bytes; not more than the engine carries (1500, unless it was built for more).
    policy : OffloadPolicy
        Which connections are offloaded; may be replaced, for those that begin later.

    Attributes
    ----------
    counters : Counter
        What went wrong, by name.
    """

    def __init__(
        self,
        stack: Stack,
        device: Device,
        *,
        address: str,
        mac: str,
        name: str = "tiptoe0",
        gateway: str = "",
        mtu: int = 1500,
        options: EngineOptions | None = None,
        policy: OffloadPolicy | None = None,
    ) -> None:
        ip, _, prefix = address.partition("/")
        stack.check_address(parse_ipv4(ip))
        self.stack = stack
        self.policy = policy or OffloadPolicy()
        options = options or EngineOptions()
        self.tod_ifp = ifnet(
            name, parse_ipv4(ip), int(prefix or 32), parse_mac(mac), mtu, IFCAP_TOE, IFCAP_TOE, True, self
        )
        if options.ipv6:
            ip6, _, prefix6 = options.ipv6.partition("/")
            self.tod_ifp.if_addr6, self.tod_ifp.if_prefix6 = parse_ipv6(ip6), int(prefix6 or 128)
            if not usable(self.tod_ifp.if_addr6) or link_local(self.tod_ifp.if_addr6):
                raise ValueError(f"not an address for TCP: {options.ipv6!r}")
            stack.check_address(self.tod_ifp.if_addr6)
        ifp = self.tod_ifp
        self.engine = Engine(device, self, ifp.if_lladdr, ifp.if_addr, options, ifp.if_addr6, mtu)
        self.counters = self.engine.counters
        self.hostif = HostInterface(stack, self.engine, self.tod_ifp, self._neighbour_changed, self._on_device)
        self.calls = calls = ToeCalls(stack, self.engine, self.tod_ifp)
        self.events = ToeEvents(stack, calls)
        self.active = ActiveOpens(stack, calls, self.hostif)
        self.passive = PassiveOpens(stack, calls, self.tod_ifp, self._offloads_listener)
        self.link = LinkChanges(stack, calls, self.hostif, self.tod_ifp, self.engine.options.link_down_us)
        calls.tod = self
        self.tod_usrreqs = calls.usrreqs = toe_usrreqs(
            calls.tu_send,
            calls.tu_rcvd,
            calls.tu_disconnect,
            calls.tu_reset,
            calls.tu_detach,
            self.passive.tu_syncache_event,
        )
        stack.attach_interface(self.tod_ifp, parse_ipv4(gateway), parse_ipv6(options.ipv6_gateway))
        stack.congestion = self.engine.congestion
        stack.attach_device(self)
        self.lifecycle = Lifecycle(self)
        self.listen_tags = [
            (handlers, handlers.register(function, self.passive))
            for handlers, function in (
                (stack.tcp_offload_listen_start, PassiveOpens.start),
                (stack.tcp_offload_listen_stop, PassiveOpens.stop),
            )
        ]
        self.passive.resume()

    # ------------------------------------------------------------------ stop, restart, removal

    @property
    def state(self) -> DeviceState:
        """Whether the device can be used."""
        return self.lifecycle.state

    def stop(self, timeout_us: int = 100_000) -> None:
        """Stop the device: new connections fail with ENETDOWN, those it has with ECONNABORTED, their peers get a RST.

        Waits up to ``timeout_us`` for the engine to report their ends, then switches it off. The interface and its
        routes stay. Lets time pass, as ``restart``, ``reset`` and ``detach`` do: call none of them from an upcall.
        """
        self.lifecycle.stop(timeout_us)

    def restart(self) -> None:
        """Bring the device up again, after ``stop``; one that runs is stopped first. Its listeners are back, the
        neighbours it knew too. DeviceError when the engine does not come up; the device stays stopped then."""
        self.lifecycle.stop(100_000)
        self.lifecycle.restart()

    def reset(self) -> None:
        """Recover a device that misbehaves: like stop and restart, but connections end without a word to the peers.
        Ids that were lost are back."""
        self.lifecycle.reset()

    def detach(self) -> None:
        """Remove the device, in use or not, and for good: connections end with ECONNABORTED (their peers are told by
        ``stop`` only), interface, routes and listeners are withdrawn, the engine is switched off if it still answers.
        What has arrived can still be read. A second call does nothing."""
        self.lifecycle.remove()

    def alive(self) -> bool:
        """Ask the device whether it is still there (a slow read). One that does not answer is removed at once."""
        return self.lifecycle.look()

    # ------------------------------------------------------------------ standstills

    @property
    def standstills(self) -> list[Standstill]:
        """What has stood still, the newest last; the last 32. How often: ``counters["watchdog_commands"]`` etc."""
        return list(self.lifecycle.standstills.noticed)

    @property
    def on_standstill(self) -> Callable[[Standstill], None] | None:
        """Called with each standstill, when what is to be done is under way; it must not block."""
        return self.lifecycle.standstills.listener

    @on_standstill.setter
    def on_standstill(self, listener: Callable[[Standstill], None] | None) -> None:
        self.lifecycle.standstills.listener = listener

    # ------------------------------------------------------------------ the application's buffers

    def allocate_buffer(self, size: int) -> UserBuffer:
        """Memory for a ring that the application owns: ``size`` bytes, a power of two from 4 KiB to 16 MiB. ValueError
        for another size, OutOfMemory when there is none left."""
        return self.engine.buffers.allocate(size)

    def register_buffer(self, address: int, size: int) -> UserBuffer:
        """The same for memory of the application's own choice, aligned to its size, outside the range that
        ``EngineOptions`` leaves to the driver. ValueError or BufferError when it cannot be a ring."""
        return self.engine.buffers.register(address, size)

    # ------------------------------------------------------------------ Pollable

    def poll(self) -> bool:
        """Handle what the engine has reported; whether there was anything."""
        busy = self.engine.poll()
        self.hostif.flush()
        self.lifecycle.found()
        return busy

    def wait(self, timeout_us: int | None) -> bool:
        """Let time pass until the engine reports something."""
        busy = self.engine.wait(timeout_us)
        self.hostif.flush()
        self.lifecycle.found()
        return busy

    def now_us(self) -> int:
        """The device's clock."""
        return self.engine.device.now_us()

    # ------------------------------------------------------------------ toedev

    def tod_connect(self, so: socket, ro: route, nam: sockaddr_in) -> int:
        """Begin an active open; EPERM when the policy is against it, or the engine lacks its congestion control."""
        if sotoinpcb(so).inp_laddr not in self.tod_ifp.addresses:
            return errno.EADDRNOTAVAIL  # the engine takes no segments for another address
        algorithm = sototcpcb(so).t_cc
        if algorithm is not None and not self.tod_congestion(algorithm):
            return errno.EPERM
        if not self.policy.offloads(Opening.CONNECT, sotoinpcb(so).four_tuple):
            self.counters["policy_refused"] += 1
            return errno.EPERM
        return self.active.connect(so, ro, nam)

    def tod_four_tuple_busy(self, four_tuple: tuple[int, int, int, int]) -> bool:
        """Whether the engine still has a connection with this four-tuple."""
        return four_tuple in self.calls.four_tuples

    def tod_ctloutput(self, tp: tcpcb, level: int, name: int) -> None:
        """An option of a connection was set."""
        self.calls.options.changed(tp, level, name)

    def tod_tcp_info(self, tp: tcpcb, answer: Callable[[tcp_info | None], None]) -> int:
        """Ask the engine for a TCB."""
        return self.calls.options.read(tp, answer)

    def tod_keepalive(self, tp: tcpcb) -> int:
        """KEEPALIVE."""
        return self.calls.options.keepalive(tp)

    def tod_cwnd(self, tp: tcpcb, cwnd: int, ssthresh: int) -> int:
        """SET_CWND."""
        return self.calls.options.set_cwnd(tp, cwnd, ssthresh)

    def tod_unanswered(self, tp: tcpcb, answer: Callable[[int | None], None]) -> int:
        """Ask the engine for the TCB's ``unanswered``."""
        return self.calls.options.unanswered(tp, answer)

    def tod_congestion(self, algorithm: int) -> bool:
        """Whether register CONGESTION lists the algorithm."""
        return bool(self.engine.capabilities.congestion >> algorithm & 1)

    def tod_capability(self, enable: bool) -> None:
        """IFCAP_TOE was switched: without it the engine listens for nobody. Half-open connections of its listeners
        are reset."""
        if enable:
            self.passive.resume()
        else:
            self.passive.withdraw()

    def _offloads_listener(self, tp: tcpcb, own: int) -> bool:
        """Whether the policy lets the engine listen for ``tp`` at this address of ours; what it is against is left to the
        software stack."""
        _, lport, faddr, fport = tp.t_inpcb.four_tuple
        return self.policy.offloads(Opening.LISTEN, (own, lport, faddr, fport))

    # ------------------------------------------------------------------ ifnet

    def if_link_state_change(self, up: bool) -> None:
        """The interface's link has come up or gone down (the MAC's driver tells)."""
        self.link.if_link_state_change(up)

    def if_set_mtu(self, mtu: int) -> None:
        """The interface carries packets of up to ``mtu`` bytes from now on; ValueError for less than 68 and for
        more than the engine carries."""
        self.link.if_set_mtu(mtu)

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

    def syn_address(self, event: abi.SynAddressEvent) -> None:
        """The peer's IPv6 address of a half-open connection."""
        self.passive.syn_address(event)

    def syncache_gone(self, event: abi.SyncacheGoneEvent) -> None:
        """A half-open connection is no more."""
        self.passive.syncache_gone(event)

    def frame_received(self, frame: memoryview) -> None:
        """A frame for the host."""
        self.hostif.input(frame)

    def standstill_event(self) -> None:
        """The engine's watchdog tells of something."""
        self.lifecycle.standstills.suspect()

    def _on_device(self, four_tuple: FourTuple) -> bool:
        """Whether the engine has a connection, or a half-open one, of this four-tuple."""
        return self.tod_four_tuple_busy(four_tuple) or any(
            entry.four_tuple == four_tuple for entry in self.passive.half_open.values()
        )

    def _neighbour_changed(self, ip: int, mac: int) -> None:
        self.active.next_hops.changed(ip, mac)
