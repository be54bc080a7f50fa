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
COUNT = 70


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
    """So many connections that the peer opens, all at once: the board's socket and the peer's of each."""
    listener = device.socket()
    listener.bind(("10.0.0.2", 80))
    listener.listen(count)
    clients = [peer.socket() for _ in range(count)]
    for client in clients:
        with pytest.raises(BlockingIOError):
            client.connect(("10.0.0.2", 80))
    ours: list[Socket] = []

    def accepted() -> bool:
        try:
            while True:
                ours.append(listener.accept()[0])
        except BlockingIOError:
            return len(ours) == count

    device.run_until(accepted, 200_000, "all connections")
    by_port = {client.getsockname()[1]: client for client in clients}
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
    """Memory stands still while a first flight comes at line rate, more than the engine and its queue hold: whole frames are
    lost there, and counted; when memory goes on their sender sends them again, and every byte is there."""
    device = BoardDevice(board, ip="10.0.0.2/24", mac=MAC, rcv_ring_bytes=32768)
    with Simulation("tiny", ip="10.0.0.1", mac=PEER_MAC, cycles_per_us=50, tick_us=50) as peer:
        Wire(device, peer)
        ((ours, client),) = connections(device, peer, 1)
        ends = [Transfer(client, rng.randbytes(24_000)), Transfer(ours, b"")]

        def step() -> bool:
            return sum(end.step() for end in ends) == len(ends)

        board.pause_memory(True)
        device.run_until(lambda: step() or status(device.bridge, "rx_dropped"), 2000, "a frame lost in the queue")
        assert not ends[1].received
        board.pause_memory(False)
        device.run_until(step, 100_000, "all bytes, and both ends")
        assert ends[1].received == ends[0].data
        assert peer.toe.engine.read_counters()["TX_RETRANSMITS"] >= 1
    assert device.toe.engine.counters == {}
