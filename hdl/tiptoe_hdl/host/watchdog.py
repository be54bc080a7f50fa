"""Watchdog: work that waits while nothing moves is told of, so that a person notices."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..messages import ErrorEvent
from ..wire.valid_only import valid_only
from .abi import WATCHED, ErrorCode

TICKS_BITS = 16


class Watchdog(wiring.Component):
    """Looks at each of WATCHED once in ``ticks`` ticks: what waited at the last look and has not moved since stands still.

    So a standstill is told after one to two times ``ticks`` ticks, once, and again only when there was progress or
    nothing to do in between. A flip-flop or three for each that is watched, and one counter.

    Timing: every input goes through a flip-flop first; outputs come from flip-flops.

    Ports
    -----
    tick : In(1)
    ticks : In(TICKS_BITS)
        0: off. A change counts from the next look on.
    waiting, progress : In, a bit for each of WATCHED
        There is work; a piece of it was done.
    stalled : Out, a bit for each of WATCHED
        Pulse: it was found to stand still.
    error : Out(valid-only ErrorEvent)
        WATCHDOG, argument: all that stand still now; one for each look that found another one.
    count_watchdog : Out(1)
        Pulse with ``error``.
    """

    def __init__(self):
        width = len(WATCHED)
        super().__init__({
            "tick": In(1), "ticks": In(TICKS_BITS),
            "waiting": In(width), "progress": In(width),
            "stalled": Out(width), "error": Out(valid_only(ErrorEvent)), "count_watchdog": Out(1),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        width = len(WATCHED)
        left = Signal(TICKS_BITS)
        on, look = Signal(), Signal()
        m.d.sync += [on.eq(self.ticks != 0), look.eq(0)]
        with m.If(~on):
            m.d.sync += left.eq(0)
        with m.Elif(self.tick):
            with m.If(left == 0):
                m.d.sync += [left.eq(self.ticks - 1), look.eq(1)]
            with m.Else():
                m.d.sync += left.eq(left - 1)

        moves = Signal(width)  # or has nothing to do
        seen = Signal(width)  # waited at the last look
        standing = Signal(width)  # was told of
        found = Signal(width)
        m.d.sync += moves.eq(~self.waiting | self.progress)
        m.d.comb += found.eq((seen & ~standing & ~moves) & look.replicate(width))
        with m.If(~on):
            m.d.sync += [seen.eq(0), standing.eq(0)]
        with m.Else():
            m.d.sync += [
                seen.eq((seen | look.replicate(width)) & ~moves),
                standing.eq((standing | found) & ~moves),
            ]

        m.d.sync += self.stalled.eq(found)
        m.d.comb += [
            self.error.payload.code.eq(ErrorCode.WATCHDOG),
            self.count_watchdog.eq(self.error.valid),
        ]
        m.d.sync += [self.error.valid.eq(Cat(found).any()), self.error.payload.argument.eq(standing | found)]
        return m
