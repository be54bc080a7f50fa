"""One TCP socket of a program: the pair, the socket of the driver behind it, and its life (the calls: calls.py)."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from collections.abc import Callable
from enum import Enum, auto
from typing import Protocol

from tiptoe_driver import Socket, Stack

from ..live.records import Record
from ..live.relay import RESET
from ..live.switchboard import Switchboard
from .flow import Ending, Flow, consume
from .held import Held
from .listener import Listener, Member
from .options import Options
from .protocol import Name, Reply, pack_accepted

ANY: dict[int, str] = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}
_PAIR_BYTES = 212992
# A pair's end is writable when no more than a quarter of its buffer is taken (the kernel doubles the number). The byte that
# always stays (see flow.py) holds the memory of all that came with it: 50 KB of a send, 70 KB of a sendfile.
_KEEPING_BYTES = 4 * 81920
_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET

ERRNO = {errno.EHOSTDOWN: errno.EHOSTUNREACH, errno.EPERM: errno.ENOBUFS}
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


class Keeper(Protocol):
    """What a socket needs of the broker that keeps it."""

    stack: Stack
    board: Switchboard

    def next_serial(self) -> int:
        """A number no socket had."""

    def name_of(self, serial: int) -> str:
        """Name of the broker's end of a pair, by which the interposer knows the program's."""

    def watch(self, end: socket.socket, function: Callable[[int], None], events: int) -> None:
        """Call ``function`` with the events that happen to an end of a pair."""

    def forget(self, end: socket.socket) -> None:
        """It is about to be closed."""

    def accepted(self, listener: Endpoint, offloaded: Socket, peer: Name) -> None:
        """A listening socket has a connection for the program."""

    def ended(self, serial: int) -> None:
        """A socket is over; it is remembered for the last questions."""

    def new_record(self, peer: Name, local_port: int) -> Record:
        """A line for the summary."""


class Endpoint:
    """A socket of the program.

    Attributes
    ----------
    serial : int
        Its name's number.
    live : bool
        The broker has an end of it still.
    """

    def __init__(self, broker: Keeper, options: Options) -> None:
        self.broker, self.options = broker, options
        self.serial = broker.next_serial()
        self.family = options.family
        self.state = State.FRESH
        self.offloaded: Socket | None = None
        self.flow: Flow | None = None
        self.record: Record | None = None
        self.listener: Listener | None = None
        self.near = False  # connected to a program of the same run
        self.local: Name = (ANY[self.family], 0)
        self.peer: Name | None = None
        self._error = 0
        self._waiting: list[Answer] = []
        self._told = False  # a connect() has returned the result of the attempt
        self._junk = 0
        self._keeps = True
        self._events = 0
        self.turn: Callable[[], None] = self._turn  # one bound method, for the switchboard's bookkeeping
        self.end: socket.socket | None = None
        self._theirs: Held | None = None

    def open(self, *, nonblocking: bool = False) -> socket.socket:
        """Make the pair; returns the program's end, which is to be passed on and closed."""
        theirs, self.end = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        self._theirs = Held(theirs)
        theirs.setblocking(not nonblocking)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PAIR_BYTES)
        # A system that grants less: resets look like an end of the stream there.
        self._keeps = theirs.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) >= _KEEPING_BYTES
        self.end.bind(self.broker.name_of(self.serial))
        self.end.setblocking(False)
        self.end.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)  # what is sent with MSG_OOB is not left out
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
        return self._theirs is not None and self.live and (not self._events & select.EPOLLHUP or self._theirs())

    def _happened(self, events: int) -> None:
        if events & select.EPOLLERR and self.end is not None:
            error = self.end.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            events = events if error else events & ~select.EPOLLERR
        self._events |= events & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR)
        if self._events & select.EPOLLHUP and self.state is not State.CONNECTED:
            self._turn()  # a port is free for the next call at once
        else:
            self.broker.board.call_soon(self.turn)

    # --- the driver's socket ---

    def _make_offloaded(self) -> Socket:
        self.offloaded = Socket(self.broker.stack, family=self.family)
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
        assert self.offloaded is not None and self.end is not None and self._theirs is not None
        if not self.offloaded.writable():
            return
        error = self.offloaded.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not error:
            try:
                self.peer = self.offloaded.getpeername()[:2]
            except OSError:
                error = errno.ECONNABORTED
        waiting, self._waiting = self._waiting, []
        if error:
            error = ERRNO.get(error, error)
            self._finish(Ending.FAILED, os.strerror(error))
        else:
            self.state = State.CONNECTED
            self.flow = Flow(self.end, self.offloaded, self._theirs, kept=int(self._keeps))
            consume(self.end, self._junk - self._keeps)  # now the program's end is writable
            self.broker.board.call_soon(self.turn)
        for answer in waiting:  # who was interrupted meanwhile has not been told
            self._told |= answer(Reply(error))
        self._error = 0 if self._told else error

    def accepted(self, offloaded: Socket, peer: Name) -> None:
        """The listening socket behind this one has a connection for the program."""
        self.broker.accepted(self, offloaded, peer)

    def hand_over(self, made: socket.socket, child: Member) -> bool:
        """Give a connection's socket to the program that accepts on this one; whether that went well."""
        assert self.end is not None and child.peer is not None
        record = pack_accepted(child.serial, child.family, child.peer)
        try:
            socket.send_fds(self.end, [record], [made.fileno()])
        except OSError:
            return False
        return True

    def become(self, offloaded: Socket, peer: Name, parent: Endpoint) -> None:
        """Be a connection accepted on ``parent``, and handed over."""
        offloaded.setblocking(False)
        self.offloaded, self.peer = offloaded, peer
        self.local = offloaded.getsockname()[:2]
        self.options.apply(offloaded)
        self.state, self._told = State.CONNECTED, True
        self.record = self.broker.new_record(peer, self.local[1])
        with self.open() as theirs:
            assert self.end is not None and self._theirs is not None
            if self._keeps:
                theirs.send(b"\0")  # the byte that stays
            self.flow = Flow(self.end, offloaded, self._theirs, kept=int(self._keeps))
            if not parent.hand_over(theirs, self):
                self._finish(Ending.ABORTED)
                return
        self.broker.board.watch_offloaded(offloaded, self.turn)
        self.broker.board.call_soon(self.turn)

    def become_near(self, local: Name, peer: Name, *, told: bool) -> None:
        """Be one end of a connection between two programs of this run, whose data the broker never sees."""
        self.state, self.near, self._told = State.CONNECTED, True, told
        self.local, self.peer = local, peer

    def _relay(self) -> None:
        assert self.flow is not None and self.end is not None
        ending: Ending | None
        try:
            if self.options.resets_on_close and not self.held:
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
                    self.offloaded.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                self.offloaded.close()
        self.state = State.DEAD
        if self.record is not None:
            self.record.ending = text or ending.value
            self.record.closed_us = self.broker.stack.now_us()
        if self.end is not None:
            self.broker.forget(self.end)
            self.end.close()
            self.end = None
        self.broker.ended(self.serial)

    def abort(self, text: str) -> None:
        """End with the run."""
        if self.end is not None:
            self._finish(Ending.ABORTED, text)
