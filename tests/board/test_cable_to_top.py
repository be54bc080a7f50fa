"""The driver on the simulated top behind real cables: a UDP socket and a pseudo-terminal, good ones and bad ones."""

from __future__ import annotations

import contextlib
import hashlib
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.board.transfer import Transfer
from tiptoe_board.address_map import MEMORY_BASE, status_address
from tiptoe_board.cable import CableDevice, CableError, open_cable
from tiptoe_board.cable.uart import UartCable
from tiptoe_board.sim.board import BUILD_ID, SimulatedBoard, build_board
from tiptoe_board.sim.bridge import Bridge, start_memory
from tiptoe_board.sim.relay import Relay
from tiptoe_driver.hardware.abi_gen import REG_TICK_CYCLES
from tiptoe_verif.live import device_session
from tiptoe_verif.live.device_session import DeviceSession
from tiptoe_verif.live.setup import LiveSetup
from tiptoe_verif.native.simulation import Simulation, Wire
from tiptoe_verif.wire.impairment import Impairment

pytestmark = pytest.mark.xdist_group("board")
IP, MAC, PEER_MAC = "10.0.0.2", "02:00:00:00:00:02", "02:00:00:00:00:01"
TICK_US = 50
BAD = Impairment(loss=0.08, duplicate=0.05, reorder=0.05, reorder_us=100_000, jitter_us=2_000, seed=3)
"""Of Etherbone's packets, each way, in wall time: some overtake others by far."""
SMALL = {
    "frame_slots": 8, "frame_buffers": 4, "snd_ring_bytes": 4096, "rcv_ring_bytes": 4096, "watchdog_us": 0, "tick_us": TICK_US,
    "command_entries": 16, "stock": 1, "registers": {REG_TICK_CYCLES: TICK_US * 50},
}  # fmt: skip


library = cache(build_board)


@pytest.fixture
def relay(request: pytest.FixtureRequest) -> Iterator[Relay]:
    board = SimulatedBoard(library(getattr(request, "param", "ddr3")))
    board.advance(20_000)
    start_memory(Bridge(board))  # the scan of all delays would take minutes here
    made = Relay(board)
    yield made
    made.close()
    board.close()


def setup(device: str, **more: Any) -> LiveSetup:
    return LiveSetup(device=device, ip=IP, mac=MAC, driver=SMALL, listen=[(80, "echo")], **more)


class Client:
    """A second engine with its driver on the board's line; it belongs to the relay's thread."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.engine = Simulation("tiny", ip="10.0.0.1", mac=PEER_MAC, cycles_per_us=50, tick_us=TICK_US)
        self.ends: list[Transfer] = []
        self.engine.tasks.append(self._step)
        Wire(relay, self.engine)

    def _step(self) -> None:
        for end in self.ends:
            with contextlib.suppress(ConnectionResetError):  # by an engine that was reset and does not know it
                end.step()

    def connect(self, data: bytes) -> Transfer:
        """Open a connection that sends ``data`` and its FIN; the echo comes back."""
        made = self.engine.socket()
        with pytest.raises(BlockingIOError):
            made.connect((IP, 80))
        end = Transfer(made, data)
        self.ends.append(end)
        return end

    def serve(self, data: bytes) -> None:
        """Whoever connects to port 80 gets ``data`` and a FIN."""
        listener = self.engine.socket()
        listener.bind(("10.0.0.1", 80))
        listener.listen()

        def accept() -> None:
            with contextlib.suppress(BlockingIOError):
                self.ends.append(Transfer(listener.accept()[0], data))

        self.engine.tasks.append(accept)

    def echo(self, session: DeviceSession, data: bytes, timeout_s: float = 120) -> None:
        """A whole life of a connection: all bytes there and back, and both ends."""
        for _ in range(5):
            session.engine.settle()  # it listens
        end = self.relay.call(lambda: self.connect(data))
        session.engine.run_until(lambda: end.done and not session.board.live, timeout_s, "the echo")
        assert hashlib.sha256(end.received).digest() == hashlib.sha256(data).digest()


@pytest.fixture
def client(relay: Relay) -> Iterator[Client]:
    made = Client(relay)
    relay.start()
    yield made
    relay.stop()
    made.engine.close()


def test_a_life_over_a_bad_cable(relay: Relay, client: Client, rng: random.Random) -> None:
    """Etherbone's packets are lost, repeated and overtaken, from the bring-up on: the connection notices nothing. An event lost
    or a position of the past would show in the driver's counters."""
    relay.impair(BAD)
    with DeviceSession(setup(relay.url)) as session:
        client.echo(session, rng.randbytes(6000))
        assert session.engine.toe.counters == {}
        assert session.engine.device.counters()["repeated"] > 0
        assert session.engine.device.losses()["host_dropped"] == 0
        assert session.totals().row_count > 10
    there, back = relay.channels
    assert there.lost and there.duplicated and there.reordered and back.lost


