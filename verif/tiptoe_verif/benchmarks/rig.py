"""The engine with established connections, a host that serves them all, and a scripted peer that is never the bottleneck.

Set-up and data go through the real driver; the peer hands over its frames ahead of time, so that in the measured stretch
the engine, or the line, sets the pace. Everything received is compared byte by byte (connection.py).
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tiptoe_hdl.config import ETHERNET_BYTES, EngineConfig

from ..native.device import Conditions
from ..native.harness import Frame
from ..native.simulation import Simulation
from ..wire.segment import SYN
from .connection import Connection, Spoiled
from .frames import HEADERS, M32, Template, read

CYCLES_PER_US = 125
MSS = 1460
PEER_SCALE = 9
PORT = 80
RING_BYTES = 1 << 17

STEP = 1000
"""Cycles between two looks of the host at its rings, and of the peer at its frames."""

_SYN_AGAIN = 20
"""Rounds after which a SYN that nobody answered comes again."""
_PATIENCE = 400
"""Steps without any progress after which a measurement has failed."""

SPOILERS = (
    "RX_BAD_FRAME", "RX_BAD_IP", "RX_BAD_TCP", "RX_HOST_DROPPED", "RX_UNKNOWN_SEGMENT", "SYN_DROPPED_FULL",
    "TX_RETRANSMITS", "RTO_EXPIRED", "FAST_RETRANSMITS", "RX_OOO_DISCARDED", "BAD_DOORBELL", "BAD_COMMAND",
    "DMA_READ_ERROR", "DMA_WRITE_ERROR", "TX_DROPPED",
)  # fmt: skip
"""Counters of the engine that stay where they are in a clean measurement."""


class Rig:
    """An engine with ``connections`` established connections.

    Parameters
    ----------
    config : EngineConfig
    connections : int
        At most as many as the engine has ids.
    spare : int
        Further ids in stock for passive opens.
    latency : int
        Of host memory, in cycles.
    library : Path, optional
        A compiled engine to use.
    seed : int
    listeners : int
        On ports from PORT on.
    tick_us : int
        As in Simulation.
    driver : dict, optional
        Further options of the driver.

    Attributes
    ----------
    sim : Simulation
    connections : list of Connection
    mss : int
        Payload of the configuration's longest frame: MSS, or more.
    """

    def __init__(
        self,
        config: EngineConfig,
        connections: int,
        *,
        spare: int = 0,
        latency: int = 20,
        library: Path | None = None,
        seed: int = 1,
        listeners: int = 1,
        tick_us: int = 1000,
        driver: dict[str, Any] | None = None,
        progress: Any = None,
    ) -> None:
        self.config = config
        self.mss = config.max_frame_bytes - HEADERS
        self.sim = Simulation(
            config, mtu=config.max_frame_bytes - ETHERNET_BYTES, cycles_per_us=CYCLES_PER_US,
            conditions=Conditions(memory_latency=latency, memory_outstanding=64),
            memory_bytes=(connections + spare) * 2 * RING_BYTES + (1 << 23), monitor=False, library=library, seed=seed,
            progress=progress, tick_us=tick_us,
            driver=dict(
                snd_ring_bytes=RING_BYTES, rcv_ring_bytes=RING_BYTES, stock=connections + spare, active_reserve=0
            ) | (driver or {}),
        )  # fmt: skip
        self.harness = self.sim.harness
        self.stack = self.sim.stack
        self._listener = self.sim.socket()
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is measured is not to be held
        self._listener.bind(("", PORT))
        self._listener.listen(config.connections)
        self._others = [self.sim.socket() for _ in range(1, listeners)]
        for port, other in enumerate(self._others, PORT + 1):
            other.bind(("", port))
            other.listen()
        self._by_port: dict[int, Connection] = {}
        self.connections: list[Connection] = []
        self._open(connections)

    def close(self) -> None:
        """Free the engine."""
        self.sim.close()

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- conditions

    def set_memory(self, latency: int) -> None:
        """Another latency of host memory."""
        self.harness.set_memory(latency=latency, outstanding=64)

    def set_line(self, rate: float) -> None:
        """Bytes per cycle of the line, in each direction; 0: as fast as the bus."""
        self.harness.set_line(rx=rate, tx=rate)

    # --- connections

    def peer(self, port: int, iss: int) -> Connection:
        """The peer's side of a connection from ``port``, not yet open."""
        mac = self.sim.mac.to_bytes(6, "big")
        template = Template(mac, b"\x02\0\0\0\0\x01", self.sim.ip, self.sim.ip & ~0xFF | 1, PORT, port)
        return Connection(template, port, iss)

    def syn(self, connection: Connection) -> bytes:
        """Its SYN: MSS and a window scale."""
        options = b"\x02\x04" + self.mss.to_bytes(2, "big") + b"\x01\x03\x03" + bytes([PEER_SCALE])
        return connection.template.frame(connection.iss, 0, flags=SYN, options=options)

    def _open(self, count: int) -> None:
        ids, commands = self.sim.toe.engine.ids, self.sim.toe.engine.commands
        for _ in range(_PATIENCE):
            self.host()
            commands.flush()
            self.harness.run(STEP)
            if ids.stocked >= count and not commands.waiting and not commands.backlog:
                break
        else:
            raise Spoiled(f"no {count} connection ids in stock")
        batch = max(1, self.config.syncache_entries // 2)
        while len(self.connections) < count:
            fresh = []
            for _ in range(min(batch, count - len(self.connections))):
                number = len(self._by_port)
                connection = self.peer(10_000 + number, 0xFFFF_F000 + 977 * number & M32)
                self._by_port[connection.port] = connection
                fresh.append(connection)
                self.harness.inject(self.syn(connection))
            self._establish(fresh)
            self.connections += fresh

    def _establish(self, fresh: list[Connection]) -> None:
        waiting = {connection.port: connection for connection in fresh}
        for round_ in range(_PATIENCE):
            if not waiting:
                break
            if round_ and round_ % _SYN_AGAIN == 0:
                # The ids in the engine's stock follow demand: a SYN that found none was dropped.
                for connection in waiting.values():
                    self.harness.inject(self.syn(connection))
            self.harness.run(STEP)
            self.host()
            for frame in self.harness.take_frames(log=True):
                segment = None if frame.to_engine else read(frame.data)
                if segment and segment.flags & SYN and segment.dport in waiting:
                    connection = waiting.pop(segment.dport)
                    connection.irs = segment.seq
                    connection.scale = _window_scale(frame.data)
                    self.harness.inject(connection.ack())
        for _ in range(_PATIENCE):
            self.harness.run(STEP)
            self.host()
            while (made := self.accept()) is not None:
                sock, port = made
                self._by_port[port].sock = sock
            if all(connection.sock for connection in fresh):
                break
        else:
            raise Spoiled("connections were not established")
        for connection in fresh:
            connection.edge = RING_BYTES
        self.step()

    def accept(self) -> tuple[Any, int] | None:
        """The next connection that the listener has, and its peer's port; None: there is none."""
        try:
            sock, (_, port) = self._listener.accept()
        except BlockingIOError:
            return None
        sock.setblocking(False)
        return sock, port

    # --- time

    def host(self) -> None:
        """The driver looks at the event ring."""
        self.stack.poll()

    def step(self, cycles: int = STEP) -> list[Frame]:
        """Let cycles pass; the peers take in what the engine sent. Returns what passed the ports."""
        self.harness.run(cycles)
        frames = self.harness.take_frames(log=True)
        for frame in frames:
            if not frame.to_engine and (segment := read(frame.data)):
                connection = self._by_port.get(segment.dport)
                if connection is not None:
                    connection.input(segment)
        return frames

    def drain(self) -> None:
        """Until everything sent by either side has arrived, is acknowledged and consumed."""

        def work() -> None:
            for connection in self.connections:
                if connection.told != connection.received:
                    self.harness.inject(connection.ack())
                if connection.consumed != connection.sent:
                    connection.consume()

        def done(_: list[Frame]) -> bool:
            return (
                not self.harness.rx_pending
                and not self.harness.registers_pending
                and not any(connection.busy for connection in self.connections)
            )

        until(self, done, work, lambda: sum(c.consumed + c.received + c.told for c in self.connections))
        self.step()

    def state(self) -> str:
        """Where the first unfinished connection stands, for messages."""
        for c in self.connections:
            if c.consumed != c.sent or c.received != c.written:
                return (
                    f"port {c.port}: peer sent {c.sent}, acknowledged {c.acked}, consumed {c.consumed}; "
                    f"written {c.written}, received {c.received}, told {c.told}"
                )
        return "acknowledgements"

    def align(self, connections: Iterable[Connection], modulus: int, rest: int) -> None:
        """Move all ring positions to ``rest`` modulo ``modulus``."""
        for connection in connections:
            if missing := (rest - connection.sent) % modulus:
                self.harness.inject(connection.data(missing))
            if missing := (rest - connection.written) % modulus:
                connection.write(missing)
        self.drain()

    def spoiled(self) -> dict[str, int]:
        """Counters of the engine that tell of trouble."""
        counters = self.sim.toe.engine.read_counters()
        return {name: counters[name] for name in SPOILERS}


class Watch:
    """Raises :exc:`Spoiled` at the end of a ``with`` block in which one of SPOILERS moved."""

    def __init__(self, rig: Rig, what: str, allowed: Sequence[str] = ()) -> None:
        self._rig, self._what, self._allowed = rig, what, allowed

    def __enter__(self) -> Watch:
        self._before = self._rig.spoiled()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            return
        moved = {
            name: count - self._before[name]
            for name, count in self._rig.spoiled().items()
            if count != self._before[name] and name not in self._allowed
        }
        if moved:
            raise Spoiled(f"{self._what}: {moved}")


def until(
    rig: Rig,
    done: Callable[[list[Frame]], bool],
    work: Callable[[], None],
    progress: Callable[[], int],
    step: int = STEP,
) -> None:
    """Steps with ``work`` between them until ``done`` says so; Spoiled when ``progress`` stands still."""
    last, idle = -1, 0
    while True:
        work()
        passed = rig.step(step)
        rig.host()
        if done(passed):
            return
        now = progress()
        idle = idle + 1 if now == last else 0
        last = now
        if idle > _PATIENCE * STEP // step:
            raise Spoiled("nothing moves: " + rig.state())


def _window_scale(frame: bytes) -> int:
    options = frame[HEADERS : 34 + (frame[46] >> 4) * 4]
    at = options.find(b"\x03\x03")
    return options[at + 2] if at >= 0 else 0


def rotation(connections: Sequence[Connection], start: int = 0) -> Callable[[], Connection]:
    """The connections in turn, for ever, from number ``start`` on."""
    ring = deque(connections)
    ring.rotate(-start)

    def following() -> Connection:
        ring.rotate(-1)
        return ring[-1]

    return following
