"""The clocks of TCP: the tick behind all timers and the clock of initial sequence numbers (RFC 9293 section 3.4.1)."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

ISN_CYCLES_LOG2 = 9
"""The ISN clock advances every 512 cycles: 4 µs at 125 MHz, as the RFC proposes."""


class Clocks(wiring.Component):
    """Prescaler and counters.

    Ports
    -----
    external : In(1), external_tick : In(1)
        Take ticks from the input ``external_tick`` (one cycle each) instead of the prescaler.
    tick_cycles : In(32)
        Cycles per tick of the prescaler; 0 stops it. A change begins a new period.
    tick : Out(1)
        One cycle per tick.
    tick_time : Out(32)
        Ticks since reset.
    isn_time : Out(32)
        Steps of 512 cycles since reset.
    ts_offset : In(32), ts_now : Out(32)
        The clock of timestamps (RFC 7323 section 5.4): ticks, from there on.
    """

    external: In(1)
    external_tick: In(1)
    tick_cycles: In(32)
    tick: Out(1)
    tick_time: Out(32)
    isn_time: Out(32)
    ts_offset: In(32)
    ts_now: Out(32)

    def elaborate(self, platform):
        m = Module()
        left, before = Signal(32), Signal(32)
        due, restart = Signal(), Signal()
        # Compared a cycle ahead, so that neither the counter nor the tick hangs on the wide comparisons.
        m.d.sync += [
            due.eq(((left == 2) & ~due & ~restart) | (self.tick_cycles == 1)),
            before.eq(self.tick_cycles),
            restart.eq((self.tick_cycles != before) | (self.tick_cycles == 0)),
        ]
        with m.If(due | restart):
            m.d.sync += left.eq(self.tick_cycles)
        with m.Else():
            m.d.sync += left.eq(left - 1)
        m.d.sync += self.tick.eq(Mux(self.external, self.external_tick, due))
        with m.If(self.tick):
            m.d.sync += self.tick_time.eq(self.tick_time + 1)
        prescale = Signal(ISN_CYCLES_LOG2)
        m.d.sync += [prescale.eq(prescale + 1), self.ts_now.eq(self.tick_time + self.ts_offset)]
        with m.If(prescale.all()):
            m.d.sync += self.isn_time.eq(self.isn_time + 1)
        return m
