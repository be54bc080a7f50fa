"""A test double of the device, not a model of the engine: it decodes what the driver writes and reports what the
test says.

Commands land in ``commands`` as dictionaries; doorbells in ``doorbells``; a test writes events by name. What an engine
would answer by itself (COMMAND_DONE of the commands that always get one) is written automatically unless told not to.
It does not speak TCP.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tiptoe_driver.hardware import abi_gen as reg
from tiptoe_hdl.host import abi

STALLED = (
    reg.STATUS_COMMANDS_STALLED | reg.STATUS_DOORBELLS_STALLED | reg.STATUS_EVENTS_STALLED | reg.STATUS_HOST_STALLED
)
"""What of STATUS stays until 1 is written to it."""


def encode(fields: tuple, dwords: int, values: dict[str, int]) -> bytes:
    """Lay out an entry by the tables of abi.py, independently of the driver's own packing."""
    known = {name for name, *_ in fields}
    assert set(values) <= known, f"no such field: {set(values) - known}"
    whole = 0
    for name, dword, low, width in fields:
        value = values.get(name, 0)
        assert 0 <= value < 1 << width, f"{name} = {value}"
        whole |= value << (32 * dword + low)
    return whole.to_bytes(4 * dwords, "little")


def decode(fields: tuple, raw: bytes) -> dict[str, int]:
    """The fields of an entry by the tables of abi.py."""
    whole = int.from_bytes(raw, "little")
    return {name: (whole >> (32 * dword + low)) & ((1 << width) - 1) for name, dword, low, width in fields}


