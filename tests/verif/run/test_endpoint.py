"""A program's socket with SO_LINGER of no time: closing it is a reset, shutting it is not. On the real pair and its epoll."""

import select
import socket
from types import SimpleNamespace

import pytest

from tests.verif.run.test_flow import Offloaded
from tiptoe_verif.live.relay import RESET
from tiptoe_verif.run.endpoint import Endpoint


class Closing(Offloaded):
    """Remembers how it was closed."""

    closed = ""

    def setblocking(self, _: bool) -> None:
        pass

    def getsockname(self) -> tuple[str, int]:
        return "10.0.0.2", 7

    def setsockopt(self, level: int, name: int, value: object) -> None:
        if (level, name, value) == (socket.SOL_SOCKET, socket.SO_LINGER, RESET):
            self.closed = "reset"

    def close(self) -> None:
        self.closed = self.closed or "in order"


class Bench:
    """A connection handed to a program, whose end is ``theirs``; stands for the broker and its switchboard."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.soon: list = []
        self.board = SimpleNamespace(call_soon=self.soon.append, watch_offloaded=lambda *_: None)
        self.stack = SimpleNamespace(now_us=lambda: 0)
        self.watcher = None
        self.offloaded = Closing(ended=False)
        options = SimpleNamespace(family=socket.AF_INET, resets_on_close=True, apply=lambda _: None)
        self.endpoint = Endpoint(self, options)
        self.endpoint.become(self.offloaded, ("10.0.0.1", 9), SimpleNamespace(hand_over=self._hand_over))

    def _hand_over(self, made: socket.socket, _: Endpoint) -> bool:
        self.theirs = made.dup()
        return True

    def next_serial(self) -> int:
        return 1

    def name_of(self, serial: int) -> str:
        return ""  # the system finds one

    def new_record(self, *_: object) -> None:
        return None

    def watch(self, end: socket.socket, function, events: int) -> None:
        self.watcher = function
        self.epoll.register(end, events)

    def forget(self, end: socket.socket) -> None:
        self.epoll.unregister(end)

    def ended(self, serial: int) -> None:
        pass

    def rounds(self) -> None:
        """Until nothing happens."""
        while True:
            for _, events in self.epoll.poll(0):
                self.watcher(events)
            if not self.soon:
                return
            turns = self.soon[:]
            self.soon.clear()
            for turn in turns:
                turn()


@pytest.mark.parametrize(
    ("steps", "ending", "sent"),
    [
        ("write / close", "reset", b"w"),
        ("write / WR", "", b"w"),
        ("write / WR / fin", "in order", b"w"),
        ("fin / write / WR", "in order", b"w"),
        ("write / RDWR", "", b"w"),
        ("write / RDWR / fin", "in order", b"w"),
        ("data / write / RDWR / fin", "in order", b"w"),
        ("write / RDWR / close", "reset", b"w"),
        ("fin / full / write / WR", "", b""),
        ("fin / full / write / WR / close", "reset", b""),
        ("full / write / RDWR / close", "reset", b""),
    ],
)
def test_linger_of_no_time(steps: str, ending: str, sent: bytes) -> None:
    bench = Bench()
    offloaded, theirs = bench.offloaded, bench.theirs
    does = {
        "write": lambda: theirs.sendall(b"w"),
        "WR": lambda: theirs.shutdown(socket.SHUT_WR),
        "RDWR": lambda: theirs.shutdown(socket.SHUT_RDWR),
        "close": theirs.close,
        "data": lambda: offloaded.incoming.append(b"d"),
        "fin": offloaded.end,
        "full": lambda: setattr(offloaded, "full", True),
    }
    with theirs:
        for step in steps.split(" / "):
            does[step]()
            bench.endpoint.turn()
            bench.rounds()
        assert (offloaded.closed, offloaded.sent) == (ending, sent)
        assert bench.endpoint.live == bench.endpoint.held == (not ending)
    bench.rounds()
    assert not bench.endpoint.live, "closed by the program"
    bench.epoll.close()
