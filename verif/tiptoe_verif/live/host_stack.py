"""The host side: a Linux kernel that has the engine's network card for its own.

In a network namespace lies a TAP interface with the engine's own addresses. Frames of no offloaded connection go to it,
frames the kernel sends there leave through the engine (SEND_FRAME). So this kernel answers ARP, ping and closed ports,
and it carries the connections that are not offloaded.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable

from tiptoe_driver import Stack, Tiptoe
from tiptoe_driver.netinet.in6 import format_address
from tiptoe_driver.netinet.routes import format_ipv4

from .kernel_tcp import KernelTcp
from .namespace import NetNamespace

_MAX_FRAME = 65536


class HostStack:
    """A kernel on the host's side of an engine; the stack polls it like a device.

    The engine must hand segments of nobody to the host: ``EngineOptions(rst_unknown=False)``.

    Parameters
    ----------
    stack : Stack
        Gets :class:`KernelTcp` as its software TCP.
    toe : Tiptoe
        Whose interface becomes the kernel's.
    namespace : NetNamespace
        Of this kernel; nothing else may be in it.
    name : str
        Of the interface in the namespace.
    mtu : int
        Of this interface.
    gateway : str
        Router for addresses beyond the subnet; empty: none.
    note : callable
        Told of every frame that is to leave through the engine.

    Attributes
    ----------
    namespace : NetNamespace
        As given.
    tcp : KernelTcp
        The connections that are not offloaded.
    received, sent : int
        Frames given to the kernel and taken from it.
    refused : int
        Frames the kernel's interface did not take.
    """

    def __init__(
        self, stack: Stack, toe: Tiptoe, namespace: NetNamespace, *, name: str, mtu: int = 1500, gateway: str = "",
        note: Callable[[bytes], None] = lambda frame: None,
    ) -> None:  # fmt: skip
        ifp = toe.tod_ifp
        self.received = self.sent = self.refused = 0
        self._stack, self._hostif, self._note = stack, toe.hostif, note
        self.namespace = namespace
        self._tap = namespace.open_tap(
            name, address=format_ipv4(ifp.if_addr), prefix=ifp.if_prefix, mtu=mtu,
            mac=ifp.if_lladdr.to_bytes(6, "big").hex(":"), gateway=gateway,
            address6=f"{format_address(ifp.if_addr6)}/{ifp.if_prefix6}" if ifp.if_addr6 else "",
        )  # fmt: skip
        self.tcp = KernelTcp(stack, self.namespace.socket)
        self.epoll = select.epoll()
        """Readable when ``poll`` has work."""
        self.epoll.register(self.tcp.epoll, select.EPOLLIN)
        self.epoll.register(self._tap, select.EPOLLIN)
        self._reading = True
        self._hostif.owner = self._to_kernel
        stack.software = self.tcp
        stack.attach_device(self)

    def _to_kernel(self, frame: bytes) -> None:
        try:
            os.write(self._tap, frame)
            self.received += 1
        except OSError:
            self.refused += 1

    # --- Pollable ---

    def poll(self) -> bool:
        """Frames from the kernel to the engine, then the sockets; whether there was anything."""
        before = self.sent
        room = self._hostif.room
        while room:
            try:
                frame = os.read(self._tap, _MAX_FRAME)
            except BlockingIOError:
                break
            self._note(frame)
            self._hostif.transmit(frame)
            self.sent += 1
            room -= 1
        if bool(room) != self._reading:  # while the engine is behind, frames wait in the kernel and shall not wake us
            self._reading = bool(room)
            self.epoll.modify(self._tap, select.EPOLLIN if room else 0)
        return self.tcp.poll() or self.sent != before

    def wait(self, timeout_us: int | None) -> bool:
        """Like poll: it is the engine in which time passes."""
        return self.poll()

    def now_us(self) -> int:
        """Wall time, as the live engine's."""
        return time.monotonic_ns() // 1000

    def close(self) -> None:
        """Give the interface back to the driver, and remove the kernel's. Twice does no harm."""
        if self.epoll.closed:
            return
        self._stack.detach_device(self)
        self._stack.software = None
        self._hostif.owner = None
        self.tcp.shut_down()
        self.epoll.close()
        os.close(self._tap)
