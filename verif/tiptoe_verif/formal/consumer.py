"""The host's consumer counts (``host/consumer_check.py``): taken is what lies between the one before and the producer, and
nothing else changes what the engine goes by; what was written is taken or told of within CHECK_CYCLES, once.
"""

from typing import Any

from amaranth.hdl import Assert, Assume, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tiptoe_hdl.host.consumer_check import CHECK_CYCLES, ConsumerCheck

WIDTH = 16
"""FRAME_CONSUMER's. A ring has half as many entries at most."""
LOOKED = 3
"""Cycles from the look at a count to its refusal."""


class Ordered(wiring.Component):
    """A fault to be found: old consumer, count and producer compared as numbers that do not wrap. Ports of ``ConsumerCheck``."""

    def __init__(self, width: int) -> None:
        super().__init__({"i": In(width), "producer": In(width), "o": Out(width), "wrong": Out(1), "count": Out(width)})

    def elaborate(self, platform: Any) -> Module:
        """The module."""
        m = Module()
        possible = Signal()
        m.d.sync += self.wrong.eq(0)
        with m.FSM():
            with m.State("Watch"):
                m.d.sync += self.count.eq(self.i)
                with m.If(self.i != self.count):
                    m.next = "Compare"
            with m.State("Compare"):
                m.d.sync += possible.eq((self.o <= self.count) & (self.count <= self.producer))
                m.next = "Wait"
            with m.State("Wait"):
                m.next = "Decide"
            with m.State("Decide"):
                with m.If(possible):
                    m.d.sync += self.o.eq(self.count)
                m.d.sync += self.wrong.eq(~possible)
                m.next = "Watch"
        return m


class ConsumerProof(wiring.Component):
    """A check with any counts, written at any time, and a producer that goes on at any pace but never beyond a ring.

    ``jump``: how far the producer goes on in a cycle.
    """

    def __init__(self, check: type = ConsumerCheck) -> None:
        self._check = check
        super().__init__({"i": In(WIDTH), "jump": In(WIDTH - 1)})

    def elaborate(self, platform: Any) -> Module:
        """The module."""
        m = Module()
        m.submodules.check = check = self._check(WIDTH)
        producer, unread, after = Signal(WIDTH), Signal(WIDTH), Signal(WIDTH + 1)
        m.d.sync += producer.eq(producer + self.jump)
        m.d.comb += [
            check.i.eq(self.i), check.producer.eq(producer), unread.eq(producer - check.o), after.eq(unread + self.jump),
            Assume(after <= 1 << (WIDTH - 1)),
            Assert(unread <= 1 << (WIDTH - 1)),
        ]  # fmt: skip

        # What the engine goes by moves on, as far as the producer, and to a count that the host wrote.
        started, o, before, read = Signal(), Signal(WIDTH), Signal(WIDTH), Signal(WIDTH)
        moved = Signal()
        m.d.sync += [started.eq(1), o.eq(check.o), before.eq(unread)]
        m.d.comb += [
            moved.eq(started & (o != check.o)), read.eq(check.o - o),
            Assert(~moved | ((read <= before) & (check.o == check.count) & ~check.wrong)),
        ]  # fmt: skip

        # Refused is what lay outside when it was looked at, three cycles ago; the producer may have come there since.
        outside = Signal()
        m.d.comb += outside.eq((check.count - check.o)[:WIDTH] > unread)
        for number in range(LOOKED):
            delayed = Signal(name=f"outside{number}")
            m.d.sync += delayed.eq(outside)
            outside = delayed
        m.d.comb += Assert(~check.wrong | outside)
        self._in_time(m, check)
        return m

    def _in_time(self, m: Module, check: Any) -> None:
        """A count that stays is what the engine goes by within CHECK_CYCLES, or the one refused last; told of once."""
        last, cycles = Signal(WIDTH), Signal(range(CHECK_CYCLES + 1))
        refusal, refused, told, already = Signal(), Signal(WIDTH), Signal(), Signal()
        m.d.sync += last.eq(self.i)
        m.d.comb += [
            told.eq(check.wrong & (check.count == self.i)),
            Assert(~told | ~already | (last != self.i)),
            Assert((cycles != CHECK_CYCLES) | (check.o == self.i) | (refusal & (refused == self.i)) | (last != self.i)),
        ]
        with m.If(check.wrong):
            m.d.sync += [refusal.eq(1), refused.eq(check.count)]
        with m.If(last != self.i):
            m.d.sync += [cycles.eq(0), already.eq(told)]
        with m.Else():
            m.d.sync += [already.eq(already | told), cycles.eq(cycles + (cycles != CHECK_CYCLES))]
