"""Host memory that no bus maps: the driver's memory is a shadow here, and a bridge carries its changes both ways.

What the driver wrote goes to the device before the register write that speaks of it: commands with COMMAND_TAIL, payload with
its doorbell or with the command that sends up to a position, frames with their SEND_FRAME. What the engine wrote is fetched when
the interrupt line is high: events as far as they are new, then what they speak of, and only then are they shown. Nothing is
scanned. The driver is the one that has its memory mapped.

Why an event is never torn: its last word carries the phase, the engine writes it last, and it is read first.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Protocol

from tiptoe_driver.hardware import abi_gen as abi

_MASK = 0xFFFF_FFFF
_WORD = 4
_ENTRY_WORDS = abi.EVENT_BYTES // _WORD
_READING = [_ENTRY_WORDS - 1, *range(_ENTRY_WORDS - 1)]
"""The order in which an event's words are read: the last one first."""
_PROVISION = struct.Struct("<IIQQI")
_UP_TO = struct.Struct("<III")
_SEND_FRAME = struct.Struct("<IIQI")


class WordBus(Protocol):
    """What a bridge does."""

    def read_words(self, addresses: list[int]) -> list[int]:
        """The words at these device addresses of host memory, read in this order."""

    def write_words(self, address: int, words: list[int]) -> None:
        """Words of host memory from ``address`` on; there before a later register write."""

    def read_register(self, address: int) -> int:
        """An engine's register."""

    def write_register(self, address: int, value: int) -> None:
        """The same; in order."""


@dataclass
class _Connection:
    snd_base: int
    snd_mask: int
    rcv_base: int
    rcv_mask: int
    pushed: int = 0
    pulled: int = 0


