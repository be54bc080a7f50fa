"""Command ring and event ring: how the driver and the engine talk through host memory.

Formats: docs/rings.md. A command entry has 64 bytes, an event entry 32; the phase bit of an event tells that it is new.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from . import abi_gen as abi
from .device import Device
from .memory import Block
from .positions import MASK

_TAGS = 0xFFFF
"""Tags of commands that somebody waits for: 1 to this."""
Done = Callable[[int, int], None]
"""Called with ``status`` and ``argument`` of a command's COMMAND_DONE."""
DoneEvent = Callable[[abi.CommandDoneEvent], None]
"""Called with the whole COMMAND_DONE."""


class CommandRing:
    """Producer side of the command ring.

    Commands of the ``control`` kind (close, abort, release and their like) always succeed: the last ``reserve`` entries
    are theirs, and what finds the ring full even so waits in order in ``backlog`` until the engine has read on.

    Parameters
    ----------
    block : Block
        The ring's memory: ``2**log2`` entries of 64 bytes.
    reserve : int
        Entries that only control commands may use.
    """

    def __init__(self, device: Device, block: Block, reserve: int) -> None:
        self._device = device
        self._memory = device.memory[block.address : block.address + block.size]
        self.entries = block.size // abi.COMMAND_BYTES
        if not 0 < reserve < self.entries:
            raise ValueError(f"reserve of {reserve} in a command ring of {self.entries} entries")
        self.reserve = reserve
        self.backlog: deque[bytes] = deque()
        """Control commands that wait for room."""
        self._tail = 0  # commands written, modulo 2**32
        self._head = 0  # commands known to have been read by the engine
        self._tag = 0
        self._waiting: dict[int, tuple[int, DoneEvent]] = {}  # tag: command count when posted, handler
        self._answered = 0  # COMMAND_DONEs somebody waited for
        self.closed = False
        """The engine reads no commands: there is no room, and control commands are forgotten."""

    def close(self) -> None:
        """The engine reads no commands any more; those that wait are forgotten."""
        self.closed = True
        self.backlog.clear()

    def reset(self) -> None:
        """The engine was reset: the ring begins anew, empty. Tags go on, so that none is soon used again."""
        self._tail = self._head = 0
        self.backlog.clear()
        self._waiting.clear()
        self.closed = False

    @property
    def free(self) -> int:
        """Entries certainly free; the engine may have read more."""
        return self.entries - ((self._tail - self._head) & MASK)

    @property
    def waiting(self) -> int:
        """Commands whose COMMAND_DONE is awaited."""
        return len(self._waiting)

    @property
    def progress(self) -> tuple[int, int]:
        """Commands known to have been read, and answered: it changes when a command gets on."""
        return self._head, self._answered

    def unfinished(self) -> bool:
        """Whether a command waits to be read by the engine, or for its COMMAND_DONE; asks the engine."""
        if self._tail != self._head:
            self._learn_head()
        return bool(self._tail != self._head or self._waiting or self.backlog)

    def room(self, count: int) -> bool:
        """Whether ``count`` ordinary commands can be posted now."""
        if self.backlog or self.closed:
            return False
        return self._has(count + self.reserve)

    def tag(self, done: Done) -> int:
        """A tag whose COMMAND_DONE will be handed to ``done``. For the next command posted."""
        return self.tag_event(lambda event: done(event.status, event.argument))

    def tag_event(self, done: DoneEvent) -> int:
        """The same for who wants the whole event. Of an engine that answers nothing the oldest is forgotten."""
        if len(self._waiting) == _TAGS:
            del self._waiting[next(iter(self._waiting))]
        while True:  # one is free
            self._tag = self._tag % _TAGS + 1  # 0 is the tag of commands nobody waits for
            if self._tag not in self._waiting:
                break
        self._waiting[self._tag] = (self._tail, done)
        return self._tag

    def post(self, command: bytes) -> None:
        """Write an ordinary command; the caller has asked ``room`` before."""
        if self.backlog or self.free <= self.reserve:
            raise RuntimeError("command ring full: ask room() first")
        self._write(command)

    def post_control(self, command: bytes) -> None:
        """Write a control command; it waits in the backlog when the ring is full."""
        if self.closed:
            return
        if self.backlog or not self._has(1):
            self.backlog.append(command)
        else:
            self._write(command)

    def flush(self) -> None:
        """Move what waits in the backlog to the ring as far as there is room."""
        while self.backlog and self._has(1):
            self._write(self.backlog.popleft())

    def done(self, event: abi.CommandDoneEvent) -> bool:
        """A COMMAND_DONE came; returns whether somebody waited for its tag."""
        found = self._waiting.pop(event.tag, None)
        if found is None:
            return False
        posted, handler = found
        self._answered += 1
        if (self._tail - posted - 1) & MASK < (self._tail - self._head) & MASK:
            # Commands are read in order: what came before this one has been read too.
            self._head = (posted + 1) & MASK
        handler(event)
        return True

    def _has(self, count: int) -> bool:
        """Whether ``count`` entries are free; asks the engine only when the ring seems full."""
        if self.free >= count:
            return True
        self._learn_head()
        return self.free >= count

    def _learn_head(self) -> None:
        """Ask the engine how far it has read; what cannot be is ignored."""
        head = self._device.read32(abi.REG_COMMAND_HEAD)
        if (self._tail - head) & MASK <= self.entries:
            self._head = head

    def _write(self, command: bytes) -> None:
        offset = self._tail % self.entries * abi.COMMAND_BYTES
        self._memory[offset : offset + abi.COMMAND_BYTES] = command
        self._tail = (self._tail + 1) & MASK
        self._device.write32(abi.REG_COMMAND_TAIL, self._tail)


class EventRing:
    """Consumer side of the event ring.

    Parameters
    ----------
    block : Block
        The ring's memory, ``2**log2`` entries of 32 bytes; zeroed here.
    """

    def __init__(self, device: Device, block: Block) -> None:
        self._device = device
        self._memory = device.memory[block.address : block.address + block.size]
        self.entries = block.size // abi.EVENT_BYTES
        self.unknown = 0
        """Events of a type this driver does not know; they are skipped."""
        self.reset()

    def reset(self) -> None:
        """The engine was reset: the ring begins anew, and what it holds is no event."""
        self._memory[:] = bytes(len(self._memory))
        self._head = 0  # events read, modulo 2**32

    @property
    def pending(self) -> bool:
        """Whether an event waits."""
        index = self._head % self.entries
        phase = 1 ^ (self._head // self.entries & 1)
        return abi.event_phase(self._memory, index * abi.EVENT_BYTES) == phase

    def take(self) -> abi.Event | None:
        """The next event, or None when there is none. The engine may reuse entries after ``acknowledge``."""
        while self.pending:
            offset = self._head % self.entries * abi.EVENT_BYTES
            self._head = (self._head + 1) & MASK
            try:
                return abi.unpack_event(self._memory, offset)
            except ValueError:
                self.unknown += 1
        return None

    def acknowledge(self) -> None:
        """Tell the engine how far events were read."""
        self._device.write32(abi.REG_EVENT_CONSUMER, self._head)
