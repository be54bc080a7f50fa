"""ACK limits (``flow/ack_limit.py``): a connection is held back if it has said an ACK since its bit was cleared, and only then;
what one says from any moment on is two ACKs, and one more for each walk begun and each new life of its id; walks begin
``interval`` ticks apart; its bit is cleared in time. All of it with a soft reset at any time, which leaves the memory as it is.
"""

from typing import Any

from amaranth.hdl import Assert, Assume, Module, Mux, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from tiptoe_hdl.config import TINY, EngineConfig
from tiptoe_hdl.flow.ack_limit import AckLimit, said_now
from tiptoe_hdl.wire.valid_only import valid_only

from .join import hold_still

CFG = TINY.with_(connections=16)
LEDGER = 7
"""A ledger that is full stays so."""


class Skipping(wiring.Component):
    """A fault to be found: the walk goes on while a connection's bit is written in its place. Ports of ``AckLimit``."""

    def __init__(self, cfg: EngineConfig) -> None:
        self._cfg = cfg
        super().__init__({
            "id": In(cfg.id_bits), "said": Out(1), "write": In(valid_only(said_now(cfg))), "tick": In(1), "interval": In(16),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        """The module."""
        m = Module()
        m.submodules.memory = self.memory = memory = Memory(shape=1, depth=self._cfg.connections, init=[])
        read, write = memory.read_port(), memory.write_port()
        self.walking, self.index = Signal(init=1), Signal(self._cfg.id_bits)
        limited, self.over, self.elapsed = Signal(), Signal(), Signal(16)
        m.d.comb += [
            read.addr.eq(self.id), write.en.eq(self.write.valid | self.walking),
            write.addr.eq(Mux(self.write.valid, self.write.payload.id, self.index)),
            write.data.eq(self.write.valid & self.write.payload.said),
        ]  # fmt: skip
        m.d.sync += [
            limited.eq(self.interval != 0), self.said.eq(read.data & limited),
            self.over.eq((self.elapsed >= self.interval) & ~self.over), self.index.eq(self.index + self.walking),
        ]  # fmt: skip
        with m.If(self.index.all()):
            m.d.sync += self.walking.eq(0)
        with m.If(self.over):
            m.d.sync += [self.elapsed.eq(self.tick), self.walking.eq(1)]
        with m.Elif(self.tick):
            m.d.sync += self.elapsed.eq(self.elapsed + 1)
        return m


class LimitProof(wiring.Component):
    """Limits with any writes, ticks, lookups and soft resets, watched for one connection, whichever it is.

    ``watched`` and ``interval`` are any values that stay. The pipeline says an ACK of the connection (``write`` with ``said``)
    only when the bit as it is then is not set, which its order of events sees to.
    """

    def __init__(self, limit: type = AckLimit) -> None:
        self._limit, self._invariants = limit, limit is AckLimit
        ports = {"id": In(CFG.id_bits), "write": In(valid_only(said_now(CFG))), "tick": In(1), "interval": In(16)}
        super().__init__(ports | {"watched": In(CFG.id_bits), "soft_reset": In(1), "begin": In(1)})

    def elaborate(self, platform: Any) -> Module:
        """The module."""
        m = Module()
        limit: Any = self._limit(CFG)
        limit._MustUse__silence = True
        inside = limit.elaborate(platform)
        stored = limit.memory.read_port(domain="comb")
        m.submodules.limit = ResetInserter(self.soft_reset)(inside)
        m.d.comb += [
            limit.id.eq(self.id), limit.tick.eq(self.tick), limit.interval.eq(self.interval),
            limit.write.valid.eq(self.write.valid), limit.write.payload.eq(self.write.payload), stored.addr.eq(self.watched),
        ]  # fmt: skip
        hold_still(m, self.watched, self.interval)

        # What happens to the bit of the one that is watched, and what it must be. Unknown after a reset, until it is written.
        mine, walked, bit, known = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            mine.eq(self.write.valid & (self.write.payload.id == self.watched)),
            walked.eq(limit.walking & ~self.write.valid & (limit.index == self.watched)),
            Assert(~known | (stored.data == bit)),
            # Events begin when the walk after a reset is over. Without an interval the bit does not count.
            Assume(~mine | known),
            Assume(~mine | ~self.write.payload.said | ~bit | (self.interval == 0)),
        ]
        with m.If(self.soft_reset):
            m.d.sync += known.eq(0)
        with m.Elif(mine | walked):
            m.d.sync += [known.eq(1), bit.eq(mine & self.write.payload.said)]

        self._lookups(m, limit, bit, known)
        self._walks(m, limit, walked)
        self._ledger(m, limit, mine, walked, bit, known)
        return m

    def _lookups(self, m: Module, limit: Any, bit: Signal, known: Signal) -> None:
        """Two cycles after it is asked about, the connection is held back if its bit was set then; never without an interval."""
        asked, sure, was = Signal(2), Signal(2), Signal(2)
        m.d.sync += [
            asked.eq(asked << 1 | (self.id == self.watched)), was.eq(was << 1 | bit),
            sure.eq(sure << 1 | known),
        ]  # fmt: skip
        with m.If(self.soft_reset):
            m.d.sync += asked.eq(0)
        m.d.comb += Assert(~asked[1] | ~sure[1] | (limit.said == (was[1] & (self.interval != 0))))

    def _walks(self, m: Module, limit: Any, walked: Signal) -> None:
        """A walk begins ``interval`` ticks after the one before, or up to two later; it passes the connection once at most, and
        everyone within a cycle for each connection and each write."""
        ticks, passed, cycles = Signal(17), Signal(), Signal(CFG.id_bits)
        begins = limit.over
        m.d.comb += [
            Assert(~begins | (ticks >= self.interval)), Assert(ticks <= self.interval + 2),
            Assert(~walked | ~passed), Assert(~limit.walking | self.write.valid | (walked == (cycles == self.watched))),
        ]  # fmt: skip
        if self._invariants:
            m.d.comb += [
                Assert(limit.elapsed == ticks[:16]), Assert(~ticks[16] | begins), Assert(limit.index == cycles),
                Assert(~passed | ~limit.walking | (cycles > self.watched)), Assert(limit.walking | (cycles == 0)),
            ]  # fmt: skip
        with m.If(begins):
            m.d.sync += ticks.eq(self.tick)
        with m.Else():
            m.d.sync += ticks.eq(ticks + self.tick)
        m.d.sync += passed.eq((passed | walked) & ~begins)
        with m.If(limit.walking & ~self.write.valid):
            m.d.sync += cycles.eq(cycles + 1)
        begun = Signal()
        m.d.sync += begun.eq(begins)
        m.d.comb += Assert(~begun | limit.walking)
        with m.If(self.soft_reset):
            m.d.sync += [passed.eq(0), ticks.eq(0), cycles.eq(0), begun.eq(0)]

    def _ledger(self, m: Module, limit: Any, mine: Signal, walked: Signal, bit: Signal, known: Signal) -> None:
        """From any moment on: two ACKs, one more for each walk that begins, and for each new life of the id."""
        said, ledger, left, more, running = Signal(), Signal(3), Signal(3), Signal(4), Signal()
        coming = Signal()  # the walk has not passed the connection yet
        m.d.comb += [
            said.eq(mine & self.write.payload.said & (self.interval != 0)), left.eq(Mux(self.begin, 2, ledger)),
            coming.eq(limit.walking & (limit.index <= self.watched)),
            more.eq(left + limit.over + (mine & ~self.write.payload.said) - said),
        ]  # fmt: skip
        with m.If(running | self.begin):
            m.d.sync += [running.eq(1), ledger.eq(Mux(more > LEDGER, LEDGER, more))]
            m.d.comb += Assert(~said | left.any())
            if self._invariants:
                m.d.comb += Assert((left >= ~(bit & known) + coming) | (self.interval == 0))
        with m.If(self.soft_reset):
            m.d.sync += running.eq(0)
