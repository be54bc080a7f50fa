"""The switchboard: which sockets of one engine and of the host are ready, who gets a turn, and what is listened for."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from collections.abc import Callable

from tiptoe_driver import Socket, Stack

from .records import Record, Records
from .relay import BUILT_IN, BuiltIn, Connection, Relay

BACKLOG = 4096
"""Accept queues: a burst of clients waits, none is refused."""


class Switchboard:
    """All relays of one engine: watches host sockets through epoll and offloaded sockets through their upcalls.

    Attributes
    ----------
    epoll : select.epoll
        Readable when a host socket needs service.
    records : Records
        Of all connections.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.epoll = select.epoll()
        self.records = Records()
        self._by_descriptor: dict[int, Callable[[], None]] = {}
        self._ready: dict[Callable[[], None], None] = {}
        self._live: set[Connection] = set()
        self._closers: list[Callable[[], None]] = []

    # --- readiness ---

    def watch_host(self, host: socket.socket | select.epoll, function: Callable[[], None], events: int) -> None:
        """Call ``function`` when the host socket is ready for ``events``; later calls change the events (0: none)."""
        descriptor = host.fileno()
        if not events:
            self.forget_host(host)  # else a hang-up would be reported for ever
            return
        if descriptor in self._by_descriptor:
            self.epoll.modify(descriptor, events)
        else:
            self.epoll.register(descriptor, events)
        self._by_descriptor[descriptor] = function

    def forget_host(self, host: socket.socket | select.epoll) -> None:
        """The socket is about to be closed."""
        if self._by_descriptor.pop(host.fileno(), None) is not None:
            with contextlib.suppress(OSError):
                self.epoll.unregister(host.fileno())

    def watch_offloaded(self, offloaded: Socket, function: Callable[[], None]) -> None:
        """Call ``function`` in the next round after the offloaded socket has changed."""
        offloaded.set_upcall(lambda _: self.call_soon(function))

    def call_soon(self, function: Callable[[], None]) -> None:
        """Call ``function`` once in the next round."""
        self._ready[function] = None

    def service(self) -> None:
        """One round: everything that is ready gets a turn."""
        for descriptor, _ in self.epoll.poll(0):
            function = self._by_descriptor.get(descriptor)
            if function is not None:
                self.call_soon(function)
        ready, self._ready = self._ready, {}
        for function in ready:
            function()

    @property
    def busy(self) -> bool:
        """Whether a connection wants another turn at once."""
        return bool(self._ready)

    # --- what is offered ---

    def listen(self, port: int, target: str | tuple[str, int], address: str = "", family: int = socket.AF_INET) -> None:
        """Accept offloaded connections on ``port`` and relay them to ``target``: (host, port) or one of BUILT_IN."""
        name = target if isinstance(target, str) else f"{target[0]}:{target[1]}"
        if isinstance(target, str) and target not in BUILT_IN:
            raise ValueError(f"unknown target {target!r}: HOST:PORT, {', '.join(BUILT_IN)}")
        listener = Socket(self.stack, family=family)
        listener.setblocking(False)
        listener.bind((address, port))
        listener.listen(BACKLOG)
        self._closers.append(listener.close)

        def accept() -> None:
            while True:
                try:
                    offloaded, peer = listener.accept()
                except OSError as error:
                    if error.errno != errno.EAGAIN:
                        self.call_soon(accept)
                    return
                offloaded.setblocking(False)
                record = Record(peer[:2], port, name, self.stack.now_us())
                self.records.append(record)
                if isinstance(target, str):
                    self._add(BuiltIn(self, offloaded, record, target))
                else:
                    self._add(Relay.to_host(self, offloaded, record, target))

        self.watch_offloaded(listener, accept)

    def forward(self, port: int, target: tuple[str, int], address: str = "127.0.0.1") -> int:
        """Accept connections of this machine on ``port`` (0: any) and carry them to ``target`` through the engine;
        returns the port."""
        server = socket.create_server((address, port), backlog=BACKLOG)
        server.setblocking(False)
        self._closers.append(lambda: self._close_server(server))
        local_port = int(server.getsockname()[1])

        def accept() -> None:
            while True:
                try:
                    host, _ = server.accept()
                except OSError:
                    return
                host.setblocking(False)
                record = Record(target, local_port, "forwarded", self.stack.now_us())
                self.records.append(record)
                self._add(Relay.from_host(self, host, record, target))

        self.watch_host(server, accept, select.EPOLLIN)
        return local_port

    def _close_server(self, server: socket.socket) -> None:
        self.forget_host(server)
        server.close()

    def _add(self, connection: Connection) -> None:
        self._live.add(connection)
        self.call_soon(connection.turn)

    def ended(self, connection: Connection) -> None:
        """A connection is over."""
        self._live.discard(connection)
        connection.record.closed_us = self.stack.now_us()

    @property
    def live(self) -> int:
        """Connections not yet over."""
        return len(self._live)

    def close(self) -> None:
        """Stop listening, reset what is still open."""
        for function in self._closers:
            with contextlib.suppress(OSError):
                function()
        for connection in list(self._live):
            connection.abort("ended with the simulation")
        self.epoll.close()
