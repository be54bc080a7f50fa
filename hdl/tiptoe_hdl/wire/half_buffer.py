"""Half buffer: cuts a stream's paths with one register, for streams that never carry two transfers in a row."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class HalfBuffer(wiring.Component):
    """One entry; every output comes from a flip-flop, and the payload's enable does not depend on ``o.ready``.

    Latency one cycle, a transfer every second cycle.

    Parameters
    ----------
    shape
        Shape of the payload.

    Members
    -------
    i, o : stream of ``shape``
    """

    def __init__(self, shape):
        self._shape = shape
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        payload = Signal(self._shape, reset_less=True)  # valid tells whether it counts
        # The opposite of o.valid but for the first cycle, so that synthesis keeps both: one to load the payload, one to
        # be asked from outside.
        ready = Signal()
        m.d.comb += [self.i.ready.eq(ready), self.o.payload.eq(payload)]
        with m.If(~self.o.valid):
            taken = self.i.valid & ready
            m.d.sync += [self.o.valid.eq(taken), ready.eq(~taken), payload.eq(self.i.payload)]
        with m.Elif(self.o.ready):
            m.d.sync += [self.o.valid.eq(0), ready.eq(1)]
        return m