def test_a_cable_pulled_and_plugged_in(relay: Relay, client: Client) -> None:
    """For a moment: nothing happens. For longer: an error that says what to look at, and the connections end."""
    with DeviceSession(setup(relay.url)) as session:
        relay.unplugged = True
        begin = time.monotonic()
        later(relay, 0.7, lambda: setattr(relay, "unplugged", False))
        client.echo(session, b"after a moment")
        assert time.monotonic() - begin > 0.7
        staying = relay.call(lambda: client.connect(b"and stays"))
        staying.shut = True  # without a FIN
        session.engine.run_until(lambda: staying.received, 120, "its echo")
        assert session.board.live == 1
        session.engine.device._cable._patience_s = 1.0  # type: ignore[attr-defined]
        relay.unplugged = True
        with pytest.raises(CableError, match="no answer for 1 s.*look at the cable"):
            session.engine.run_until(lambda: False, 60)
        assert session.engine.toe.counters["device_gone"] == 1
        assert not session.board.live
        with pytest.raises(CableError):  # at once
            session.engine.round()
    relay.unplugged = False
    with DeviceSession(setup(relay.url)) as session:
        client.echo(session, b"again")


def later(relay: Relay, seconds: float, function: Callable[[], None]) -> None:
    """In the relay's thread, after a while."""
    end = time.monotonic() + seconds

    def look() -> bool:
        if time.monotonic() < end:
            return True
        function()
        return False

    relay.call(lambda: relay.tasks.append(look))


PROGRAM = """
import hashlib, socket, sys
with socket.create_connection(("10.0.0.1", 80)) as made:
    made.sendall(bytes(range(256)) * 8)
    made.shutdown(socket.SHUT_WR)
    print(hashlib.sha256(b"".join(iter(lambda: made.recv(4096), b""))).hexdigest())
"""


def test_an_unmodified_program_on_the_board(relay: Relay, client: Client, rng: random.Random) -> None:
    """`tiptoe run --device`, as a user calls it: bytes both ways, and the exit code."""
    data = rng.randbytes(3000)
    relay.call(lambda: client.serve(data))
    command = [Path(sys.executable).with_name("tiptoe"), "run", "--device", relay.url, "--ip", IP]
    done = subprocess.run([*command, "--", sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == hashlib.sha256(data).hexdigest()
    assert client.ends[0].received == bytes(range(256)) * 8
    assert f"engine {IP} on {relay.url}: build {BUILD_ID:08x}, 50 MHz, " in done.stderr
    assert "over the cable" in done.stderr


@pytest.mark.soak
@pytest.mark.parametrize("relay", ["block"], indirect=True)
def test_a_life_over_a_serial_line(relay: Relay, client: Client, rng: random.Random, monkeypatch: Any) -> None:
    """UARTBone at its pins. The bring-up clears an event ring, which takes its time: the smaller top's is shorter."""
    monkeypatch.setattr(device_session, "open_device", lambda url: CableDevice(serial(url), events_at_once=1))
    with DeviceSession(setup(relay.terminal)) as session:
        client.echo(session, rng.randbytes(300))
        assert session.engine.toe.counters == {}
        assert session.engine.device.counters()["differed"] == 0


def serial(terminal: str) -> UartCable:
    """A cable as patient as the simulation is slow."""
    return UartCable(terminal, gap_s=2.0, quiet_s=8.0, patience_s=120.0)


@pytest.mark.soak  # on a busy machine the simulated UARTBone may be slower to forget than the cable waits
def test_uartbone_after_a_lost_byte(relay: Relay, rng: random.Random) -> None:
    """In a command and in an answer: what was written is there, what is read is right; UARTBone forgets the half of a command."""
    relay.start()
    cable = serial(relay.terminal)
    assert cable.greeting["build"] == BUILD_ID
    for to_board in (True, False):
        words = [rng.getrandbits(32) for _ in range(20)]
        lose_one(relay, to_board)
        cable.write(MEMORY_BASE, words)
        assert cable.read_at([MEMORY_BASE + 4 * n for n in range(20)]) == words
    assert cable.counters()["repeated"] >= 2  # more where the simulation is slower than the cable's patience
    cable.close()


def lose_one(relay: Relay, direction: bool) -> None:
    """The next bytes in that direction lack their last one."""
    spoilt: list[bytes] = []

    def spoil(data: bytes, to_board: bool) -> bytes:
        if not data or to_board != direction or spoilt:
            return data
        spoilt.append(data)
        return data[:-1]

    relay.spoil = spoil


def test_two_cables_at_once(relay: Relay) -> None:
    """Both bridges are on one bus."""
    relay.start()
    one, other = open_cable(relay.url), serial(relay.terminal)
    one.write(MEMORY_BASE, [0x1234])
    assert one.read_at([MEMORY_BASE]) == other.read_at([MEMORY_BASE]) == [0x1234]
    assert other.read_at([status_address("sequence")])[0] > 0
    one.close()
    other.close()
