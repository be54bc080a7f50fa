"""AXI4-Lite slave (Arm IHI 0022H, chapter B1): the five channels as a write stream and a read exchange.

Protection bits are ignored. Reads and writes are independent, each answered in order.
"""

from amaranth.hdl import Module
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..wire.skid import SkidBuffer
from .axi import AxiLiteSignature, Response


def write_layout(addr_width: int) -> data.StructLayout:
    """One write: word address, the word, and whether all four strobes were set."""
    return data.StructLayout({"word": addr_width - 2, "data": 32, "full": 1})


ReadResponse = data.StructLayout({"data": 32, "resp": Response})


class AxiLiteSlave(wiring.Component):
    """One write a cycle, three cycles from AWVALID/WVALID to BVALID; one read at a time.

    Parameters
    ----------
    addr_width : int
        Bits of an address.

    Members
    -------
    axil : AXI4-Lite, as slave; every output comes from a flip-flop.
    write : Out(stream), and ``write_response`` In(Response)
        A write; its response is given in the cycle of the transfer.
    read : Out(stream of word address), ``read_response`` In(stream of ReadResponse)
        A read and its answer; the next read comes after the answer.
    """

    def __init__(self, addr_width: int = 20):
        self._addr_width = addr_width
        super().__init__(
            {
                "axil": In(AxiLiteSignature(addr_width)),
                "write": Out(stream.Signature(write_layout(addr_width))),
                "write_response": In(Response),
                "read": Out(stream.Signature(addr_width - 2)),
                "read_response": In(stream.Signature(ReadResponse)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bus = self.axil

        m.submodules.aw = aw = SkidBuffer(self._addr_width - 2)
        m.submodules.w = w = SkidBuffer(data.StructLayout({"data": 32, "full": 1}))
        m.submodules.b = b = SkidBuffer(Response)
        transfer = self.write.valid & self.write.ready
        m.d.comb += [
            aw.i.valid.eq(bus.awvalid),
            aw.i.payload.eq(bus.awaddr[2:]),
            bus.awready.eq(aw.i.ready),
            w.i.valid.eq(bus.wvalid),
            w.i.p.data.eq(bus.wdata),
            w.i.p.full.eq(bus.wstrb.all()),
            bus.wready.eq(w.i.ready),
            self.write.valid.eq(aw.o.valid & w.o.valid & b.i.ready),
            self.write.p.word.eq(aw.o.payload),
            self.write.p.data.eq(w.o.p.data),
            self.write.p.full.eq(w.o.p.full),
            aw.o.ready.eq(transfer),
            w.o.ready.eq(transfer),
            b.i.valid.eq(transfer),
            b.i.payload.eq(self.write_response),
            bus.bvalid.eq(b.o.valid),
            bus.bresp.eq(b.o.payload),
            b.o.ready.eq(bus.bready),
        ]

        with m.FSM():
            with m.State("Idle"):
                m.d.comb += bus.arready.eq(1)
                m.d.sync += self.read.payload.eq(bus.araddr[2:])
                with m.If(bus.arvalid):
                    m.next = "Request"
            with m.State("Request"):
                m.d.comb += self.read.valid.eq(1)
                with m.If(self.read.ready):
                    m.next = "Answer"
            with m.State("Answer"):
                m.d.comb += self.read_response.ready.eq(1)
                m.d.sync += [
                    bus.rdata.eq(self.read_response.p.data),
                    bus.rresp.eq(self.read_response.p.resp),
                ]
                with m.If(self.read_response.valid):
                    m.next = "Respond"
            with m.State("Respond"):
                m.d.comb += bus.rvalid.eq(1)
                with m.If(bus.rready):
                    m.next = "Idle"
        return m
