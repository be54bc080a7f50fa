"""AXI4 writes (Arm IHI 0022H) to a port of a DRAM controller, answered when they are there for every other port."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..wire.queue import Queue
from .axi import Axi4WriteSignature, Response
from .native_port import WORD_BYTES, WORD_LOG2, NativePortSignature

DEPTH = 16
"""Words of 128 bits on the way: more than a write takes from its command to its word, less a refresh."""
OPEN = 15
"""Bursts that are not answered yet."""


class DramWriter(wiring.Component):
    """Incrementing bursts of 64-bit beats, two of them a word of the memory; strobes become byte enables.

    **A burst is answered when the controller has taken its last word, never before.** From then on every command that the
    controller takes, at whatever port, comes after this write; so an event that the engine writes after a payload's answer is
    never seen before the payload (``axi.WRITE_CACHE``). A word's command is shown only when the word is in the queue, since
    nobody asks whether it is.

    A burst that begins outside is answered DECERR when all before it are answered, and changes nothing. All bursts have the ID 0,
    as the engine's do; their answers come in order.

    Timing: a beat every cycle, if the controller takes a word every second one.

    Parameters
    ----------
    size : int
        Bytes of memory, from address 0; a power of two.
    addr_width : int
        Bits of AXI addresses.

    Members
    -------
    axi : In ``Axi4WriteSignature``, 64 bits
    port : Out ``NativePortSignature``
    """

    def __init__(self, size: int, addr_width: int):
        self._size = size
        super().__init__(
            {
                "axi": In(Axi4WriteSignature(addr_width, 64)),
                "port": Out(NativePortSignature(ceil_log2(size) - WORD_LOG2)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bus = self.axi
        word = data.StructLayout({"data": 8 * WORD_BYTES, "enable": WORD_BYTES, "last": 1})
        m.submodules.words = words = Queue(word, DEPTH)
        m.submodules.commands = commands = Queue(len(self.port.cmd_addr), DEPTH)
        self.answered, self.pushed_last = Signal(), Signal()
        open_, answers = Signal(range(OPEN + 1)), Signal(range(OPEN + 1))

        busy, outside, refused = Signal(), Signal(), Signal()
        beat = Signal(range(self._size // 8))  # the word of 64 bits that comes next
        room = Signal()
        m.d.comb += [
            room.eq(words.i.ready & commands.i.ready),
            bus.awready.eq(~busy & ~refused & (open_ != OPEN)),
            bus.wready.eq(busy & (outside | room)),
            bus.bvalid.eq((answers != 0) | (refused & (open_ == 0))),
            bus.bresp.eq(Mux(answers != 0, Response.OKAY, Response.DECERR)),
        ]
        low = Signal(data.StructLayout({"data": 64, "enable": 8}))  # an even beat waits for the odd one
        with m.If(bus.awvalid & bus.awready):
            m.d.sync += [
                busy.eq(1),
                beat.eq(bus.awaddr >> 3),
                outside.eq(bus.awaddr >= self._size),
                low.enable.eq(0),
            ]
        push, whole = Signal(), words.i.payload
        with m.If(bus.wvalid & bus.wready):
            m.d.comb += push.eq(~outside & (beat[0] | bus.wlast))
            m.d.sync += [
                beat.eq(beat + 1),
                low.data.eq(bus.wdata),
                low.enable.eq(Mux(beat[0], 0, bus.wstrb)),
            ]
            with m.If(bus.wlast):
                m.d.sync += [busy.eq(0), refused.eq(outside)]
        m.d.comb += [
            words.i.valid.eq(push),
            commands.i.valid.eq(push),
            commands.i.payload.eq(beat[1:]),
            whole.data.eq(Cat(Mux(beat[0], low.data, bus.wdata), bus.wdata)),
            whole.enable.eq(Mux(beat[0], Cat(low.enable, bus.wstrb), bus.wstrb)),
            whole.last.eq(bus.wlast),
            self.pushed_last.eq(push & bus.wlast),
        ]
        self._to_port(m, commands.o, words.o)

        came = self._answers()
        with m.If(bus.bvalid & bus.bready & (answers == 0)):
            m.d.sync += refused.eq(0)
        begins, ends = Signal(), Signal()
        m.d.comb += [
            begins.eq(bus.awvalid & bus.awready & (bus.awaddr < self._size)),
            ends.eq((answers != 0) & bus.bready),
        ]
        m.d.sync += [open_.eq(open_ + begins - ends), answers.eq(answers + came - ends)]
        return m

    def _to_port(self, m, commands, words):
        port = self.port
        m.d.comb += [
            port.cmd_valid.eq(commands.valid),
            port.cmd_we.eq(1),
            port.cmd_addr.eq(commands.payload),
            commands.ready.eq(port.cmd_ready),
            port.wdata_valid.eq(words.valid),
            port.wdata.eq(words.payload.data),
            port.wdata_we.eq(words.payload.enable),
            words.ready.eq(port.wdata_ready),
            self.answered.eq(words.valid & port.wdata_ready & words.payload.last),
        ]

    def _answers(self):
        """A burst is done: its last word has been taken."""
        return self.answered
