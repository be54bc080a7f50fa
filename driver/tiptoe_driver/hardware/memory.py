"""Host memory shared with the device: aligned blocks, and rings of bytes addressed by position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class OutOfMemory(Exception):
    """No free block of this size is left."""


@dataclass(frozen=True, slots=True)
class Block:
    """A power-of-two block of host memory, aligned to its size. ``address`` is the device's."""

    address: int
    log2: int

    @property
    def size(self) -> int:
        """Bytes."""
        return 1 << self.log2


class HostMemory:
    """Buddy allocator over a device's host memory: blocks of 2**n bytes, aligned to their size.

    Parameters
    ----------
    memory : memoryview
        Host memory; device address 0 is its first byte.
    base, limit : int
        Address range to hand out; ``limit`` None: to the end.
    """

    MIN_LOG2 = 6

    def __init__(self, memory: memoryview, base: int = 0, limit: int | None = None) -> None:
        if memory.readonly or memory.itemsize != 1 or memory.ndim != 1:
            raise ValueError("host memory must be a writable memoryview of bytes")
        limit = len(memory) if limit is None else limit
        if not 0 <= base <= limit <= len(memory):
            raise ValueError(f"range {base:#x} to {limit:#x} is not within {len(memory):#x} bytes of host memory")
        self.memory = memory
        self._free: dict[int, set[int]] = {}
        self.range = (base, limit)
        """The addresses handed out lie from the first to before the second."""
        address = -(-base >> self.MIN_LOG2) << self.MIN_LOG2
        while address < limit:
            log2 = (limit - address).bit_length() - 1
            if address:
                log2 = min(log2, (address & -address).bit_length() - 1)
            if log2 < self.MIN_LOG2:
                break
            self._free.setdefault(log2, set()).add(address)
            address += 1 << log2

    @property
    def free_bytes(self) -> int:
        """Bytes not handed out."""
        return sum(len(addresses) << log2 for log2, addresses in self._free.items())

    def allocate(self, size: int) -> Block:
        """A block of at least ``size`` bytes; its size is the next power of two. Raises OutOfMemory."""
        want = max(self.MIN_LOG2, (size - 1).bit_length())
        have = min((log2 for log2, addresses in self._free.items() if log2 >= want and addresses), default=None)
        if have is None:
            raise OutOfMemory(f"no {1 << want} free bytes in one piece")
        address = min(self._free[have])
        self._free[have].remove(address)
        while have > want:
            have -= 1
            self._free.setdefault(have, set()).add(address + (1 << have))
        return Block(address, want)

    def free(self, block: Block) -> None:
        """Give a block back; its buddy joins it when free too."""
        address, log2 = block.address, block.log2
        if address in self._free.get(log2, ()):
            raise ValueError(f"block at {address:#x} is free already")
        while address ^ (1 << log2) in self._free.get(log2, ()):
            buddy = address ^ (1 << log2)
            self._free[log2].remove(buddy)
            address = min(address, buddy)
            log2 += 1
        self._free.setdefault(log2, set()).add(address)

    def view(self, block: Block) -> memoryview:
        """The bytes of a block."""
        return self.memory[block.address : block.address + block.size]


class ByteRing:
    """A ring of bytes addressed by absolute positions: byte ``p`` lies at ``p mod size``.

    Parameters
    ----------
    memory : memoryview
        The ring's bytes; a power of two of them.

    Attributes
    ----------
    copied_in, copied_out : int
        Bytes the host has copied into the ring and out of it since it was made: nothing else in the driver copies payload.
    """

    __slots__ = ("_mask", "_memory", "copied_in", "copied_out", "size")

    def __init__(self, memory: memoryview) -> None:
        size = len(memory)
        if size == 0 or size & (size - 1):
            raise ValueError(f"a ring has a power of two of bytes, not {size}")
        self._memory = memory
        self._mask = size - 1
        self.size = size
        """Bytes of the ring."""
        self.copied_in = 0
        self.copied_out = 0

    def move_out(self) -> None:
        """Go on in memory of our own: the device's is not ours any more."""
        self._memory = memoryview(bytearray(self._memory))

    def write(self, position: int, data: memoryview | bytes) -> None:
        """Copy ``data`` (at most ``size`` bytes) to ``position`` on."""
        self.copied_in += len(data)
        start = position & self._mask
        first = self.size - start
        if len(data) <= first:
            self._memory[start : start + len(data)] = data
        else:
            self._memory[start:] = data[:first]
            self._memory[: len(data) - first] = data[first:]

    def read_into(self, position: int, buffer: memoryview) -> None:
        """Fill ``buffer`` (at most ``size`` bytes) from ``position`` on."""
        self.copied_out += len(buffer)
        start = position & self._mask
        first = self.size - start
        if len(buffer) <= first:
            buffer[:] = self._memory[start : start + len(buffer)]
        else:
            buffer[:first] = self._memory[start:]
            buffer[first:] = self._memory[: len(buffer) - first]

    def read(self, position: int, length: int) -> bytes:
        """A copy of the ``length`` bytes from ``position`` on."""
        self.copied_out += length
        return b"".join(self.pieces(position, length))

    def pieces(self, position: int, length: int) -> tuple[memoryview, memoryview]:
        """The ``length`` bytes from ``position`` on where they lie: two views, the second empty unless they wrap."""
        start = position & self._mask
        end = start + length
        if end <= self.size:
            return self._memory[start:end], self._memory[:0]
        return self._memory[start:], self._memory[: end & self._mask]


