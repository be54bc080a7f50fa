"""Two ends of TCP on one line that loses, delays and has a rate, on the wall's clock: Linux and Linux, or the engine and Linux.

Both lines are two :class:`~tiptoe_verif.wire.impairment.Channel`, one of data and one of its acknowledgements, made anew with
the same seeds for each measurement. Linux has SACK, timestamps and buffers as it comes, with CUBIC (RFC 9438), and forgets what
it has learnt of a path.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from itertools import count
from typing import Any, Self

from tiptoe_driver import Socket
from tiptoe_hdl.config import EngineConfig

from ..live.namespace import NetNamespace
from ..live.session import LiveSession
from ..live.setup import LiveSetup
from ..sim.toolchain import Progress
from ..wire.impairment import Channel, Impairment

ROUND_US = 2000
"""The longest time between two looks at the sockets."""
PATIENCE_S = 30.0
"""For what is not measured: connections that open and close."""
CONGESTION = b"cubic"
RING_BYTES = 1 << 19
"""Of each ring of the engine's connections. Linux's buffers grow with the path; rings do not, and those of the default, 128 KiB,
are less than what the line of 100 ms and its queue hold while a loss is repaired."""

_PORT = 80
_CALM = Impairment(delay_us=1)
"""The line between measurements."""
_MAX_FRAME = 65536
_TOTAL_RETRANS = 100  # offset of tcpi_total_retrans in struct tcp_info (Linux, include/uapi/linux/tcp.h)
_FORGET = ["sh", "-c", "echo 1 >/proc/sys/net/ipv4/tcp_no_metrics_save"]


@dataclass(frozen=True)
class Pair:
    """One connection: where data goes in and where it comes out, non-blocking sockets of either kind."""

    source: Any
    target: Any


@dataclass(frozen=True, kw_only=True)
class Buffers:
    """Bytes as SO_RCVBUF and SO_SNDBUF take them; 0: as they come."""

    receive: int = 0
    send: int = 0

    def apply(self, made: Any) -> None:
        """Before the connection is opened."""
        for option, size in ((socket.SO_RCVBUF, self.receive), (socket.SO_SNDBUF, self.send)):
            if size:
                made.setsockopt(socket.SOL_SOCKET, option, size)


class Path(ABC):
    """A line with TCP at both ends; use it as a context manager.

    Attributes
    ----------
    data, acks : Channel
        The line's directions in the measurement that goes on.
    """

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.data, self.acks = Channel(_CALM, "data"), Channel(_CALM, "acks")

    @abstractmethod
    def round(self) -> None:
        """Let time pass, ROUND_US at most."""

    @abstractmethod
    def open(self, connections: int, buffers: Buffers, line: Impairment) -> list[Pair]:
        """So many connections, established over the line without its loss: they have seen its round trip, one at a time."""

    @abstractmethod
    def close_pairs(self, pairs: list[Pair]) -> None:
        """End the connections on a calm line, whatever is on its way."""

    @abstractmethod
    def retransmits(self, pairs: list[Pair]) -> int:
        """Segments that the sources have sent again so far."""

    @abstractmethod
    def _join(self) -> None:
        """Make ``data`` and ``acks`` the line."""

    def timeouts(self) -> int:
        """Retransmission time-outs of the sources so far; -1: not known."""
        return -1

    def cycles(self) -> int:
        """Of the simulated engine so far; 0: nothing is simulated."""
        return 0

    def set_line(self, line: Impairment, loss: float = 0.0) -> None:
        """From now on the line is this one, with a loss of data."""
        self.data, self.acks = Channel(replace(line, loss=loss), "data"), Channel(line, "acks")
        self._join()

    def until(self, condition: Any, what: str, patience_s: float = PATIENCE_S) -> None:
        """Let time pass until the condition holds; TimeoutError, naming ``what``."""
        end = time.monotonic() + patience_s
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"{what}: not within {patience_s:g} s")
            self.round()

    def close(self) -> None:
        """End everything."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class LinuxPath(Path):
    """Linux to Linux: a namespace each, and a relay between their TAP interfaces."""

    def __init__(self) -> None:
        super().__init__()
        try:
            self._spaces = [self._stack.enter_context(NetNamespace()) for _ in range(2)]
            self._taps = []
            for number, space in enumerate(self._spaces, 1):
                self._taps.append(space.open_tap(f"goodput{number}", address=f"10.78.0.{number}"))
                self._stack.callback(os.close, self._taps[-1])
                _forget(space)
        except BaseException:
            self._stack.close()
            raise
        self._late: list[tuple[float, int, bytes, int]] = []
        self._order = count()

    def _join(self) -> None:
        """The relay looks at ``data`` and ``acks`` itself: the first namespace sends."""

    def round(self) -> None:
        limit: float = ROUND_US
        if self._late:
            limit = min(limit, max(0, self._late[0][0] - _now_us()))
        for tap in select.select(self._taps, [], [], limit / 1e6)[0]:
            end = self._taps.index(tap)
            channel = (self.data, self.acks)[end]
            for _ in range(64):
                try:
                    frame = os.read(tap, _MAX_FRAME)
                except BlockingIOError:
                    break
                for time_us, arrived in channel.send(frame, _now_us()):
                    heappush(self._late, (time_us, next(self._order), arrived, self._taps[1 - end]))
        now = _now_us()
        while self._late and self._late[0][0] <= now:
            _, _, frame, tap = heappop(self._late)
            os.write(tap, frame)

    def open(self, connections: int, buffers: Buffers, line: Impairment) -> list[Pair]:
        self.set_line(line)
        pairs = []
        with _kernel_socket(self._spaces[1], buffers) as listener:
            listener.bind(("10.78.0.2", _PORT))
            listener.listen(connections)
            for _ in range(connections):
                source = _kernel_socket(self._spaces[0], buffers)
                source.connect_ex(("10.78.0.2", _PORT))
                self.until(lambda: _readable(listener), "a connection between two kernels")
                target, _ = listener.accept()
                target.setblocking(False)
                pairs.append(Pair(source, target))
        return pairs

    def close_pairs(self, pairs: list[Pair]) -> None:
        self.set_line(_CALM)
        _abort(end for pair in pairs for end in (pair.source, pair.target))
        self._late.clear()

    def retransmits(self, pairs: list[Pair]) -> int:
        return sum(_retransmits(pair.source) for pair in pairs)