class Shadow:
    """The register half of the driver's seam over a bridge, with ``memory`` as the driver's.

    Parameters
    ----------
    size : int
        Bytes of host memory.
    events_at_once : int
        How many are asked for at a time, without knowing whether there are any: most of the time there are one or two.

    Attributes
    ----------
    memory : memoryview
        The shadow of ``size`` bytes of host memory.
    words_pushed, words_pulled : int
        What went over the bridge for it.
    """

    def __init__(self, bus: WordBus, size: int, *, events_at_once: int = 4) -> None:
        self._at_once = events_at_once
        self._bus = bus
        self._bytes = bytearray(size)
        self.memory = memoryview(self._bytes)
        self.words_pushed = self.words_pulled = 0
        self._registers: dict[int, int] = {}
        self._connections: dict[int, _Connection] = {}
        self._commands = self._events = 0

    # --- the driver's side ---

    def read32(self, address: int) -> int:
        """Read a register."""
        return self._bus.read_register(address)

    def write32(self, address: int, value: int) -> None:
        """Write a register or doorbell; what it speaks of goes first."""
        value &= _MASK
        if address >= abi.DOORBELL_BASE:
            number, offset = divmod(address - abi.DOORBELL_BASE, abi.DOORBELL_STRIDE)
            if offset == abi.DOORBELL_SND and number in self._connections:
                self._push_payload(self._connections[number], value)
        elif address == abi.REG_COMMAND_TAIL:
            self._push_commands(value)
        elif address == abi.REG_EVENT_RING_LOG2:
            self._push(self._ring(abi.REG_EVENT_RING_LO), abi.EVENT_BYTES << value)
        elif address == abi.REG_CONTROL and value & abi.CONTROL_SOFT_RESET:
            self._connections.clear()
            self._commands = self._events = 0
        self._registers[address] = value
        self._bus.write_register(address, value)

    def fetch(self) -> int:
        """Bring the engine's news into the shadow; returns the number of events."""
        fetched = 0
        while new := self._new_events():
            for event, data in new:
                self._pull_for(event)
                at = self._event_address(self._events)
                self._bytes[at : at + len(data)] = data
                self._events = self._events + 1 & _MASK
            fetched += len(new)
            if len(new) < self._at_once:
                break
        return fetched

    # --- to the device ---

    def _ring(self, low: int) -> int:
        return self._registers[low] | self._registers.get(low + _WORD, 0) << 32

    def _push_commands(self, tail: int) -> None:
        base, entries = self._ring(abi.REG_COMMAND_RING_LO), 1 << self._registers[abi.REG_COMMAND_RING_LOG2]
        for _ in range((tail - self._commands) & _MASK):
            at = base + self._commands % entries * abi.COMMAND_BYTES
            self._command(at)
            self._push(at, abi.COMMAND_BYTES)
            self._commands = self._commands + 1 & _MASK

    def _command(self, at: int) -> None:
        opcode = self._bytes[at]
        if opcode == abi.Opcode.PROVISION:
            _, tid, snd_base, rcv_base, sizes = _PROVISION.unpack_from(self._bytes, at)
            self._connections[_number(tid)] = _Connection(
                snd_base, (1 << (sizes & 0x1F)) - 1, rcv_base, (1 << (sizes >> 8 & 0x1F)) - 1
            )
        elif opcode in (abi.Opcode.CLOSE, abi.Opcode.URGENT):
            _, tid, snd_end = _UP_TO.unpack_from(self._bytes, at)
            if connection := self._connections.get(_number(tid)):
                self._push_payload(connection, snd_end)
        elif opcode == abi.Opcode.SEND_FRAME:
            _, _, address, length = _SEND_FRAME.unpack_from(self._bytes, at)
            self._push(address, length & 0xFFFF)

    def _push_payload(self, connection: _Connection, position: int) -> None:
        for start, length in _pieces(connection.pushed, position, connection.snd_mask):
            self._push(connection.snd_base + start, length)
        connection.pushed = position

    def _push(self, address: int, length: int) -> None:
        """Bytes to the device, and what else is in their first and last words."""
        start, end = address & -_WORD, address + length + _WORD - 1 & -_WORD
        words = list(struct.unpack_from(f"<{(end - start) // _WORD}I", self._bytes, start))
        self.words_pushed += len(words)
        self._bus.write_words(start, words)

    # --- from the device ---

    def _event_address(self, count: int) -> int:
        entries = 1 << self._registers[abi.REG_EVENT_RING_LOG2]
        return self._ring(abi.REG_EVENT_RING_LO) + count % entries * abi.EVENT_BYTES

    def _new_events(self) -> list[tuple[abi.Event | None, bytes]]:
        if abi.REG_EVENT_RING_LOG2 not in self._registers:
            return []
        entries = 1 << self._registers[abi.REG_EVENT_RING_LOG2]
        counts = [self._events + n & _MASK for n in range(self._at_once)]
        addresses = [self._event_address(count) + _WORD * word for count in counts for word in _READING]
        words = self._bus.read_words(addresses)
        self.words_pulled += len(words)
        new: list[tuple[abi.Event | None, bytes]] = []
        for n, count in enumerate(counts):
            last, *others = words[n * _ENTRY_WORDS : (n + 1) * _ENTRY_WORDS]
            data = struct.pack(f"<{_ENTRY_WORDS}I", *others, last)
            if abi.event_phase(data, 0) != 1 ^ (count // entries & 1):
                break
            try:
                new.append((abi.unpack_event(data), data))
            except ValueError:
                new.append((None, data))  # the driver counts it
        return new

    def _pull_for(self, event: abi.Event | None) -> None:
        if isinstance(event, abi.ConnectionEvent) and (connection := self._connections.get(_number(event.tid))):
            position = event.rcv_position - event.peer_closed & _MASK
            for start, length in _pieces(connection.pulled, position, connection.rcv_mask):
                self._pull(connection.rcv_base + start, length)
            connection.pulled = position
        elif isinstance(event, abi.FrameEvent):
            slot = event.slot % (1 << self._registers[abi.REG_FRAME_RING_LOG2])
            at = self._ring(abi.REG_FRAME_RING_LO) + slot * abi.HOST_FRAME_SLOT_BYTES
            self._pull(at, abi.HOST_FRAME_OFFSET + event.length)

    def _pull(self, address: int, length: int) -> None:
        start, end = address & -_WORD, address + length + _WORD - 1 & -_WORD
        words = self._bus.read_words(list(range(start, end, _WORD)))
        self.words_pulled += len(words)
        struct.pack_into(f"<{len(words)}I", self._bytes, start, *words)


def _number(tid: int) -> int:
    return tid & 0xFFFF


def _pieces(first: int, end: int, mask: int) -> list[tuple[int, int]]:
    """Offset and length in a ring of what lies between two positions; nothing when they are further apart than the ring."""
    length = end - first & _MASK
    if not length or length > mask + 1:
        return []
    start = first & mask
    head = min(length, mask + 1 - start)
    return [(start, head), *([(0, length - head)] if length > head else [])]