class FakeDevice:
    """The scripted device.

    Attributes
    ----------
    commands : list of dict
        Every command posted, oldest first, with ``op`` (Opcode) and its fields.
    doorbells : list of tuple
        (id, "snd" or "rcv", position).
    accesses : int
        Writes and reads of registers and doorbells.
    answer : callable
        Status of a command, None to leave it unanswered; by default OK for the commands that always get an answer.
    pulled : bool
        The card is gone: reads are all ones, writes do nothing.
    tcb : dict
        Fields that READ_TCB finds; what is missing is 0.
    soft_resets : int
        Soft resets so far.
    script : list
        Functions called one at a time by ``wait`` instead of time passing without events.
    """

    def __init__(
        self,
        connections: int = 16,
        listeners: int = 4,
        syncache: int = 4,
        next_hops: int = 4,
        memory_bytes: int = 1 << 22,
    ) -> None:
        self._memory = bytearray(memory_bytes)
        self.memory = memoryview(self._memory)
        self.registers: dict[int, int] = {
            reg.REG_ID: reg.ID_VALUE,
            reg.REG_VERSION: reg.VERSION_VALUE,
            reg.REG_CAPABILITIES: sum(
                (size.bit_length() - 1) << shift
                for size, shift in ((connections, 0), (listeners, 8), (syncache, 16), (next_hops, 24))
            ),
            reg.REG_LIMITS: 8 | 40 << 8 | 1514 << 16 | reg.LIMITS_ECN | reg.LIMITS_TIMESTAMPS | reg.LIMITS_PACING,
            reg.REG_CONGESTION: 1 << reg.Congestion.NEWRENO | 1 << reg.Congestion.RENO,
            reg.REG_STATUS: reg.STATUS_READY,
        }
        self.time = 0
        self.irq = False
        self.commands: list[dict[str, Any]] = []
        self.doorbells: list[tuple[int, str, int]] = []
        self.accesses = 0
        self.reads: list[int] = []
        self.script: list[Callable[[], None]] = []
        self.read_commands = True
        self.answer: Callable[[dict[str, Any]], int | None] = self.default_answer
        self.tcb: dict[str, int] = {}
        self._fetched = 0
        self._events = 0
        self.frames = 0
        self.pulled = False
        self.soft_resets = 0

    # ------------------------------------------------------------------ the seam

    def write32(self, address: int, value: int) -> None:
        assert 0 <= value < 1 << 32 and address % 4 == 0
        self.accesses += 1
        if self.pulled:
            return
        if address >= reg.DOORBELL_BASE:
            tep_id, which = divmod(address - reg.DOORBELL_BASE, reg.DOORBELL_STRIDE)
            self.doorbells.append((tep_id, {0: "snd", 4: "rcv"}[which], value))
            return
        if address == reg.REG_IRQ_STATUS:
            self.irq = self._events != self.registers.get(reg.REG_EVENT_CONSUMER, 0)
            return
        if address == reg.REG_STATUS:
            self.registers[address] &= ~(value & STALLED)
            return
        if address == reg.REG_CONTROL and value & reg.CONTROL_SOFT_RESET:
            value = reg.CONTROL_SACK | reg.CONTROL_QUICK_ACK | 2 << reg.CONTROL_ECN_SHIFT  # as after power-up
            self.registers[reg.REG_STATUS] &= ~STALLED
            self.soft_resets += 1
            self._fetched = self._events = self.frames = 0
            self.registers[reg.REG_COMMAND_TAIL] = self.registers[reg.REG_EVENT_CONSUMER] = 0
            self.irq = False
        self.registers[address] = value
        if address == reg.REG_COMMAND_TAIL and self.read_commands:
            self.fetch()

    def read32(self, address: int) -> int:
        self.accesses += 1
        self.reads.append(address)
        if self.pulled:
            return 0xFFFF_FFFF
        if address == reg.REG_COMMAND_HEAD:
            return self._fetched
        return self.registers.get(address, 0)

    def now_us(self) -> int:
        return self.time

    def wait(self, timeout_us: int | None) -> bool:
        if not self.line:
            if self.script:
                self.script.pop(0)()
                self.time += 1
            else:
                assert timeout_us is not None, "the driver would wait for ever"
                self.time += timeout_us
        return self.line

    @property
    def line(self) -> bool:
        """The interrupt line."""
        return self.irq and not self.pulled and bool(self.registers.get(reg.REG_IRQ_MASK))

    # ------------------------------------------------------------------ commands

    def fetch(self) -> None:
        """Read every posted command."""
        while self._fetched != self.registers.get(reg.REG_COMMAND_TAIL, 0):
            entries = 1 << self.registers[reg.REG_COMMAND_RING_LOG2]
            start = self.ring(reg.REG_COMMAND_RING_LO) + self._fetched % entries * abi.COMMAND_BYTES
            raw = bytes(self.memory[start : start + abi.COMMAND_BYTES])
            op = abi.Opcode(raw[0])
            command = {"op": op, **decode(abi.COMMAND_HEADER + abi.COMMANDS[op], raw)}
            self._fetched = (self._fetched + 1) & 0xFFFF_FFFF
            self.commands.append(command)
            status = self.answer(command)
            if status is not None:
                self.done(command, status)

    @staticmethod
    def default_answer(command: dict[str, Any]) -> int | None:
        """OK for what is always answered."""
        return 0 if command["op"] in abi.ALWAYS_DONE else None

    def done(self, command: dict[str, Any], status: int = 0) -> None:
        """COMMAND_DONE of a command."""
        argument = next((command[name] for name in ("tid", "listener", "syncache_ref", "index") if name in command), 0)
        value = self.page(command["page"]) if command["op"] == abi.Opcode.READ_TCB else 0
        self.event(
            abi.EventType.COMMAND_DONE,
            argument=argument,
            opcode=command["op"],
            status=status,
            tag=command["tag"],
            value=value,
        )

    def page(self, number: int) -> int:
        """A page of ``tcb``."""
        return sum(self.tcb.get(name, 0) << low for name, low, _ in abi.TCB_PAGES[number])

    def ops(self, *ops: abi.Opcode) -> list[dict[str, Any]]:
        """The commands of these kinds."""
        return [command for command in self.commands if command["op"] in ops]

    def last(self, op: abi.Opcode) -> dict[str, Any]:
        """The newest command of a kind."""
        return self.ops(op)[-1]

    def forget(self) -> None:
        """Empty the records of commands, doorbells and accesses."""
        self.commands.clear()
        self.doorbells.clear()
        self.reads.clear()
        self.accesses = 0

    # ------------------------------------------------------------------ events

    def ring(self, register: int) -> int:
        """Address of a ring by its register."""
        return self.registers[register] | self.registers[register + 4] << 32

    def event(self, kind: abi.EventType, **values: int) -> None:
        """Write an event."""
        self.raw_event(encode(abi.EVENTS[kind] + abi.EVENT_TRAILER, 8, {"type": int(kind), **values}))

    def raw_event(self, raw: bytes) -> None:
        """Write 32 bytes as an event; the phase bit is set right."""
        entries = 1 << self.registers[reg.REG_EVENT_RING_LOG2]
        phase = 1 ^ (self._events // entries & 1)
        start = self.ring(reg.REG_EVENT_RING_LO) + self._events % entries * abi.EVENT_BYTES
        self.memory[start : start + 32] = raw[:31] + bytes([raw[31] & 0x7F | phase << 7])
        self._events += 1
        self.irq = True

    def frame(self, frame: bytes) -> None:
        """A frame for the host."""
        slots = 1 << self.registers[reg.REG_FRAME_RING_LOG2]
        start = self.ring(reg.REG_FRAME_RING_LO) + self.frames % slots * abi.HOST_FRAME_SLOT_BYTES + 2
        self.memory[start : start + len(frame)] = frame
        self.event(abi.EventType.FRAME, slot=self.frames % slots, length=len(frame))
        self.frames += 1

    def sent_frames(self) -> list[bytes]:
        """Frames of the SEND_FRAME commands, as they are in memory now."""
        return [bytes(self.memory[c["addr"] : c["addr"] + c["length"]]) for c in self.ops(abi.Opcode.SEND_FRAME)]
