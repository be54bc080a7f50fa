"""A token bucket: so many answers a tick, and so many at once after a pause (RFC 5961 section 7)."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class TokenBucket(wiring.Component):
    """Tokens come with the tick and go with what they allow. Nothing waits for a token: without one, the answer is left out.

    Invariant: 0 <= tokens <= ``burst`` but for the ticks after ``burst`` was lowered.

    Timing: ``available`` follows ``spend`` in two cycles. It comes from a flip-flop.

    Ports
    -----
    tick : In(1)
        ``rate`` tokens more, up to ``burst``.
    rate : In(16), burst : In(16)
        With a burst of 0 nothing is ever allowed.
    spend : In(1)
        Pulse: a token goes, if there is one.
    available : Out(1)
    """

    tick: In(1)
    rate: In(16)
    burst: In(16)
    spend: In(1)
    available: Out(1)

    def elaborate(self, platform):
        m = Module()
        self.tokens = tokens = Signal(16)  # these two are for the proof
        self.pouring = pouring = Signal()
        filled, spent = Signal(17), Signal()
        full = Signal(init=1)  # after reset
        m.d.comb += [filled.eq(tokens + self.rate), spent.eq(self.spend & tokens.any())]
        m.d.sync += [pouring.eq(self.tick | (pouring & spent)), self.available.eq(tokens.any())]
        # A tick's tokens come a cycle after it, and not in a cycle in which one is spent.
        with m.If(full):
            m.d.sync += [tokens.eq(self.burst), full.eq(self.burst == 0)]
        with m.Elif(spent):
            m.d.sync += tokens.eq(tokens - 1)
        with m.Elif(pouring):
            m.d.sync += tokens.eq(Mux(filled > self.burst, self.burst, filled[:16]))
        return m
