"""SACK blocks wherever their option begins (RFC 2018 section 3: it may stand in any order and alignment)."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..messages import MOST_SACKS, interval
from ..wire.choice import select
from ..wire.valid_only import valid_only
from .option_chain import WORD, OptionChain

SACK = 5
"""Kind of the option."""


class SackChain(wiring.Component):
    """Follows the options of a header through its words, and puts the bytes of the first SACK option together.

    Of an option that goes beyond the header come the blocks that are whole within it. A length that is no number of blocks is
    an option to be passed over.

    Timing: a word a cycle; a block comes six cycles after its last byte's word, or five if it ends a word, ``done``
    seven after the last word.

    Members
    -------
    valid, last : In(1); word : In(32)
        As in ``OptionWords``: first byte highest, without stalls.
    clear : In(1)
        Forget what is under way; the next word is a header's first.
    block : Out(valid-only interval)
    ts_found : Out(1); tsval, tsecr : Out(32)
        A timestamps option has come: of the chain.
    done : Out(1)
        All blocks have come.
    """

    valid: In(1)
    last: In(1)
    word: In(32)
    clear: In(1)
    block: Out(valid_only(interval))
    ts_found: Out(1)
    tsval: Out(32)
    tsecr: Out(32)
    done: Out(1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.chain = chain = OptionChain()
        m.d.comb += [getattr(self, name).eq(getattr(chain, name)) for name in ("ts_found", "tsval", "tsecr")]
        m.d.sync += [chain.word.eq(self.word), chain.valid.eq(self.valid & ~self.clear), chain.last.eq(self.last)]
        m.d.comb += [chain.following.eq(self.word), chain.clear.eq(self.clear)]

        octets = [chain.window[8 * at : 8 * at + 8] for at in reversed(range(2 * WORD - 1))]
        counts = [Cat(octets[at + 1] == 2 + 8 * count for count in range(1, MOST_SACKS + 1)) for at in range(WORD)]
        # Kind and length have to be in the header.
        here = [
            chain.begins[at] & (octets[at] == SACK) & counts[at].any() & (~chain.ends if at == WORD - 1 else 1)
            for at in range(WORD)
        ]
        taken = Signal()  # an option
        shift = Signal(range(WORD))  # of its bytes in the words
        left = Signal(range(2 * MOST_SACKS + 1))  # its words
        second, start = Signal(), Signal(32, reset_less=True)
        begins = Cat(here) & (chain.passes & ~taken).replicate(WORD)
        which = select(begins, counts)
        total = select(which, [2 * count for count in range(1, MOST_SACKS + 1)])
        # Behind kind and length: in this word and the next one, or from the next one on.
        at_once = begins[0] | begins[1]
        place = Mux(at_once, Cat(begins[1], 1), shift)
        number = Signal(32)
        with m.Switch(place):
            for at in range(WORD):
                with m.Case(at):
                    m.d.comb += number.eq(Cat(reversed(octets[at : at + WORD])))
        inside = (place == 0) | ~chain.ends
        counts_now = chain.passes & inside & (at_once | (left != 0))
        with m.If(begins.any()):
            m.d.sync += [
                taken.eq(1),
                shift.eq(Cat(begins[1] | begins[3], at_once)),
                left.eq(total - (at_once & inside)),
            ]
        with m.Elif(counts_now):
            m.d.sync += left.eq(left - 1)
        with m.If(counts_now):
            m.d.sync += [second.eq(~second), start.eq(number)]
        m.d.sync += [
            self.block.valid.eq(counts_now & second & ~self.clear),
            self.block.payload.start.eq(start),
            self.block.payload.end.eq(number),
            self.done.eq(chain.done),
        ]
        with m.If(self.clear):
            m.d.sync += [taken.eq(0), left.eq(0), second.eq(0), self.done.eq(0)]
        return m
