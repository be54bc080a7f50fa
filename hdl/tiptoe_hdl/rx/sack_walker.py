"""Timestamps and SACK options of a segment (RFC 2018 section 3; RFC 7323 appendix A)."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..config import EngineConfig
from ..messages import MOST_SACKS, SACK_BITS, interval
from ..wire.queue import HalfQueue
from .option_words import OptionWords
from .options import option_rows, walk_command
from .sack_chain import SackChain

QUEUED_BLOCKS = 16

Stamps = data.StructLayout({"ts_present": 1, "tsval": 32, "tsecr": 32})
"""A timestamps option, if there is one."""


class SackWalker(wiring.Component):
    """Looks for timestamps and a SACK option in the words of a frame, and puts the latter's blocks into a queue.

    Two no operations, an option's kind and length in one word, the rest of it in whole words: so do all stacks known write them,
    in any order. What is laid out in another way goes through a chain, which finds them wherever they begin
    (``sack_chain.py``). A SACK option that goes beyond the header tells of the blocks that are whole within it.

    Timing: result seven cycles after the command, and a cycle a word; six more for another layout. A command waits
    while the queue has room for less than a header's blocks; who takes them does not wait for a later command.

    Parameters
    ----------
    cfg : EngineConfig
        ``data_width`` is used.

    Members
    -------
    command : In stream of ``walk_command(cfg)``
    row : Out, data : In(data_width)
        Read side of ``OptionStore``; the slot must stay the same until the result is taken.
    o : Out stream of SACK_BITS
        How many blocks of this frame are in the queue, behind those of the frames before.
    stamps : Out of ``Stamps``
        The timestamps option of this frame: counts while ``o`` is valid.
    block : Out stream of ``interval``
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__({
            "command": In(stream.Signature(walk_command(cfg))),
            "row": Out(ceil_log2(option_rows(cfg))), "data": In(cfg.data_width),
            "o": Out(stream.Signature(SACK_BITS)),
            "stamps": Out(Stamps),
            "block": Out(stream.Signature(interval)),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        m.submodules.words = words = OptionWords(self._cfg, walk_command(self._cfg), option_rows(self._cfg))
        m.submodules.blocks = blocks = HalfQueue(interval, QUEUED_BLOCKS)
        wiring.connect(m, blocks.o, wiring.flipped(self.block))

        inside = Signal(range(QUEUED_BLOCKS + 2))
        leaves = self.block.valid & self.block.ready
        room = Signal()
        walking = Signal()
        m.d.comb += [
            self.row.eq(words.row),
            words.data.eq(self.data),
            words.command.valid.eq(self.command.valid & room & ~walking),
            words.command.payload.eq(self.command.payload),
            self.command.ready.eq(words.command.ready & room & ~walking),
        ]
        m.d.sync += [inside.eq(inside + blocks.i.valid - leaves), room.eq(inside < QUEUED_BLOCKS - MOST_SACKS)]

        m.submodules.chain = chain = SackChain()
        unusual = Signal()  # the chain's blocks are what counts
        m.d.comb += [chain.valid.eq(words.valid), chain.last.eq(words.last), chain.word.eq(words.word)]
        skip = Signal(2)  # words of the timestamps option that are left
        left = Signal(4)  # words of blocks
        over = Signal()  # no other SACK option is looked for
        lost = Signal()  # where options begin only the chain knows
        second = Signal()
        start = Signal(32, reset_less=True)
        whole = Cat(words.word == 0x0101_0502 + 8 * count for count in range(1, MOST_SACKS + 1))
        with m.If(words.valid):
            with m.If(left != 0):
                m.d.sync += [left.eq(left - 1), second.eq(~second), start.eq(words.word)]
            with m.Elif(skip != 0):
                m.d.sync += skip.eq(skip - 1)
                with m.If(skip[1]):
                    m.d.sync += self.stamps.tsval.eq(words.word)
                with m.Else():
                    m.d.sync += [self.stamps.tsecr.eq(words.word), self.stamps.ts_present.eq(1)]
            with m.Elif((words.word == 0x0101_080A) & ~lost):
                m.d.sync += skip.eq(2)
            with m.Elif(whole.any() & ~over & ~lost):
                m.d.sync += over.eq(1)
                for count in range(1, MOST_SACKS + 1):
                    with m.If(whole[count - 1]):
                        m.d.sync += left.eq(2 * count)
            with m.Elif((words.word != 0x0101_0101) & ~lost):
                m.d.sync += lost.eq(1)
                with m.If(~over):
                    m.d.sync += unusual.eq(1)
        found = Signal(SACK_BITS)
        m.d.comb += [
            blocks.i.valid.eq((words.valid & second) | (chain.block.valid & unusual)),
            blocks.i.payload.start.eq(Mux(unusual, chain.block.payload.start, start)),
            blocks.i.payload.end.eq(Mux(unusual, chain.block.payload.end, words.word)),
        ]
        with m.If(blocks.i.valid):
            m.d.sync += found.eq(found + 1)
        with m.If(self.command.valid & self.command.ready):
            m.d.sync += [walking.eq(1), skip.eq(0), left.eq(0), over.eq(0), lost.eq(0), second.eq(0), found.eq(0)]
            m.d.sync += [unusual.eq(0), self.stamps.ts_present.eq(0)]
            m.d.comb += chain.clear.eq(1)
        ended = Signal()
        m.d.sync += ended.eq(words.valid & words.last)
        with m.If(chain.ts_found & lost):
            m.d.sync += [
                self.stamps.tsval.eq(chain.tsval),
                self.stamps.tsecr.eq(chain.tsecr),
                self.stamps.ts_present.eq(1),
            ]
        with m.If((ended & ~lost) | (chain.done & lost)):
            m.d.sync += self.o.valid.eq(1)
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [self.o.valid.eq(0), walking.eq(0)]
        m.d.comb += self.o.payload.eq(found)
        return m
