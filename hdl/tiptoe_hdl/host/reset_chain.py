"""The soft reset on its way to the blocks: each has a flip-flop of its own for it, so that no wire spans the chip."""

from amaranth.hdl import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class ResetChain(wiring.Component):
    """Passes a reset from block to block, a cycle apart.

    The reset has to last longer than the chain: then all blocks stand in reset at the same time before the first is
    released.

    Ports
    -----
    i : In(1)
    o : Out(n)
        ``o[k]`` is ``i`` of k + 1 cycles ago.
    """

    def __init__(self, n: int):
        super().__init__({"i": In(1), "o": Out(n)})

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.o.eq(Cat(self.i, self.o))
        return m
