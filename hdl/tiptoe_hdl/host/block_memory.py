"""Host memory in block memory (Arm IHI 0022H; Wishbone B4): an AXI4 slave for the engine, a Wishbone slave for the host."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..wire.apart import APART
from ..wire.queue import Queue
from .axi import Axi4ReadSignature, Axi4WriteSignature, Response

READ_AHEAD = 8
"""Words read that the engine has not taken yet, less one: five cover the way from the memory to the engine and back."""


class WishboneSignature(wiring.Signature):
    """Wishbone classic, 32 bits, word addresses; seen from the initiator."""

    def __init__(self, addr_width: int):
        super().__init__(
            {
                "adr": Out(addr_width),
                "dat_w": Out(32),
                "dat_r": In(32),
                "sel": Out(4),
                "cyc": Out(1),
                "stb": Out(1),
                "we": Out(1),
                "ack": In(1),
            }
        )


def host_memory_ports(size: int, addr_width: int) -> dict:
    """What every host memory of ``size`` bytes has: an AXI4 side of 64 bits for the engine, a Wishbone side for the host.
    ValueError for a size that none has."""
    if size < 4096 or size & (size - 1):
        raise ValueError(f"a host memory has a power of two of bytes, 4096 or more, not {size}")
    return {
        "s_axi_read": In(Axi4ReadSignature(addr_width, 64)),
        "s_axi_write": In(Axi4WriteSignature(addr_width, 64)),
        "wishbone": In(WishboneSignature(ceil_log2(size) - 2)),
    }


class BlockMemory(wiring.Component):
    """``size`` bytes in words of 64 bits, from address 0, with one port to read and one to write.

    The Wishbone side comes first at both: it asks every second cycle at most, so the engine's bursts go on in between. No word
    is read in the cycle in which it is written: the read waits, and comes a cycle later, since a burst writes a word only once.
    A burst that begins outside is answered DECERR and changes nothing. All transfers have the ID 0, as the engine's do.

    Timing: one word a cycle each way; the first word of a read comes five cycles after its address, a write's response one
    cycle after its last word. Wishbone: a write is acknowledged in the cycle after it was asked for, a read in the second.

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
    """

    def __init__(self, size: int, addr_width: int = 32):
        super().__init__(host_memory_ports(size, addr_width))
        self._size = size

    def elaborate(self, platform):
        m = Module()
        m.submodules.storage = storage = memory.Memory(shape=64, depth=self._size // 8, init=[], attrs=APART)
        write, read = storage.write_port(granularity=8), storage.read_port()
        host_writes, written = self._wishbone_write(m, write)
        self._axi_write(m, write, host_writes)
        self.meets = meets = Signal()  # a read of what is written in this cycle: nobody's, or it waits
        m.d.comb += meets.eq(write.en.any() & (write.addr == read.addr))
        self._reads(m, read, meets, written)
        return m

    def _wishbone_write(self, m, write):
        """The host's writes, which have the port whenever they want it; returns whether one has it, and its acknowledgement."""
        host, done = self.wishbone, Signal()
        writes = Signal()
        m.d.comb += writes.eq(host.cyc & host.stb & host.we & ~done)
        m.d.sync += done.eq(writes)
        with m.If(writes):
            m.d.comb += [
                write.addr.eq(host.adr[1:]),
                write.data.eq(host.dat_w.replicate(2)),
                write.en.eq(Mux(host.adr[0], host.sel << 4, host.sel)),
            ]
        return writes, done

    def _axi_write(self, m, write, host_writes):
        bus, lane_bits = self.s_axi_write, 3
        busy, outside = Signal(), Signal()
        word = Signal(range(self._size // 8))
        m.d.comb += [
            bus.awready.eq(~busy & ~bus.bvalid),
            bus.wready.eq(busy & ~host_writes),
        ]
        with m.If(bus.awvalid & bus.awready):
            m.d.sync += [
                busy.eq(1),
                word.eq(bus.awaddr >> lane_bits),
                outside.eq(bus.awaddr >= self._size),
            ]
        with m.If(bus.wvalid & bus.wready):
            m.d.comb += [
                write.addr.eq(word),
                write.data.eq(bus.wdata),
                write.en.eq(Mux(outside, 0, bus.wstrb)),
            ]
            m.d.sync += word.eq(word + 1)
            with m.If(bus.wlast):
                m.d.sync += [
                    busy.eq(0),
                    bus.bvalid.eq(1),
                    bus.bresp.eq(Mux(outside, Response.DECERR, Response.OKAY)),
                ]
        with m.If(bus.bvalid & bus.bready):
            m.d.sync += bus.bvalid.eq(0)

    def _reads(self, m, read, meets, written):
        host, bus, lane_bits = self.wishbone, self.s_axi_read, 3
        words = m.submodules.words = Queue(data.StructLayout({"data": 64, "last": 1, "outside": 1}), READ_AHEAD)
        burst = data.StructLayout({"host": 1, "engine": 1, "last": 1, "outside": 1})
        issued, read_out = Signal(burst), Signal(burst)  # reads of the cycle before, and of the one before that
        word_out = Signal(64)  # the memory's output register
        busy, outside = Signal(), Signal()
        word, left = Signal(range(self._size // 8)), Signal(8)
        room = Signal(range(READ_AHEAD + 1), init=READ_AHEAD - 1)
        host_wants, host_waits = Signal(), Signal()
        goes, mine = Signal(), Signal()  # the engine's word is read, has been taken
        self.goes = goes
        m.d.comb += [
            host_wants.eq(host.cyc & host.stb & ~host.we & ~host_waits & ~host.ack),
            read.addr.eq(Mux(host_wants, host.adr[1:], word)),
            read.en.eq(1),
            goes.eq(busy & (room != 0) & ~host_wants & ~meets),
            mine.eq(bus.rvalid & bus.rready),
            bus.arready.eq(~busy),
        ]
        with m.If(bus.arvalid & bus.arready):
            m.d.sync += [
                busy.eq(1),
                word.eq(bus.araddr >> lane_bits),
                outside.eq(bus.araddr >= self._size),
                left.eq(bus.arlen),
            ]
        with m.If(goes):
            m.d.sync += [word.eq(word + 1), left.eq(left - 1), busy.eq(left != 0)]
        m.d.sync += [
            room.eq(room - goes + mine),
            issued.host.eq(host_wants & ~meets),
            issued.engine.eq(goes),
            issued.last.eq(left == 0),
            issued.outside.eq(outside),
            read_out.eq(issued),
            word_out.eq(read.data),
            host_waits.eq((host_waits | (host_wants & ~meets)) & ~read_out.host),
        ]
        m.d.comb += [
            words.i.valid.eq(read_out.engine),
            words.i.payload.data.eq(word_out),
            words.i.payload.last.eq(read_out.last),
            words.i.payload.outside.eq(read_out.outside),
            bus.rvalid.eq(words.o.valid),
            words.o.ready.eq(bus.rready),
            bus.rdata.eq(words.o.payload.data),
            bus.rlast.eq(words.o.payload.last),
            bus.rresp.eq(Mux(words.o.payload.outside, Response.DECERR, Response.OKAY)),
            host.ack.eq(read_out.host | written),
            host.dat_r.eq(word_out.word_select(host.adr[0], 32)),
        ]
