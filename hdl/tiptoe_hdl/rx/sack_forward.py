"""SACK blocks on their way to the pipeline, behind the segment that they came with (RFC 2018 section 5)."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import SACK_BITS, interval, rx_sack


def blocks_of(cfg: EngineConfig) -> data.StructLayout:
    """The next ``count`` blocks (not 0) are of connection ``id``; or, ``keep`` 0, of no connection."""
    return data.StructLayout({"id": cfg.id_bits, "count": SACK_BITS, "keep": 1})


class SackForward(wiring.Component):
    """Hands blocks on, or drops them, frame by frame.

    Who gives the order has given the segment to the pipeline's arbiter first, and gives it no other one while the order is not
    done (``i.ready`` 0): so the blocks come right behind their segment. It ends when the arbiter has taken them, which waits for
    nothing but its turn.

    Timing: two cycles a block if the outputs are free.

    Members
    -------
    i : In stream of ``blocks_of(cfg)``
    segment_waits : In(1)
        The segment has not been taken yet.
    block : In stream of ``interval``
    o : Out stream of ``rx_sack(cfg)``
        From flip-flops.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__({
            "i": In(stream.Signature(blocks_of(cfg))), "segment_waits": In(1),
            "block": In(stream.Signature(interval)),
            "o": Out(stream.Signature(rx_sack(cfg))),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        order, first = Signal(blocks_of(self._cfg)), Signal()
        out = self.o.payload
        m.d.comb += [
            self.i.ready.eq((order.count == 0) & ~self.o.valid),
            self.block.ready.eq((order.count != 0) & ~self.o.valid & ~self.segment_waits),
        ]
        with m.If(self.i.ready):
            m.d.sync += [order.eq(self.i.payload), first.eq(1)]
            with m.If(~self.i.valid):
                m.d.sync += order.count.eq(0)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(~self.o.valid):
            m.d.sync += [
                out.id.eq(order.id),
                out.start.eq(self.block.payload.start),
                out.end.eq(self.block.payload.end),
                out.first.eq(first),
                out.more.eq(order.count != 1),
            ]
        with m.If(self.block.valid & self.block.ready):
            m.d.sync += [order.count.eq(order.count - 1), first.eq(0), self.o.valid.eq(order.keep)]
        return m
