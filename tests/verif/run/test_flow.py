"""Ends of a program's connection: what the socket pair says of them is not always what the program has done."""

import errno
import select
import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from tiptoe_verif.run.flow import Ending, Flow
from tiptoe_verif.run.held import Held

HALF, BOTH = select.EPOLLRDHUP, select.EPOLLRDHUP | select.EPOLLHUP


class Offloaded:
    """A connection whose peer sends ``data`` and its FIN at once, unless it is told to wait, and which may be full."""

    def __init__(self, *data: bytes, ended: bool = True) -> None:
        self.incoming = [*data, b""] if ended else [*data]
        self.ended, self.reset = ended, 0
        self.so = SimpleNamespace(so_rcv=SimpleNamespace(sb_cc=0))
        self.sent = b""
        self.full = self.shut = False

    def end(self) -> None:
        """The peer's FIN."""
        self.incoming.append(b"")
        self.ended = True

    def setsockopt(self, *_: int) -> None:
        pass

    def getsockopt(self, *_: int) -> int:
        error, self.reset = self.reset, 0
        return error

    def _fail(self) -> None:
        if error := self.getsockopt():
            raise ConnectionResetError(error, "")

    def recv(self, _: int) -> bytes:
        if self.incoming:
            return self.incoming.pop(0)
        self._fail()
        if not self.ended:
            raise BlockingIOError
        return b""

    def send(self, data: memoryview) -> int:
        self._fail()
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
    flow = Flow(ours, offloaded, Held(theirs))
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
    flow = Flow(ours, offloaded, Held(theirs))
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
    flow = Flow(ours, Offloaded(b"answer"), Held(theirs))
    theirs.shutdown(socket.SHUT_WR)
    assert events(ours) & BOTH == HALF
    assert flow.turn(events(ours)) == (Ending.CLOSED, False)
    ours.close()
    assert read_all(theirs) == b"answer"


def test_close_behind_the_peers_fin(pair):
    """An orderly end too: all that was given has been read."""
    ours, theirs = pair
    offloaded = Offloaded(b"answer")
    flow = Flow(ours, offloaded, Held(theirs))
    flow.turn(events(ours))
    assert read_all(theirs) == b"answer"
    theirs.sendall(b"thanks")
    theirs.close()
    assert flow.turn(events(ours)) == (Ending.CLOSED, False)
    assert offloaded.sent == b"thanks" and offloaded.shut


def test_close_with_data_unread(pair):
    """As TCP: a reset (RFC 2525, 2.17)."""
    ours, theirs = pair
    flow = Flow(ours, Offloaded(b"answer"), Held(theirs))
    flow.turn(events(ours))
    theirs.close()
    assert events(ours) & select.EPOLLERR
    assert flow.turn(events(ours)) == (Ending.ABORTED, False)


def test_reset_by_the_peer(pair):
    """The byte that stays tells the program."""
    ours, theirs = pair
    offloaded = Offloaded(b"")
    flow = Flow(ours, offloaded, Held(theirs))

    def reset(_: int) -> bytes:
        raise ConnectionResetError(errno.ECONNRESET, "")

    flow._inward._receive = reset
    assert flow.turn(events(ours)) == (Ending.FAILED, False)
    ours.close()
    with pytest.raises(ConnectionResetError):
        theirs.recv(10)


def observed(theirs: socket.socket) -> str:
    """What the program reads; then "." for the end of the stream, "!" for a reset, "?" when it would wait."""
    theirs.setblocking(False)
    read = ""
    try:
        while data := theirs.recv(4096):
            read += data.decode()
    except (BlockingIOError, ConnectionResetError) as error:
        return read + ("?" if isinstance(error, BlockingIOError) else "!")
    return read + "."


CLOSED, ABORTED, FAILED, OPEN = Ending.CLOSED, Ending.ABORTED, Ending.FAILED, None


