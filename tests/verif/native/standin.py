"""A tiny component with the engine's ports, so that the harness can be tested without the engine.

Frames loop from rx to tx. Registers: 0x00 identity; 0x04 source, 0x08 destination (byte addresses, word aligned);
0x0C write n: copy n words (1 to 16) from source to destination with one read and one write burst; 0x10 copies done;
0x14 error responses seen; 0x18 ticks seen; 0x1C interrupt level; 0x20 frames with tuser; 0x24 write 1: break the
rule that a stalled word stays, at the next frame.
"""

from amaranth.hdl import Array, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

IDENTITY = 0x54495054


def engine_ports(width: int, address: int = 64) -> dict:
    """The top-level ports every engine has."""
    lane = width // 8
    burst = {"addr": address, "len": 8, "size": 3, "burst": 2, "lock": 1, "cache": 4, "prot": 3, "id": 1}
    ports = {"irq": Out(1), "tick": In(1)}
    for name, bits in {"awaddr": 20, "awprot": 3, "awvalid": 1, "wdata": 32, "wstrb": 4, "wvalid": 1, "bready": 1,
                       "araddr": 20, "arprot": 3, "arvalid": 1, "rready": 1}.items():  # fmt: skip
        ports[f"s_axil_{name}"] = In(bits)
    for name, bits in {"awready": 1, "wready": 1, "bresp": 2, "bvalid": 1, "arready": 1, "rdata": 32, "rresp": 2,
                       "rvalid": 1}.items():  # fmt: skip
        ports[f"s_axil_{name}"] = Out(bits)
    for channel in ("aw", "ar"):
        ports |= {f"m_axi_{channel}{name}": Out(bits) for name, bits in burst.items()}
        ports |= {f"m_axi_{channel}valid": Out(1), f"m_axi_{channel}ready": In(1)}
    ports |= {
        "m_axi_wdata": Out(width), "m_axi_wstrb": Out(lane), "m_axi_wlast": Out(1), "m_axi_wvalid": Out(1),
        "m_axi_wready": In(1), "m_axi_bid": In(1), "m_axi_bresp": In(2), "m_axi_bvalid": In(1), "m_axi_bready": Out(1),
        "m_axi_rid": In(1), "m_axi_rdata": In(width), "m_axi_rresp": In(2), "m_axi_rlast": In(1),
        "m_axi_rvalid": In(1), "m_axi_rready": Out(1),
        "s_axis_rx_tdata": In(width), "s_axis_rx_tkeep": In(lane), "s_axis_rx_tvalid": In(1),
        "s_axis_rx_tready": Out(1), "s_axis_rx_tlast": In(1), "s_axis_rx_tuser": In(1),
        "m_axis_tx_tdata": Out(width), "m_axis_tx_tkeep": Out(lane), "m_axis_tx_tvalid": Out(1),
        "m_axis_tx_tready": In(1), "m_axis_tx_tlast": Out(1),
    }  # fmt: skip
    return ports


