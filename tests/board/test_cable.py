"""Cables to boards that are made of a dictionary: every way in which a packet or a byte can go astray."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator

import pytest

from tests.board.fakes import ADDRESS, BUILD, FakeEtherbone, FakeUart
from tiptoe_board.address_map import ENGINE_BASE, ENGINE_BYTES, MEMORY_BASE, sdram_address, status_address
from tiptoe_board.cable import CableDevice, CableError, open_cable, open_device
from tiptoe_board.cable.etherbone_udp import EtherboneCable
from tiptoe_board.cable.uart import UartCable
from tiptoe_board.etherbone import write_packet
from tiptoe_driver.hardware.abi_gen import CONTROL_SOFT_RESET, REG_CONTROL
from tiptoe_verif.wire.impairment import Impairment

NETWORKS = {
    "good": Impairment(),
    "loss": Impairment(loss=0.1),
    "twice": Impairment(duplicate=0.3, jitter_us=300),
    "reordered": Impairment(reorder=0.2, reorder_us=15_000),
    "slow": Impairment(delay_us=30_000, jitter_us=20_000),
    "all": Impairment(loss=0.1, duplicate=0.1, reorder=0.1, reorder_us=20_000, jitter_us=1_000),
}


@pytest.fixture
def fake() -> Iterator[FakeEtherbone]:
    made = FakeEtherbone()
    yield made
    made.close()


@pytest.fixture
def uart() -> Iterator[FakeUart]:
    made = FakeUart()
    yield made
    made.close()


def cable_to(fake: FakeEtherbone, **more) -> EtherboneCable:
    return EtherboneCable(ADDRESS, fake.port, **more)


@pytest.mark.parametrize("network", NETWORKS)
def test_all_is_carried_out_once_and_in_order(network: str, rng: random.Random) -> None:
    """Writes of all lengths to memory and registers, and reads among them that see what was written before them."""
    fake = FakeEtherbone(NETWORKS[network])
    cable = cable_to(fake)
    wanted: list[tuple[int, int]] = []
    for _ in range(30):
        address = rng.choice([MEMORY_BASE, ENGINE_BASE]) + 4 * rng.randrange(1000)
        words = [rng.getrandbits(32) for _ in range(rng.choice([1, 1, 1, 2, 40, 255, 300]))]
        cable.write(address, words)
        wanted += [(address + 4 * n, word) for n, word in enumerate(words)]
        if rng.random() < 0.3:
            state = dict(wanted)
            some = rng.sample(list(state), min(len(state), 300))
            assert cable.read_at(some) == [state[address] for address in some]
    cable.read_at([MEMORY_BASE])
    cable.close()
    fake.close()
    assert fake.board.written == wanted
    assert cable.greeting == {"build": BUILD, "clock": 50_000_000, "memory": 1 << 17}


def test_numbers_around_their_end(fake: FakeEtherbone) -> None:
    fake.last = (1 << 31) - 20
    cable = cable_to(fake)
    for value in range(100):
        cable.write(ENGINE_BASE, [value])
    assert cable.read_at([ENGINE_BASE]) == [99]
    assert [value for _, value in fake.board.written] == list(range(100))
    cable.close()


def test_what_a_session_before_has_on_its_way_is_not_taken_for_ours(fake: FakeEtherbone) -> None:
    before = cable_to(fake)
    before.write(MEMORY_BASE, [1])
    before.read_at([MEMORY_BASE])
    stale = [write_packet(MEMORY_BASE, [0xBAD], before._next + n) for n in range(20)]
    before.close()
    cable = cable_to(fake)
    for packet in stale:
        cable._socket.send(packet)
    cable.write(MEMORY_BASE, [2])
    assert cable.read_at([MEMORY_BASE]) == [2]
    cable.close()


def test_a_silent_board(fake: FakeEtherbone) -> None:
    """For less than the patience nothing happens, for more there is an error; at the beginning too."""
    cable = cable_to(fake, patience_s=0.5)
    fake.unplugged = True
    begin = time.monotonic()
    with pytest.raises(CableError, match="no answer for 0.5 s.*cable.*address.*power.*bitstream"):
        cable.read_at([MEMORY_BASE])
    assert 0.5 <= time.monotonic() - begin < 3
    fake.unplugged = False
    assert cable.read_at([status_address("build")]) == [BUILD]
    cable.close()
    fake.unplugged = True
    with pytest.raises(CableError, match="no answer"):
        cable_to(fake, patience_s=0.2)


def test_nobody_there() -> None:
    """ICMP says so."""
    with pytest.raises(CableError, match="refused"):
        EtherboneCable("127.0.0.4", 4711, patience_s=0.2)
    with pytest.raises(CableError, match="unknown host"):
        open_cable("etherbone://no.such.host.invalid")


def test_the_port_is_taken(fake: FakeEtherbone) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", fake.port))
        with pytest.raises(CableError, match="another program may have it"):
            cable_to(fake)


def test_a_board_that_was_started_anew(fake: FakeEtherbone) -> None:
    """It has forgotten the numbers: nothing of ours may be carried out as if nothing had happened."""
    cable = cable_to(fake)
    fake.last = 0
    with pytest.raises(CableError, match="started anew"):
        cable.read_at([MEMORY_BASE])
    cable.close()


def test_a_network_that_swallows_long_packets(fake: FakeEtherbone) -> None:
    """On the way there, or back."""
    cable = cable_to(fake)
    fake.longest_back = 500
    with pytest.raises(CableError, match="packets of 1036 bytes do not get through"):
        cable.read_at([MEMORY_BASE] * 255)
    fake.longest = 500
    with pytest.raises(CableError, match="packets of 1036 bytes do not get through"):
        cable.write(MEMORY_BASE, [0] * 255)
        cable.read_at([MEMORY_BASE])
    cable.close()


@pytest.mark.parametrize(
    "name, value, words",
    [("clock", 0, "not as a board"), ("memory", 0x5555, "not as a board"), ("build", 5, "build 00000005")],
)
def test_what_is_no_board_of_ours(fake: FakeEtherbone, uart: FakeUart, name: str, value: int, words: str) -> None:
    for board in (fake.board, uart.board):
        board.words[status_address(name)] = value
    with pytest.raises(CableError, match=words):
        open_cable(f"etherbone://{ADDRESS}:{fake.port}?build={BUILD:x}")
    with pytest.raises(CableError, match=words):
        open_cable(f"uart://{uart.terminal}?build={BUILD:x}")


@pytest.mark.parametrize(
    "url",
    ["etherbone://", "etherbone://a/b", "etherbone://a:99999", "etherbone://a?baud=9600", "etherbone://a?build=x", "uart://",
     "uart://host/dev/tty", "uart:///dev/tty?baud=-1", "uart:///dev/tty?bauds=1", "http://a"],
)  # fmt: skip
def test_what_is_no_url_of_a_cable(url: str) -> None:
    with pytest.raises(ValueError, match="is wanted"):
        open_cable(url)


def test_a_device_whose_cable_is_pulled_reads_as_all_ones(fake: FakeEtherbone) -> None:
    """Which is what the driver knows of a card that was pulled; and it waits no second time."""
    device = CableDevice(cable_to(fake, patience_s=0.3))
    device.write32(0x10, 5)
    assert device.read32(0x10) == 5 and device.failure is None
    fake.unplugged = True
    assert device.read32(0x10) == 0xFFFF_FFFF
    assert "no answer" in str(device.failure)
    begin = time.monotonic()
    device.write32(0x10, 5)
    assert device.read32(0x10) == 0xFFFF_FFFF and not device.wait(1000) and device.losses() == {}
    assert time.monotonic() - begin < 0.2
    device.close()


def test_dram_is_started_when_it_does_not_work(fake: FakeEtherbone) -> None:
    """And not when it does; an engine that was left running is stopped before."""
    url = f"etherbone://{ADDRESS}:{fake.port}"
    fake.board.words[status_address("dram")] = 1
    open_device(url).close()
    assert fake.board.words[ENGINE_BASE + REG_CONTROL] == CONTROL_SOFT_RESET
    assert not any(address == sdram_address("control") for address, _ in fake.board.written)
    fake.board.words[status_address("memory")] = 1 << 16
    fake.board.spoilt = range(MEMORY_BASE, MEMORY_BASE + (1 << 16))
    with pytest.raises(CableError, match="DDR3: lane 0 reads wrong at every delay"):
        open_device(url)
    assert any(address == sdram_address("control") for address, _ in fake.board.written)


# --- the serial line ---


def test_words_over_a_serial_line(uart: FakeUart, rng: random.Random) -> None:
    cable = UartCable(uart.terminal)
    words = [rng.getrandbits(32) for _ in range(200)]
    cable.write(MEMORY_BASE + 0x100, words)
    cable.write(ENGINE_BASE, [7, 8])
    addresses = [MEMORY_BASE + 0x100 + 4 * n for n in range(200)]
    addresses = addresses[100:] + addresses[:80] + rng.sample(addresses[80:100], 20)
    assert cable.read_at(addresses) == [words[(address - MEMORY_BASE - 0x100) // 4] for address in addresses]
    assert cable.read_at([ENGINE_BASE, ENGINE_BASE + 4]) == [7, 8]
    assert len(uart.board.written) == 202
    assert cable.counters()["repeated"] == cable.counters()["differed"] == 0
    cable.close()


@pytest.mark.parametrize("address", [ENGINE_BASE, ENGINE_BASE + ENGINE_BYTES - 4, sdram_address("control")])
def test_registers_are_written_once_whatever_they_read_as(uart: FakeUart, address: int) -> None:
    """Memory keeps what is written, registers need not."""
    cable = UartCable(uart.terminal)
    uart.board.spoilt = range(address, address + 4)
    cable.write(address, [7])
    assert uart.board.written == [(address, 7)] and cable.counters()["differed"] == 0


@pytest.mark.parametrize("to_board", [True, False], ids=["there", "back"])
@pytest.mark.parametrize("fault", ["lost", "garbage"])
def test_bytes_lost_and_added(uart: FakeUart, rng: random.Random, to_board: bool, fault: str) -> None:
    """One in fifty reads of the line. What counts is right in the end, whatever came in between."""
    cable = UartCable(uart.terminal, gap_s=0.05)

    def spoil(data: bytes, direction: bool) -> bytes:
        if direction != to_board or not data or rng.random() > 0.02:
            return data
        at = rng.randrange(len(data))
        return data[:at] + data[at + 1 :] if fault == "lost" else data[:at] + b"\0" + data[at:]

    uart.spoil = spoil
    for _ in range(40):
        words = [rng.getrandbits(32) for _ in range(rng.choice([1, 5, 30]))]
        cable.write(MEMORY_BASE, words)
        assert cable.read_at([MEMORY_BASE + 4 * n for n in range(len(words))]) == words
    cable.close()


def test_half_a_command_of_a_session_before(uart: FakeUart) -> None:
    """Is forgotten before the new one says anything."""
    cable = UartCable(uart.terminal)
    cable._port.write(bytes([1, 5, 0x10]))
    cable.close()
    cable = UartCable(uart.terminal)
    assert cable.read_at([status_address("build")]) == [BUILD] and uart.board.written == []
    cable.close()


def test_a_silent_serial_line(uart: FakeUart) -> None:
    cable = UartCable(uart.terminal, patience_s=0.3, gap_s=0.05)
    uart.deaf = True
    with pytest.raises(CableError, match="no answer for 0.3 s.*bauds"):
        cable.read_at([MEMORY_BASE])
    cable.close()


def test_a_serial_port_that_goes_away(uart: FakeUart) -> None:
    cable = UartCable(uart.terminal, patience_s=0.3)
    uart.close()
    with pytest.raises(CableError, match="port is gone"):
        cable.read_at([MEMORY_BASE])
    cable.close()
    with pytest.raises(CableError, match="cannot be opened"):
        UartCable("/dev/no-such-tty")
