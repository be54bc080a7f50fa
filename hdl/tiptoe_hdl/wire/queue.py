"""Small first-in first-out queues for streams, their output registered."""

from amaranth.hdl import Module, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out


class Queue(wiring.Component):
    """A queue of ``depth`` entries: the first in its output register, the others in distributed memory.

    One place of the memory is always free, and written all the time: no enable has to reach every bit of it.

    Latency two cycles, one transfer a cycle. ``o`` comes from flip-flops; ``i.ready`` depends on flip-flops
    of the queue only.

    Parameters
    ----------
    shape
        Shape of the payload.
    depth : int
        Entries: a power of two, 4 to 64.

    Members
    -------
    i, o : stream of ``shape``
    """

    def __init__(self, shape, depth: int):
        if not (4 <= depth <= 64 and depth & (depth - 1) == 0):
            raise ValueError(f"depth must be a power of two from 4 to 64, not {depth}")
        self._shape, self._depth = shape, depth
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.storage = self.storage = storage = memory.Memory(shape=self._shape, depth=self._depth, init=[])
        write = storage.write_port()
        read = storage.read_port(domain="comb")

        self.written = written = Signal(range(self._depth))  # these three, and the storage, are for the proof
        self.following = following = Signal.like(written, init=1)  # written + 1
        self.taken = taken = Signal.like(written)
        full = Signal()
        empty = Signal()
        payload = Signal(self._shape, reset_less=True)  # valid tells whether it counts
        m.d.comb += [
            empty.eq(written == taken),
            full.eq(following == taken),
            self.i.ready.eq(~full),
            write.addr.eq(written),
            write.data.eq(self.i.payload),
            write.en.eq(1),
            read.addr.eq(taken),
            self.o.payload.eq(payload),
        ]
        with m.If(self.i.valid & ~full):
            m.d.sync += [written.eq(following), following.eq(following + 1)]
        with m.If(self._moves()):
            m.d.sync += [self.o.valid.eq(~empty), payload.eq(read.data)]
            with m.If(~empty):
                m.d.sync += taken.eq(taken + 1)
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return m

    def _moves(self):
        """The output register takes the next entry."""
        return ~self.o.valid | self.o.ready


class HalfQueue(Queue):
    """A queue whose output is a half buffer: a transfer every second cycle, and ``o.ready`` reaches one flip-flop only.

    For events and descriptors; parameters and members of :class:`Queue`.
    """

    def _moves(self):
        return ~self.o.valid