class EnginePath(Path):
    """The simulated engine and Linux.

    Attributes
    ----------
    to_engine : bool
        Which way data goes on connections that are opened from now on.
    """

    def __init__(self, config: EngineConfig, progress: Progress | None = None) -> None:
        super().__init__()
        self.to_engine = True
        # No capture, no monitor: what the line's rate leaves of the processor is the simulation's.
        setup = LiveSetup(
            config=config, tap="goodput0", namespace=True, impairment=_CALM, monitor=False, time_wait_s=0.1,
            driver=dict(snd_ring_bytes=RING_BYTES, rcv_ring_bytes=RING_BYTES),
        )  # fmt: skip
        self._session = self._stack.enter_context(LiveSession(setup, progress))
        self._engine, self._space = self._session.engine, self._session.namespace
        try:
            assert self._space is not None
            _forget(self._space)
        except BaseException:
            self._stack.close()
            raise

    def _join(self) -> None:
        self._engine.channels = (self.data, self.acks) if self.to_engine else (self.acks, self.data)

    def round(self) -> None:
        self._engine.round(ROUND_US)

    def open(self, connections: int, buffers: Buffers, line: Impairment) -> list[Pair]:
        self.set_line(line)
        pairs = []
        assert self._space is not None
        with _kernel_socket(self._space, buffers) as listener:
            listener.bind((self._session.setup.host_ip, _PORT))
            listener.listen(connections)
            for _ in range(connections):
                ours = Socket(self._engine.stack)
                ours.setblocking(False)
                buffers.apply(ours)
                ours.connect_ex((self._session.setup.host_ip, _PORT))
                self.until(lambda: _readable(listener), "the engine's connection")
                kernel, _ = listener.accept()
                kernel.setblocking(False)
                self.until(ours.writable, "the engine's connection")
                pairs.append(Pair(kernel, ours) if self.to_engine else Pair(ours, kernel))
        return pairs

    def close_pairs(self, pairs: list[Pair]) -> None:
        self.set_line(_CALM)
        kernels, ours = [p.source for p in pairs], [p.target for p in pairs]
        if not self.to_engine:
            kernels, ours = ours, kernels
        _abort(kernels)
        for made in ours:
            self.until(lambda made=made: _ended(made), "the end of an offloaded connection")
            made.close()
        self._engine.check()

    def retransmits(self, pairs: list[Pair]) -> int:
        if self.to_engine:
            return sum(_retransmits(pair.source) for pair in pairs)
        return self._engine.toe.engine.read_counters()["TX_RETRANSMITS"]

    def timeouts(self) -> int:
        return -1 if self.to_engine else self._engine.toe.engine.read_counters()["RTO_EXPIRED"]

    def cycles(self) -> int:
        return self._engine.harness.cycle


def _now_us() -> float:
    return time.monotonic_ns() / 1000


def _forget(space: NetNamespace) -> None:
    """No round-trip time or threshold of one connection is the next one's start."""
    with space.popen(_FORGET) as process:
        if process.wait():
            raise OSError("cannot set tcp_no_metrics_save in the namespace")


def _kernel_socket(space: NetNamespace, buffers: Buffers) -> socket.socket:
    made = space.socket()
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONGESTION)
    buffers.apply(made)
    return made


def _readable(made: socket.socket) -> bool:
    return bool(select.select([made], [], [], 0)[0])


def _retransmits(made: socket.socket) -> int:
    info = made.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int(struct.unpack_from("=I", info, _TOTAL_RETRANS)[0])


def _abort(ends: Any) -> None:
    """Close with RST: nothing of the connection comes into the next measurement."""
    for made in ends:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        made.close()


def _ended(made: Any) -> bool:
    """Whether an offloaded socket has seen the reset, or the end."""
    try:
        return made.recv(65536) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
