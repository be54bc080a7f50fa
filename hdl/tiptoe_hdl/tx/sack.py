"""SACK blocks of a segment's header (RFC 2018 sections 3 and 4; RFC 2883)."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import MOST_SACKS, SACK_BITS, interval, sack_list
from ..wire.headers import OPTION_NOP, SACK_BLOCK_BYTES
from ..wire.sequence import distance

NOPS = int.from_bytes(bytes([OPTION_NOP]) * SACK_BLOCK_BYTES, "little")

BLOCK_BITS = 8 * SACK_BLOCK_BYTES


def in_wire_order(number: Value) -> Value:
    """A number's bytes, the first on the wire in the lowest bits."""
    return Cat(number.word_select(byte, 8) for byte in reversed(range(len(number) // 8)))


def all_in_one_word(cfg: EngineConfig) -> bool:
    """The most blocks fill a word: they come in one behind the other, and leave at once."""
    return cfg.data_width == MOST_SACKS * BLOCK_BITS


class SackBlocks(wiring.Component):
    """Reads what a connection has received out of order, and gives it out as words of a header's tail.

    What has come twice first, if anything has, and behind it the block that it lies in, if it is ahead of a gap (RFC 2883
    section 4: else the peer takes it for a block like any other; so where that block has been acknowledged since, what has
    come twice is left out); the newest block (RFC 2018 section 4), then the others in
    order, none twice, and NOPs for those there was room for but that are gone. A block is read a cycle, so
    the list must not change meanwhile. A change shows as ``known`` 0, and from there on there are NOPs: the header
    can't wait without end for a busy connection, and what changes the list is one more segment of that connection,
    whose own acknowledgement is on its way.

    Timing: with ``start`` in cycle 0, the list is first looked at in that cycle; ``tail`` has words in cycles 1 to ``sacks`` (64
    bits), 1 to 2 ``sacks`` (32), 2 and 4 (128, with ``wait`` high the cycle before each), 5 (256, with ``wait`` high in the
    four before it, however many blocks). ``start`` may come again three cycles after the last of them, two at 256 bits.

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    next_id : In
        The id of the segment of the next ``start``: from two cycles before it up to its cycle. From a flip-flop.
    sack_id : Out
        Behind one multiplexer.
    sack : In, ``sack_list``
        What was held of ``sack_id`` two cycles before. It differs from the cycle before only if ``sack_id`` did, or where
        ``known`` is 0. If ``newest`` is not valid, the first one counts as the newest.
    start, sacks : In
        A header with room for so many blocks, which may be none.
    twice, twice_start, twice_length : In
        With ``start``: the first of them is this one, not of the list. If it is ahead of ``ack``, all of it was in one interval
        when it came.
    ack : In, 32 bits
        With ``start``: what the segment acknowledges.
    tail : Out, data_width bits
        The first byte on the wire in bits 7:0; zero where there is no block.
    wait : Out
        ``tail`` lacks a block yet: no word may be taken in this cycle, but must be in any other.
    filled : Out
        ``tail`` has blocks, or NOPs in their place.
    count : Out
        Blocks, NOPs not among them; final in the cycle after the last one with ``filled``, at 256 bits with it, up to
        ``start``.
    shifted, latest : Out, 1 and 64 bits
        At 256 bits only, for the checksum: a block, or NOPs in its place, each one once, before all are in ``tail``.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__({
            "next_id": In(cfg.id_bits),
            "sack_id": Out(cfg.id_bits),
            "sack": In(sack_list(cfg)),
            "start": In(1),
            "sacks": In(SACK_BITS),
            "twice": In(1), "twice_start": In(32), "twice_length": In(16), "ack": In(32),
            "tail": Out(cfg.data_width),
            "wait": Out(1),
            "filled": Out(1),
            "count": Out(SACK_BITS),
            **({"shifted": Out(1), "latest": Out(BLOCK_BITS)} if all_in_one_word(cfg) else {}),
        })  # fmt: skip

    def elaborate(self, platform):
        cfg, sack, m = self._cfg, self.sack, Module()
        pending = Signal(MOST_SACKS)  # a bit a block to come
        busy, following = pending[0], Signal()
        kept_id = Signal(cfg.id_bits)
        m.d.comb += self.sack_id.eq(Mux(busy, kept_id, self.next_id))
        with m.If(~busy):
            m.d.sync += kept_id.eq(self.next_id)
        with m.If(self.start):
            m.d.sync += pending.eq(Cat(self.sacks > number for number in range(MOST_SACKS)))
        with m.Elif(following):
            m.d.sync += pending.eq(pending >> 1)

        # Which one is the next is decided in the cycle before it is read, and holds while the list is known.
        places = cfg.ooo_intervals
        which, left, same = Signal(places), Signal(places), Signal()  # a bit an interval
        named = Cat(sack.newest == place for place in range(places)) & sack.valid
        newest = named | (sack.valid[0] & ~named.any())
        twice, block = Signal(), Signal(interval, reset_less=True)  # the next one is this
        # What came twice was in the newest one, but others may have come before this header, or that one has been acknowledged.
        # An interval that is still there has not shrunk: it has all of what begins in it.
        begun = Cat(
            ~distance(self.twice_start, one.start)[31] & distance(self.twice_start, one.end)[31]
            for one in sack.intervals
        )
        around = begun & sack.valid & self.twice.replicate(places)
        old = distance(self.twice_start, self.ack)[31]
        first = Mux(around.any(), around, newest)
        with m.If(self.start):
            m.d.sync += [
                which.eq(first), left.eq(sack.valid & ~first), twice.eq(self.twice & (old | (sack.known & around.any()))),
                block.start.eq(self.twice_start), block.end.eq(self.twice_start + self.twice_length),
            ]  # fmt: skip
        with m.Elif(following & twice):
            m.d.sync += twice.eq(0)
        with m.Elif(following):
            lowest = Cat(left[place] & ~left[:place].any() for place in range(places))
            m.d.sync += [which.eq(lowest), left.eq(left & ~lowest)]
        with m.If(self.start | busy):
            m.d.sync += same.eq(sack.known & (self.start | same))
        held = Cat(which & (same & sack.known & busy & ~twice).replicate(places), busy & twice)
        octets = Const(0, BLOCK_BITS)
        for one, one_of in zip(held, [*sack.intervals, block], strict=True):
            octets |= Cat(in_wire_order(one_of.start), in_wire_order(one_of.end)) & one.replicate(BLOCK_BITS)
        octets |= (busy & ~held.any()).replicate(BLOCK_BITS) & NOPS
        self._words(m, busy, following, held.any(), octets)
        return m

    def _words(self, m: Module, busy: Value, following: Signal, held: Value, octets: Value):
        """Blocks become words of the tail."""
        width = self._cfg.data_width
        second, kept, read = Signal(), Signal(min(width, BLOCK_BITS)), Signal()  # the first two not at 64 and 256 bits
        with m.If(self.start):
            m.d.sync += self.count.eq(0)
        with m.Elif(read):
            m.d.sync += self.count.eq(self.count + held)
        if width < BLOCK_BITS:  # half a block a word; the other half is read with it
            m.d.comb += [
                read.eq(busy & ~second), following.eq(second), self.filled.eq(busy),
                self.tail.eq(Mux(second, kept, octets[:width])),
            ]  # fmt: skip
            m.d.sync += [second.eq(read), kept.eq(octets[width:])]
        elif width == BLOCK_BITS:
            m.d.comb += [read.eq(busy), following.eq(busy), self.filled.eq(busy), self.tail.eq(octets)]
        elif all_in_one_word(self._cfg):
            came, whole = Signal(MOST_SACKS + 1), Signal(width)  # so many have come in, or zeros behind the last one
            m.d.sync += [
                came.eq(Cat(self.start & self.sacks.any(), came)),
                whole.eq(Cat(whole[BLOCK_BITS:], octets)),
            ]  # fmt: skip
            m.d.comb += [
                read.eq(busy), following.eq(busy), self.filled.eq(came[-1]), self.wait.eq(came[:-1].any()),
                self.tail.eq(whole & self.filled.replicate(width)),
                self.shifted.eq(came[1:].any()), self.latest.eq(whole[-BLOCK_BITS:]),
            ]  # fmt: skip
        else:  # two blocks a word; the first waits for the second, if there is one
            m.d.comb += [
                read.eq(busy), following.eq(busy), self.filled.eq(second), self.wait.eq(busy & ~second),
                self.tail.eq(Cat(kept, octets) & second.replicate(width)),
            ]  # fmt: skip
            m.d.sync += [second.eq(self.wait), kept.eq(octets)]
