"""A register behind a valid-only port: cuts its path at a block's boundary."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .valid_only import valid_only


class Stage(wiring.Component):
    """``o`` is ``i`` a cycle later.

    Ports
    -----
    i : In(valid-only shape), o : Out(valid-only shape)
    """

    def __init__(self, shape):
        self._shape = shape
        super().__init__({"i": In(valid_only(shape)), "o": Out(valid_only(shape))})

    def elaborate(self, platform):
        m = Module()
        payload = Signal(self._shape, reset_less=True)
        m.d.sync += [self.o.valid.eq(self.i.valid), payload.eq(self.i.payload)]
        m.d.comb += self.o.payload.eq(payload)
        return m
