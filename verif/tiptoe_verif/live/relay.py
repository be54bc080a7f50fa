"""Relays between offloaded sockets and the host's: any stock server or client can be put on either side.

Each connection is one object that moves bytes as far as both sides allow and never blocks. What one side does not take
stays in its ring or socket buffer, so TCP's own windows hold the other side back. A FIN is passed on as a half-close, a
reset as a reset.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
from collections.abc import Callable
from typing import Any, Protocol

from tiptoe_driver import Socket, Stack

from .records import Record

CHUNK = 1 << 16
TURN = 1 << 19
"""Bytes one connection moves before others get their turn."""
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: a close is a reset."""
BUILT_IN = ("echo", "discard", "chargen")
"""Targets that need no server: RFC 862, RFC 863, RFC 864."""

CHARGEN = b"".join(bytes(32 + (line + column) % 95 for column in range(72)) + b"\r\n" for line in range(95)) * 16
"""RFC 864's pattern, some rounds of it."""


class Board(Protocol):
    """What a connection needs of the switchboard it is on."""

    stack: Stack

    def watch_host(self, host: socket.socket, function: Callable[[], None], events: int) -> None:
        """Call ``function`` when the host socket is ready for ``events``; later calls change the events (0: none)."""

    def forget_host(self, host: socket.socket) -> None:
        """The socket is about to be closed."""

    def watch_offloaded(self, offloaded: Socket, function: Callable[[], None]) -> None:
        """Call ``function`` in the next round after the offloaded socket has changed."""

    def call_soon(self, function: Callable[[], None]) -> None:
        """Call ``function`` once in the next round."""

    def ended(self, connection: Connection) -> None:
        """A connection is over."""


class Connection:
    """One offloaded connection and what it is joined to."""

    def __init__(self, board: Board, offloaded: Socket, record: Record) -> None:
        self.board, self.offloaded, self.record = board, offloaded, record
        self.over = False
        # One bound method for the upcall and the switchboard's bookkeeping.
        self.turn: Callable[[], None] = self._turn
        board.watch_offloaded(offloaded, self.turn)

    def _turn(self) -> None:
        if self.over:
            return
        try:
            self.move()
        except OSError as error:
            self.abort(error.strerror or str(error))

    def move(self) -> None:
        """Move what can be moved; OSError ends the connection with a reset."""
        raise NotImplementedError

    def finish(self) -> None:
        """Both directions have ended in order."""
        self.record.ending = self.record.ending or "closed"
        self._close()

    def abort(self, why: str) -> None:
        """End with a reset."""
        if self.over:
            return
        self.record.ending = why
        with contextlib.suppress(OSError):
            self.offloaded.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._close()

    def _close(self) -> None:
        self.over = True
        with contextlib.suppress(OSError):
            self.offloaded.close()
        self.board.ended(self)


class Half:
    """One direction: bytes taken from one side and not yet taken by the other."""

    def __init__(self, receive: Callable[[int], bytes], send: Callable[[Any], int], end: Callable[[], None]) -> None:
        self._receive, self._send, self._end = receive, send, end
        self.waiting = memoryview(b"")
        self.ended = False
        self.done = False
        self.moved = 0

    def move(self, limit: int) -> int:
        """Move at most about ``limit`` bytes; returns how many."""
        before = self.moved
        while not self.done and self.moved - before < limit:
            if not self.waiting and not self.ended:
                try:
                    data = self._receive(CHUNK)
                except BlockingIOError:
                    break
                self.waiting = memoryview(data)
                self.ended = not data
            if self.waiting:
                try:
                    taken = self._send(self.waiting)
                except BlockingIOError:
                    break
                self.waiting = self.waiting[taken:]
                self.moved += taken
            elif self.ended:
                self._end()
                self.done = True
        return self.moved - before


def _bytes_only(host: socket.socket, offloaded: Socket) -> None:
    """Both ends of a relay: every byte at once, urgent ones in line."""
    host.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for end in (host, offloaded):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)


