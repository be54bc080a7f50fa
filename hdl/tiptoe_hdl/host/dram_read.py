"""AXI4 reads (Arm IHI 0022H) from a port of a DRAM controller, whose words nobody can hold up."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..wire.queue import Queue
from .axi import Axi4ReadSignature, Response
from .native_port import WORD_BYTES, WORD_LOG2, NativePortSignature

DEPTH = 32
"""Words of 128 bits asked for and not given away: a word every second cycle, and LiteDRAM takes 25 cycles or so to bring one."""


class DramReader(wiring.Component):
    """Incrementing bursts of 64-bit beats, two of them a word of the memory.

    A word is asked for only when there is room for it in the queue, since it can't wait. A burst that begins outside has DECERR
    in all its beats, in its turn. All bursts have the ID 0, as the engine's do.

    Timing: a beat every cycle, if the controller gives a word every second one.

    Parameters
    ----------
    size : int
        Bytes of memory, from address 0; a power of two.
    addr_width : int
        Bits of AXI addresses.

    Members
    -------
    axi : In ``Axi4ReadSignature``, 64 bits
    port : Out ``NativePortSignature``
    """

    def __init__(self, size: int, addr_width: int):
        self._size = size
        super().__init__(
            {
                "axi": In(Axi4ReadSignature(addr_width, 64)),
                "port": Out(NativePortSignature(ceil_log2(size) - WORD_LOG2)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bus, port = self.axi, self.port
        m.submodules.words = words = Queue(8 * WORD_BYTES, DEPTH)
        # What of each word is wanted; as many as there are words under way, so there is room when there is room for the word.
        part = data.StructLayout({"upper_first": 1, "lower_last": 1, "last": 1, "outside": 1})
        m.submodules.parts = parts = Queue(part, DEPTH)
        room = Signal(range(DEPTH + 1), init=DEPTH)

        busy, outside = Signal(), Signal()
        beat, left = Signal(range(self._size // 8)), Signal(8)  # the next beat, and how many follow it
        goes, ends, given = Signal(), Signal(), Signal()
        m.d.comb += [
            bus.arready.eq(~busy),
            port.cmd_valid.eq(busy & (room != 0) & ~outside),
            port.cmd_addr.eq(beat[1:]),
            goes.eq(busy & (room != 0) & (outside | port.cmd_ready)),
            ends.eq((left == 0) | ((left == 1) & ~beat[0])),
            parts.i.valid.eq(goes),
            parts.i.payload.upper_first.eq(beat[0]),
            parts.i.payload.lower_last.eq(~beat[0] & (left == 0)),
            parts.i.payload.last.eq(ends),
            parts.i.payload.outside.eq(outside),
            words.i.valid.eq(port.rdata_valid),
            words.i.payload.eq(port.rdata),
        ]
        with m.If(bus.arvalid & bus.arready):
            m.d.sync += [
                busy.eq(1),
                beat.eq(bus.araddr >> 3),
                left.eq(bus.arlen),
                outside.eq(bus.araddr >= self._size),
            ]
        with m.If(goes):
            two = ~beat[0] & (left != 0)
            m.d.sync += [busy.eq(~ends), beat.eq(beat + 1 + two), left.eq(left - 1 - two)]
        m.d.sync += room.eq(room - goes + given)

        head, second, upper = parts.o.payload, Signal(), Signal()
        whole = Signal()  # this beat is the last that is wanted of the word
        taken = Signal()
        m.d.comb += [
            upper.eq(second | head.upper_first),
            whole.eq(upper | head.lower_last),
            bus.rvalid.eq(parts.o.valid & (words.o.valid | head.outside)),
            bus.rdata.eq(Mux(upper, words.o.payload[64:], words.o.payload[:64])),
            bus.rresp.eq(Mux(head.outside, Response.DECERR, Response.OKAY)),
            bus.rlast.eq(head.last & whole),
            taken.eq(bus.rvalid & bus.rready),
            given.eq(taken & whole),
            parts.o.ready.eq(given),
            words.o.ready.eq(given & ~head.outside),
        ]
        with m.If(taken):
            m.d.sync += second.eq(~whole)
        return m
