"""The whole top in Verilator: its bridge on the line, the driver over the bridge, and both at once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tests.board.transfer import Transfer
from tiptoe_board.address_map import ENGINE_BASE, MEMORY_BASE, status_address
from tiptoe_board.etherbone import NUMBERS, write_packet
from tiptoe_board.sim.board import BUILD_ID, SimulatedBoard, build_board
from tiptoe_board.sim.bridge import Bridge, start_memory
from tiptoe_board.sim.device import BoardDevice
from tiptoe_board.sim.host import HOST_MAC
from tiptoe_driver.hardware.abi_gen import ID_VALUE, REG_ID
from tiptoe_verif.native.simulation import Peer, Simulation, Wire

pytestmark = pytest.mark.xdist_group("board")
MAC, PEER_MAC = "02:00:00:00:00:02", "02:00:00:00:00:01"
SETTLE_NS = 20_000


@pytest.fixture(scope="module", params=["ddr3", pytest.param("block", marks=pytest.mark.soak)])
def library(request: pytest.FixtureRequest) -> Path:
    """The top with host memory of either kind; one of them is enough of compiling for every day."""
    return build_board(request.param)


@pytest.fixture
def board(library: Path) -> Iterator[SimulatedBoard]:
    made = SimulatedBoard(library)
    made.advance(SETTLE_NS)
    yield made
    made.close()


def status(bridge: Bridge, name: str) -> int:
    return bridge.read(status_address(name))[0]


def test_the_bridge_is_a_station_of_its_own(board: SimulatedBoard) -> None:
    """ARP, pings of odd lengths, registers of the top and of the engine."""
    bridge = Bridge(board)
    assert bridge.arp() == "10:e2:d5:00:00:00"
    for length in (0, 1, 2, 3, 17, 18, 19, 56, 1000):
        payload = bytes(n & 0xFF for n in range(length))
        assert bridge.ping(payload) == payload, length
    assert status(bridge, "build") == BUILD_ID
    assert status(bridge, "clock") == 50_000_000
    assert bridge.read(ENGINE_BASE + REG_ID) == [ID_VALUE]


def test_records_of_all_lengths_back_to_back(board: SimulatedBoard, rng: random.Random) -> None:
    """The longest ones find the bridge's queue full: it must not stand still (see ``station.PacketFifo``)."""
    bridge = Bridge(board)
    start_memory(bridge)
    for length in (1, 2, 254, 255, 600, 1500):
        words = [rng.getrandbits(32) for _ in range(length)]
        bridge.write(MEMORY_BASE + 0x100, words)
        assert bridge.read(MEMORY_BASE + 0x100, length) == words, length
    assert status(bridge, "host_dropped") == 0


def test_numbered_packets_pass_in_order_and_once(board: SimulatedBoard) -> None:
    """Those that come too early, again or late are not carried out; packets without a number are."""
    bridge = Bridge(board)
    start_memory(bridge)

    def give(number: int | None, value: int) -> tuple[int, int]:
        bridge.give_udp(write_packet(MEMORY_BASE, [value], number))
        return bridge.read(MEMORY_BASE)[0], status(bridge, "sequence")

    assert give(1, 11) == (11, 1)
    assert give(3, 33) == (11, 1)
    assert give(1, 99) == (11, 1)
    assert give(None, 44) == (44, 1)
    assert give(2, 22) == (22, 2)
    assert give(3, 33) == (33, 3)
    for number in (0, 2, 3, NUMBERS):
        assert give(number, 99) == (33, 3)
    for short in (b"N", b"Note", b"Notes", b"No header"[:8]):  # "No" is Etherbone's magic number
        bridge.give_udp(short)
    assert give(4, 44) == (44, 4)


def test_a_damaged_frame_is_nobodys(board: SimulatedBoard) -> None:
    """A wrong FCS: counted by the engine's queue, and the bridge carries out nothing of it."""
    bridge = Bridge(board)
    start_memory(bridge)
    bridge.write(MEMORY_BASE, [0x600D])
    give = board.give
    board.give = lambda time_ns, frame: give(time_ns, frame, damaged=True)  # type: ignore[assignment,method-assign]
    bridge.write(MEMORY_BASE, [0xBAD])
    board.give = give  # type: ignore[method-assign]
    assert bridge.read(MEMORY_BASE) == [0x600D]
    assert status(bridge, "rx_damaged") == 1


