"""Engines to be served: in simulated time, its line the client's or an echo server's; or on wall time at a TAP interface."""

from __future__ import annotations

import contextlib
import os
import selectors
from collections import deque
from functools import partial
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_driver.sockets import Socket

from ..live.engine import LiveEngine
from ..live.relay import RESET, TURN, Half
from ..live.tap import open_tap
from ..native.harness import RuleBroken
from ..native.simulation import Simulation, Wire
from ..wire.segment import ip_number, mac_number
from .protocol import Event, Refused

IP, PEER_IP = "10.77.0.2", "10.77.0.1"
MAC, PEER_MAC = "02:00:00:00:00:02", "02:00:00:00:00:01"
ECHO_PORT = 7
_MOST_WAITING = 4096
_ROUND_S = 0.05
_MEMORY_BYTES = 1 << 24
_SIMULATED: dict[str, Any] = dict(ip=IP, mac=MAC, attach=False, skip_idle=True, memory_bytes=_MEMORY_BYTES)
_PEER_ON_LINE = "a peer is on the line: with `tiptoe serve --peer none` it is yours"


class EchoServer:
    """Port 7 of a simulated engine with its driver: what comes goes back, and the end too."""

    def __init__(self, sim: Simulation) -> None:
        self._listener = sim.socket()
        self._listener.bind(("", ECHO_PORT))
        self._listener.listen()
        self._open: dict[Socket, Half] = {}
        sim.tasks.append(self.work)

    def work(self) -> None:
        """A look at every connection."""
        with contextlib.suppress(BlockingIOError):
            while True:
                made, _ = self._listener.accept()
                self._open[made] = Half(made.recv, made.send, partial(self._end, made))
        for sock, half in list(self._open.items()):
            try:
                half.move(TURN)
            except OSError:  # reset, or timed out
                self._end(sock)

    def _end(self, sock: Socket) -> None:
        del self._open[sock]
        sock.close()

    def reset(self) -> None:
        """All connections end, with a reset."""
        for sock in list(self._open):
            sock.setsockopt(SOL_SOCKET, SO_LINGER, RESET)
            self._end(sock)


class _Engine:
    """What both kinds have: registers, memory and addresses of ``device``."""

    def __init__(self, device: Any) -> None:
        self.device = device
        self.memory: memoryview = device.memory
        self.ip, self.mac = ip_number(IP), mac_number(MAC)
        self.peer_ip, self.peer_mac = ip_number(PEER_IP), mac_number(PEER_MAC)

    def read32(self, address: int) -> int:
        """See :class:`~tiptoe_verif.serve.requests.Served`."""
        try:
            return int(self.device.read32(address))
        except RuleBroken as error:
            self.device.harness.check()  # no rule was broken: the address has no register
            raise Refused(str(error)) from None

    def write32(self, address: int, value: int) -> None:
        """See :class:`~tiptoe_verif.serve.requests.Served`."""
        if self.device.harness.registers_pending >= _MOST_WAITING:  # a bus would hold the writer
            self.device.read32(abi.REG_ID)
        self.device.write32(address, value)

    def now_us(self) -> int:
        """See :class:`~tiptoe_verif.serve.requests.Served`."""
        return int(self.device.now_us())

    def wait(self, timeout_us: int) -> Event:
        """See :class:`~tiptoe_verif.serve.requests.Served`."""
        return Event.IRQ if self.device.wait(timeout_us) else Event(0)

    def send(self, frame: bytes) -> None:
        """See :class:`~tiptoe_verif.serve.requests.Served`."""
        raise Refused(_PEER_ON_LINE)

    def take(self) -> tuple[float, bytes] | None:
        """See :class:`~tiptoe_verif.serve.requests.Served`."""
        raise Refused(_PEER_ON_LINE)

    def idle(self, ready: selectors.EpollSelector, timeout_s: float | None) -> None:
        """Time stands still."""
        ready.select(timeout_s)

    def forget(self) -> None:
        """Nothing waits for the client."""

    def close(self) -> None:
        """Free it."""
        self.device.close()


class EchoedEngine(_Engine):
    """In simulated time, which passes in WAIT and while a register is read; idle time is skipped. At the other end of the line
    is a second engine, which echoes at port 7."""

    def __init__(self, config: str, **options: Any) -> None:
        super().__init__(Simulation(config, **_SIMULATED, **options))
        pace = {key: value for key, value in options.items() if key in ("conditions", "progress")}
        self._peer = Simulation(config, ip=PEER_IP, mac=PEER_MAC, skip_idle=True, neighbours={IP: MAC}, **pace)
        Wire(self.device, self._peer)
        self._echo = EchoServer(self._peer)

    def forget(self) -> None:
        """The peer's connections end: its ids would run out, should one client after the other leave some."""
        self._echo.reset()

    def close(self) -> None:
        """Free both."""
        super().close()
        self._peer.close()


class BareEngine(_Engine):
    """In simulated time, as :class:`EchoedEngine`; its line is the client's."""

    def __init__(self, config: str, **options: Any) -> None:
        super().__init__(Simulation(config, **_SIMULATED, **options))
        self._frames: deque[tuple[float, bytes]] = deque(maxlen=_MOST_WAITING)

    def _collect(self) -> None:
        self._frames.extend(self.device.frames)
        self.device.frames.clear()

    def wait(self, timeout_us: int) -> Event:
        """A frame ends it too."""
        self._collect()
        irq = self.device.wait(0 if self._frames else timeout_us, frame=True)
        self._collect()
        return Event((Event.IRQ if irq else 0) | (Event.FRAME if self._frames else 0))

    def send(self, frame: bytes) -> None:
        """It enters as the clock runs."""
        if self.device.harness.rx_pending >= _MOST_WAITING:
            raise Refused(f"{_MOST_WAITING} frames wait for the engine: let time pass")
        self.device.inject(frame)

    def take(self) -> tuple[float, bytes] | None:
        """The oldest one."""
        self._collect()
        return self._frames.popleft() if self._frames else None

    def forget(self) -> None:
        """Frames that nobody has taken."""
        self._collect()
        self._frames.clear()


class TapEngine(_Engine):
    """On wall time, at a TAP interface: the peer is this machine's kernel, and the engine lives on between messages."""

    def __init__(self, config: str, tap: str = "tiptoe0", **options: Any) -> None:
        self._tap = open_tap(tap, address=PEER_IP, prefix=24, mac=PEER_MAC)
        try:
            super().__init__(
                LiveEngine(self._tap, config, ip=IP, mac=MAC, attach=False, memory_bytes=_MEMORY_BYTES, **options)
            )
        except BaseException:
            os.close(self._tap)
            raise

    def idle(self, ready: selectors.EpollSelector, timeout_s: float | None) -> None:
        """The engine goes on until then."""
        self.device.wake = ready.fileno()
        self.device.round(round(1e6 * min(_ROUND_S, _ROUND_S if timeout_s is None else timeout_s)))

    def close(self) -> None:
        """Free it, and the interface."""
        super().close()
        os.close(self._tap)


ENGINES = {"echo": EchoedEngine, "none": BareEngine, "tap": TapEngine}
"""By what is at the other end of the line."""
