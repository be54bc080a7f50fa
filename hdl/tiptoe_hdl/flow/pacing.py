"""Pacing: a connection's data leaves no faster than its rate (as SO_MAX_PACING_RATE of Linux has it)."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, fifo, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..wire.valid_only import valid_only
from .tcb import INTERVAL_BITS

INTERVAL_FRACTION = 12
FRACTION = 4
"""Departure times are in 2^-4 cycles."""


def clock_bits(cfg: EngineConfig) -> int:
    """Bits of the clock, in cycles: no gap is longer than a quarter of its range."""
    return cfg.length_bits + INTERVAL_BITS - INTERVAL_FRACTION + 2


def turn(cfg: EngineConfig) -> data.StructLayout:
    """A connection's turn to send; ``due``: the gap behind its last data is over."""
    return data.StructLayout({"id": cfg.id_bits, "due": 1})


def departure(cfg: EngineConfig) -> data.StructLayout:
    """What a pass means for pacing.

    ``charged``: ``length`` bytes of a connection with a rate leave; ``spacing``: there is a gap before them that is not over;
    ``due``: such a gap was over with this pass. ``sets``: its rate is what was asked for; ``begins``: the id begins anew,
    without a rate.
    """
    return data.StructLayout(
        {"id": cfg.id_bits, "length": cfg.length_bits, "charged": 1, "spacing": 1, "due": 1, "sets": 1, "begins": 1}
    )


