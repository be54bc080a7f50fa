"""Received frames enter only while the engine is enabled."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import rx_beat


class Gate(wiring.Component):
    """Passes whole frames that began in the cycle after ``enable`` was 1, or later, and swallows the others. No latency.

    Not to be reset with the blocks behind it: it has to know where in a frame it is.

    Ports
    -----
    enable : In(1)
    cut : In(1)
        The blocks behind are being reset: from the next cycle on what is left of the frame under way is swallowed.
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
        opened = Signal()  # for the frame under way, else for the next one
        m.d.comb += [
            self.o.payload.eq(self.i.payload),
            self.o.valid.eq(self.i.valid & opened),
            self.i.ready.eq(self.o.ready | ~opened),
        ]
        ending = self.i.valid & self.i.ready & self.i.payload.last
        with m.If(self.i.valid):
            m.d.sync += inside.eq(~ending)
        # Not while a frame's first beat waits: what is on offer stays.
        with m.If(ending | ~(self.i.valid | inside)):
            m.d.sync += opened.eq(self.enable)
        with m.If(self.cut):
            m.d.sync += opened.eq(0)
        return m
