"""Waiting for what is under way: everything that was issued before a moment, and nothing later."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

COUNT_BITS = 8
"""Counts are modulo 256. Fewer than so many may be under way at once: about 60 received frames are (2 in the
dispatcher, 18 before placement, 36 behind), and about 90 segments (19 wait for the transmit path, 64 are inside at 128 bits)."""


class InFlight(wiring.Component):
    """How many of those issued before ``note`` fell are not done yet: counted down, not compared.

    What is done is done in the order in which it was issued. So the number under way at that moment falls by one with
    each that is done, and what is issued later has no part in it: however many pass meanwhile, the wait ends with the
    last that was issued before, and stays ended. (A comparison of counts modulo 256 turns round when 128 more pass.)

    Timing: ``none`` is 0 in the cycle after one with ``note`` and is true from the second cycle on; it rises two cycles
    after ``done`` has reached what ``issued`` was. It comes from a flip-flop.

    Ports
    -----
    note : In(1)
        The moment: the last cycle in which it is high.
    issued, done : In(COUNT_BITS)
        Counts, wrapping. ``done`` goes up by one at most in a cycle, and never beyond ``issued``.
    none : Out(1)
        All that was issued before is done.
    left : Out(COUNT_BITS)
        How many of it are not, a cycle late.
    """

    note: In(1)
    issued: In(COUNT_BITS)
    done: In(COUNT_BITS)
    none: Out(1)
    left: Out(COUNT_BITS)

    def elaborate(self, platform):
        m = Module()
        before = Signal()  # the lowest bit tells of one more
        m.d.sync += [before.eq(self.done[0]), self.none.eq(~self.note & (self.left == 0))]
        with m.If(self.note):
            m.d.sync += self.left.eq(self.issued - self.done)
        with m.Elif((self.done[0] != before) & (self.left != 0)):
            m.d.sync += self.left.eq(self.left - 1)
        return m