class Relay(Connection):
    """An offloaded connection and one of the host's, joined."""

    def __init__(self, board: Board, offloaded: Socket, record: Record, host: socket.socket, connecting: bool) -> None:
        super().__init__(board, offloaded, record)
        self.host = host
        self._host_connecting = connecting
        self._offload_connecting = False
        self._interest = -1
        self.outward = Half(offloaded.recv, host.send, lambda: host.shutdown(socket.SHUT_WR))
        self.inward = Half(host.recv, offloaded.send, lambda: offloaded.shutdown(socket.SHUT_WR))
        self._watch()

    @classmethod
    def to_host(cls, board: Board, offloaded: Socket, record: Record, target: tuple[str, int]) -> Relay:
        """Join an accepted offloaded connection to a server of the host."""
        host = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        host.setblocking(False)
        _bytes_only(host, offloaded)
        error = host.connect_ex(target)
        relay = cls(board, offloaded, record, host, connecting=error == errno.EINPROGRESS)
        if error not in (0, errno.EINPROGRESS):
            relay.abort(os.strerror(error))
        return relay

    @classmethod
    def from_host(cls, board: Board, host: socket.socket, record: Record, target: tuple[str, int]) -> Relay:
        """Join an accepted connection of the host to an offloaded active open."""
        offloaded = Socket(board.stack)
        offloaded.setblocking(False)
        _bytes_only(host, offloaded)
        relay = cls(board, offloaded, record, host, connecting=False)
        error = offloaded.connect_ex(target)
        relay._offload_connecting = True
        if error not in (0, errno.EINPROGRESS):
            relay.abort(os.strerror(error))
        return relay

    def _connected(self) -> bool:
        """Whether both sides are established; OSError if one failed."""
        if self._host_connecting:
            error = self.host.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, f"target: {os.strerror(error)}")
            try:
                self.host.getpeername()
            except OSError:
                return False
            self._host_connecting = False
        if self._offload_connecting:
            if not self.offloaded.writable():
                return False
            error = self.offloaded.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                raise OSError(error, os.strerror(error))
            self._offload_connecting = False
        return True

    def move(self) -> None:
        """See :class:`Connection`."""
        if not self._connected():
            self._watch()
            return
        moved = self.outward.move(TURN)
        more = moved >= TURN
        moved = self.inward.move(TURN)
        more |= moved >= TURN
        self.record.received, self.record.sent = self.outward.moved, self.inward.moved
        if self.outward.done and self.inward.done:
            self.finish()
            return
        self._watch()
        if more:
            self.board.call_soon(self.turn)

    def _watch(self) -> None:
        events = 0
        if self._host_connecting or self.outward.waiting:
            events |= select.EPOLLOUT
        if not self._host_connecting and not self.inward.waiting and not self.inward.ended:
            events |= select.EPOLLIN
        if events != self._interest:
            self._interest = events
            self.board.watch_host(self.host, self.turn, events)

    def abort(self, why: str) -> None:
        """See :class:`Connection`."""
        with contextlib.suppress(OSError):
            self.host.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        super().abort(why)

    def _close(self) -> None:
        self.board.forget_host(self.host)
        self.host.close()
        super()._close()


class BuiltIn(Connection):
    """An offloaded connection to a service of this process."""

    def __init__(self, board: Board, offloaded: Socket, record: Record, service: str) -> None:
        super().__init__(board, offloaded, record)
        take: Callable[[Any], int] = offloaded.send if service == "echo" else lambda data: len(data)
        self._half = Half(offloaded.recv, take, self._end_of_input)
        self._generate = service == "chargen"
        self._at = 0

    def _end_of_input(self) -> None:
        if not self._generate:
            self.offloaded.shutdown(socket.SHUT_WR)

    def move(self) -> None:
        """See :class:`Connection`."""
        moved = self._half.move(TURN)
        self.record.received = self._half.moved
        if self._generate:
            # The pattern has no end: it stops when the peer closes.
            moved += self._fill()
        else:
            self.record.sent = self._half.moved if self.record.target == "echo" else 0
        if self._half.done:
            self.finish()
        elif moved >= TURN:
            self.board.call_soon(self.turn)

    def _fill(self) -> int:
        begin = self.record.sent
        with contextlib.suppress(BlockingIOError):
            while self.record.sent - begin < TURN:
                taken = self.offloaded.send(memoryview(CHARGEN)[self._at : self._at + CHUNK])
                self.record.sent += taken
                self._at = (self._at + taken) % len(CHARGEN)
        return self.record.sent - begin
