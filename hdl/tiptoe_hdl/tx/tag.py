"""Tags of sent frames: IEEE 802.1Q clause 9."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import beat
from ..wire.headers import ETHERTYPE_VLAN, VLAN_TAG_BYTE, VLAN_TAG_BYTES
from ..wire.skid import SkidBuffer

WORD = 8 * VLAN_TAG_BYTES


class Tagger(wiring.Component):
    """Puts a tag behind the addresses of every frame.

    Timing: ``o``, from flip-flops, a cycle behind ``i``; a beat a cycle, and one more where the frame's end needs it.

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    enable : In(1), id : In(12), priority : In(3)
        VID and PCP; DEI is 0. Constant while frames are under way.
    i : In stream of ``beat(cfg)``
        Frames of 60 bytes and more.
    o : Out stream of ``beat(cfg)``
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__({
            "enable": In(1), "id": In(12), "priority": In(3),
            "i": In(stream.Signature(beat(cfg))),
            "o": Out(stream.Signature(beat(cfg))),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        cfg, here = self._cfg, self.i.payload
        size = cfg.bytes_per_beat
        number, at = divmod(VLAN_TAG_BYTE, size)
        m.submodules.outlet = outlet = SkidBuffer(beat(cfg))
        wiring.connect(m, outlet.o, wiring.flipped(self.o))
        out, taken = outlet.i.payload, Signal()
        tag = Const(ETHERTYPE_VLAN, 16), Cat(self.id, Const(0, 1), self.priority)
        octets = Cat(half[8 * byte : 8 * byte + 8] for half in tag for byte in (1, 0))

        # Which beat comes: one hot up to the tag's, none behind it. Behind the tag what is left of a beat goes with the next.
        coming = Signal(number + 1, init=1)
        left = Signal(beat(cfg))
        rest = Signal()  # of the last beat
        begins, moves = Signal(), Signal()
        m.d.comb += [
            begins.eq(coming[number] & self.enable),
            taken.eq(outlet.i.valid & outlet.i.ready),
            outlet.i.valid.eq(rest | self.i.valid),
            self.i.ready.eq(outlet.i.ready & ~rest),
        ]
        moved = Cat(left.data[-WORD:], here.data[:-WORD]), Cat(left.keep[-VLAN_TAG_BYTES:], here.keep[:-VLAN_TAG_BYTES])
        overflows = here.last & here.keep[-VLAN_TAG_BYTES]
        m.d.comb += out.eq(here)
        with m.If(rest):
            m.d.comb += [out.data.eq(left.data[-WORD:]), out.keep.eq(left.keep[-VLAN_TAG_BYTES:]), out.last.eq(1)]
        with m.Elif(begins):
            m.d.comb += [
                out.data.eq(Cat(here.data[: 8 * at], octets, here.data[8 * at : -WORD])),
                out.keep.eq(Cat(here.keep[:at], Const(-1, VLAN_TAG_BYTES), here.keep[at:-VLAN_TAG_BYTES])),
                out.last.eq(here.last & ~overflows),
            ]
        with m.Elif(moves):
            m.d.comb += [out.data.eq(moved[0]), out.keep.eq(moved[1]), out.last.eq(here.last & ~overflows)]
        with m.If(taken):
            m.d.sync += [
                left.eq(here),
                rest.eq(~rest & overflows & (begins | moves)),
                moves.eq(Mux(rest | here.last, 0, moves | begins)),
                coming.eq(Mux(rest | here.last, 1, coming << 1)),
            ]
        return m
