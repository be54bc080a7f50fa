"""Skid buffer: cuts a stream's valid, payload and ready paths at a block's boundary."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class SkidBuffer(wiring.Component):
    """Two entries; every output comes from a flip-flop, ``i.ready`` too.

    Latency one cycle, one transfer a cycle.

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
        # Payloads need no reset: valid tells whether they count.
        payload = Signal(self._shape, reset_less=True)
        self.spare_valid = spare_valid = Signal()  # the spare is for the proof
        self.spare_payload = spare_payload = Signal(self._shape, reset_less=True)

        # The opposite of spare_valid but for the first cycle, see HalfBuffer.
        ready = Signal()
        taken = self.i.valid & ready
        m.d.comb += [self.i.ready.eq(ready), self.o.payload.eq(payload)]
        with m.If(~self.o.valid | self.o.ready):
            m.d.sync += [self.o.valid.eq(taken | spare_valid), spare_valid.eq(0), ready.eq(1)]
            with m.If(spare_valid):
                m.d.sync += payload.eq(spare_payload)
            with m.Else():
                m.d.sync += payload.eq(self.i.payload)
        with m.Elif(taken):
            m.d.sync += [spare_valid.eq(1), ready.eq(0)]
        # The spare follows the input whenever it is free, so its enable does not depend on o.ready.
        with m.If(~spare_valid):
            m.d.sync += spare_payload.eq(self.i.payload)
        return m


Skid = SkidBuffer
"""Short name."""
