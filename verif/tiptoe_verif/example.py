"""A small AXI4-Stream register slice: the example that proves the simulation and synthesis machinery."""

from typing import Any

from amaranth.hdl import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out


class RegisterSlice(wiring.Component):
    """Skid buffer: every output registered, one transfer a cycle, latency one cycle.

    Parameters
    ----------
    shape
        Shape of the payload.
    """

    def __init__(self, shape: Any) -> None:
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})
        self._shape = shape

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        spare = stream.Signature(self._shape).create()
        with m.If(self.i.valid & self.i.ready & self.o.valid & ~self.o.ready):
            m.d.sync += [spare.payload.eq(self.i.payload), spare.valid.eq(1)]
        with m.Elif(self.o.ready):
            m.d.sync += spare.valid.eq(0)
        m.d.comb += self.i.ready.eq(~spare.valid)
        with m.If(self.o.ready | ~self.o.valid):
            with m.If(spare.valid):
                m.d.sync += [self.o.payload.eq(spare.payload), self.o.valid.eq(1)]
            with m.Else():
                m.d.sync += [self.o.payload.eq(self.i.payload), self.o.valid.eq(self.i.valid)]
        return m


class AxiStreamSlice(wiring.Component):
    """The register slice behind flat AXI4-Stream names (``s_axis_*`` in, ``m_axis_*`` out)."""

    def __init__(self, data_width: int = 64) -> None:
        self._layout = data.StructLayout({"data": data_width, "keep": data_width // 8, "last": 1})
        super().__init__({
            "s_axis_tdata": In(data_width), "s_axis_tkeep": In(data_width // 8), "s_axis_tlast": In(1),
            "s_axis_tvalid": In(1), "s_axis_tready": Out(1),
            "m_axis_tdata": Out(data_width), "m_axis_tkeep": Out(data_width // 8), "m_axis_tlast": Out(1),
            "m_axis_tvalid": Out(1), "m_axis_tready": In(1),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.slice = inner = RegisterSlice(self._layout)
        m.d.comb += [
            inner.i.payload.data.eq(self.s_axis_tdata), inner.i.payload.keep.eq(self.s_axis_tkeep),
            inner.i.payload.last.eq(self.s_axis_tlast), inner.i.valid.eq(self.s_axis_tvalid),
            self.s_axis_tready.eq(inner.i.ready),
            self.m_axis_tdata.eq(inner.o.payload.data), self.m_axis_tkeep.eq(inner.o.payload.keep),
            self.m_axis_tlast.eq(inner.o.payload.last), self.m_axis_tvalid.eq(inner.o.valid),
            inner.o.ready.eq(self.m_axis_tready),
        ]  # fmt: skip
        return m
