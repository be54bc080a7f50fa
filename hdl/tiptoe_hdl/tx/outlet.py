"""Outlet: the end of a pipeline that can't stop, as a stream."""

from amaranth.hdl import Module, Signal
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..wire.valid_only import valid_only


class Outlet(wiring.Component):
    """Takes what comes, while its user counts that no more than ``depth`` entries are on their way or inside.

    Latency one cycle, one transfer a cycle. ``o`` comes from flip-flops.

    Parameters
    ----------
    shape
        Shape of the payload.
    depth : int
        Entries: a power of two.

    Members
    -------
    i : In, valid-only
    o : Out stream
    """

    def __init__(self, shape, depth: int):
        self._shape, self._depth = shape, depth
        super().__init__({"i": In(valid_only(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.storage = storage = memory.Memory(shape=self._shape, depth=self._depth, init=[])
        write, read = storage.write_port(), storage.read_port(domain="comb")
        written, taken = Signal(range(2 * self._depth)), Signal(range(2 * self._depth))
        after = Signal.like(taken, init=1)  # taken + 1
        empty, load = Signal(init=1), Signal()
        final = Signal()  # of the entries in the memory
        m.d.comb += [
            final.eq(after == written),
            load.eq(~self.o.valid | self.o.ready),
            write.addr.eq(written[:-1]),
            write.data.eq(self.i.payload),
            write.en.eq(self.i.valid),  # also what passes by: the memory is empty then
            read.addr.eq(taken[:-1]),
        ]
        with m.If(self.i.valid & ~(load & empty)):
            m.d.sync += written.eq(written + 1)
        # A flip-flop, so that no comparison stands behind ``o.ready``.
        with m.If(empty):
            m.d.sync += empty.eq(~self.i.valid | load)
        with m.Elif(final):
            m.d.sync += empty.eq(load & ~self.i.valid)
        with m.If(load):
            with m.If(empty):
                m.d.sync += [self.o.valid.eq(self.i.valid), self.o.payload.eq(self.i.payload)]
            with m.Else():
                m.d.sync += [self.o.valid.eq(1), self.o.payload.eq(read.data), taken.eq(after), after.eq(after + 1)]
        return m