@pytest.mark.parametrize(
    ("steps", "ending", "sent", "read"),
    [
        # who ends first
        ("write / WR / fin", CLOSED, b"w", "."),
        ("fin / write / WR", CLOSED, b"w", "."),
        ("write / close", CLOSED, b"w", None),
        ("fin / write / close", CLOSED, b"w", None),
        ("write / WR / data / fin", CLOSED, b"w", "d."),
        ("data / fin / write / RDWR", CLOSED, b"w", "d."),
        # both ways shut, and the socket held on
        ("write / RDWR", OPEN, b"w", "."),
        ("write / RDWR / data", OPEN, b"w", "."),
        ("write / RDWR / data / fin", CLOSED, b"w", "."),
        ("data / write / RDWR / fin", CLOSED, b"w", "d."),
        ("write / RDWR / data / close", CLOSED, b"w", None),
        ("write / WR / RD / data / fin", CLOSED, b"w", "."),
        ("RD / data / write / WR / data / fin", CLOSED, b"w", "."),
        ("RDWR / full / close", CLOSED, b"", None),
        # a ring that is full is waited for
        ("full / write / RDWR / data", OPEN, b"", "."),
        ("full / write / RDWR / data / room / fin", CLOSED, b"w", "."),
        ("full / write / close", OPEN, b"", None),
        ("full / write / close / room", CLOSED, b"w", None),
        ("fin / full / write / WR / close / room", CLOSED, b"w", None),
        # data for nobody
        ("data / close", ABORTED, b"", None),
        ("data / fin / close", ABORTED, b"", None),
        ("full / write / close / data", ABORTED, b"", None),
        ("full / write / RDWR / close / data / room", CLOSED, b"w", None),
        # another process has the socket too
        ("fork / write / close / data", OPEN, b"w", None),
        ("fork / write / close / RDWR of the other / data / fin", CLOSED, b"w", None),
        ("fork / write / close / close of the other", CLOSED, b"w", None),
        # resets, in each state
        ("rst", FAILED, b"", "!"),
        ("data / rst", FAILED, b"", "d!"),
        ("WR / rst", FAILED, b"", "!"),
        ("fin / rst", FAILED, b"", "."),
        ("data / fin / rst", FAILED, b"", "d."),
        ("fin / full / write / rst", FAILED, b"", "."),
        ("full / write / WR / rst", FAILED, b"", "!"),
        ("RDWR / rst", FAILED, b"", "!"),
        ("RD / data / rst", FAILED, b"", "!"),
        ("full / write / close / rst", FAILED, b"", None),
    ],
)
def test_ends_in_every_order(pair, steps, ending, sent, read):
    """What Linux's TCP does, but for one: what arrives behind shutdown(SHUT_RDWR) is acknowledged, not answered by a reset."""
    ours, theirs = pair
    offloaded = Offloaded(ended=False)
    other: list[socket.socket] = []
    flow = Flow(ours, offloaded, Held(theirs))
    does = {
        "write": lambda: theirs.sendall(b"w"),
        "WR": lambda: theirs.shutdown(socket.SHUT_WR),
        "RD": lambda: theirs.shutdown(socket.SHUT_RD),
        "RDWR": lambda: theirs.shutdown(socket.SHUT_RDWR),
        "close": theirs.close,
        "fork": lambda: other.append(theirs.dup()),
        "RDWR of the other": lambda: other[0].shutdown(socket.SHUT_RDWR),
        "close of the other": lambda: other.pop().close(),
        "data": lambda: offloaded.incoming.append(b"d"),
        "fin": offloaded.end,
        "rst": lambda: setattr(offloaded, "reset", errno.ECONNRESET),
        "full": lambda: setattr(offloaded, "full", True),
        "room": lambda: setattr(offloaded, "full", False),
    }
    came = 0
    result = OPEN
    for step in steps.split(" / "):
        assert result is OPEN, f"over before {step}"
        does[step]()
        came |= events(ours) & ~select.POLLIN
        more = True
        while more:
            result, more = flow.turn(came)
    assert (result, offloaded.sent) == (ending, sent)
    for end in other:
        end.close()
    if ending is not OPEN:
        ours.close()
    if read is not None:
        assert observed(theirs) == read


def test_without_unix_diag_a_shutdown_behind_the_peers_fin_is_in_order_all_the_same(pair):
    """The system cannot tell who holds the end: what looks closed is taken for that, and nothing is lost by it here."""
    ours, theirs = pair
    offloaded = Offloaded(b"answer")
    flow = Flow(ours, offloaded, lambda: False)
    flow.turn(events(ours))
    theirs.sendall(b"request")
    theirs.shutdown(socket.SHUT_WR)
    assert flow.turn(events(ours)) == (Ending.CLOSED, False)
    ours.close()
    assert observed(theirs) == "answer."
    assert offloaded.sent == b"request" and offloaded.shut
