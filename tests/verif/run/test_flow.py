"""Ends of a program's connection: what the socket pair says of them is not always what the program has done."""

import errno
import select
import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from tiptoe_verif.run.flow import Ending, Flow

HALF, BOTH = select.EPOLLRDHUP, select.EPOLLRDHUP | select.EPOLLHUP


class Offloaded:
    """A connection whose peer sends ``data`` and its FIN at once, and which may be full."""

    def __init__(self, data: bytes) -> None:
        self.incoming = [data, b""]
        self.so = SimpleNamespace(so_rcv=SimpleNamespace(sb_cc=0))
        self.sent = b""
        self.full = self.shut = False

    def setsockopt(self, *_: int) -> None:
        pass

    def recv(self, _: int) -> bytes:
        if not self.incoming:
            return b""
        return self.incoming.pop(0)

    def send(self, data: memoryview) -> int:
        if self.full:
            raise BlockingIOError
        self.sent += data
        return len(data)

    def shutdown(self, _: int) -> None:
        self.shut = True


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    theirs.settimeout(5)
    theirs.send(b"\0")  # the byte that stays
    with ours, theirs:
        yield ours, theirs


def events(ours: socket.socket) -> int:
    """What the system says of our end now."""
    poll = select.poll()
    poll.register(ours, select.POLLRDHUP)
    return sum(event for _, event in poll.poll(0))


def read_all(theirs: socket.socket) -> bytes:
    return b"".join(iter(lambda: theirs.recv(4096), b""))


def test_shutdown_behind_the_peers_fin(pair):
    """Both ways are shut, which looks like a close: the program reads on, and all is there, its end too."""
    ours, theirs = pair
    offloaded = Offloaded(b"answer")
    flow = Flow(ours, offloaded)
    assert flow.turn(events(ours)) == (None, False)
    theirs.sendall(b"request")
    theirs.shutdown(socket.SHUT_WR)
    assert events(ours) & BOTH == BOTH
    assert flow.turn(events(ours)) == (Ending.CLOSED, False)
    ours.close()
    assert read_all(theirs) == b"answer"
    assert offloaded.sent == b"request" and offloaded.shut


def test_shutdown_behind_the_peers_fin_while_the_ring_is_full(pair):
    """What the program has sent before waits, and is not given up for it."""
    ours, theirs = pair
    offloaded = Offloaded(b"answer")
    offloaded.full = True
    flow = Flow(ours, offloaded)
    theirs.sendall(b"request")
    flow.turn(events(ours))
    theirs.shutdown(socket.SHUT_WR)
    assert flow.turn(events(ours)) == (None, False)
    offloaded.full = False
    assert flow.turn(events(ours)) == (Ending.CLOSED, False)
    ours.close()
    assert read_all(theirs) == b"answer"
    assert offloaded.sent == b"request"


def test_shutdown_before_the_peers_fin(pair):
    ours, theirs = pair
    flow = Flow(ours, Offloaded(b"answer"))
    theirs.shutdown(socket.SHUT_WR)
    assert events(ours) & BOTH == HALF
    assert flow.turn(events(ours)) == (Ending.CLOSED, False)
    ours.close()
    assert read_all(theirs) == b"answer"


def test_close_behind_the_peers_fin(pair):
    """An orderly end too: all that was given has been read."""
    ours, theirs = pair
    offloaded = Offloaded(b"answer")
    flow = Flow(ours, offloaded)
    flow.turn(events(ours))
    assert read_all(theirs) == b"answer"
    theirs.sendall(b"thanks")
    theirs.close()
    assert flow.turn(events(ours)) == (Ending.CLOSED, False)
    assert offloaded.sent == b"thanks" and offloaded.shut


def test_close_with_data_unread(pair):
    """As TCP: a reset (RFC 2525, 2.17)."""
    ours, theirs = pair
    flow = Flow(ours, Offloaded(b"answer"))
    flow.turn(events(ours))
    theirs.close()
    assert events(ours) & select.EPOLLERR
    assert flow.turn(events(ours)) == (Ending.ABORTED, False)


def test_reset_by_the_peer(pair):
    """The byte that stays tells the program."""
    ours, theirs = pair
    offloaded = Offloaded(b"")
    flow = Flow(ours, offloaded)

    def reset(_: int) -> bytes:
        raise ConnectionResetError(errno.ECONNRESET, "")

    flow._inward._receive = reset
    assert flow.turn(events(ours)) == (Ending.FAILED, False)
    ours.close()
    with pytest.raises(ConnectionResetError):
        theirs.recv(10)
