"""Runs a congestion control program: an instruction after the other, with one multiplier that takes a bit a cycle."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ...config import EngineConfig
from ...congestion.program import (
    A_LOW,
    B_LOW,
    C_LOW,
    FEW_NEWS,
    LABEL_BITS,
    LABEL_LOW,
    MOST_STEPS,
    NEWS,
    NEWS_AT,
    OP_LOW,
    OPERAND_BITS,
    SETTINGS,
    STATE_AT,
    STATE_WORDS,
    TARGET_LOW,
    TEMPORARIES,
    TEMPORARIES_AT,
    WORD_BITS,
    Op,
    assemble,
)
from ...wire.apart import APART
from .news import built_in

MOST_CYCLES = (MOST_STEPS + 1) * 120
"""From ``start`` to ``done`` at most: an instruction takes 8 cycles, MUL 41 to 72, DIV 73."""

News = data.StructLayout(dict.fromkeys(NEWS, WORD_BITS))
Settings = data.StructLayout(dict.fromkeys(SETTINGS, WORD_BITS))


class Processor(wiring.Component):
    """One program at a time; ``congestion/program.py`` says what the instructions mean.

    Ports
    -----
    start : In(1)
        Pulse, while idle: run the jump at address ``entry``, with what ``id`` remembers. ``news``, ``id`` stay until
        ``done``.
    done : Out(1), ended : Out(1)
        Pulse: nothing runs any more; ``ended``: it came to its end, ``settings`` is what it wrote. ``settings`` stays
        until the next start.
    initial : In(32)
        ``decrease`` of who does not write it.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "start": In(1),
                "entry": In(LABEL_BITS),
                "id": In(cfg.id_bits),
                "news": In(News),
                "initial": In(WORD_BITS),
                "done": Out(1),
                "ended": Out(1),
                "settings": Out(Settings),
            }
        )

    def elaborate(self, platform):
        m = Module()
        cfg = self._cfg
        block = {"ram_style": "block"} | APART  # an instruction writes behind its reads
        rom = Memory(shape=WORD_BITS, depth=1 << LABEL_BITS, init=assemble(built_in(cfg)), attrs={"rom_style": "block"})
        state = Memory(shape=WORD_BITS, depth=cfg.connections * STATE_WORDS, init=[], attrs=block)
        temporaries = Memory(shape=WORD_BITS, depth=TEMPORARIES + 1, init=[], attrs=APART)
        m.submodules.rom, m.submodules.state, m.submodules.temporaries = rom, state, temporaries
        fetched = rom.read_port()
        kept, known = state.read_port(), temporaries.read_port()
        keep, note = state.write_port(), temporaries.write_port()

        at, word = Signal(LABEL_BITS), Signal(WORD_BITS, reset_less=True)
        operand = Signal(OPERAND_BITS)
        asked, source = Signal(OPERAND_BITS, reset_less=True), Signal(OPERAND_BITS, reset_less=True)
        kept_data, known_data = (Signal(WORD_BITS, name=f"{name}_data", reset_less=True) for name in ("kept", "known"))
        a, b, c = (Signal(WORD_BITS, name=name, reset_less=True) for name in "abc")
        value, high, low = Signal(WORD_BITS), Signal(WORD_BITS, reset_less=True), Signal(WORD_BITS, reset_less=True)
        count, steps = Signal(6, reset_less=True), Signal(range(MOST_STEPS + 1))
        op, target = Signal(Op), word[TARGET_LOW:OP_LOW]
        m.d.comb += [
            op.eq(word[OP_LOW:]),
            fetched.addr.eq(at),
            known.addr.eq(operand),
            kept.addr.eq(Cat(operand[:3], self.id)),
            note.addr.eq(target),
            keep.addr.eq(Cat(target[:3], self.id)),
            note.data.eq(low),
            keep.data.eq(low),
        ]
        # Operands: a memory's word, two cycles behind its address, or news.
        m.d.sync += [asked.eq(operand), source.eq(asked), kept_data.eq(kept.data), known_data.eq(known.data)]
        with m.If(source == NEWS_AT["marked"]):
            m.d.comb += value.eq(self.news.marked)
        with m.Elif(source >= TEMPORARIES_AT):
            m.d.comb += value.eq(known_data)
        with m.Elif(source >= STATE_AT):
            m.d.comb += value.eq(kept_data)
        with m.Else():
            with m.Switch(source[:3]):
                for name in FEW_NEWS:
                    with m.Case(NEWS_AT[name]):
                        m.d.comb += value.eq(self.news[name])

        added, shifted, taken = Signal(WORD_BITS + 1), Signal(WORD_BITS + 1), Signal(WORD_BITS + 1)
        sum_, difference = Signal(WORD_BITS + 1), Signal(WORD_BITS + 1)
        m.d.comb += [
            added.eq(high + Mux(low[0], b, 0)),
            shifted.eq(Cat(low[-1], high)),
            taken.eq(shifted - c),
            sum_.eq(a + b),
            difference.eq(a - b),
        ]
        is_less = difference[WORD_BITS]
        m.d.sync += [self.done.eq(0), self.ended.eq(0)]

        with m.FSM():
            with m.State("Idle"):
                m.d.sync += [at.eq(self.entry), steps.eq(0)]
                with m.If(self.start):
                    m.d.sync += [
                        self.settings.growth.eq(0),
                        self.settings.decrease.eq(self.initial),
                        self.settings.slow.eq(0),
                    ]
                    m.next = "Address"
            with m.State("Address"):  # the program memory takes ``at``
                m.next = "Fetch"
            with m.State("Fetch"):
                m.d.sync += [word.eq(fetched.data), at.eq(at + 1), steps.eq(steps + 1)]
                m.next = "Read a"
                with m.If(steps == MOST_STEPS):
                    m.d.sync += self.done.eq(1)
                    m.next = "Idle"
            with m.State("Read a"):
                m.d.comb += operand.eq(word[A_LOW:TARGET_LOW])
                m.next = "Read b"
            with m.State("Read b"):
                m.d.comb += operand.eq(word[B_LOW:A_LOW])
                m.next = "Read c"
            with m.State("Read c"):
                m.d.comb += operand.eq(word[C_LOW:B_LOW])
                m.d.sync += a.eq(value)
                m.next = "Take b"
            with m.State("Take b"):
                m.d.sync += b.eq(value)
                m.next = "Judge"
            with m.State("Judge"):
                m.d.sync += [c.eq(value), high.eq(0), count.eq(WORD_BITS - 1)]
                m.next = "Write"
                with m.Switch(op):
                    with m.Case(Op.SET):
                        m.d.sync += low.eq(word[:TARGET_LOW])
                    with m.Case(Op.ADD):
                        m.d.sync += low.eq(sum_[:WORD_BITS] | sum_[WORD_BITS].replicate(WORD_BITS))
                    with m.Case(Op.SUB):
                        m.d.sync += low.eq(difference[:WORD_BITS] & ~is_less.replicate(WORD_BITS))
                    with m.Case(Op.DIFF):
                        m.d.sync += low.eq(difference)
                    with m.Case(Op.MIN):
                        m.d.sync += low.eq(Mux(is_less, a, b))
                    with m.Case(Op.MAX):
                        m.d.sync += low.eq(Mux(is_less, b, a))
                    with m.Case(Op.MUL, Op.DIV):
                        m.d.sync += low.eq(a)
                        m.next = "Multiply"
                    with m.Case(Op.LESS, Op.JUMP):
                        with m.If((op == Op.JUMP) | is_less):
                            m.d.sync += at.eq(word[LABEL_LOW : LABEL_LOW + LABEL_BITS])
                        m.next = "Address"
                    with m.Default():
                        m.d.sync += [self.done.eq(1), self.ended.eq(1)]
                        m.next = "Idle"
            with m.State("Multiply"):
                m.d.sync += [Cat(low, high).eq(Cat(low[1:], added)), count.eq(count - 1)]
                with m.If(count == 0):
                    m.d.sync += count.eq(word[C_LOW:B_LOW])
                    m.next = "Shift"
                    with m.If(op == Op.DIV):
                        m.next = "Compare"
            with m.State("Shift"):
                m.d.sync += count.eq(count - 1)
                with m.If(count == 0):
                    m.d.sync += low.eq(low | high.any().replicate(WORD_BITS))
                    m.next = "Write"
                with m.Else():
                    m.d.sync += Cat(low, high).eq(Cat(low[1:], high, 0))
            with m.State("Compare"):  # does the quotient fit?
                m.d.sync += count.eq(WORD_BITS - 1)
                m.next = "Divide"
                with m.If(high >= c):
                    m.d.sync += low.eq(~0)
                    m.next = "Write"
            with m.State("Divide"):
                m.d.sync += [
                    low.eq(Cat(~taken[WORD_BITS], low)),
                    high.eq(Mux(taken[WORD_BITS], shifted, taken)),
                    count.eq(count - 1),
                ]
                with m.If(count == 0):
                    m.next = "Write"
            with m.State("Write"):
                m.d.comb += [
                    note.en.eq(target >= TEMPORARIES_AT),
                    keep.en.eq((target >= STATE_AT) & (target < TEMPORARIES_AT)),
                ]
                for number, name in enumerate(SETTINGS):
                    with m.If(target == number):
                        m.d.sync += self.settings[name].eq(low)
                m.next = "Address"
        return m
