"""Realigner: moves a transfer's bytes from one lane alignment to another (frames, rings, bus)."""

from amaranth.hdl import Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..config import EngineConfig
from .ones import ones_below
from .skid import SkidBuffer


def realign_command(cfg: EngineConfig) -> data.StructLayout:
    """``length`` bytes (at least 1), the first in lane ``src_offset``, to go to lane ``dst_offset``."""
    lane = ceil_log2(cfg.bytes_per_beat)
    return data.StructLayout({"src_offset": lane, "dst_offset": lane, "length": cfg.length_bits})


def realigned_word(cfg: EngineConfig) -> data.StructLayout:
    """A word out of the realigner; ``keep`` marks the transfer's bytes, all other lanes are zero."""
    return data.StructLayout({"data": cfg.data_width, "keep": cfg.bytes_per_beat, "last": 1})


def _plan(cfg: EngineConfig) -> data.StructLayout:
    """A command made ready for the word engine."""
    lanes = cfg.bytes_per_beat
    return data.StructLayout({
        "rotate": ceil_log2(lanes),  # lanes every word moves up, around the end
        "held": lanes,               # lanes of an output word that come from the word before
        "first_keep": lanes,
        "last_keep": lanes,
        "words_m1": range((lanes - 1 + (1 << cfg.length_bits) - 2) // lanes + 1),  # words consumed, less one
        "prime": 1,                  # the first word gives no output yet
        "flush": 1,                  # after the last word one more output, all from the word before
    })  # fmt: skip


class Realigner(wiring.Component):
    """Byte k of a transfer comes in lane (src_offset + k) mod B and leaves in lane (dst_offset + k) mod B.

    With B bytes a word, a transfer takes exactly ceil((src_offset + length) / B) words and gives exactly
    ceil((dst_offset + length) / B), back to back with its neighbours.

    Every word is rotated by the difference of the offsets; an output word is then made of one rotated word
    and the one before it. Where the bytes move down (dst_offset < src_offset) a longer transfer must see two
    words before it can give one, which costs one bubble a transfer; there is none otherwise.

    Timing: one word a cycle, at best one transfer in two cycles. A transfer's first word is taken three
    cycles after its command, if that did not come earlier (two commands wait inside). From a word to its
    output, three cycles (two at 32 bits). ``o`` comes from flip-flops; every ``ready`` depends on flip-flops
    only.

    Parameters
    ----------
    cfg : EngineConfig
        ``data_width`` is used.

    Members
    -------
    cmd : In stream of ``realign_command``
    i : In stream of ``unsigned(data_width)``
    o : Out stream of ``realigned_word``
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "cmd": In(stream.Signature(realign_command(cfg))),
                "i": In(stream.Signature(unsigned(cfg.data_width))),
                "o": Out(stream.Signature(realigned_word(cfg))),
            }
        )

    def elaborate(self, platform):
        cfg, m = self._cfg, Module()
        lanes = cfg.bytes_per_beat
        lane_bits, end_bits = ceil_log2(lanes), cfg.length_bits + 1

        # Plan, stage 1: sums.
        cmd = self.cmd.payload
        sums = stream.Signature(data.StructLayout({
            "src": lane_bits, "dst": lane_bits, "src_end": end_bits, "dst_end": end_bits,
        })).create(path=("sums",))  # fmt: skip
        plan = stream.Signature(_plan(cfg)).create(path=("plan",))
        m.d.comb += self.cmd.ready.eq(~sums.valid)
        with m.If(~sums.valid):
            m.d.sync += [
                sums.valid.eq(self.cmd.valid),
                sums.payload.src.eq(cmd.src_offset),
                sums.payload.dst.eq(cmd.dst_offset),
                # Position of the transfer's last byte from lane 0 of its first word.
                sums.payload.src_end.eq(cmd.length + _minus_one(m, cmd.src_offset)),
                sums.payload.dst_end.eq(cmd.length + _minus_one(m, cmd.dst_offset)),
            ]
        with m.Elif(~plan.valid):
            m.d.sync += sums.valid.eq(0)

        # Plan, stage 2: flags and masks.
        s, p = sums.payload, plan.payload
        down = Signal()
        single = Signal()
        words_differ = Signal()
        m.d.comb += [
            down.eq(s.dst < s.src),
            # Moving down inside one word: its bytes are all there at once.
            single.eq(down & (s.src_end[lane_bits:] == 0)),
            # The counts of words in and out differ by one at most, so their lowest bits tell.
            words_differ.eq(s.src_end[lane_bits] ^ s.dst_end[lane_bits]),
        ]
        with m.If(~plan.valid):
            m.d.sync += [
                plan.valid.eq(sums.valid),
                p.rotate.eq(s.dst - s.src),
                p.held.eq(Mux(single, 0, ones_below((s.dst - s.src)[:lane_bits], lanes))),
                p.first_keep.eq(~ones_below(s.dst, lanes)),
                p.last_keep.eq(ones_below(s.dst_end[:lane_bits] + 1, lanes)),
                p.words_m1.eq(s.src_end[lane_bits:]),
                p.prime.eq(down & ~single),
                p.flush.eq(~single & (down ^ words_differ)),
            ]
        with m.Elif(plan.ready):
            m.d.sync += plan.valid.eq(0)

        # The word engine: one step a cycle; a step takes a word, or flushes.
        m.submodules.skid = skid = SkidBuffer(realigned_word(cfg))
        wiring.connect(m, skid.o, wiring.flipped(self.o))
        run = skid.i.ready  # the whole pipeline moves, or stands still

        active = Signal()
        now = Signal(_plan(cfg))
        left = Signal.like(now.words_m1)  # words after this one
        flushing = Signal()  # this step flushes
        final = Signal()  # this is the transfer's last step
        prime = Signal()  # this step gives no output
        first = Signal()  # the next output is the transfer's first word
        step = Signal()
        load = Signal()
        m.d.comb += [
            self.i.ready.eq(active & run & ~flushing),
            step.eq(active & run & (flushing | self.i.valid)),
            load.eq(~active | (step & final)),
            plan.ready.eq(load),
        ]
        with m.If(load):
            m.d.sync += [active.eq(plan.valid), now.eq(p)]
        with m.If(~active | step):
            with m.If(~active | final):
                m.d.sync += [
                    left.eq(p.words_m1),
                    flushing.eq(0),
                    final.eq((p.words_m1 == 0) & ~p.flush),
                    prime.eq(p.prime),
                    first.eq(1),
                ]
            with m.Else():
                m.d.sync += [
                    left.eq(left - 1),
                    flushing.eq(left == 0),
                    final.eq(Mux(now.flush, left == 0, left == 1)),
                    prime.eq(0),
                    first.eq(first & prime),
                ]

        # Rotation: two mux levels a stage.
        word = Value.cast(self.i.payload)
        rotate = now.rotate
        control = Signal(data.StructLayout({"held": lanes, "keep": lanes, "last": 1, "emit": 1, "word": 1}))
        every = Const(-1, lanes)
        m.d.comb += [
            control.held.eq(now.held),
            control.keep.eq(Mux(first, now.first_keep, every) & Mux(final, now.last_keep, every)),
            control.last.eq(final),
            control.emit.eq(step & ~prime),
            control.word.eq(step & ~flushing),
        ]
        for at in range(0, lane_bits, 2):
            select = rotate[at : at + 2]
            rotated = Signal(cfg.data_width, name=f"rotated{at}", reset_less=True)
            kept = Signal.like(control, name=f"control{at}")
            kept_rotate = Signal(lane_bits, name=f"rotate{at}", reset_less=True)
            with m.If(run):
                with m.Switch(select):
                    for amount in range(1 << len(select)):
                        with m.Case(amount):
                            m.d.sync += rotated.eq(word.rotate_left(8 * amount << at))
                m.d.sync += [kept.eq(control), kept_rotate.eq(rotate)]
            word, control, rotate = rotated, kept, kept_rotate

        # Merge with the word before; this is the skid buffer's input.
        before = Signal(cfg.data_width, reset_less=True)
        with m.If(run & control.word):
            m.d.sync += before.eq(word)
        m.d.comb += [
            skid.i.valid.eq(control.emit),
            skid.i.payload.keep.eq(control.keep),
            skid.i.payload.last.eq(control.last),
        ]
        for lane in range(lanes):
            byte = Mux(control.held[lane], before.word_select(lane, 8), word.word_select(lane, 8))
            m.d.comb += skid.i.payload.data.word_select(lane, 8).eq(Mux(control.keep[lane], byte, 0))
        return m


def _minus_one(m: Module, offset: Value) -> Value:
    """offset - 1, signed, as a table of its own, so that the sum it goes into has one carry chain only."""
    less = Signal.like(Value.cast(offset) - 1)
    with m.Switch(offset):
        for value in range(1 << len(offset)):
            with m.Case(value):
                m.d.comb += less.eq(value - 1)
    return less
