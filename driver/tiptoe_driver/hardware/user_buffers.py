"""Zero-copy (contract: ZC-1): buffers that the application owns, as rings of its connections.

The payload is written once, by the device into the buffer the application reads, by the application into the buffer the
device reads. A buffer serves one socket at a time, until that is closed and the engine has let go (RELEASE answered).
"""

from __future__ import annotations

from .memory import Block, HostMemory, OutOfMemory, RingPair, check_ring_size


class UserBuffer:
    """Memory for one ring of one connection at a time, the application's until it frees it.

    Made by ``Tiptoe.allocate_buffer`` or ``Tiptoe.register_buffer``; given to a socket by ``Socket.set_buffers``.

    Attributes
    ----------
    memory : memoryview
        The buffer's bytes. While it is in use, byte ``p`` of the connection lies at ``p mod size``.
    address : int
        Its first byte as the device sees it.
    size : int
        Bytes: a power of two.
    """

    __slots__ = ("_block", "_buffers", "_pair", "memory")

    def __init__(self, buffers: UserBuffers, block: Block) -> None:
        self._buffers: UserBuffers | None = buffers
        self._block = block
        self._pair: RingPair | None = None
        self.memory = buffers.memory.view(block)

    @property
    def address(self) -> int:
        """Device address of the first byte."""
        return self._block.address

    @property
    def size(self) -> int:
        """Bytes."""
        return self._block.size

    @property
    def in_use(self) -> bool:
        """A socket has it, or the engine may still touch it."""
        return self._pair is not None

    def free(self) -> None:
        """Give the memory back; the buffer is good for nothing afterwards. BufferError while it is in use."""
        self._require_idle("freed")
        if self._buffers is not None:
            self._buffers.forget(self)
            self._buffers = None

    def lend(self, *, rcv: UserBuffer | None, snd: UserBuffer | None) -> RingPair:
        """Rings in these buffers, one of which is this one (by Socket.set_buffers)."""
        self._require_idle("given to a socket")
        assert self._buffers is not None
        return self._buffers.lend(snd, rcv)

    def _require_idle(self, what: str) -> None:
        if self._buffers is None:
            raise BufferError(f"buffer at {self.address:#x} was freed: it cannot be {what}")
        if self._pair is not None:
            raise BufferError(
                f"buffer at {self.address:#x} is in use: it cannot be {what} before its socket is closed "
                "and the engine has let go"
            )

    def __repr__(self) -> str:
        state = "freed" if self._buffers is None else "in use" if self._pair is not None else "idle"
        return f"<UserBuffer {self.address:#x} {self.size} bytes, {state}>"


class LentPair(RingPair):
    """Rings of which one or both are the application's; it comes to its end with its last user."""

    __slots__ = ("lent_buffers", "own_blocks")
    lent = True

    def __init__(self, buffers: UserBuffers, snd: Block, rcv: Block, lent: list[UserBuffer], own: list[Block]) -> None:
        super().__init__(buffers, snd, rcv)
        self.lent_buffers = lent
        self.own_blocks = own


class UserBuffers:
    """The applications' buffers of one engine, and rings of a size that one connection alone wants.

    Parameters
    ----------
    memory : HostMemory
        Where buffers are allocated.
    reachable : int
        End of the memory that the device can reach.
    snd_bytes, rcv_bytes : int
        Sizes of the driver's own rings, for the direction that is given no buffer.
    least : int
        Size of the smallest ring that the engine takes.
    """

    def __init__(self, memory: HostMemory, reachable: int, snd_bytes: int, rcv_bytes: int, least: int) -> None:
        self.memory = memory
        self._reachable = reachable
        self._snd_bytes = snd_bytes
        self._rcv_bytes = rcv_bytes
        self._least = least
        self._allocated: set[UserBuffer] = set()
        self._registered: set[UserBuffer] = set()
        self._own: set[RingPair] = set()

    def allocate(self, size: int) -> UserBuffer:
        """A buffer in the driver's memory. ValueError for a size the engine does not take, OutOfMemory."""
        check_ring_size("buffer", size, self._least)
        buffer = UserBuffer(self, self.memory.allocate(size))
        self._allocated.add(buffer)
        return buffer

    def register(self, address: int, size: int) -> UserBuffer:
        """A buffer in memory that the driver leaves alone (``EngineOptions.memory_base``, ``memory_limit``).

        ValueError for a wrong size or alignment, and for memory that is out of the device's reach; BufferError when the
        driver or another buffer has a part of it.
        """
        check_ring_size("buffer", size, self._least)
        if address % size:
            raise ValueError(f"buffer at {address:#x}: must be aligned to its size of {size} bytes")
        if not 0 <= address <= self._reachable - size:
            raise ValueError(
                f"buffer at {address:#x} of {size} bytes: the device reaches memory up to {self._reachable:#x}"
            )
        for low, high, whose in [
            (*self.memory.range, "the driver"),
            *((other.address, other.address + other.size, "another buffer") for other in self._registered),
        ]:
            if address < high and low < address + size:
                raise BufferError(f"buffer at {address:#x} of {size} bytes: {whose} has {low:#x} to {high:#x}")
        buffer = UserBuffer(self, Block(address, size.bit_length() - 1))
        self._registered.add(buffer)
        return buffer

    def forget(self, buffer: UserBuffer) -> None:
        """By ``UserBuffer.free``."""
        if buffer in self._allocated:
            self._allocated.remove(buffer)
            self.memory.free(buffer._block)
        else:
            self._registered.remove(buffer)

    def lend(self, snd: UserBuffer | None, rcv: UserBuffer | None) -> RingPair:
        """Rings in these buffers, with one user; the driver's own memory for a direction without. BufferError when a
        buffer is in use, was freed, is another device's, or is meant for both directions; OutOfMemory."""
        lent = [buffer for buffer in (snd, rcv) if buffer is not None]
        for buffer in lent:
            buffer._require_idle("given to a socket")
            if buffer._buffers is not self:
                raise BufferError(f"buffer at {buffer.address:#x} is another device's")
        if snd is rcv:
            raise BufferError(f"buffer at {lent[0].address:#x} cannot serve both directions")
        own: list[Block] = []

        def block(buffer: UserBuffer | None, size: int) -> Block:
            if buffer is not None:
                return buffer._block
            own.append(self.memory.allocate(size))
            return own[-1]

        pair = LentPair(self, block(snd, self._snd_bytes), block(rcv, self._rcv_bytes), lent, own)
        for buffer in lent:
            buffer._pair = pair
        return pair.hold()

    def own(self, rcv_bytes: int) -> RingPair | None:
        """Rings in the driver's memory, the receive ring of ``rcv_bytes``, with one user; None when memory is used up."""
        own: list[Block] = []
        try:
            for size in (self._snd_bytes, rcv_bytes):
                own.append(self.memory.allocate(size))
        except OutOfMemory:
            for block in own:
                self.memory.free(block)
            return None
        pair = LentPair(self, own[0], own[1], [], own)
        self._own.add(pair)
        return pair.hold()

    def move_out(self) -> None:
        """The device's memory is not ours any more: what readers still want of it is copied."""
        for pair in self._own:
            pair.snd.move_out()
            pair.rcv.move_out()

    def put(self, pair: RingPair) -> None:
        """The last user has let go of a pair (by RingPair.drop)."""
        assert isinstance(pair, LentPair)
        self._own.discard(pair)
        for buffer in pair.lent_buffers:
            buffer._pair = None
        for block in pair.own_blocks:
            self.memory.free(block)


__all__ = ["UserBuffer", "UserBuffers"]
