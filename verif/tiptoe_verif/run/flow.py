"""Bytes between a program's end of a socket pair and an offloaded connection, with TCP's ends and errors.

The last byte taken from the program stays in the queue, looked at but not consumed. A UNIX stream whose other end closes
gives ECONNRESET only when something was left unread, and this byte is what is left when a reset has to be told; in an
orderly end it is consumed first. It comes from the connection's beginning (see endpoint.py), so there is always one
(unless socket buffers are too small here for what it holds: `kept` is 0 then).

EPOLLHUP does not say that the program has closed its end: with both directions shut it is the same, and the program may go
on with the socket (see held.py). What arrives behind its shutdown(SHUT_RDWR) is acknowledged and thrown away, as behind
SHUT_RD, and what it has sent before is not given up.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
from collections.abc import Callable
from enum import Enum

from tiptoe_driver import Socket
from tiptoe_driver.sockopt import os_error

from ..live.relay import CHUNK, TURN, Half


class Ending(Enum):
    """How a flow ended."""

    CLOSED = "closed"
    ABORTED = "reset by the program"
    FAILED = "failed"


class Flow:
    """One established connection.

    Parameters
    ----------
    end : socket.socket
        The broker's end of the pair.
    held : callable
        Whether a process still has the program's end, asked when it looks closed.
    kept : int
        Bytes to be ignored in its queue, 0 or 1.

    Attributes
    ----------
    sent, received : int
        Bytes the program has sent and was given.
    error : int
        Errno of a connection that FAILED.
    """

    def __init__(self, end: socket.socket, offloaded: Socket, held: Callable[[], bool], *, kept: int = 1) -> None:
        self._end, self._offloaded, self._held, self._kept = end, offloaded, held, kept
        offloaded.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)  # a pair has no mark: no byte is left out
        self._inward = Half(offloaded.recv, self._give, self._end_of_stream)
        self._outward_done = False
        self._discarding = False
        self.sent = 0
        self.error = 0

    @property
    def received(self) -> int:
        """Bytes the program was given."""
        return self._inward.moved

    def turn(self, events: int) -> tuple[Ending | None, bool]:
        """Move what can be moved; ``events`` has happened on the program's end so far (EPOLLRDHUP: it sends no more,
        EPOLLHUP: it is closed, or both ways are shut; EPOLLERR: closed with data unread). How it ended, if so, and
        whether there is more to do.
        """
        if events & select.EPOLLERR:
            return Ending.ABORTED, False  # as TCP resets when a socket is closed with data unread
        shut = bool(events & select.EPOLLHUP)
        closed = shut and not self._held()
        self._discarding |= shut and not closed
        more = self._move_inward(closed)
        if self._inward.done and not self.error:  # who receives no more is not told of a reset
            self.error = self._offloaded.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if self.error == errno.EPIPE and closed:
            return Ending.ABORTED, False  # data has arrived for a closed socket
        more |= self._move_outward(bool(events & select.EPOLLRDHUP))
        if self.error:
            if self._inward.waiting and not closed:
                return None, more  # what came before the error is given first
            if self._inward.done:
                discard(self._end)  # the stream has ended in order: as on Linux the error is for who writes (EPIPE)
            return Ending.FAILED, False
        if self._outward_done and (self._inward.done or closed):
            unread = self._inward.waiting or (closed and self._unread())
            if not unread:
                self._end.recv(self._kept)  # an orderly end leaves nothing behind
            return (Ending.ABORTED if unread else Ending.CLOSED), False
        return None, more

    def _unread(self) -> bool:
        so = self._offloaded.so
        return so is not None and so.so_rcv.sb_cc > 0

    # --- from the network to the program ---

    def _give(self, data: memoryview) -> int:
        return len(data) if self._discarding else self._end.send(data)

    def _end_of_stream(self) -> None:
        if not self._discarding:
            self._end.shutdown(socket.SHUT_WR)

    def _move_inward(self, closed: bool) -> bool:
        try:
            return self._inward.move(TURN) >= TURN
        except BrokenPipeError:
            if not closed and self._still_open():
                self._discarding = True  # shutdown(SHUT_RD): TCP goes on acknowledging
                return True
            self.error = errno.EPIPE
        except OSError as error:
            self.error = self.error or error.errno or errno.EIO
        return False

    def _still_open(self) -> bool:
        poll = select.poll()
        poll.register(self._end, 0)
        return not any(events & select.POLLHUP for _, events in poll.poll(0)) or self._held()

    # --- from the program to the network ---

    def _move_outward(self, ends: bool) -> bool:
        begin = self.sent
        while not self._outward_done and not self.error:
            if self.sent - begin >= TURN:
                return True
            try:
                data = memoryview(self._end.recv(CHUNK + 1, socket.MSG_PEEK))[self._kept :]
                if data:
                    taken = self._offloaded.send(data)
                    consume(self._end, taken)
                    self.sent += taken
                elif ends:
                    self._offloaded.shutdown(socket.SHUT_WR)
                    self._outward_done = True
                else:
                    break
            except BlockingIOError:
                break
            except OSError as error:
                self.error = error.errno or errno.EIO
        return False


def discard(end: socket.socket) -> None:
    """Throw away everything in the queue."""
    with contextlib.suppress(BlockingIOError):
        while end.recv(CHUNK):
            pass


def consume(end: socket.socket, count: int) -> None:
    """Take bytes that are known to be in the queue; OSError (ECONNRESET) should they not be, rather than ask for ever."""
    while count > 0:
        taken = len(end.recv(min(count, CHUNK)))
        if not taken:
            raise os_error(errno.ECONNRESET)
        count -= taken
