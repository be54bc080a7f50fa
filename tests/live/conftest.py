"""Live runs: the simulated engine on a TAP interface in a namespace of its own, Linux's TCP as the peer."""

from __future__ import annotations

import os
import random
import select
import shutil
import socket
import time
from collections.abc import Callable

import pytest

from tiptoe_verif.live.namespace import NetNamespace, why_no_tap
from tiptoe_verif.live.session import LiveSession
from tiptoe_verif.live.setup import LiveSetup
from tiptoe_verif.wire import tshark
from tiptoe_verif.wire.pcap import free_capture, read_pcap
from tiptoe_verif.wire.segment import Segment, parse_tcp

ENGINE, KERNEL = "10.77.0.2", "10.77.0.1"
_REASON = why_no_tap()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("tap") and _REASON:
            item.add_marker(pytest.mark.skip(reason=_REASON))


def need(*programs: str) -> None:
    """Skip unless these programs are installed."""
    for program in programs:
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
            pytest.skip(f"{program} is not installed")


class Bench:
    """A live session, sockets of the kernel beside it, and what it takes to let both live.

    ``connect`` and ``listen`` make non-blocking sockets of the kernel in the engine's namespace.
    """

    def __init__(self, session: LiveSession) -> None:
        self.session = session
        self.engine = session.engine
        self.board = session.board
        self._sockets: list[socket.socket] = []

    def until(self, condition: Callable[[], object], what: str, timeout: float = 60.0) -> None:
        """Let time pass until the condition holds."""
        self.engine.run_until(condition, timeout, what)

    def for_s(self, seconds: float) -> None:
        """Let time pass."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.engine.round(2_000)

    def kernel_socket(self, port: int = 0, buffer: int = 0) -> socket.socket:
        """An unconnected TCP socket of the kernel, bound if ``port`` is given, with a receive buffer of that size."""
        assert self.session.namespace is not None
        made = self.session.namespace.socket()
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if port:
            made.bind((KERNEL, port))
        if buffer:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self._sockets.append(made)
        return made

    def connect(self, port: int, **options: int) -> socket.socket:
        """A connection of the kernel to the engine, established."""
        made = self.kernel_socket(**options)
        made.connect_ex((ENGINE, port))
        self.until(lambda: writable(made), "the kernel's connection")
        error = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, "connect")
        return made

    def listen(self, port: int) -> socket.socket:
        """A listening socket of the kernel."""
        made = self.kernel_socket(port)
        made.listen(64)
        return made

    def accept(self, listener: socket.socket) -> socket.socket:
        """The next connection of a listening socket."""
        self.until(lambda: readable(listener), "a connection to accept")
        made, _ = listener.accept()
        made.setblocking(False)
        self._sockets.append(made)
        return made

    def offloaded_listener(self, port: int):
        """A listening offloaded socket, non-blocking."""
        from tiptoe_driver import Socket

        listener = Socket(self.engine.stack)
        listener.setblocking(False)
        listener.bind(("", port))
        listener.listen()
        self.for_s(0.01)  # the command is on its way: a SYN that overtook it would be refused
        return listener

    def offloaded_accept(self, listener):
        """The next connection of an offloaded listener."""
        self.until(listener.readable, "an offloaded connection to accept")
        made, _ = listener.accept()
        made.setblocking(False)
        return made

    def offloaded_connect(self, port: int, local_port: int = 0):
        """An offloaded connection to the kernel, established."""
        from tiptoe_driver import Socket

        made = Socket(self.engine.stack)
        made.setblocking(False)
        if local_port:
            made.bind(("", local_port))
        made.connect_ex((KERNEL, port))
        self.until(made.writable, "the offloaded connection")
        error = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, "connect")
        return made

    def carry(self, source, target, data: bytes, *, back: bytes = b"", end: bool = False) -> None:
        """Send ``data`` from one socket and take it from the other, at the same time ``back`` the other way; compare.

        With ``end``, the source shuts its sending side after it, and the target sees the end.
        """
        out, into = memoryview(data), bytearray()
        out_back, into_back = memoryview(back), bytearray()
        ended = False

        def step() -> bool:
            nonlocal out, out_back, ended
            out = out[send_some(source, out) :]
            out_back = out_back[send_some(target, out_back) :]
            if not out and end and not ended:
                source.shutdown(socket.SHUT_WR)
                ended = True
            into.extend(receive_some(target, len(data) - len(into)))
            into_back.extend(receive_some(source, len(back) - len(into_back)))
            return len(into) >= len(data) and len(into_back) >= len(back)

        self.until(step, f"{len(data)} bytes there and {len(back)} back", 120)
        assert bytes(into) == data
        assert bytes(into_back) == back
        if end:
            self.expect_end(target)

    def expect_end(self, target) -> None:
        """The next thing that comes is the end of the stream."""
        got: list[bytes] = []

        def step() -> bool:
            try:
                got.append(target.recv(1))
            except BlockingIOError:
                return False
            return True

        self.until(step, "the end of the stream")
        assert got == [b""]

    def frames(self, *, to_engine: bool | None = None):
        """Frames captured so far, of one direction if asked for."""
        self.engine.capture.pcap.flush()
        mac = bytes(int(part, 16) for part in self.session.setup.mac.split(":"))
        for _, frame in read_pcap(self.engine.pcap):
            if to_engine is None or (frame[6:12] != mac) == to_engine:
                yield frame

    def segments(self) -> list[Segment]:
        """TCP segments captured so far."""
        return [segment for frame in self.frames() if (segment := parse_tcp(frame)) is not None]

    def settle(self) -> None:
        """Close the kernel's sockets, and let the relays end."""
        for made in self._sockets:
            made.close()
        self._sockets.clear()
        self.until(lambda: self.board.live == 0, "the end of the relays")
        self.for_s(0.05)
        self.engine.check()


def writable(made: socket.socket) -> bool:
    return bool(select.select([], [made], [], 0)[1])


def readable(made: socket.socket) -> bool:
    return bool(select.select([made], [], [], 0)[0])


def send_some(made, data: memoryview) -> int:
    if not data:
        return 0
    try:
        return made.send(data[:65536])
    except BlockingIOError:
        return 0


def receive_some(made, most: int) -> bytes:
    if most <= 0:
        return b""
    try:
        return made.recv(min(most, 65536))
    except BlockingIOError:
        return b""


@pytest.fixture
def namespace():
    """A network namespace."""
    with NetNamespace() as made:
        yield made


@pytest.fixture
def make_bench(out_dir):
    """Makes benches; afterwards each one's capture has to please tshark."""
    benches = []

    def make(cls=Bench, **options) -> Bench:
        options = {"config": "tiny", "namespace": True, "pcap": free_capture(out_dir / "live.pcap")} | options
        benches.append(cls(LiveSession(LiveSetup(**options))))
        return benches[-1]

    yield make
    for bench in benches:
        path, impaired = bench.engine.pcap, bench.engine.channels is not None
        try:
            bench.settle()
        finally:
            bench.session.close()
        if tshark.available() and not impaired:
            assert tshark.faults(path, opaque=True) == []


@pytest.fixture
def bench(make_bench) -> Bench:
    """A bench with the three built-in services."""
    return make_bench(listen=[(7, "echo"), (9, "discard"), (19, "chargen")])


@pytest.fixture
def payload(rng: random.Random) -> Callable[[int], bytes]:
    """Random bytes."""
    return rng.randbytes