class RingOwner(Protocol):
    """Where a pair of rings comes from and goes back to."""

    memory: HostMemory

    def put(self, pair: RingPair) -> None:
        """Nobody uses the pair any more."""


class RingPair:
    """The send ring and the receive ring of one connection, counted by their users.

    A connection's id can be released while its user still reads: the rings live until both have let go.

    Attributes
    ----------
    lent : bool
        A ring of it is the application's: the pair serves the socket it was lent to, and no other.
    """

    lent = False

    __slots__ = ("pool", "rcv", "rcv_block", "references", "snd", "snd_block")

    def __init__(self, pool: RingOwner, snd_block: Block, rcv_block: Block) -> None:
        self.pool = pool
        self.snd_block = snd_block
        self.rcv_block = rcv_block
        self.snd = ByteRing(pool.memory.view(snd_block))
        self.rcv = ByteRing(pool.memory.view(rcv_block))
        self.references = 0

    def hold(self) -> RingPair:
        """One more user."""
        self.references += 1
        return self

    def drop(self) -> None:
        """One user less; the last one gives the pair back to its pool."""
        if self.references <= 0:
            raise ValueError("ring pair dropped more often than held")
        self.references -= 1
        if self.references == 0:
            self.pool.put(self)


class RingPool:
    """Ring pairs of one size, allocated as needed.

    Parameters
    ----------
    snd_bytes, rcv_bytes : int
        Sizes of a pair: powers of two, ``least`` to 2**24.
    """

    def __init__(self, memory: HostMemory, snd_bytes: int, rcv_bytes: int, least: int) -> None:
        check_ring_size("send ring", snd_bytes, least)
        check_ring_size("receive ring", rcv_bytes, least)
        self.memory = memory
        self.snd_bytes = snd_bytes
        self.rcv_bytes = rcv_bytes
        self._pairs: list[RingPair] = []
        self._free: list[RingPair] = []

    @property
    def allocated(self) -> int:
        """Pairs made."""
        return len(self._pairs)

    @property
    def in_use(self) -> int:
        """Pairs handed out."""
        return self.allocated - len(self._free)

    def move_out(self) -> None:
        """The device's memory is not ours any more: what readers still want of it is copied."""
        for pair in self._pairs:
            if pair.references:
                pair.snd.move_out()
                pair.rcv.move_out()

    def get(self) -> RingPair | None:
        """A pair with one user, or None when memory is used up."""
        if self._free:
            return self._free.pop().hold()
        try:
            snd = self.memory.allocate(self.snd_bytes)
        except OutOfMemory:
            return None
        try:
            rcv = self.memory.allocate(self.rcv_bytes)
        except OutOfMemory:
            self.memory.free(snd)
            return None
        pair = RingPair(self, snd, rcv)
        self._pairs.append(pair)
        return pair.hold()

    def put(self, pair: RingPair) -> None:
        """Take a pair back (by RingPair.drop)."""
        self._free.append(pair)


def check_ring_size(what: str, size: int, least: int) -> None:
    """ValueError when an engine whose rings have ``least`` bytes at least takes no ring of ``size`` bytes."""
    if size & (size - 1) or not least <= size <= 1 << 24:
        raise ValueError(f"{what} of {size} bytes: must be a power of two from {least} to 16777216")


def window_scale(ring_bytes: int) -> int:
    """Smallest window scale whose 16-bit window covers the ring (RFC 7323 section 2.3)."""
    scale = 0
    while ring_bytes >> scale > 0xFFFF:
        scale += 1
    return scale


__all__ = [
    "Block",
    "ByteRing",
    "HostMemory",
    "OutOfMemory",
    "RingOwner",
    "RingPair",
    "RingPool",
    "check_ring_size",
    "window_scale",
]
