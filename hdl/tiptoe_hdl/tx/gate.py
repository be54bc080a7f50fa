"""Frames leave whole, also around a soft reset."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import beat


class TxGate(wiring.Component):
    """Lets the frame under way come to its end once ``quiesce`` is 1, and begins no other. No latency.

    Not to be reset with the blocks before it: they can be when ``quiet`` says that no frame is under way. A MAC that
    never takes the frame's last beat keeps ``quiet`` low.

    Ports
    -----
    quiesce : In(1)
    quiet : Out(1)
        ``quiesce`` is high and no frame is under way; stays until ``quiesce`` falls.
    i : In(stream beat), o : Out(stream beat)
    """

    def __init__(self, cfg: EngineConfig):
        super().__init__({
            "quiesce": In(1),
            "quiet": Out(1),
            "i": In(stream.Signature(beat(cfg))),
            "o": Out(stream.Signature(beat(cfg))),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        under_way = Signal()
        opened = under_way | ~self.quiesce
        m.d.comb += [
            self.o.payload.eq(self.i.payload),
            self.o.valid.eq(self.i.valid & opened),
            self.i.ready.eq(self.o.ready & opened),
        ]
        # A beat that was offered counts as begun: it may not be taken back.
        with m.If(self.o.valid):
            m.d.sync += under_way.eq(~(self.o.ready & self.o.payload.last))
        m.d.sync += self.quiet.eq(self.quiesce & ~under_way & ~self.o.valid)
        return m
