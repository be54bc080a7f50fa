"""Error events of several blocks on their way to the event writer."""

from amaranth.hdl import Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..messages import ErrorEvent
from ..wire.valid_only import valid_only


class ErrorMerge(wiring.Component):
    """One error a cycle leaves; of one source, a newer error replaces an older one that still waits.

    Ports
    -----
    i : In(valid-only ErrorEvent), ``sources`` of them
    o : Out(valid-only ErrorEvent)
    """

    def __init__(self, sources: int):
        self._sources = sources
        super().__init__({"i": In(valid_only(ErrorEvent)).array(sources), "o": Out(valid_only(ErrorEvent))})

    def elaborate(self, platform):
        m = Module()
        waiting = [Signal(name=f"waiting_{k}") for k in range(self._sources)]
        held = [Signal(ErrorEvent, name=f"held_{k}") for k in range(self._sources)]
        m.d.sync += self.o.valid.eq(0)
        taken = Const(0, 1)
        for k in range(self._sources):
            with m.If(waiting[k] & ~taken):
                m.d.sync += [self.o.valid.eq(1), self.o.payload.eq(held[k]), waiting[k].eq(0)]
            with m.If(self.i[k].valid):
                m.d.sync += [waiting[k].eq(1), held[k].eq(self.i[k].payload)]
            taken = taken | waiting[k]
        return m
