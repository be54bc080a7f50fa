"""The shadow of unmapped host memory: what goes over the bridge, when, and in which order."""

from __future__ import annotations

import random
import struct

import pytest

from tiptoe_board.etherbone import LONGEST, NotEtherbone, parse_answer, read_packet, write_packet
from tiptoe_board.shadow import Shadow
from tiptoe_driver.hardware import abi_gen as abi

COMMANDS, EVENTS, FRAMES, SND, RCV = 0x1000, 0x2000, 0x4000, 0x8000, 0xA000
RING = 4096


class FakeBus:
    """A device's memory and registers, and everything that was done to them in order."""

    def __init__(self) -> None:
        self.memory = bytearray(1 << 16)
        self.log: list[tuple[str, int, int]] = []

    def read_words(self, addresses: list[int]) -> list[int]:
        self.log += [("read", address, 4) for address in addresses]
        return [struct.unpack_from("<I", self.memory, address)[0] for address in addresses]

    def write_words(self, address: int, words: list[int]) -> None:
        self.log.append(("write", address, 4 * len(words)))
        struct.pack_into(f"<{len(words)}I", self.memory, address, *words)

    def read_register(self, address: int) -> int:
        return 0

    def write_register(self, address: int, value: int) -> None:
        self.log.append(("register", address, value))


@pytest.fixture
def bus() -> FakeBus:
    return FakeBus()


@pytest.fixture
def shadow(bus: FakeBus) -> Shadow:
    made = Shadow(bus, len(bus.memory))
    for register, value in (
        (abi.REG_COMMAND_RING_LO, COMMANDS), (abi.REG_COMMAND_RING_LOG2, 4), (abi.REG_EVENT_RING_LO, EVENTS),
        (abi.REG_EVENT_RING_LOG2, 3), (abi.REG_FRAME_RING_LO, FRAMES), (abi.REG_FRAME_RING_LOG2, 1),
    ):  # fmt: skip
        made.write32(register, value)
    provision = abi.pack_provision(0, tid=5, snd_base=SND, rcv_base=RCV, snd_log2=12, rcv_log2=12, stock=0)
    command(made, 0, provision)
    bus.log.clear()
    return made


def command(shadow: Shadow, number: int, entry: bytes) -> None:
    """Post a command as the driver does."""
    at = COMMANDS + number % 16 * abi.COMMAND_BYTES
    shadow.memory[at : at + len(entry)] = entry
    shadow.write32(abi.REG_COMMAND_TAIL, number + 1)


