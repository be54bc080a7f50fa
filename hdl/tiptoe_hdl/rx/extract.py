"""Reads chosen bytes of frames out of the receive buffer and gives the frames back."""

from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..wire.queue import Queue
from .buffer import read_port
from .target import extraction


class FrameExtractor(wiring.Component):
    """Gives the words of frames, oldest first; a frame is given back to the buffer with the read of its last word.

    Timing: a frame takes a cycle more than its words, one without words a cycle. ``o`` comes from flip-flops, six
    cycles after the extraction.

    Parameters
    ----------
    cfg : EngineConfig
    depth : int
        Words kept ahead of the taker; a power of two, at least 8.

    Members
    -------
    i : In stream of ``extraction(cfg)``
    read : Out(read_port(cfg))
    o : Out stream of words
    """

    def __init__(self, cfg: EngineConfig, depth: int = 16):
        if depth < 8:
            raise ValueError(f"depth must be at least 8, not {depth}")
        self._cfg, self._depth = cfg, depth
        super().__init__(
            {
                "i": In(stream.Signature(extraction(cfg))),
                "read": Out(read_port(cfg)),
                "o": Out(stream.Signature(unsigned(cfg.data_width))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.words = words = Queue(unsigned(self._cfg.data_width), self._depth)
        wiring.connect(m, words.o, wiring.flipped(self.o))
        m.d.comb += [words.i.valid.eq(self.read.data_valid), words.i.payload.eq(self.read.data)]

        # Every read has its place in the queue before it is asked for.
        places = Signal(range(self._depth + 1), init=self._depth)
        some = Signal()
        taken = Signal()
        m.d.comb += taken.eq(self.o.valid & self.o.ready)
        m.d.sync += some.eq(places > 1)  # a read of this cycle takes one
        with m.Switch(Cat(self.read.valid, taken)):
            with m.Case(0b01):
                m.d.sync += places.eq(places - 1)
            with m.Case(0b10):
                m.d.sync += places.eq(places + 1)

        job = self.i.payload
        reading = Signal()
        final = Signal()
        word = Signal.like(job.first)
        more = Signal.like(job.more)
        m.d.comb += [
            self.read.word.eq(word),
            self.read.valid.eq(reading & some),
            self.read.free_words.eq(job.free_words),
        ]
        with m.If(reading):
            with m.If(some):
                m.d.sync += [word.eq(word + 1), more.eq(more - 1), final.eq(more == 1), reading.eq(~final)]
            m.d.comb += self.i.ready.eq(some & final)
        with m.Else():
            m.d.sync += [word.eq(job.first), more.eq(job.more), final.eq(job.more == 0)]
            m.d.sync += reading.eq(self.i.valid & job.write)
            m.d.comb += self.i.ready.eq(~job.write)
        m.d.comb += self.read.free.eq(self.i.valid & self.i.ready)
        return m