class Pacing(wiring.Component):
    """Behind a data segment of a connection with a rate comes a gap, length times interval, in which it sends no more.

    The connection stands in a queue until the gap is over, and then has a turn, ``due``. The pipeline keeps whether it does
    (``spacing``), so an id is at most once in here, and no queue can be full. Ids go round: one is looked at each cycle, and goes
    to the end if its time has not come. So a departure time is compared only while it waits, every ``connections`` cycles at
    least and so never further off than half of the clock's range: what has been idle for however long has none.

    A turn that comes late, by the round or because the line was behind, is made up for: the next gap begins when this one ended,
    not when the segment left, but is no shorter than half of it (as in Linux's tcp_update_skb_after_send). So a rate is
    held whose gaps are at least twice as many cycles as connections wait.

    Data that leaves within a gap (what goes again by a time-out) makes it longer. A new rate shortens a gap that is
    longer than the longest segment's, so a very low rate that is raised is not waited for; and an end of the rate ends it.

    Timing: a departure time is known eight cycles behind ``i``, sooner than the connection's next one reads it. ``o`` passes
    ``turn`` on in its cycle; turns that are due go in turn with these.

    Parameters
    ----------
    cfg : EngineConfig
    now_bits : int or None
        None: ``clock_bits(cfg)``; less for tests in which the clock wraps and intervals are short.

    Ports
    -----
    i : In(valid-only departure)
        Of one connection at least eight cycles apart.
    asked : In(valid-only INTERVAL_BITS)
        The interval that the next ``sets`` means.
    turn : In(stream id)
        Connections with something to send whatever the rate.
    o : Out(stream turn)
        A connection's turn.
    """

    def __init__(self, cfg: EngineConfig, now_bits: int | None = None):
        self._cfg = cfg
        self._time_bits = (now_bits or clock_bits(cfg)) + FRACTION
        super().__init__({
            "i": In(valid_only(departure(cfg))), "asked": In(valid_only(INTERVAL_BITS)),
            "turn": In(stream.Signature(cfg.id_bits)), "o": Out(stream.Signature(turn(cfg))),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        cfg = self._cfg
        attrs = {"ram_style": "block"}
        m.submodules.intervals = self._intervals = Memory(
            shape=INTERVAL_BITS, depth=cfg.connections, init=[], attrs=attrs
        )
        m.submodules.times = self._times = Memory(shape=self._time_bits, depth=cfg.connections, init=[], attrs=attrs)
        m.submodules.waiting = self._waiting = fifo.SyncFIFOBuffered(width=cfg.id_bits, depth=cfg.connections)
        m.submodules.due = self._due = fifo.SyncFIFOBuffered(width=cfg.id_bits, depth=cfg.connections)
        self._now = Signal(self._time_bits - FRACTION)
        m.d.sync += self._now.eq(self._now + 1)
        self._look(m, *self._reckon(m))
        self._offer(m)
        return m

    def _reckon(self, m):
        """When the next data may leave. Returns whether an id will enter the queue in three cycles, and whether it does now, and
        the id."""
        layout, time_bits = departure(self._cfg), self._time_bits
        cost_bits = time_bits - 1
        at = [self.i.payload, *(Signal(layout, name=f"at_{k}", reset_less=True) for k in range(1, 9))]
        valid = [self.i.valid, *(Signal(name=f"valid_{k}") for k in range(1, 9))]
        m.d.sync += [after.eq(before) for line in (at, valid) for before, after in zip(line, line[1:], strict=False)]

        # The rate: written at 1, read at 2.
        asked = Signal(INTERVAL_BITS)
        with m.If(self.asked.valid):
            m.d.sync += asked.eq(self.asked.payload)
        write, read = self._intervals.write_port(), self._intervals.read_port()
        time = self._times.read_port()
        m.d.comb += [
            write.en.eq(valid[1] & at[1].sets), write.addr.eq(at[1].id), write.data.eq(Mux(at[1].begins, 0, asked)),
            read.addr.eq(at[2].id), time.addr.eq(at[2].id),
        ]  # fmt: skip
        interval, until = Signal(INTERVAL_BITS, reset_less=True), Signal(time_bits, reset_less=True)
        longest_log2 = self._cfg.length_bits  # longer than any segment
        length = Signal(longest_log2 + 1, reset_less=True)
        m.d.sync += [
            interval.eq(read.data), until.eq(time.data),
            length.eq(Mux(at[3].sets, 1 << longest_log2, at[3].length)),
        ]  # fmt: skip

        # Two halves, a DSP block each, and their sum a cycle later.
        split = INTERVAL_BITS // 2
        halves = [Signal(len(length) + split, name=f"product_{k}", reset_less=True) for k in range(2)]
        product = Signal(len(length) + INTERVAL_BITS, reset_less=True)
        untils = [until, *(Signal(time_bits, name=f"until_{k}", reset_less=True) for k in (5, 6, 7))]
        ahead = Signal(time_bits, reset_less=True)
        m.d.sync += [
            halves[0].eq(length * interval[:split]), halves[1].eq(length * interval[split:]),
            product.eq(halves[0] + (halves[1] << split)),
            ahead.eq(untils[1] - self._time()),
            *(after.eq(before) for before, after in zip(untils, untils[1:], strict=False)),
        ]  # fmt: skip

        # 6: is the gap before over, and since when.
        cost = product[INTERVAL_FRACTION - FRACTION :][:cost_bits]
        half = cost[1:]
        cost_7 = Signal(cost_bits, reset_less=True)
        past = ahead[-1]
        beyond_half = (ahead + half)[time_bits - 1]  # so late that the sum is still negative
        goes_on, catches_up, shortens, adds, full = (
            Signal(name=name, reset_less=True) for name in ("goes_on", "catches_up", "shortens", "adds", "full")
        )
        m.d.sync += [
            cost_7.eq(cost),
            goes_on.eq(at[6].due & past & ~beyond_half),
            catches_up.eq(at[6].due & past & beyond_half),
            shortens.eq(at[6].sets & ~past & (ahead > cost)),
            adds.eq(at[6].spacing & ~at[6].sets),
            full.eq(~past & ahead[-2]),
        ]
        # 7: where the gap ends.
        until_8 = Signal(time_bits, reset_less=True)
        writes = Signal()
        more = Mux(adds & full, 0, Mux(catches_up & ~adds, cost_7 >> 1, cost_7))
        m.d.sync += [
            until_8.eq(Mux(adds | goes_on, untils[3], self._time()) + more),
            writes.eq(valid[7] & (at[7].charged | (at[7].sets & shortens))),
        ]
        write = self._times.write_port()
        m.d.comb += [write.en.eq(writes), write.addr.eq(at[8].id), write.data.eq(until_8)]

        def enters(k):
            return valid[k] & at[k].charged & ~at[k].spacing

        return enters(5), enters(8), at[8].id

    def _time(self):
        return Cat(Const(0, FRACTION), self._now)

    def _look(self, m, will_enter, enters, entering):
        """Ids that wait go round: taken, and 3 cycles later back or due. None is taken that would be back when another one
        comes."""
        waiting, due, time_bits = self._waiting, self._due, self._time_bits
        read = self._times.read_port()
        takes = waiting.r_rdy & ~will_enter
        valid = [takes, *(Signal(name=f"looks_{k}") for k in (1, 2, 3))]
        ids = [waiting.r_data, *(Signal(self._cfg.id_bits, name=f"looks_at_{k}", reset_less=True) for k in (1, 2, 3))]
        m.d.sync += [after.eq(before) for line in (valid, ids) for before, after in zip(line, line[1:], strict=False)]
        until, over = Signal(time_bits, reset_less=True), Signal(reset_less=True)
        m.d.sync += [until.eq(read.data), over.eq(~(self._time() - until)[time_bits - 1])]
        back = valid[3] & ~over
        m.d.comb += [
            waiting.r_en.eq(takes), read.addr.eq(waiting.r_data),
            due.w_en.eq(valid[3] & over), due.w_data.eq(ids[3]),
            waiting.w_en.eq(enters | back), waiting.w_data.eq(Mux(enters, entering, ids[3])),
        ]  # fmt: skip

    def _offer(self, m):
        """Turns, and those that are due, in turn; an id that is offered stays."""
        due, takes_due = self._due, Signal()
        m.d.comb += [
            self.o.valid.eq(Mux(takes_due, due.r_rdy, self.turn.valid)),
            self.o.payload.id.eq(Mux(takes_due, due.r_data, self.turn.payload)),
            self.o.payload.due.eq(takes_due),
            self.turn.ready.eq(self.o.ready & ~takes_due),
            due.r_en.eq(self.o.ready & takes_due),
        ]
        m.d.sync += takes_due.eq(Mux(takes_due, ~self.o.ready, due.r_rdy & (~self.turn.valid | self.o.ready)))
