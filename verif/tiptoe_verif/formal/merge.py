"""Several streams into one (``wire/stream_merge.py``): each transfer is one source's, as it was offered; what is offered stays;
and a source that offers waits a cycle, and for one transfer of each other source at most.
"""

from typing import Any

from amaranth.hdl import Assert, Assume, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from tiptoe_hdl.wire.stream_merge import StreamMerge

from .join import elaborated, join

BITS, SOURCES = 4, 3


class Restless(wiring.Component):
    """A fault to be found: the turn goes on in every cycle, taken or not. Ports of ``StreamMerge``."""

    def __init__(self, shape: Any, sources: int) -> None:
        super().__init__({"i": In(stream.Signature(shape)).array(sources), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform: Any) -> Module:
        """The module."""
        m = Module()
        self.turn = turn = Signal(range(SOURCES))
        m.d.sync += turn.eq(Mux(turn == SOURCES - 1, 0, turn + 1))
        with m.Switch(turn):
            for k in range(SOURCES):
                with m.Case(k):
                    m.d.comb += [
                        self.o.valid.eq(self.i[k].valid), self.o.payload.eq(self.i[k].payload),
                        self.i[k].ready.eq(self.o.ready),
                    ]  # fmt: skip
        return m


class MergeProof(wiring.Component):
    """A merge of sources that offer anything at any time, and keep to it."""

    def __init__(self, merge: type = StreamMerge) -> None:
        self._merge = merge
        words = stream.Signature(BITS)
        super().__init__({"i": In(words).array(SOURCES), "o": Out(words)})

    def elaborate(self, platform: Any) -> Module:
        """The module."""
        m = Module()
        merge = elaborated(m, "merge", self._merge(BITS, SOURCES), platform)
        join(m, self, merge, leave=("i",))
        gone = Signal(SOURCES)
        for number, (mine, theirs) in enumerate(zip(self.i, merge.i, strict=True)):
            wiring.connect(m, wiring.flipped(mine), theirs)
            self._offered(m, f"offer{number}", mine, Assume)
            m.d.comb += [
                gone[number].eq(mine.valid & mine.ready),
                Assert(~gone[number] | (self.o.payload == mine.payload)),
            ]
        m.d.comb += Assert(sum(gone, Signal(2)) == (self.o.valid & self.o.ready))
        self._offered(m, "out", self.o, Assert)
        if self._merge is StreamMerge:
            m.d.comb += Assert(merge.turn < SOURCES)

        # Of its turn: nobody goes twice before a source that offers, and no cycle is lost but the first.
        for number, port in enumerate(self.i):
            passed, waits = Signal(SOURCES, name=f"passed{number}"), Signal(2, name=f"waits{number}")
            m.d.comb += [Assert(~port.valid | ~(passed & gone).any()), Assert(waits <= 1)]
            m.d.sync += [
                passed.eq(Mux(port.valid & ~port.ready, passed | gone, 0)),
                waits.eq(Mux(port.valid & ~self.o.valid, waits + 1, 0)),
            ]
            if self._merge is StreamMerge:
                # Nobody between the turn and the source that waits has gone before it.
                for turn in range(SOURCES):
                    ahead = sum(1 << (turn + k) % SOURCES for k in range((number - turn) % SOURCES + 1))
                    m.d.comb += Assert((merge.turn != turn) | ~(passed & ahead).any())
        return m

    def _offered(self, m: Module, name: str, port: Any, says: Any) -> None:
        """What is offered and not taken stays."""
        waits, word = Signal(name=f"{name}_waits"), Signal(BITS, name=f"{name}_word")
        m.d.sync += [waits.eq(port.valid & ~port.ready), word.eq(port.payload)]
        m.d.comb += says(~waits | (port.valid & (port.payload == word)))
