"""TCP options of received segments (RFC 9293 section 3.2, MUST-4 to MUST-7; RFC 7323 section 2: window scale; RFC 2018
section 2: SACK-permitted; RFC 7323 section 3.2: timestamps).

``OptionStore`` keeps the option words of every frame. Here those of a SYN are walked through; of other segments only timestamps
and SACK blocks are looked for (``sack_walker.py``).
"""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, enum, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..config import EngineConfig
from ..wire.apart import APART
from .option_chain import OptionChain
from .option_words import OptionWords

OPTION_WORD = 5
"""The first option word of a TCP header."""

LAST_OPTION_WORD = 14

MAX_WINDOW_SHIFT = 14
"""RFC 7323 section 2.3: a larger shift counts as this."""


class Kind(enum.IntEnum, shape=unsigned(8)):
    """Option kinds."""

    END = 0
    NOP = 1
    MSS = 2
    WINDOW_SCALE = 3
    SACK_PERMITTED = 4
    TIMESTAMPS = 8


SynOptions = data.StructLayout({
    "mss": 16, "ws_present": 1, "ws": 4, "sack_ok": 1, "ts_present": 1, "tsval": 32, "tsecr": 32,
})  # fmt: skip
"""What a SYN's options say; mss is 0 without that option."""


def option_rows(cfg: EngineConfig) -> int:
    """Beats the options of one frame may lie in, as a power of two."""
    lanes = cfg.data_width // 32
    return 1 << ceil_log2((lanes - 1 + 10 + lanes - 1) // lanes)


class OptionStore(wiring.Component):
    """Keeps the beats with option words of the last ``slots`` frames, in block memory.

    Rows of a slot are the frame's beats from the first one with an option word on. Timing: ``data`` is valid two cycles
    after ``slot`` and ``row``, out of flip-flops.

    Parameters
    ----------
    cfg : EngineConfig
        ``data_width`` is used.
    slots : int
        Frames; a power of two.

    Members
    -------
    valid, last : In(1), padded : In(data_width), after_ip : In(1), tcp_word : In
        A beat and its position, see ``FramePosition``.
    write_slot : In
        Where the frame under way goes.
    slot, row : In
        What to read.
    data : Out(data_width)
    """

    def __init__(self, cfg: EngineConfig, slots: int):
        self._cfg, self._slots = cfg, slots
        self._rows = option_rows(cfg)
        super().__init__({
            "valid": In(1), "last": In(1), "padded": In(cfg.data_width),
            "after_ip": In(1), "tcp_word": In(signed(6)),
            "write_slot": In(range(slots)),
            "slot": In(range(slots)), "row": In(range(self._rows)), "data": Out(cfg.data_width),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        lanes = self._cfg.data_width // 32
        m.submodules.memory = mem = memory.Memory(
            shape=unsigned(self._cfg.data_width), depth=self._slots * self._rows, init=[], attrs=APART
        )  # the slot that is read is complete; the frame under way has another one
        write = mem.write_port()
        read = mem.read_port()

        filling = Signal.like(self.row)
        wanted = Signal()
        m.d.comb += wanted.eq(
            self.valid & self.after_ip
            & (self.tcp_word >= OPTION_WORD - (lanes - 1)) & (self.tcp_word <= LAST_OPTION_WORD)
        )  # fmt: skip
        with m.If(self.valid & self.last):
            m.d.sync += filling.eq(0)
        with m.Elif(wanted):
            m.d.sync += filling.eq(filling + 1)
        # The write port's inputs come from flip-flops; a row is there two cycles after its beat.
        m.d.sync += [
            write.addr.eq(Cat(filling, self.write_slot)),
            write.data.eq(self.padded),
            write.en.eq(wanted),
        ]
        m.d.comb += [
            read.addr.eq(Cat(self.row, self.slot)),
            read.en.eq(1),
        ]
        m.d.sync += self.data.eq(read.data)
        return m


def walk_command(cfg: EngineConfig) -> data.StructLayout:
    """Walk through ``words`` (1 to 10) option words, the first one in ``lane`` of the slot's first row."""
    return data.StructLayout({"lane": ceil_log2(cfg.data_width // 32), "words": 4})


WordClass = data.StructLayout({"mss": 1, "scale": 1, "permits": 1, "stamps": 1, "whole": 1, "end": 1, "value": 16})
"""What a word means when an option begins with it, and its lower half. ``whole``: one of the usual layouts, also one that
says nothing; ``permits``: SACK-permitted is in it; ``stamps``: a timestamps option begins in the lower half, so it ends two
words later. All 0: the chain says what it is."""


def classify(word: Value) -> dict[str, Value]:
    """Fields of ``WordClass`` for a word, first byte highest: the layouts that stacks use in their SYN segments."""
    high, low = word[16:], word[:16]
    nops, sack, stamps = 0x0101, 0x0402, 0x080A
    mss = high == 0x0204
    scale = word[8:] == 0x01_03_03
    times = ((high == nops) | (high == sack)) & (low == stamps)
    permits = ((high == sack) & ((low == nops) | (low == stamps))) | ((high == nops) & (low == sack))
    nothing = (high == nops) & (low == nops)
    return {
        "mss": mss,
        "scale": scale,
        "permits": permits,
        "stamps": times,
        "whole": mss | scale | permits | times | nothing,
        "end": word[24:] == Kind.END,
        "value": low,
    }


class OptionWalker(wiring.Component):
    """Goes through the options of a SYN word by word: at once as long as they come in usual layouts, else as a chain.

    End of options, no operation, maximum segment size (kind 2, length 4), window scale (kind 3, length 3), SACK-permitted
    (kind 4, length 2) and timestamps (kind 8, length 10) are known; all others, and known ones of another length, are skipped by
    their length. A length of 0 or 1, or one that goes beyond the header, ends the walk; what was found before stays. Of an option
    that comes twice the last one counts.

    Timing: a cycle a word and five on top; where any word is unusual ten on top, whatever it is. Then some cycles until the
    next command is taken.

    Parameters
    ----------
    cfg : EngineConfig
        ``data_width`` is used.

    Members
    -------
    command : In stream of ``walk_command(cfg)``
    row : Out, data : In(data_width)
        Read side of ``OptionStore``; the slot must stay the same until the result is taken.
    o : Out stream of ``SynOptions``
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "command": In(stream.Signature(walk_command(cfg))),
                "row": Out(ceil_log2(option_rows(cfg))),
                "data": In(cfg.data_width),
                "o": Out(stream.Signature(SynOptions)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.chain = chain = OptionChain()

        m.submodules.words = words = OptionWords(self._cfg, walk_command(self._cfg), option_rows(self._cfg))
        idle = Signal()  # in state "Idle"
        m.d.comb += [
            self.row.eq(words.row),
            words.data.eq(self.data),
            words.command.valid.eq(self.command.valid & idle),
            words.command.payload.eq(self.command.payload),
        ]
        # A word, behind it its class.
        usual, classified = Signal(WordClass), Signal(32)
        word_valid, word_last = Signal(), Signal()
        m.d.sync += [classified.eq(words.word), word_valid.eq(words.valid), word_last.eq(words.last)]
        m.d.sync += [usual[field].eq(value) for field, value in classify(words.word).items()]
        m.d.comb += [
            chain.valid.eq(word_valid),
            chain.last.eq(word_last),
            chain.word.eq(classified),
            chain.following.eq(words.word),
        ]

        found = self.o.payload
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [self.o.valid.eq(0), found.eq(0)]

        left = Signal(4)  # words, with this one
        inside = Signal()  # the word belongs to the option before
        skip = Signal()  # the next one too
        quick = Signal()  # in state "Words"
        chained = Signal()  # in state "Chain"

        def done():
            m.d.comb += words.stop.eq(1)
            m.d.sync += [self.o.valid.eq(1), quick.eq(0), chained.eq(0)]
            m.next = "Flush"

        def scale(shift):
            return [found.ws_present.eq(1), found.ws.eq(Mux(shift > MAX_WINDOW_SHIFT, MAX_WINDOW_SHIFT, shift))]

        # What is found, apart from the states. Classes exclude each other. The chain says once more what was found in the words
        # just before the first unusual one.
        word_now = quick & word_valid
        begins = word_now & ~inside
        with m.If(word_now):
            m.d.sync += [inside.eq(Mux(inside, skip, usual.stamps)), skip.eq(~inside & usual.stamps)]
        with m.If(begins & usual.mss):
            m.d.sync += found.mss.eq(usual.value)
        with m.If(begins & usual.scale):
            m.d.sync += scale(usual.value[:8])
        with m.If((begins & usual.permits) | (chained & chain.sack_found)):
            m.d.sync += found.sack_ok.eq(1)
        before = Signal(32, reset_less=True)
        with m.If(word_now):
            m.d.sync += before.eq(classified)
        with m.If(word_now & inside & ~skip):
            m.d.sync += [found.tsval.eq(before), found.tsecr.eq(classified), found.ts_present.eq(1)]
        with m.If(chained & chain.ts_found):
            m.d.sync += [found.tsval.eq(chain.tsval), found.tsecr.eq(chain.tsecr), found.ts_present.eq(1)]
        with m.If(chained & chain.mss_found):
            m.d.sync += found.mss.eq(chain.mss)
        with m.If(chained & chain.ws_found):
            m.d.sync += scale(chain.ws)

        with m.FSM():
            with m.State("Idle"):
                m.d.comb += [idle.eq(1), self.command.ready.eq(1)]
                m.d.sync += [left.eq(self.command.payload.words), inside.eq(0), skip.eq(0)]
                with m.If(self.command.valid):
                    m.d.sync += quick.eq(1)
                    m.next = "Words"
            with m.State("Words"):
                with m.If(word_valid):
                    m.d.sync += left.eq(left - 1)
                    with m.If(~inside & usual.end):
                        done()
                    with m.Elif(~inside & ~usual.whole):
                        m.d.sync += [quick.eq(0), chained.eq(1)]
                        m.next = "Chain"
                    with m.Elif(left == 1):
                        done()
            with m.State("Chain"):
                with m.If(chain.done):
                    done()
            with m.State("Flush"):
                # What is still on its way must not be taken for the next walk's.
                m.d.comb += chain.clear.eq(1)
                with m.If(words.command.ready & ~word_valid & ~self.o.valid):
                    m.next = "Idle"
        return m
