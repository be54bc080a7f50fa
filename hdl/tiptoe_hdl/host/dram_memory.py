"""Host memory behind a DRAM controller: an AXI4 slave for the engine, a Wishbone slave for the host (Wishbone B4)."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from amaranth.utils import ceil_log2

from .block_memory import WishboneSignature, host_memory_ports
from .dram_read import DramReader
from .dram_write import DramWriter
from .native_port import WORD_BYTES, WORD_LOG2, NativePortSignature


class WishboneDram(wiring.Component):
    """One transfer after the other: 32 bits of a word of the memory.

    A write is acknowledged when the controller has taken its word: what the host does next, at whatever port, comes after it.
    A transfer that its initiator gave up is carried out, and nobody hears of it.

    Parameters
    ----------
    size : int
        Bytes of memory; a power of two.

    Members
    -------
    wishbone : In ``WishboneSignature``
    port : Out ``NativePortSignature``
    """

    def __init__(self, size: int):
        super().__init__(
            {
                "wishbone": In(WishboneSignature(ceil_log2(size) - 2)),
                "port": Out(NativePortSignature(ceil_log2(size) - WORD_LOG2)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        host, port = self.wishbone, self.port
        kept = Signal(data.StructLayout({"adr": len(host.adr), "data": 32, "select": 4, "write": 1}))
        asks, waits, given_up = Signal(), Signal(), Signal()
        done, word = Signal(), Signal(32)
        lane = kept.adr[:2]
        m.d.comb += [
            port.cmd_valid.eq(asks),
            port.cmd_we.eq(kept.write),
            port.cmd_addr.eq(kept.adr[2:]),
            port.wdata_valid.eq((asks | waits) & kept.write),
            port.wdata.eq(kept.data.replicate(WORD_BYTES // 4)),
            port.wdata_we.eq(kept.select << (lane << 2)),
            done.eq(waits & Mux(kept.write, port.wdata_ready, port.rdata_valid)),
            host.dat_r.eq(word),
        ]
        with m.If(~asks & ~waits & ~host.ack & host.cyc & host.stb):
            m.d.sync += [
                asks.eq(1),
                given_up.eq(0),
                kept.adr.eq(host.adr),
                kept.data.eq(host.dat_w),
                kept.select.eq(host.sel),
                kept.write.eq(host.we),
            ]
        with m.Elif(~host.cyc | ~host.stb):
            m.d.sync += given_up.eq(1)
        with m.If(asks & port.cmd_ready):
            m.d.sync += [asks.eq(0), waits.eq(1)]
        with m.If(done):
            m.d.sync += [waits.eq(0), word.eq(port.rdata.word_select(lane, 32))]
        m.d.sync += host.ack.eq(done & host.cyc & host.stb & ~given_up)
        return m


class DramMemory(wiring.Component):
    """``size`` bytes from address 0 behind three ports of one controller, which keeps the order of what it takes (see
    ``NativePortSignature``). Members and errors are :class:`~tiptoe_hdl.host.block_memory.BlockMemory`'s, and the ports.

    Parameters
    ----------
    size : int
        Bytes; a power of two.
    addr_width : int
        Bits of the AXI addresses.

    Members
    -------
    s_axi_read, s_axi_write : In AXI4, 64 bits; incrementing bursts of whole words
    wishbone : In ``WishboneSignature``
    reads, writes, host : Out ``NativePortSignature``
        Ports of their own: a controller keeps a port at one bank at a time, and the engine reads and writes at different places.
    """

    def __init__(self, size: int, addr_width: int = 32):
        ports = host_memory_ports(size, addr_width)
        self._reader, self._writer = DramReader(size, addr_width), DramWriter(size, addr_width)
        self._host = WishboneDram(size)
        port = NativePortSignature(ceil_log2(size) - WORD_LOG2)
        super().__init__(ports | {"reads": Out(port), "writes": Out(port), "host": Out(port)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.reader, m.submodules.writer = reader, writer = self._reader, self._writer
        m.submodules.host = host = self._host
        connect(m, flipped(self.s_axi_read), reader.axi)
        connect(m, flipped(self.s_axi_write), writer.axi)
        connect(m, flipped(self.wishbone), host.wishbone)
        connect(m, reader.port, flipped(self.reads))
        connect(m, writer.port, flipped(self.writes))
        connect(m, host.port, flipped(self.host))
        return m
