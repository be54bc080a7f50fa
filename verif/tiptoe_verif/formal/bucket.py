"""A token bucket (``wire/token_bucket.py``): never more tokens than ``burst``; what it allows, from any moment on, is ``burst``
and ``rate`` for each tick at the most; who spends only what was there has a token for each answer; a tick's tokens come.

Of who spends: only while ``available``, and not in two cycles in a row, which is what the latency of ``available`` asks for.
"""

from typing import Any

from amaranth.hdl import Assert, Assume, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tiptoe_hdl.wire.token_bucket import TokenBucket

from .join import elaborated, hold_still

LEDGER_BITS = 20
"""A ledger that is full stays so: it has more than any bucket by then."""


class Pouring(wiring.Component):
    """A fault to be found: where a tick's tokens come in the cycle of an answer, that one is free. Ports of ``TokenBucket``."""

    def __init__(self) -> None:
        super().__init__({"tick": In(1), "rate": In(16), "burst": In(16), "spend": In(1), "available": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        """The module."""
        m = Module()
        self.tokens, self.pouring = Signal(16), Signal()
        full, filled = Signal(init=1), Signal(17)
        m.d.comb += filled.eq(self.tokens + self.rate)
        m.d.sync += [self.pouring.eq(self.tick), self.available.eq(self.tokens.any())]
        with m.If(full):
            m.d.sync += [self.tokens.eq(self.burst), full.eq(self.burst == 0)]
        with m.Elif(self.pouring):
            m.d.sync += self.tokens.eq(Mux(filled > self.burst, self.burst, filled[:16]))
        with m.Elif(self.spend & self.tokens.any()):
            m.d.sync += self.tokens.eq(self.tokens - 1)
        return m


class BucketProof(wiring.Component):
    """A bucket with any settings that stay, any ticks and spenders, and a ledger of it that begins at any moment.

    The ledger says what may still be spent since ``begin``: the burst at first, with what a tick just before has not poured
    yet; the rate more with each tick; and nothing is ever spilt from it.
    """

    def __init__(self, bucket: type = TokenBucket) -> None:
        self._bucket, self._invariants = bucket, bucket is TokenBucket
        super().__init__({"tick": In(1), "rate": In(16), "burst": In(16), "spend": In(1), "begin": In(1)})

    def elaborate(self, platform: Any) -> Module:
        """The module."""
        m = Module()
        bucket = elaborated(m, "bucket", self._bucket(), platform)
        m.d.comb += [
            bucket.tick.eq(self.tick), bucket.rate.eq(self.rate), bucket.burst.eq(self.burst), bucket.spend.eq(self.spend),
        ]  # fmt: skip
        hold_still(m, self.rate, self.burst)
        tokens, due = bucket.tokens, Signal(LEDGER_BITS)
        m.d.comb += [Assert(tokens <= self.burst), due.eq(Mux(bucket.pouring, self.rate, 0))]

        # Every answer has its token, if the spender keeps to what it is told.
        spent, before = Signal(), Signal()
        m.d.sync += before.eq(self.spend)
        m.d.comb += [
            Assume(~self.spend | (bucket.available & ~before)),
            spent.eq(self.spend & tokens.any()), Assert(~self.spend | spent),
        ]  # fmt: skip

        self._ledger(m, spent, tokens, due)
        self._refill(m, spent, tokens)
        return m

    def _ledger(self, m: Module, spent: Signal, tokens: Signal, due: Signal) -> None:
        """From any moment on, no more than the burst and the rate of the ticks since."""
        running, ledger, left = Signal(), Signal(LEDGER_BITS), Signal(LEDGER_BITS)
        after = Signal(LEDGER_BITS + 1)
        m.d.comb += [
            left.eq(Mux(self.begin, self.burst + due, ledger)),
            after.eq(left + Mux(self.tick, self.rate, 0) - spent),
        ]
        with m.If(running | self.begin):
            m.d.sync += [running.eq(1), ledger.eq(Mux(after[-1], (1 << LEDGER_BITS) - 1, after))]
            m.d.comb += Assert(~spent | left.any())
            if self._invariants:
                m.d.comb += Assert(left >= tokens + due)

    def _refill(self, m: Module, spent: Signal, tokens: Signal) -> None:
        """A tick's tokens come behind the first cycle after it in which nothing is spent; and that is the next one but one."""
        owed, poured, expected, filled = Signal(), Signal(), Signal(16), Signal(17)
        again, started = Signal(), Signal(2)
        m.d.comb += filled.eq(tokens + self.rate)
        m.d.sync += [
            started.eq(started << 1 | 1), owed.eq(self.tick | (owed & spent)), again.eq(owed & spent & ~self.tick),
            poured.eq(owed & ~spent & started[1]), expected.eq(Mux(filled > self.burst, self.burst, filled)),
        ]  # fmt: skip
        m.d.comb += [Assert(~poured | (tokens == expected)), Assert(~again | ~spent)]