class StandIn(wiring.Component):
    """See the module's docstring."""

    def __init__(self, width: int = 64):
        self._width = width
        super().__init__(engine_ports(width))

    def elaborate(self, platform):
        m = Module()
        m.submodules.fifo = fifo = SyncFIFOBuffered(width=self._width + self._width // 8 + 1, depth=16)
        m.d.comb += [
            fifo.w_data.eq(
                self.s_axis_rx_tdata << (self._width // 8 + 1) | self.s_axis_rx_tkeep << 1 | self.s_axis_rx_tlast
            ),
            fifo.w_en.eq(self.s_axis_rx_tvalid),
            self.s_axis_rx_tready.eq(fifo.w_rdy),
            self.m_axis_tx_tvalid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.m_axis_tx_tready),
            self.m_axis_tx_tdata.eq(fifo.r_data >> (self._width // 8 + 1)),
            self.m_axis_tx_tkeep.eq(fifo.r_data >> 1),
            self.m_axis_tx_tlast.eq(fifo.r_data[0]),
        ]
        source, destination, length = Signal(64), Signal(64), Signal(5)
        copies, errors, ticks, bad = Signal(32), Signal(32), Signal(32), Signal(32)
        irq, broken, flip = Signal(), Signal(), Signal()
        start = Signal()
        m.d.comb += self.irq.eq(irq)
        m.d.sync += ticks.eq(ticks + self.tick)
        with m.If(self.s_axis_rx_tvalid & self.s_axis_rx_tready & self.s_axis_rx_tlast & self.s_axis_rx_tuser):
            m.d.sync += bad.eq(bad + 1)
        m.d.sync += flip.eq(~flip)
        with m.If(broken):
            m.d.comb += self.m_axis_tx_tdata[0].eq(flip)
        self._registers(m, source, destination, length, copies, errors, ticks, bad, irq, broken, start)
        self._copier(m, source, destination, length, copies, errors, start)
        return m

    def _registers(self, m, source, destination, length, copies, errors, ticks, bad, irq, broken, start):
        write = Signal()
        m.d.comb += [
            write.eq(self.s_axil_awvalid & self.s_axil_wvalid & ~self.s_axil_bvalid),
            self.s_axil_awready.eq(write),
            self.s_axil_wready.eq(write),
            self.s_axil_arready.eq(~self.s_axil_rvalid),
        ]
        with m.If(write):
            m.d.sync += self.s_axil_bvalid.eq(1)
            with m.Switch(self.s_axil_awaddr):
                for address, register in {4: source, 8: destination, 0x1C: irq, 0x24: broken}.items():
                    with m.Case(address):
                        m.d.sync += register.eq(self.s_axil_wdata)
                with m.Case(0x0C):
                    m.d.sync += [length.eq(self.s_axil_wdata), start.eq(1)]
        with m.Elif(self.s_axil_bready):
            m.d.sync += self.s_axil_bvalid.eq(0)
        with m.If(start):
            m.d.sync += start.eq(0)
        readable = {0: IDENTITY, 4: source, 8: destination, 0x10: copies, 0x14: errors, 0x18: ticks, 0x20: bad}
        with m.If(self.s_axil_arvalid & self.s_axil_arready):
            m.d.sync += [self.s_axil_rvalid.eq(1), self.s_axil_rresp.eq(2), self.s_axil_rdata.eq(0)]
            with m.Switch(self.s_axil_araddr):
                for address, register in readable.items():
                    with m.Case(address):
                        m.d.sync += [self.s_axil_rdata.eq(register), self.s_axil_rresp.eq(0)]
        with m.Elif(self.s_axil_rready):
            m.d.sync += self.s_axil_rvalid.eq(0)

    def _copier(self, m, source, destination, length, copies, errors, start):
        words = Array(Signal(self._width, name=f"word{i}") for i in range(16))
        index = Signal(5)
        size = (self._width // 8).bit_length() - 1
        m.d.comb += [
            self.m_axi_araddr.eq(source), self.m_axi_arlen.eq(length - 1), self.m_axi_arsize.eq(size),
            self.m_axi_arburst.eq(1), self.m_axi_awaddr.eq(destination), self.m_axi_awlen.eq(length - 1),
            self.m_axi_awsize.eq(size), self.m_axi_awburst.eq(1), self.m_axi_wstrb.eq(-1),
            self.m_axi_wdata.eq(words[index[:4]]), self.m_axi_wlast.eq(index == length - 1),
            self.m_axi_rready.eq(1), self.m_axi_bready.eq(1),
        ]  # fmt: skip
        for channel in ("ar", "aw", "w"):
            with m.If(getattr(self, f"m_axi_{channel}valid") & getattr(self, f"m_axi_{channel}ready")):
                m.d.sync += getattr(self, f"m_axi_{channel}valid").eq(0)
        with m.FSM():
            with m.State("Idle"):
                with m.If(start):
                    m.d.sync += [self.m_axi_arvalid.eq(1), index.eq(0)]
                    m.next = "Read"
            with m.State("Read"):
                with m.If(self.m_axi_rvalid):
                    m.d.sync += [words[index[:4]].eq(self.m_axi_rdata), index.eq(index + 1)]
                    m.d.sync += errors.eq(errors + (self.m_axi_rresp != 0))
                    with m.If(self.m_axi_rlast):
                        m.d.sync += [index.eq(0), self.m_axi_awvalid.eq(1), self.m_axi_wvalid.eq(1)]
                        m.next = "Write"
            with m.State("Write"):
                with m.If(self.m_axi_wvalid & self.m_axi_wready & ~self.m_axi_wlast):
                    m.d.sync += [index.eq(index + 1), self.m_axi_wvalid.eq(1)]
                with m.If(self.m_axi_bvalid):
                    m.d.sync += [copies.eq(copies + 1), errors.eq(errors + (self.m_axi_bresp != 0))]
                    m.next = "Idle"
