"""DDR3 as host memory, in the whole top: its start over the bridge, many connections, and what TCP repairs when it is slow."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.board.test_top import MAC, PEER_MAC, SETTLE_NS, Transfer, status
from tiptoe_board.dram import Tap
from tiptoe_board.sim.board import SimulatedBoard, build_board
from tiptoe_board.sim.bridge import Bridge, start_memory
from tiptoe_board.sim.device import BoardDevice
from tiptoe_driver import Socket
from tiptoe_verif.native.simulation import Simulation, Wire

pytestmark = pytest.mark.xdist_group("board")
COUNT, AT_ONCE = 70, 10
"""AT_ONCE: a SYN that finds no room or no id yet comes again after 50 ms."""
STANDSTILL_NS = 600_000


@pytest.fixture
def board() -> Iterator[SimulatedBoard]:
    made = SimulatedBoard(build_board())
    made.advance(SETTLE_NS)
    yield made
    made.close()


def test_the_delays_are_found(board: SimulatedBoard) -> None:
    """Each lane's own, in the middle of what reads right; the memory keeps its words then."""
    found = start_memory(Bridge(board), scan=True)
    assert found and found.taps == (Tap(0, 2), Tap(1, 4))
    assert found.scan[0] == "lane 0, shift 0: |01110000|" and found.scan[5] == "lane 1, shift 1: |00011110|"
    assert {found.scan[line].split("|")[1] for line in (1, 2, 3, 4, 6, 7)} == {"00000000"}


def connections(device: BoardDevice, peer: Simulation, count: int) -> list[tuple[Socket, Socket]]:
    """So many connections that the peer opens, a few at a time; the board's socket and the peer's of each."""
    listener = device.socket()
    listener.bind(("10.0.0.2", 80))
    listener.listen(count)
    by_port: dict[int, Socket] = {}
    ours: list[Socket] = []

    def accepted() -> bool:
        try:
            while True:
                ours.append(listener.accept()[0])
        except BlockingIOError:
            return len(ours) == len(by_port)

    while len(by_port) < count:
        for _ in range(min(AT_ONCE, count - len(by_port))):
            client = peer.socket()
            with pytest.raises(BlockingIOError):
                client.connect(("10.0.0.2", 80))
            by_port[client.getsockname()[1]] = client
        device.run_until(accepted, 20_000, f"{len(by_port)} connections")
    return [(sock, by_port[sock.getpeername()[1]]) for sock in ours]


def test_many_connections_at_once(board: SimulatedBoard, rng: random.Random) -> None:
    """70 of the engine's 256, all open at the same time, bytes both ways on each, and closed: the driver as it is."""
    device = BoardDevice(board, ip="10.0.0.2/24", mac=MAC, command_entries=256, stock=COUNT)
    with Simulation("sim", ip="10.0.0.1", mac=PEER_MAC, cycles_per_us=50, tick_us=50) as peer:
        Wire(device, peer)
        pairs = [
            tuple(Transfer(socket, rng.randbytes(300)) for socket in pair) for pair in connections(device, peer, COUNT)
        ]
        ends = [end for pair in pairs for end in pair]
        device.run_until(lambda: sum(end.step() for end in ends) == len(ends), 300_000, "all bytes both ways")
        assert all(a.received == b.data and b.received == a.data for a, b in pairs)
    assert [status(device.bridge, name) for name in ("rx_dropped", "tx_dropped", "host_dropped")] == [0, 0, 0]
    assert device.toe.engine.counters == {}


def test_tcp_repairs_what_a_slow_memory_has_lost(board: SimulatedBoard, rng: random.Random) -> None:
    """Memory stands still while four first flights come at line rate, more than the engine and its queue hold: whole frames are
    lost there, and counted; when memory goes on their sender sends them again, and every byte is there."""
    device = BoardDevice(board, ip="10.0.0.2/24", mac=MAC, rcv_ring_bytes=32768)
    with Simulation("tiny", ip="10.0.0.1", mac=PEER_MAC, cycles_per_us=50, tick_us=50) as peer:
        Wire(device, peer)
        pairs = [
            (Transfer(client, rng.randbytes(9000)), Transfer(ours, b""))
            for ours, client in connections(device, peer, 4)
        ]
        ends = [end for pair in pairs for end in pair]
        lost_before = status(device.bridge, "rx_dropped")
        board.pause_memory(True)
        until = board.now_ns + STANDSTILL_NS
        device.run_until(lambda: [end.step() for end in ends] and board.now_ns > until, 5000, "the standstill's end")
        lost = status(device.bridge, "rx_dropped") - lost_before
        assert lost and not any(theirs.received for _, theirs in pairs)
        board.pause_memory(False)
        device.run_until(lambda: sum(end.step() for end in ends) == len(ends), 100_000, "all bytes, and both ends")
        assert all(theirs.received == sent.data for sent, theirs in pairs)
        assert 1 <= peer.toe.engine.read_counters()["TX_RETRANSMITS"]
    assert device.toe.engine.counters == {}