def connection_event(bus: FakeBus, number: int, *, rcv_position: int, peer_closed: int = 0) -> None:
    """An event in the device's ring of eight; its last word holds type, flags and phase."""
    phase = 1 ^ (number // 8 & 1)
    last = abi.EventType.CONNECTION | peer_closed << PEER_CLOSED_BIT | phase << 31
    struct.pack_into("<8I", bus.memory, EVENTS + number % 8 * 32, 5 | 1 << 16, rcv_position, 0, 0, 0, 0, 0, last)


def find_peer_closed() -> int:
    """The bit of ``peer_closed`` in an event's last word."""
    return next(bit for bit in range(8, 31) if abi.ConnectionEvent.unpack([0] * 7 + [1 << bit]).peer_closed)


PEER_CLOSED_BIT = find_peer_closed()


def doorbell(shadow: Shadow, position: int) -> None:
    shadow.write32(abi.DOORBELL_BASE + 5 * abi.DOORBELL_STRIDE + abi.DOORBELL_SND, position)


def test_a_command_is_there_before_its_tail(bus: FakeBus, shadow: Shadow) -> None:
    command(shadow, 1, abi.pack_nop(7))
    assert bus.log == [("write", COMMANDS + 64, 64), ("register", abi.REG_COMMAND_TAIL, 2)]
    assert bus.memory[COMMANDS + 64 : COMMANDS + 128] == bytes(shadow.memory[COMMANDS + 64 : COMMANDS + 128])


def test_payload_is_there_before_its_doorbell_and_goes_once(bus: FakeBus, shadow: Shadow, rng: random.Random) -> None:
    """Positions of any alignment, around the ring's end."""
    position = 0
    for length in (1, 3, 1000, 4, 3000, 2, 4096, 77):
        data = rng.randbytes(length)
        for n, byte in enumerate(data):
            shadow.memory[SND + (position + n) % RING] = byte
        bus.log.clear()
        doorbell(shadow, position + length)
        assert bytes(bus.memory[SND + (position + n) % RING] for n in range(length)) == data
        assert bus.log[-1][0] == "register" and all(kind == "write" for kind, _, _ in bus.log[:-1])
        assert sum(size for _, _, size in bus.log[:-1]) <= length + 12
        position += length


@pytest.mark.parametrize("pack", [abi.pack_close, abi.pack_urgent])
def test_payload_is_there_before_the_command_that_sends_it(pack, bus: FakeBus, shadow: Shadow) -> None:
    """CLOSE and URGENT send up to a position that no doorbell told of."""
    shadow.memory[SND : SND + 10] = b"to the end"
    command(shadow, 1, pack(0, tid=5 | 1 << 16, snd_end=10))
    assert bus.memory[SND : SND + 10] == b"to the end"
    assert [kind for kind, _, _ in bus.log] == ["write", "write", "register"]


def test_a_frame_is_there_before_its_command(bus: FakeBus, shadow: Shadow) -> None:
    shadow.memory[0xC002:0xC042] = bytes(range(64))
    command(shadow, 1, abi.pack_send_frame(0, addr=0xC002, length=64))
    assert bus.memory[0xC002:0xC042] == bytes(range(64))


def test_what_an_event_speaks_of_is_there_before_it(bus: FakeBus, shadow: Shadow, rng: random.Random) -> None:
    """Events around their ring's end and data around its own; the FIN is no byte."""
    position = 0
    for number, length in enumerate((5, 0, 1460, 1460, 1460, 3, 700, 1, 4096, 9)):
        data = rng.randbytes(length)
        for n, byte in enumerate(data):
            bus.memory[RCV + (position + n) % RING] = byte
        position += length
        connection_event(bus, number, rcv_position=position + (number == 9), peer_closed=int(number == 9))
        assert shadow.fetch() == 1
        assert bytes(shadow.memory[RCV + (position - length + n) % RING] for n in range(length)) == data
        at = EVENTS + number % 8 * 32
        assert shadow.memory[at : at + 32] == bus.memory[at : at + 32]
    assert shadow.fetch() == 0


def test_an_events_last_word_is_read_first(bus: FakeBus, shadow: Shadow) -> None:
    connection_event(bus, 0, rcv_position=0)
    bus.log.clear()
    shadow.fetch()
    assert [address for _, address, _ in bus.log[:8]] == [EVENTS + 4 * word for word in (7, 0, 1, 2, 3, 4, 5, 6)]


def test_many_events_at_once(bus: FakeBus, shadow: Shadow) -> None:
    for number in range(7):
        connection_event(bus, number, rcv_position=0)
    assert shadow.fetch() == 7


def test_the_event_ring_is_cleared_on_the_device(bus: FakeBus, shadow: Shadow) -> None:
    """It is when the driver tells where it is: what lies there from before is no event."""
    connection_event(bus, 0, rcv_position=0)
    shadow.write32(abi.REG_CONTROL, abi.CONTROL_SOFT_RESET)
    shadow.write32(abi.REG_EVENT_RING_LOG2, 3)
    assert shadow.fetch() == 0


def test_packets_of_the_bridge() -> None:
    """Bytes as LiteX's own tools send them; an answer back; what is no answer."""
    header = bytes.fromhex("4e6f104400000000")
    assert write_packet(0x4000_0000, [0x1234]) == header + bytes.fromhex("100f0100 40000000 00001234")
    assert read_packet([0x10, 0x14], 7) == header + bytes.fromhex("100f0002 00000007 00000010 00000014")
    assert parse_answer(header + bytes.fromhex("000f0200 00000007 0000000a 0000000b")) == (7, [10, 11])
    for bad in (b"", header, header + bytes(8), header + bytes.fromhex("000f0200 00000007 0000000a")):
        with pytest.raises(NotEtherbone):
            parse_answer(bad)
    for count in (0, LONGEST + 1):
        with pytest.raises(ValueError, match="255"):
            read_packet([0] * count)