def test_a_flood_costs_the_bridge_whole_frames_only(board: SimulatedBoard, rng: random.Random) -> None:
    """Broadcasts at line rate behind a long read: some find no room; what was read, and what is read later, is right."""
    bridge = Bridge(board)
    start_memory(bridge)
    words = [rng.getrandbits(32) for _ in range(255)]
    bridge.write(MEMORY_BASE, words)
    tag = bridge.ask([MEMORY_BASE + 4 * n for n in range(255)])
    for number in range(60):
        frame = Ether(src=PEER_MAC, dst="ff:ff:ff:ff:ff:ff", type=0x88B5) / Raw(
            bytes([number]) * rng.randrange(46, 1500)
        )
        board.give(board.now_ns, bytes(frame))
    assert bridge.answer(tag) == words
    while board.arriving:
        board.advance(board.now_ns + 10_000)
    assert bridge.read(MEMORY_BASE, 255) == words
    assert bridge.ping(b"still here") == b"still here"


def test_a_connection_of_the_driver_over_the_bridge(board: SimulatedBoard, rng: random.Random) -> None:
    """Passive open, bulk both ways, close: the driver as it is, its memory a shadow, a second engine with its driver as the
    peer. Control and data share the line."""
    device = BoardDevice(board, ip="10.0.0.2/24", mac=MAC)
    with Simulation("tiny", ip="10.0.0.1", mac=PEER_MAC, cycles_per_us=50, tick_us=50) as peer:
        Wire(device, peer)
        listener = device.socket()
        listener.bind(("10.0.0.2", 80))
        listener.listen()
        client = peer.socket()
        with pytest.raises(BlockingIOError):
            client.connect(("10.0.0.2", 80))
        ours: list = []

        def accepted() -> bool:
            try:
                ours.append(listener.accept()[0])
            except BlockingIOError:
                return False
            return True

        device.run_until(accepted, 20_000, "a connection")
        ends = [Transfer(client, rng.randbytes(6000)), Transfer(ours[0], rng.randbytes(6000))]
        device.run_until(
            lambda: sum(end.step() for end in ends) == len(ends), 100_000, "all bytes both ways, and the peer's end"
        )
        assert ends[0].received == ends[1].data and ends[1].received == ends[0].data
    bridge = device.bridge
    assert {
        name: status(bridge, name) for name in ("rx_dropped", "rx_damaged", "tx_dropped", "host_dropped")
    } == dict.fromkeys(("rx_dropped", "rx_damaged", "tx_dropped", "host_dropped"), 0)
    assert device.toe.engine.counters == {}


def test_the_engine_hears_frames_while_the_bridge_reads(board: SimulatedBoard) -> None:
    """Frames for the host at line rate, and a read of the whole of memory in between: each is told of, none is lost."""
    device = BoardDevice(board, ip="10.0.0.2/24", mac=MAC, promiscuous=False)
    peer = Peer()
    Wire(device, peer)
    before = device.toe.engine.read_counters()["RX_FRAMES"]
    for number in range(40):
        board.give(
            board.now_ns, bytes(Ether(src=PEER_MAC, dst=MAC, type=0x88B5) / Raw(bytes([number]) * (46 + 30 * number)))
        )
    words = device.bridge.read(MEMORY_BASE, 2000)
    assert len(words) == 2000
    while board.arriving:
        board.advance(board.now_ns + 10_000)
    board.advance(board.now_ns + 10_000)
    assert status(device.bridge, "rx_dropped") == 0
    assert device.toe.engine.read_counters()["RX_FRAMES"] - before >= 40


def test_the_line_carries_the_gap_between_frames(board: SimulatedBoard) -> None:
    """Answers to pings that came without a pause: 12 bytes between two frames at least (each frame's is checked)."""
    bridge = Bridge(board)
    for _ in range(5):
        board.give(board.now_ns, bytes(Ether(src=HOST_MAC, dst=MAC, type=0x88B5) / Raw(bytes(46))))
        assert bridge.ping(b"x" * 100) == b"x" * 100
    assert min(board.gaps) >= 12
