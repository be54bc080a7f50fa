"""Received frames enter only while the engine is enabled."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import rx_beat


class Gate(wiring.Component):
    """Passes whole frames that began while ``enable`` was 1 and swallows the others. No latency.

    Not to be reset with the blocks behind it: it has to know where in a frame it is.

    Ports
    -----
    enable : In(1)
    cut : In(1)
        The blocks behind are being reset: what is left of the frame under way is swallowed.
    i : In(stream rx_beat), o : Out(stream rx_beat)
    """

    def __init__(self, cfg: EngineConfig):
        super().__init__({
            "enable": In(1), "cut": In(1),
            "i": In(stream.Signature(rx_beat(cfg))),
            "o": Out(stream.Signature(rx_beat(cfg))),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        inside = Signal()
        passing = Signal()
        opened = Mux(inside, passing, self.enable) & ~self.cut
        m.d.comb += [
            self.o.payload.eq(self.i.payload),
            self.o.valid.eq(self.i.valid & opened),
            self.i.ready.eq(self.o.ready | ~opened),
        ]
        # The decision of the first beat holds until the last, also while that beat waits.
        with m.If(self.i.valid):
            m.d.sync += [inside.eq(1), passing.eq(opened)]
            with m.If(self.i.ready & self.i.payload.last):
                m.d.sync += inside.eq(0)
        with m.If(self.cut):
            m.d.sync += passing.eq(0)
        return m
