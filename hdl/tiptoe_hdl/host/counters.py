"""The counters that registers show: each line counts in a few bits, what these gained is added in turn to a memory."""

from amaranth.hdl import Array, Const, Module, Mux, Signal, Value
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..messages import Counter

LINE_BITS = 6
"""A round over the counters takes 32 cycles: a line counts at most 32 between its turns, less than 2**6."""

IN_TURN = 32
"""Counters in the memories, a power of two. Those behind have registers of their own: one row more would cost 250 LUTs."""


def pulse_ports() -> list[str]:
    """Names of the pulse lines, in the order of the counters."""
    return [f"count_{counter.name.lower()}" for counter in Counter]


class CounterBank(wiring.Component):
    """A counter of 32 bits for each of Counter, wrapping; all begin at 0 after reset.

    No pulse is lost, even when every line is high in every cycle. A value lags its pulses by at most 38 cycles.

    Members
    -------
    count_<counter in lower case> : In(1)
        One line a counter; every cycle high counts one.
    index : In(6), value : Out(32)
        ``value`` shows counter ``index`` when ``index`` has been there for 36 cycles.
    """

    def __init__(self):
        super().__init__(
            {
                **{name: In(1) for name in pulse_ports()},
                "index": In(6),
                "value": Out(32),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.totals = totals = memory.Memory(shape=32, depth=IN_TURN, init=[])
        m.submodules.added = added = memory.Memory(shape=LINE_BITS, depth=IN_TURN, init=[])
        # Lines are counted without end; `added` is what each showed in its last turn.
        lines = [Signal(LINE_BITS, name=f"line_{name}") for name in pulse_ports()[:IN_TURN]]
        for name, line in zip(pulse_ports(), lines, strict=False):
            with m.If(getattr(self, name)):
                m.d.sync += line.eq(line + 1)

        # Stages: choose a line in two steps, subtract, read, add. What the memories had before a reset counts as 0
        # in the first round.
        stages = range(5)
        turns = [Signal(range(IN_TURN), name=f"turn_{n}") for n in stages]
        first = [Signal(init=1, name=f"first_{n}") for n in stages]
        started = [Const(1), *(Signal(name=f"started_{n}") for n in stages[1:])]
        m.d.sync += turns[0].eq(turns[0] + 1)
        with m.If(turns[0] == IN_TURN - 1):
            m.d.sync += first[0].eq(0)
        for stage in stages[1:]:
            m.d.sync += [
                turns[stage].eq(turns[stage - 1]),
                first[stage].eq(first[stage - 1]),
                started[stage].eq(started[stage - 1]),
            ]

        candidates = Array(Signal(LINE_BITS, name=f"candidate_{n}") for n in range(4))
        count = Signal(LINE_BITS)
        gain = [Signal(LINE_BITS, name=f"gain_{n}") for n in range(2)]
        old, new = Signal(32), Signal(32)
        before, before_write = added.read_port(domain="comb"), added.write_port()
        total, total_write = totals.read_port(domain="comb"), totals.write_port()
        m.d.sync += [
            *(candidate.eq(Array(lines[number::4])[turns[0][2:]]) for number, candidate in enumerate(candidates)),
            count.eq(candidates[turns[1][:2]]),
            gain[0].eq(count - Mux(first[2], 0, before.data)),
            gain[1].eq(gain[0]),
            old.eq(Mux(first[3], 0, total.data)),
        ]
        m.d.comb += [
            before.addr.eq(turns[2]),
            before_write.addr.eq(turns[2]),
            before_write.data.eq(count),
            before_write.en.eq(started[2]),
            total.addr.eq(turns[3]),
            new.eq(old + gain[1]),
            total_write.addr.eq(turns[4]),
            total_write.data.eq(new),
            total_write.en.eq(started[4]),
        ]

        # A counter is shown when its turn comes.
        shown = Signal()
        m.d.sync += shown.eq(turns[3] == self.index[:5])
        own = [Signal(32, name=f"total_{name}") for name in pulse_ports()[IN_TURN:]]
        for name, total in zip(pulse_ports()[IN_TURN:], own, strict=True):
            with m.If(getattr(self, name)):
                m.d.sync += total.eq(total + 1)
        with m.If(self.index[5]):
            m.d.sync += self.value.eq(Array(own)[self.index[:5]])
        with m.Elif(shown):
            m.d.sync += self.value.eq(new)
        return m


class PulseMerge(wiring.Component):
    """Pulses of several blocks for one counter: of those of the same cycle all but one follow in later cycles.

    Up to 15 may wait, far more than blocks that count once a packet can pile up.

    Ports
    -----
    i : In(n)
    o : Out(1)
        A cycle later at the earliest.
    """

    def __init__(self, n: int):
        self._n = n
        super().__init__({"i": In(n), "o": Out(1)})

    def elaborate(self, platform):
        m = Module()
        waiting = Signal(4)
        come = Signal(range(self._n + 1))
        left = Signal(range(16 + self._n))
        m.d.comb += [come.eq(sum((Value.cast(bit) for bit in self.i), Const(0))), left.eq(waiting + come - self.o)]
        m.d.comb += self.o.eq(waiting != 0)
        m.d.sync += waiting.eq(Mux(left > 15, 15, left))
        return m
