"""DDR3 as host memory, in the whole top: its start over the bridge, many connections, and what TCP repairs when it is slow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.board.test_top import MAC, PEER_MAC, SETTLE_NS, Transfer, status
from tiptoe_board.address_map import MEMORY_BASE
from tiptoe_board.dram import Tap
from tiptoe_board.sim.board import SimulatedBoard, build_board
from tiptoe_board.sim.bridge import Bridge, start_memory
from tiptoe_board.sim.device import BoardDevice
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
    assert set(found.scan[line].split("|")[1] for line in (1, 2, 3, 4, 6, 7)) == {"00000000"}


def test_many_connections_at_once(board: SimulatedBoard, rng) -> None:
    """70 of the engine's 256, all open at the same time, bytes both ways on each, and closed: the driver as it is."""
    device = BoardDevice(board, ip="10.0.0.2/24", mac=MAC, command_entries=256, stock=COUNT)
    with Simulation("sim", ip="10.0.0.1", mac=PEER_MAC, cycles_per_us=50, tick_us=50) as peer:
        Wire(device, peer)
        listener = device.socket()
        listener.bind(("10.0.0.2", 80))
        listener.listen(COUNT)
        clients = [peer.socket() for _ in range(COUNT)]
        ours: list = []

        def accepted() -> bool:
            try:
                ours.append(listener.accept()[0])
            except BlockingIOError:
                pass
            return len(ours) == COUNT

        for client in clients:
            with pytest.raises(BlockingIOError):
                client.connect(("10.0.0.2", 80))
        device.run_until(accepted, 200_000, "all connections")
        by_port = {client.getsockname()[1]: client for client in clients}
        pairs = [(Transfer(by_port[sock.getpeername()[1]], rng.randbytes(300)), Transfer(sock, rng.randbytes(300))) for sock in ours]
        ends = [end for pair in pairs for end in pair]
        device.run_until(lambda: sum(end.step() for end in ends) == len(ends), 300_000, "all bytes both ways")
        assert all(a.received == b.data and b.received == a.data for a, b in pairs)
    assert status(device.bridge, "rx_dropped") == status(device.bridge, "host_dropped") == 0
    assert device.toe.engine.counters == {}
