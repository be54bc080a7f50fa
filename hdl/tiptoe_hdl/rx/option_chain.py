"""Options one behind the other, four bytes a cycle, wherever they begin (RFC 9293 section 3.2, MUST-4 to MUST-7)."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..wire.choice import select

WORD = 4
"""Bytes."""


class OptionChain(wiring.Component):
    """Follows the options of a header through its words, whatever their lengths: no header takes longer than another.

    Of every byte of a word it is found out what an option would be that began there, then what would be passed within the
    word from there on. So the only thing carried from word to word is how many bytes the last option goes on, and that takes one
    cycle.

    Timing: one word a cycle, without stalls; what is found in it comes five cycles later, out of flip-flops.

    Members
    -------
    valid, last : In(1); word, following : In(32)
        A word and the one behind it, first byte highest; the header's last word, whose ``following`` is void.
    clear : In(1)
        Forget what is under way; the next word is a header's first.
    mss_found, ws_found, sack_found : Out(1); mss : Out(16); ws : Out(8)
        Options of the right length; of two in a word the last one.
    ts_found : Out(1); tsval, tsecr : Out(32)
        A timestamps option, when its last byte comes.
    done : Out(1)
        That was the last word.
    passes, ends : Out(1); begins : Out(WORD); window : Out(8 * (2 * WORD - 1))
        A cycle before what is found: a word, the last one, in which of its bytes an option begins; its bytes and those behind
        it, the first one highest.
    """

    valid: In(1)
    last: In(1)
    word: In(32)
    following: In(32)
    clear: In(1)
    mss_found: Out(1)
    mss: Out(16)
    ws_found: Out(1)
    ws: Out(8)
    sack_found: Out(1)
    ts_found: Out(1)
    tsval: Out(32)
    tsecr: Out(32)
    done: Out(1)
    passes: Out(1)
    ends: Out(1)
    begins: Out(WORD)
    window: Out(8 * (2 * WORD - 1))

    def elaborate(self, platform):
        m = Module()
        both = Cat(self.following, self.word)
        byte = [both[56 - 8 * at : 64 - 8 * at] for at in range(2 * WORD - 1)]

        # Cycle 1: an option that begins with this byte.
        nop, stop, two, three, is_mss, is_ws, is_sack, is_ts = (
            Signal(WORD, name=name) for name in ("nop", "stop", "two", "three", "is_mss", "is_ws", "is_sack", "is_ts")
        )
        word = Signal(32, reset_less=True)
        beyond = [Signal(6, name=f"beyond{at}") for at in range(WORD)]  # its bytes behind this word
        values = Signal(8 * (WORD + 1), reset_less=True)
        octets = both[8:]
        m.d.sync += [values.eq(Cat(byte[2:])), word.eq(self.word)]
        for at, (kind, length) in enumerate(zip(byte[:WORD], byte[1:], strict=False)):
            inside = WORD - at
            m.d.sync += [
                nop[at].eq(kind == 1),
                # End of options, or a length that cannot be.
                stop[at].eq((kind == 0) | (kind != 1) & ((length < 2) | length[6:].any())),
                two[at].eq((kind > 1) & (length == 2)),
                three[at].eq((kind > 1) & (length == 3)),
                beyond[at].eq(length[:6] - inside if at < WORD - 1 else Mux(kind == 1, 0, length[:6] - inside)),
                # Not if it goes beyond the header.
                is_mss[at].eq((kind == 2) & (length == 4) & (~self.last if at > 0 else 1)),
                is_ws[at].eq((kind == 3) & (length == 3) & (~self.last if at > 1 else 1)),
                is_sack[at].eq((kind == 4) & (length == 2) & (~self.last if at > 2 else 1)),
                is_ts[at].eq((kind == 8) & (length == 10)),
            ]

        # Cycle 2: where options begin in this word if one begins at ``entry``, and how it then goes on.
        passed = [Signal(WORD, name=f"passed{entry}") for entry in range(WORD)]
        exits = [Signal(6, name=f"exit{entry}") for entry in range(WORD)]
        stops = Signal(WORD)
        for entry in range(WORD):
            here = [0] * entry + [1]
            for at in range(entry + 1, WORD):
                here.append(
                    here[at - 1] & nop[at - 1]
                    | (here[at - 2] & two[at - 2] if at - 2 >= entry else 0)
                    | (here[at - 3] & three[at - 3] if at - 3 >= entry else 0)
                )
            way_out = beyond[entry]
            for at in range(entry + 1, WORD):
                way_out = Mux(here[at], beyond[at], way_out)
            m.d.sync += [
                passed[entry].eq(Cat(*(here[at] if at >= entry else 0 for at in range(WORD)))),
                exits[entry].eq(way_out),
                stops[entry].eq(Cat(here[at] & stop[at] for at in range(entry, WORD)).any()),
            ]

        # Cycle 3: where an option does begin.
        valid, last = Signal(3), Signal(3)
        ahead, dead = Signal(6), Signal()  # bytes from this word to the next option; there is none
        begins, begun = Signal(), Signal(WORD)
        m.d.comb += begins.eq(~ahead[2:].any() & ~dead)
        m.d.sync += begun.eq(0)
        with m.If(valid[1]):
            for entry in range(WORD):
                with m.If(begins & (ahead[:2] == entry)):
                    m.d.sync += [begun.eq(passed[entry]), ahead.eq(exits[entry]), dead.eq(stops[entry])]
            with m.If(ahead[2:].any()):
                m.d.sync += ahead.eq(ahead - WORD)
        with m.If(self.clear):
            m.d.sync += [ahead.eq(0), dead.eq(0), valid.eq(0), last.eq(0)]
        with m.Else():
            m.d.sync += [valid.eq(Cat(self.valid, valid)), last.eq(Cat(self.valid & self.last, last))]

        # Cycle 4: what they say.
        for _ in range(2):
            now = (is_mss, is_ws, is_sack, is_ts, values, word)
            later = [Signal.like(signal, name=f"{signal.name}_later") for signal in now]
            m.d.sync += [new.eq(old) for new, old in zip(later, now, strict=True)]
            is_mss, is_ws, is_sack, is_ts, values, word = later
        for stage in range(3):
            later = Signal(len(self.window), name=f"octets{stage}", reset_less=True)
            m.d.sync += later.eq(octets)
            octets = later
        m.d.comb += [
            self.passes.eq(valid[2] & ~self.clear),
            self.ends.eq(last[2]),
            self.begins.eq(begun),
            self.window.eq(octets),
        ]
        value = [values.word_select(at, 8) for at in range(WORD + 1)]  # the byte two behind ``at``
        mss_at, ws_at = begun & is_mss, begun & is_ws
        m.d.sync += [
            self.mss_found.eq(mss_at.any() & ~self.clear),
            self.ws_found.eq(ws_at.any() & ~self.clear),
            self.sack_found.eq((begun & is_sack).any() & ~self.clear),
            self.done.eq(last[2] & ~self.clear),
            self.mss.eq(select(mss_at, [Cat(value[at + 1], value[at]) for at in range(WORD)])),
            # Only the first and the last of a word have room beside each other.
            self.ws.eq(Mux(ws_at[3], value[3], select(ws_at[:3], value[:3]))),
        ]
        self._timestamps(m, valid[2], word, begun & is_ts)
        return m

    def _timestamps(self, m, valid, word, at):
        """Cycle 4: a timestamps option is longer than a word. Its ten bytes end in the second word behind the one that it begins
        in, or, if that is with the last byte, in the third; none ends where another has not begun to be waited for."""
        before, first = Signal(32, reset_less=True), Signal(32, reset_less=True)
        place = Signal(WORD, reset_less=True)  # of its first byte
        words = Signal(2)  # of it that have come
        whole = (words == 2) & ~place[3] | (words == 3)
        m.d.sync += self.ts_found.eq(0)
        with m.If(self.clear):
            m.d.sync += words.eq(0)
        with m.Elif(valid):
            m.d.sync += [before.eq(word), first.eq(before), self.ts_found.eq(whole)]
            with m.If(at.any()):
                m.d.sync += [place.eq(at), words.eq(1)]
            with m.Elif(words.any()):
                m.d.sync += words.eq(Mux(whole, 0, words + 1))
        octets = Cat(word, before, first)  # the first one highest
        fronts = (2, 3, 4, 1)  # bytes of these before the TSval
        stamps = select(place, [octets[32 - 8 * front :][:64] for front in fronts])
        m.d.sync += [self.tsval.eq(stamps[32:]), self.tsecr.eq(stamps[:32])]
