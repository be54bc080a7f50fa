"""Visits to every entry of the syncache: the sweep of the timers, and the end of a listener's half-open connections."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from .syncache import index_bits


class Walk(wiring.Component):
    """Goes from the first entry to the last. Outputs come from flip-flops.

    Members
    -------
    start : In(1)
        Begin; not while ``active``.
    step : In(1)
        Entry ``index`` is done with; at most every second cycle.
    active : Out(1)
    index : Out
    last : Out(1)
        ``index`` is the last entry: two cycles after ``step`` it is true.
    """

    def __init__(self, cfg: EngineConfig):
        self.cfg = cfg
        super().__init__({
            "start": In(1), "step": In(1), "active": Out(1), "index": Out(index_bits(cfg)), "last": Out(1),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.last.eq(self.index == self.cfg.syncache_entries - 1)
        with m.If(self.start):
            m.d.sync += [self.active.eq(1), self.index.eq(0)]
        with m.Elif(self.step):
            m.d.sync += self.index.eq(self.index + 1)
            with m.If(self.last):
                m.d.sync += self.active.eq(0)
        return m


class Sweep(wiring.Component):
    """A walk for the timers. Ticks wait until the walk begins that serves them; so each entry sees every one.

    Members
    -------
    tick : In(1)
    pressure : In(1)
        Pulse: a SYN found no room.
    elapsed : Out(8)
        Ticks that the walk under way serves.
    pressed : Out(1)
        There was ``pressure`` between the beginning of the walk before and of this one.
    step, active, index, last :
        Those of the walk.
    """

    def __init__(self, cfg: EngineConfig):
        self.cfg = cfg
        super().__init__({
            "tick": In(1), "pressure": In(1), "elapsed": Out(8), "pressed": Out(1),
            "step": In(1), "active": Out(1), "index": Out(index_bits(cfg)), "last": Out(1),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        m.submodules.walk = walk = Walk(self.cfg)
        waiting = Signal(8)
        m.d.comb += [
            walk.start.eq(~walk.active & waiting.any()),
            walk.step.eq(self.step),
            self.active.eq(walk.active), self.index.eq(walk.index), self.last.eq(walk.last),
        ]  # fmt: skip
        pressure = Signal()
        with m.If(walk.start):
            m.d.sync += [self.elapsed.eq(waiting), waiting.eq(self.tick)]
            m.d.sync += [self.pressed.eq(pressure), pressure.eq(self.pressure)]
        with m.Else():
            m.d.sync += pressure.eq(pressure | self.pressure)
            with m.If(self.tick & ~waiting.all()):
                m.d.sync += waiting.eq(waiting + 1)
        return m
