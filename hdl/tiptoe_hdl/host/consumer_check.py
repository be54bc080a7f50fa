"""Consumer counts of the host, checked as COMMAND_TAIL is: garbage must not make the engine overwrite what was not read."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

CHECK_CYCLES = 8
"""A count written now is in ``o`` by then, or refused."""


class ConsumerCheck(wiring.Component):
    """Takes over a count that lies between the one taken before and ``producer``; others are told of, each once.

    All counts are modulo ``2**width``, and a ring has at most half as many entries.

    Timing: a count takes four cycles; of counts that come faster the newest is looked at.

    Parameters
    ----------
    width : int
        Bits of a count.

    Members
    -------
    i : In(width), producer : In(width)
        What the host says it has read; what there is to read, at the most.
    o : Out(width)
        The count to go by.
    wrong : Out(1), count : Out(width)
        Pulse: ``count`` was refused. Both come from flip-flops.
    """

    def __init__(self, width: int):
        self._width = width
        super().__init__({
            "i": In(width), "producer": In(width), "o": Out(width), "wrong": Out(1), "count": Out(width),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        seen, before, after = Signal(self._width), Signal(self._width), Signal(self._width)
        possible = Signal()
        m.d.comb += self.count.eq(seen)
        m.d.sync += self.wrong.eq(0)
        with m.FSM():
            with m.State("Watch"):
                m.d.sync += seen.eq(self.i)
                with m.If(self.i != seen):
                    m.next = "Subtract"
            with m.State("Subtract"):
                # What is left to read, as the host said before and as it says now: never more.
                m.d.sync += [before.eq(self.producer - self.o), after.eq(self.producer - seen)]
                m.next = "Compare"
            with m.State("Compare"):
                m.d.sync += possible.eq(after <= before)
                m.next = "Decide"
            with m.State("Decide"):
                with m.If(possible):
                    m.d.sync += self.o.eq(seen)
                m.d.sync += self.wrong.eq(~possible)
                m.next = "Watch"
        return m
