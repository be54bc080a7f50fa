"""The simulated board behind real cables: a UDP socket and a pseudo-terminal of this machine, in a thread that lets time pass.

A datagram that comes to the socket goes on as a frame to the bridge's station, whose answers go back to who asked. What is
written to the terminal goes over the serial pins. Each way the datagrams may be lost, repeated, late; the cable may be out.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
import time
import tty
from collections.abc import Callable
from concurrent.futures import Future
from heapq import heappop, heappush
from itertools import count
from typing import Any, TypeVar

from tiptoe_verif.wire.impairment import Channel, Impairment

from .board import SimulatedBoard
from .host import Host, udp_payload

Result = TypeVar("Result")
_STEP_NS = 5_000
_MOST = 65536


class Relay:
    """A :class:`~tiptoe_verif.native.world.Node`: a wire that is joined to it is the rest of the board's line. From :meth:`start`
    on the board and whatever is wired to it belong to the relay's thread: use :meth:`call`.

    Parameters
    ----------
    address : (str, int)
        Where the socket is: an address of this machine other than the one its driver will use, since both use the same port; port
        0: one that is free.
    impairment : Impairment
        Of the datagrams in each direction, in microseconds of wall time.

    Attributes
    ----------
    url : str
        Of the socket.
    terminal : str
        The pseudo-terminal, as /dev/pts/3.
    unplugged : bool
        The Ethernet cable is out: nothing passes for the socket.
    channels : tuple of Channel
        Towards the board, and back.
    spoil : callable
        What becomes of bytes on the serial line: ``spoil(data, to_board)`` returns those that arrive.
    """

    quantum_ns = _STEP_NS

    def __init__(
        self, board: SimulatedBoard, address: tuple[str, int] = ("127.0.0.2", 0), impairment: Impairment | None = None
    ) -> None:  # fmt: skip
        self.board, self.world = board, board.world
        self.world.nodes[:] = [self]
        self._sent: list[tuple[int, bytes]] = []
        self._host = Host(board, lambda time_ns, frame: self._sent.append((time_ns, frame)))
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._socket.setblocking(False)
        self.url = "etherbone://{}:{}".format(*self._socket.getsockname())
        self._master, slave = os.openpty()
        tty.setraw(slave)
        os.set_blocking(self._master, False)
        self.terminal, self._slave = os.ttyname(slave), slave
        self.unplugged = False
        self.spoil: Callable[[bytes, bool], bytes] = lambda data, to_board: data
        self.impair(impairment or Impairment())
        self._late: list[tuple[float, int, bytes, bool]] = []
        self._order = count()
        self._client: Any = None
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self.tasks: list[Callable[[], bool]] = []
        """Called by the thread until they return False."""
        self._stopping = False
        self._thread = threading.Thread(target=self._live, name="relay", daemon=True)

    def impair(self, impairment: Impairment) -> None:
        """From now on the datagrams fare like this."""
        self.channels = (Channel(impairment, "to the board"), Channel(impairment, "back"))

    def start(self) -> Relay:
        """Let time pass."""
        self._thread.start()
        return self

    def call(self, function: Callable[[], Result]) -> Result:
        """Have the thread call a function, and return its result."""
        future: Future[Result] = Future()
        self._calls.put((function, future))
        return future.result(timeout=600)

    def stop(self) -> None:
        """End the thread. Twice does no harm."""
        self._stopping = True
        if self._thread.is_alive():
            self._thread.join()

    def close(self) -> None:
        """End the thread, the socket and the terminal."""
        self.stop()
        self._socket.close()
        os.close(self._master)
        os.close(self._slave)

    # --- the thread ---

    def _live(self) -> None:
        while not self._stopping:
            self._from_outside()
            self.world.run(self.world.now_ns + _STEP_NS)
            self._to_outside()
            self.tasks = [task for task in self.tasks if task()]
            while not self._calls.empty():
                function, future = self._calls.get()
                try:
                    future.set_result(function())
                except BaseException as error:
                    future.set_exception(error)

    def _from_outside(self) -> None:
        while True:
            try:
                payload, self._client = self._socket.recvfrom(_MOST)
            except OSError:  # none, or ICMP's word of a driver that has gone
                break
            self._queue(payload, True)
        try:
            self.board.serial_give(self.spoil(os.read(self._master, _MOST), True))
        except BlockingIOError:
            pass
        while self._late and self._late[0][0] <= _now_us():
            _, _, payload, to_board = heappop(self._late)
            if to_board:
                self._host.give_udp(payload)
            else:
                self._socket.sendto(payload, self._client)

    def _to_outside(self) -> None:
        self._host.collect()
        for frame in self._host.frames:
            payload = udp_payload(frame)
            if payload is not None:
                self._queue(payload, False)
        self._host.frames.clear()
        if said := self.spoil(self.board.serial_take(), False):
            with contextlib.suppress(BlockingIOError):  # nobody reads the terminal
                os.write(self._master, said)

    def _queue(self, payload: bytes, to_board: bool) -> None:
        if self.unplugged:
            return
        for time_us, arrived in self.channels[0 if to_board else 1].send(payload, _now_us()):
            heappush(self._late, (time_us, next(self._order), arrived, to_board))

    # --- Node ---

    def advance(self, until_ns: int) -> None:
        """Live until that time."""
        self.board.advance(until_ns)

    def take_sent(self) -> list[tuple[int, bytes]]:
        """Frames sent since last time, without the bridge's."""
        self._host.collect()
        sent, self._sent = self._sent, []
        return sent

    def give(self, time_ns: int, frame: bytes) -> None:
        """A frame arrives."""
        self.board.give(max(time_ns, self.board.now_ns), frame)


def _now_us() -> float:
    return time.monotonic() * 1e6
