"""The counters that registers show: pulses are gathered in a few bits each and added in turn to a memory."""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from ..messages import Counter

PENDING_BITS = 6
"""A round over all counters takes 32 cycles, so a line brings at most 32 pulses between its turns."""


def pulse_ports() -> list[str]:
    """Names of the pulse lines, in the order of the counters."""
    return [f"count_{counter.name.lower()}" for counter in Counter]


class CounterBank(wiring.Component):
    """32 counters of 32 bits, wrapping; all 0 from 34 cycles after reset on.

    No pulse is lost, even when every line is high in every cycle. A value lags its pulses by at most
    35 cycles.

    Members
    -------
    count_<counter in lower case> : In(1)
        One line a counter; every cycle high counts one.
    index : In(5), value : Out(32)
        ``value`` shows counter ``index`` two cycles after ``index`` is set.
    """

    def __init__(self):
        super().__init__({
            **{name: In(1) for name in pulse_ports()},
            "index": In(5), "value": Out(32),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.totals = totals = memory.Memory(shape=32, depth=len(Counter), init=[])
        write = totals.write_port()
        update = totals.read_port(domain="comb")
        show = totals.read_port(domain="comb")

        turn = Signal(range(len(Counter)))
        first_round = Signal(init=1)  # the memory still holds what it had before the reset
        lines = [getattr(self, name) for name in pulse_ports()]
        pending = Array(Signal(PENDING_BITS, name=f"pending_{name}") for name in pulse_ports())
        m.d.sync += turn.eq(turn + 1)
        with m.If(turn == len(Counter) - 1):
            m.d.sync += first_round.eq(0)
        for number, (line, count) in enumerate(zip(lines, pending, strict=True)):
            m.d.sync += count.eq(Mux(turn == number, 0, count) + line)

        amount = Signal(PENDING_BITS)
        before = Signal(32)
        number = Signal.like(turn)
        started = Signal()
        m.d.sync += [
            amount.eq(pending[turn]), before.eq(Mux(first_round, 0, update.data)),
            number.eq(turn), started.eq(1),
        ]
        m.d.comb += [
            update.addr.eq(turn),
            write.addr.eq(number), write.data.eq(before + amount), write.en.eq(started),
        ]

        index = Signal.like(self.index)
        m.d.comb += show.addr.eq(index)
        m.d.sync += [index.eq(self.index), self.value.eq(show.data)]
        return m
