"""Tags of received frames: IEEE 802.1Q clause 9. They are taken off, so that nobody behind has to know of them."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import rx_beat
from ..wire.headers import ETHERTYPE_VLAN, VLAN_TAG_BYTE, VLAN_TAG_BYTES
from .position import padded_word

WORD = 8 * VLAN_TAG_BYTES


class Untagger(wiring.Component):
    """Takes the tag off frames that are the interface's, and tells of those of other networks.

    ================  ===============================  ==========================================
    frame             without ``enable``, or ``id`` 0  with ``enable`` and an ``id``
    ================  ===============================  ==========================================
    no tag            as it is                         foreign
    priority tag (0)  tag taken off                    foreign
    tag of ``id``     as it is (the host's)            tag taken off
    another tag       as it is (the host's)            foreign
    ================  ===============================  ==========================================

    A second tag behind the first is the host's business, as any other EtherType.

    Timing: a beat a cycle; ``o`` a cycle behind ``i``, of frames that lose their tag in the cycle of the next beat. ``i.ready``
    follows ``o.ready``. A frame that ends with its tag, too short for anything, keeps it at 32 bits.

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    enable : In(1), id : In(12)
        The interface's network; constant while frames are under way.
    i : In stream of ``rx_beat(cfg)``
        A beat before the last is full.
    o : Out stream of ``rx_beat(cfg)``
    foreign : Out(1)
        Belongs to ``o``, counts in the last beat.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__({
            "enable": In(1), "id": In(12),
            "i": In(stream.Signature(rx_beat(cfg))),
            "o": Out(stream.Signature(rx_beat(cfg))),
            "foreign": Out(1),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        cfg, here = self._cfg, self.i.payload
        size = cfg.bytes_per_beat
        number, at = divmod(VLAN_TAG_BYTE, size)  # of the beat with the tag; the tag's first byte in it
        taken = Signal()
        m.d.comb += taken.eq(self.i.valid & self.i.ready)

        # Which beat comes: one hot up to the tag's, none behind it.
        coming = Signal(number + 1, init=1)
        with m.If(taken):
            m.d.sync += coming.eq(Mux(here.last, 1, coming << 1))
        tag = padded_word(here.data, at // VLAN_TAG_BYTES)
        tagged = (tag[16:] == ETHERTYPE_VLAN) & here.keep[at + VLAN_TAG_BYTES - 1] & coming[number]
        named = Signal()
        m.d.comb += named.eq(self.enable & (self.id != 0))
        ours = tagged & (tag[:12] == Mux(named, self.id, 0))

        if size == VLAN_TAG_BYTES:
            self._leave_out(m, taken, ours & ~here.last)
        else:
            self._move(m, taken, ours, coming[number], at)
        foreign = Signal()  # of the frame whose beat is held
        with m.If(taken & coming[number]):
            m.d.sync += foreign.eq(named & ~ours)
        m.d.comb += self.foreign.eq(foreign)
        return m

    def _leave_out(self, m, taken, drop):
        """The tag is a beat."""
        m.d.comb += self.i.ready.eq(~self.o.valid | self.o.ready)
        with m.If(self.i.ready):
            m.d.sync += [self.o.payload.eq(self.i.payload), self.o.valid.eq(taken & ~drop)]

    def _move(self, m, taken, ours, is_tag_beat, at):
        """What stands behind the tag moves down: a beat is held until the one that fills its end is there."""
        here, size = self.i.payload, self._cfg.bytes_per_beat
        held, held_valid = Signal(rx_beat(self._cfg)), Signal()
        moves, first = Signal(), Signal()  # the held beat's bytes behind ``at``, or all, move
        joined = Signal()  # the frame ends with bytes that all join the held beat
        goes_on = ~held.last  # else what is there belongs to another frame, or is nothing
        moved = Cat(held.data[WORD:], here.data[:WORD] & goes_on.replicate(WORD))
        kept = Cat(held.keep[VLAN_TAG_BYTES:], here.keep[:VLAN_TAG_BYTES] & goes_on.replicate(VLAN_TAG_BYTES))
        out = self.o.payload
        m.d.comb += [
            joined.eq(moves & goes_on & here.last & ~here.keep[VLAN_TAG_BYTES]),
            self.o.valid.eq(held_valid & (~moves | held.last | self.i.valid)),
            out.eq(held),
            self.i.ready.eq(~held_valid | (self.o.ready & self.o.valid)),
        ]
        for byte in range(size):
            with m.If(moves & ~first if byte < at else moves):
                m.d.comb += [
                    out.data.word_select(byte, 8).eq(moved.word_select(byte, 8)),
                    out.keep[byte].eq(kept[byte]),
                ]
        with m.If(joined):
            m.d.comb += [out.last.eq(1), out.error.eq(here.error)]
        with m.If(self.i.ready):
            m.d.sync += held_valid.eq(taken & ~(held_valid & joined))
        with m.If(taken):
            m.d.sync += [held.eq(here), moves.eq(Mux(is_tag_beat, ours, moves & ~held.last)), first.eq(is_tag_beat)]
