"""TCP options of received segments (RFC 9293 section 3.2, MUST-4 to MUST-7; RFC 7323 section 2: window scale).

Options are looked at in SYN segments only. Those of every segment, timestamps and selective acknowledgements, belong
into ``OptionStore`` as well: it keeps the option words of every frame. Their usual layouts fill whole words (RFC 7323
appendix A), so they can be taken while they go by, without the walk that follows here.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, enum, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..config import EngineConfig
from .position import padded_word

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


SynOptions = data.StructLayout({"mss": 16, "ws_present": 1, "ws": 4})
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
            shape=unsigned(self._cfg.data_width), depth=self._slots * self._rows, init=[]
        )
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


WordClass = data.StructLayout({"mss": 1, "scale": 1, "stamps": 1, "whole": 1, "end": 1, "value": 16})
"""What a word means when an option begins with it, and its lower half. ``whole``: one of the usual layouts, also one that
says nothing; ``stamps``: a timestamps option begins in the lower half, so it ends two words later. All 0: to be looked at
byte by byte."""


def classify(word: Value) -> dict[str, Value]:
    """Fields of ``WordClass`` for a word, first byte highest: the layouts that stacks use in their SYN segments."""
    high, low = word[16:], word[:16]
    nops, sack, stamps = 0x0101, 0x0402, 0x080A
    mss = high == 0x0204
    scale = word[8:] == 0x01_03_03
    times = ((high == nops) | (high == sack)) & (low == stamps)
    nothing = ((high == nops) & ((low == nops) | (low == sack))) | ((high == sack) & (low == nops))
    return {
        "mss": mss,
        "scale": scale,
        "stamps": times,
        "whole": mss | scale | times | nothing,
        "end": word[24:] == Kind.END,
        "value": low,
    }


class OptionWalker(wiring.Component):
    """Goes through the options of a SYN: word by word as long as they come in usual layouts, from there byte by byte.

    End of options, no operation, maximum segment size (kind 2, length 4) and window scale (kind 3, length 3) are known;
    all others, and known ones of another length, are skipped by their length. A length of 0 or 1, or one that goes
    beyond the header, ends the walk; what was found before stays. Of an option that comes twice the last one counts.

    Timing: a cycle a word and five on top; from the first unusual word on a cycle a byte and twelve more. Then some
    cycles until the next command is taken.

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
        lanes = self._cfg.data_width // 32

        # A pipeline without stalls: address, memory, row, word, and its class or one of its bytes,
        # and what that byte is as a kind.
        at = Signal(2 + len(self.command.payload.lane) + len(self.row))  # byte of the slot
        bytewise = Signal()
        reading = Signal()
        m.d.comb += self.row.eq(at[-len(self.row) :])
        m.d.sync += at.eq(at + Mux(bytewise, 1, 4))
        in_row = at[: -len(self.row)]
        valid = Signal(5)  # of the stages behind the address
        to_read, all_read = (
            Signal(4),
            Signal(),
        )  # words: no more than there are, so that the pipeline is empty behind the last one
        asks = Signal()
        m.d.comb += asks.eq(reading & ~(all_read & ~bytewise))
        m.d.sync += valid.eq(Cat(asks, valid))
        with m.If(reading):
            m.d.sync += [to_read.eq(to_read - 1), all_read.eq(all_read | (to_read == 1))]
        for stage in range(2):
            later = Signal(len(in_row), name=f"in_row{stage}")
            m.d.sync += later.eq(in_row)
            in_row = later
        coming, byte = Signal(8), Signal(8)
        byte_end, byte_nop, byte_two = Signal(), Signal(), Signal()
        word = Signal(32)
        kind_of_word = Signal(WordClass)
        words = Cat(padded_word(self.data, lane) for lane in range(lanes))
        in_word = Signal(2)
        m.d.sync += [
            word.eq(words.word_select(in_row[2:], 32)),
            in_word.eq(in_row[:2]),
            coming.eq(word.word_select(~in_word, 8)),  # the first byte is the highest
            byte.eq(coming),
            byte_end.eq(coming == Kind.END),
            byte_nop.eq(coming == Kind.NOP),
            byte_two.eq(coming == 2),
        ]
        m.d.sync += [kind_of_word[field].eq(value) for field, value in classify(word).items()]
        word_valid, byte_valid = valid[3], valid[4]
        empty = Signal()
        m.d.comb += empty.eq(~asks & ~valid[:4].any())  # and valid[4] in this cycle's last step

        found = self.o.payload
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [self.o.valid.eq(0), found.eq(0)]

        here = Signal.like(at)  # the word that is looked at
        left = Signal(4)  # words, with this one
        inside = Signal()  # the word belongs to the option before
        skip = Signal()  # the next one too
        # The longest option that may begin with the byte before this one: bytes behind this one, and two. So a length
        # needs one comparison only.
        most = Signal(6)
        final = Signal()  # most is 2
        beyond = Signal()  # byte > most, in the cycle of a length
        rest = Signal(8)  # bytes of this option behind this one
        kind = Signal(Kind)
        value_mss, value_scale = Signal(), Signal()  # a byte of a value, in the state of that name
        with m.If(bytewise & byte_valid):
            m.d.sync += [most.eq(most - 1), final.eq(most == 3), beyond.eq(coming >= most)]

        def done():
            m.d.sync += [self.o.valid.eq(1), reading.eq(0)]
            m.next = "Flush"

        def scale(shift):
            return [found.ws_present.eq(1), found.ws.eq(Mux(shift > MAX_WINDOW_SHIFT, MAX_WINDOW_SHIFT, shift))]

        # What is found, apart from the states: in "Words" these are ``reading`` and not ``bytewise``. Classes exclude
        # each other.
        usual = kind_of_word
        word_now = reading & ~bytewise & word_valid
        begins = word_now & ~inside
        with m.If(word_now):
            m.d.sync += [inside.eq(Mux(inside, skip, usual.stamps)), skip.eq(~inside & usual.stamps)]
        with m.If(begins & usual.mss):
            m.d.sync += found.mss.eq(usual.value)
        with m.If(begins & usual.scale):
            m.d.sync += scale(usual.value[:8])
        with m.If(value_mss):
            m.d.sync += found.mss.eq(Cat(byte, found.mss[:8]))
        with m.If(value_scale):
            m.d.sync += scale(byte)

        with m.FSM():
            with m.State("Idle"):
                m.d.comb += self.command.ready.eq(1)
                start = self.command.payload.lane << 2
                m.d.sync += [
                    left.eq(self.command.payload.words), inside.eq(0), skip.eq(0), bytewise.eq(0),
                    at.eq(start), here.eq(start), to_read.eq(self.command.payload.words), all_read.eq(0),
                ]  # fmt: skip
                with m.If(self.command.valid):
                    m.d.sync += reading.eq(1)
                    m.next = "Words"
            with m.State("Words"):
                with m.If(word_valid & (inside | usual.whole)):
                    m.d.sync += [here.eq(here + 4), left.eq(left - 1)]
                    with m.If(left == 1):
                        done()
                with m.If(word_valid & ~inside & usual.end):
                    done()
                with m.If(word_valid & ~inside & ~usual.whole & ~usual.end):
                    m.d.sync += reading.eq(0)
                    m.next = "Turn"
            with m.State("Turn"):
                # From this word on byte by byte, once the words under way are gone.
                m.d.sync += [at.eq(here), bytewise.eq(1), most.eq((left << 2) + 1), final.eq(0)]
                with m.If(empty):
                    m.d.sync += reading.eq(1)
                    m.next = "Kind"
            with m.State("Kind"):
                with m.If(byte_valid):
                    m.d.sync += kind.eq(byte)
                    with m.If(byte_end | final):
                        done()
                    with m.Elif(~byte_nop):
                        m.next = "Length"
            with m.State("Length"):
                m.d.sync += rest.eq(byte - 3)
                with m.If(byte_end | byte_nop | beyond | final):
                    done()
                with m.Elif(byte_two):
                    m.next = "Kind"
                with m.Else():
                    m.d.sync += [
                        value_mss.eq((kind == Kind.MSS) & (byte == 4)),
                        value_scale.eq((kind == Kind.WINDOW_SCALE) & (byte == 3)),
                    ]
                    m.next = "Value"
            with m.State("Value"):
                m.d.sync += rest.eq(rest - 1)
                with m.If(final | (rest == 0)):
                    m.d.sync += [value_mss.eq(0), value_scale.eq(0)]
                with m.If(final):
                    done()
                with m.Elif(rest == 0):
                    m.next = "Kind"
            with m.State("Flush"):
                # What is still on its way must not be taken for the next walk's.
                with m.If(empty & ~self.o.valid):
                    m.next = "Idle"
        return m
