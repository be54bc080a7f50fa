"""One TCP socket of a program: its end of a pair, what the program did to it, its socket of the driver."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from collections.abc import Callable
from enum import Enum, auto
from typing import TYPE_CHECKING

from tiptoe_driver import Socket
from tiptoe_driver.routes import format_ipv4, parse_ipv4

from ..live.relay import Record
from .flow import Ending, Flow, consume
from .listener import Listener
from .options import Options
from .protocol import Action, Kind, Reply, Request, pack_accepted, pack_options

if TYPE_CHECKING:
    from .broker import Broker

_PAIR_BYTES = 212992
# A pair's end is writable when no more than a quarter of its buffer is taken (the kernel doubles the number). The byte that
# always stays (see flow.py) holds the memory of all that came with it: 50 KB of a send, 70 KB of a sendfile.
_KEEPING_BYTES = 4 * 81920
_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET

_ERRNO = {errno.EHOSTDOWN: errno.EHOSTUNREACH, errno.EPERM: errno.ENOBUFS}
"""What Linux calls it: no answer to ARP; no connection id left."""


class State(Enum):
    """Where a socket is in its life."""

    FRESH = auto()
    LISTENING = auto()
    CONNECTING = auto()
    CONNECTED = auto()
    DEAD = auto()


Answer = Callable[[Reply], bool]
"""Sends a reply; whether somebody still waited for it."""


class Endpoint:
    """A socket of the program.

    Attributes
    ----------
    serial : int
        Its name's number.
    live : bool
        The broker has an end of it still.
    """

    def __init__(self, broker: Broker, options: Options) -> None:
        self.broker, self.options = broker, options
        self.serial = broker.next_serial()
        self.family = options.family
        self.state = State.FRESH
        self.offloaded: Socket | None = None
        self.flow: Flow | None = None
        self.record: Record | None = None
        self.listener: Listener | None = None
        self.near = False  # connected to a program of the same run
        self.local: tuple[str, int] = ("0.0.0.0", 0)
        self.peer: tuple[str, int] | None = None
        self._error = 0
        self._waiting: list[Answer] = []
        self._told = False  # a connect() has returned the result of the attempt
        self._junk = 0
        self._keeps = True
        self._events = 0
        self.turn: Callable[[], None] = self._turn  # one bound method, for the switchboard's bookkeeping
        self.end: socket.socket | None = None

    def open(self, *, nonblocking: bool = False) -> socket.socket:
        """Make the pair; returns the program's end, which is to be passed on and closed."""
        theirs, self.end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        theirs.setblocking(not nonblocking)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PAIR_BYTES)
        # A system that grants less: resets look like an end of the stream there.
        self._keeps = theirs.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) >= _KEEPING_BYTES
        self.end.bind(self.broker.name_of(self.serial))
        self.end.setblocking(False)
        self.broker.watch(self.end, self._happened, _EVENTS)
        return theirs

    @property
    def live(self) -> bool:
        """Whether the broker still has its end."""
        return self.end is not None

    @property
    def listening(self) -> bool:
        """Whether accept makes sense."""
        return self.state is State.LISTENING

    @property
    def held(self) -> bool:
        """Whether a process still has the program's end."""
        return self.end is not None and not self._events & select.EPOLLHUP

    def _happened(self, events: int) -> None:
        if events & select.EPOLLERR and self.end is not None:
            error = self.end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            events = events if error else events & ~select.EPOLLERR
        self._events |= events & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR)
        if self._events & select.EPOLLHUP and self.state is not State.CONNECTED:
            self._turn()  # a port is free for the next call at once
        else:
            self.broker.board.call_soon(self.turn)

    # --- calls of the program ---

    def bind(self, request: Request) -> Reply:
        """bind()."""
        if self.state is not State.FRESH or self.listener is not None:
            return Reply(errno.EINVAL)
        address = self._local_address(request)
        if address is None or not self.broker.is_ours(address):
            return self._fall_back()
        local = (format_ipv4(address) if address else "", request.port)
        self.listener = self.broker.shared_listener(self, local)
        if self.listener is not None:
            self.offloaded = self.listener.offloaded
        else:
            offloaded = self._make_offloaded()
            try:
                offloaded.bind(local)
            except OSError:
                self._drop_offloaded()
                raise
            self.listener = Listener(offloaded, self)
        self.local = self.listener.local
        return Reply()

    def _local_address(self, request: Request) -> int | None:
        """The IPv4 address to bind to; None: it is none of IPv4."""
        if request.kind == Kind.V4:
            if self.family != socket.AF_INET:
                raise OSError(errno.EINVAL, "")
            return request.ip
        if self.family == socket.AF_INET:
            raise OSError(errno.EAFNOSUPPORT, "")
        if request.kind == Kind.V6_OTHER or self.options.v6only:
            return None
        return 0 if request.kind == Kind.V6_ANY else request.ip

    def listen(self, backlog: int) -> Reply:
        """listen()."""
        if self.state not in (State.FRESH, State.LISTENING):
            return Reply(errno.EINVAL)
        if self.listener is None:
            offloaded = self._make_offloaded()
            offloaded.bind(("", 0))
            self.listener = Listener(offloaded, self)
            self.local = self.listener.local
        assert self.end is not None
        listener = self.listener
        listener.backlog = min(max(backlog, 1) if backlog >= 0 else 4096, 4096)
        refused = self.broker.listeners_refused()
        listener.offloaded.listen(listener.backlog)
        if self.state is State.FRESH:
            if self.broker.listeners_refused() != refused:
                return Reply(errno.ENOBUFS)  # the engine's listen table is full
            self.state = State.LISTENING
            self.end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # room for few records
            self.broker.board.watch_offloaded(listener.offloaded, listener.turn)
            self.broker.settle()  # a SYN that overtook the command would be refused
            self.broker.board.call_soon(listener.turn)
        return Reply()

    def connect(self, request: Request, descriptor: int, answer: Answer) -> None:
        """connect(); ``descriptor`` is the program's end, ``request.a`` whether the program waits."""
        reply = self._connect(request, descriptor)
        if reply is None:
            if request.a:
                self._waiting.append(answer)
                return
            reply = Reply(errno.EINPROGRESS)
        answer(reply)

    def _connect(self, request: Request, descriptor: int) -> Reply | None:
        """The result; None: in progress."""
        if self.state is State.CONNECTING:
            return None if request.a else Reply(errno.EALREADY)
        if self.state is State.CONNECTED and not self._told:
            self._told = True
            return Reply()
        if self.state in (State.CONNECTED, State.LISTENING):
            return Reply(errno.EISCONN)
        if self.state is State.DEAD:
            if self.flow is not None or self.near:
                return Reply(errno.EISCONN)
            if self._told:
                return Reply(action=Action.REPLACE)
            self._told = True  # as Linux tells the end of an attempt that SO_ERROR was asked about before
            return Reply(self.take_error() or errno.ECONNABORTED)
        if request.kind == Kind.V4 and self.family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "")
        if request.kind != Kind.V4 and self.family == socket.AF_INET:
            raise OSError(errno.EAFNOSUPPORT, "")
        near = self.broker.near_listener(request.ip, request.port) if request.kind != Kind.V6_OTHER else None
        if near is not None:
            return Reply(action=Action.NEAR)
        if request.kind in (Kind.V6_ANY, Kind.V6_OTHER) or not self.broker.reaches(request.ip):
            return self._fall_back()
        if self.broker.is_ours(request.ip):
            return Reply(errno.ECONNREFUSED)
        offloaded = self.offloaded or self._make_offloaded()
        peer = (format_ipv4(request.ip), request.port)
        error = offloaded.connect_ex(peer)
        if error not in (0, errno.EINPROGRESS):
            if self.listener is None:
                self._drop_offloaded()
            return Reply(_ERRNO.get(error, error))
        self.peer, self.local = peer, offloaded.getsockname()
        self.listener = None
        self.record = self.broker.new_record(peer, self.local[1])
        self.state = State.CONNECTING
        self._junk = fill(descriptor)
        self.broker.board.watch_offloaded(offloaded, self.turn)
        self.broker.board.call_soon(self.turn)
        return None

    def getsockname(self) -> Reply:
        """getsockname()."""
        return Reply(family=self.family, ip=parse_ipv4(self.local[0]), port=self.local[1])

    def getpeername(self) -> Reply:
        """getpeername()."""
        if self.state is not State.CONNECTED or self.peer is None:
            return Reply(errno.ENOTCONN)
        return Reply(family=self.family, ip=parse_ipv4(self.peer[0]), port=self.peer[1])

    def getsockopt(self, level: int, name: int) -> Reply:
        """getsockopt()."""
        if (level, name) == (socket.SOL_SOCKET, socket.SO_ERROR):
            if self.near:
                return Reply(errno.ENOTCONN)  # what the kernel says is right
            return Reply(data=self.take_error().to_bytes(4, "little"))
        moved = (self.flow.sent, self.flow.received) if self.flow is not None else (0, 0)
        listening = self.state is State.LISTENING
        return Reply(data=self.options.get(self.offloaded, level, name, listening, moved))

    def setsockopt(self, level: int, name: int, value: bytes) -> Reply:
        """setsockopt()."""
        self.options.set(self.offloaded, level, name, value)
        return Reply()

    def take_error(self) -> int:
        """SO_ERROR."""
        error, self._error = self._error, 0
        return error

    def _fall_back(self) -> Reply:
        ip, port = self.local
        return Reply(
            action=Action.FALL_BACK, family=self.family, ip=parse_ipv4(ip), port=port,
            data=pack_options(self.options.as_set()),
        )  # fmt: skip

    # --- the driver's socket ---

    def _make_offloaded(self) -> Socket:
        self.offloaded = Socket(self.broker.stack)
        self.offloaded.setblocking(False)
        self.options.apply(self.offloaded)
        return self.offloaded

    def _drop_offloaded(self) -> None:
        if self.offloaded is not None:
            with contextlib.suppress(OSError):
                self.offloaded.close()
            self.offloaded = None

    # --- turns ---

    def _turn(self) -> None:
        if self.end is None:
            return
        if self.state is State.CONNECTED:
            self._relay()
        elif self._events & (select.EPOLLHUP | select.EPOLLERR):
            self._finish(Ending.CLOSED)  # closed by the program
        elif self.state is State.LISTENING:
            assert self.listener is not None
            self.listener.turn()
        elif self.state is State.CONNECTING:
            self._look_at_attempt()

    def _look_at_attempt(self) -> None:
        """Whether the active open is decided."""
        assert self.offloaded is not None and self.end is not None
        if not self.offloaded.writable():
            return
        error = self.offloaded.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not error:
            try:
                self.peer = self.offloaded.getpeername()
            except OSError:
                error = errno.ECONNABORTED
        waiting, self._waiting = self._waiting, []
        if error:
            error = _ERRNO.get(error, error)
            self._finish(Ending.FAILED, os.strerror(error))
        else:
            self.state = State.CONNECTED
            self.flow = Flow(self.end, self.offloaded, kept=int(self._keeps))
            consume(self.end, self._junk - self._keeps)  # now the program's end is writable
            self.broker.board.call_soon(self.turn)
        for answer in waiting:  # who was interrupted meanwhile has not been told
            self._told |= answer(Reply(error))
        self._error = 0 if self._told else error

    def hand_over(self, made: socket.socket, child: Endpoint) -> bool:
        """Give a connection's socket to the program that accepts on this one; whether that went well."""
        assert self.end is not None and child.peer is not None
        record = pack_accepted(child.serial, child.family, parse_ipv4(child.peer[0]), child.peer[1])
        try:
            socket.send_fds(self.end, [record], [made.fileno()])
        except OSError:
            return False
        return True

    def become(self, offloaded: Socket, peer: tuple[str, int], parent: Endpoint) -> None:
        """Be a connection accepted on ``parent``, and handed over."""
        offloaded.setblocking(False)
        self.offloaded, self.peer = offloaded, peer
        self.local = offloaded.getsockname()
        self.options.apply(offloaded)
        self.state, self._told = State.CONNECTED, True
        self.record = self.broker.new_record(peer, self.local[1])
        with self.open() as theirs:
            assert self.end is not None
            if self._keeps:
                theirs.send(b"\0")  # the byte that stays
            self.flow = Flow(self.end, offloaded, kept=int(self._keeps))
            if not parent.hand_over(theirs, self):
                self._finish(Ending.ABORTED)
                return
        self.broker.board.watch_offloaded(offloaded, self.turn)
        self.broker.board.call_soon(self.turn)

    def become_near(self, local: tuple[str, int], peer: tuple[str, int], *, told: bool) -> None:
        """Be one end of a connection between two programs of this run, whose data the broker never sees."""
        self.state, self.near, self._told = State.CONNECTED, True, told
        self.local, self.peer = local, peer

    def _relay(self) -> None:
        assert self.flow is not None and self.end is not None
        ending: Ending | None
        try:
            if self._events & select.EPOLLHUP and self.options.resets_on_close:
                ending, more = Ending.ABORTED, False  # no FIN, and what was not sent yet is not sent
            else:
                ending, more = self.flow.turn(self._events)
        except OSError as error:
            self.flow.error = error.errno or errno.EIO
            ending, more = Ending.FAILED, False
        if self.record is not None:
            self.record.sent, self.record.received = self.flow.sent, self.flow.received
        if ending is Ending.FAILED:
            self._error = self.flow.error
            self._finish(ending, os.strerror(self.flow.error))
        elif ending is not None:
            self._finish(ending)
        elif more:
            self.broker.board.call_soon(self.turn)

    def _finish(self, ending: Ending, text: str = "") -> None:
        """Part with the program's end, and close the driver's socket."""
        if self.listener is not None:
            self.listener.leave(self)
            self.listener = self.offloaded = None
        elif self.offloaded is not None:
            with contextlib.suppress(OSError, ValueError):
                if ending is Ending.ABORTED and self.state is State.CONNECTED:
                    self.offloaded.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                self.offloaded.close()
        self.state = State.DEAD
        if self.record is not None:
            self.record.ending = text or ending.value
            self.record.closed_us = self.broker.stack.now_us()
        if self.end is not None:
            self.broker.forget(self.end)
            self.end.close()
            self.end = None
        self.broker.ended(self)

    def abort(self, text: str) -> None:
        """End with the run."""
        if self.end is not None:
            self._finish(Ending.ABORTED, text)


def fill(descriptor: int) -> int:
    """Make the program's end unwritable, as a TCP socket is until it is connected; how many bytes that took."""
    count = 0
    with socket.socket(fileno=os.dup(descriptor)) as theirs, contextlib.suppress(BlockingIOError):
        while True:
            count += theirs.send(bytes(1 << 16), socket.MSG_DONTWAIT)
    return count

