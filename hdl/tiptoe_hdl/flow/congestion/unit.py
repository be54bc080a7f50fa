"""Congestion control beside the TCB pipeline: takes news, runs algorithms, and keeps for every connection how its window
moves.

The pipeline reads that like one of its banks, and never waits. What it tells waits in memories too, a place for each
connection: newer news replace older ones, but a bit a kind of event stays until that event's program has run. So nothing
is refused, no loss and no beginning is forgotten, and acknowledgements that come faster than the programs run are taken
together.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ...config import EngineConfig
from ...congestion.program import DECREASE_BITS, ENTRIES, EVENTS, GROWTH_BITS, HALF_LEFT, NEVER, NOW_SHIFT
from ...wire.valid_only import valid_only
from ..tcb import CWND_BITS, TICK_BITS
from .news import Steering, built_in, congestion_news, keeps_most, steering_of, told_layout
from .processor import Processor

TICK_US_BITS = 16


class CongestionUnit(wiring.Component):
    """A walk over all connections that runs a program where there is news.

    Invariant: a result of a connection's former life, or of the algorithm before, is not written: ``doomed`` knows of each
    ``begin`` since the walk came to the connection. ``begin`` itself writes in its own cycle what its algorithm begins
    with; so from then on the pipeline reads nothing older.

    Timing: two cycles for a connection without news; a program's as ``processor.py`` says, a hundred to a few thousand
    cycles.

    Ports
    -----
    news : In(valid-only congestion_news)
        At least three cycles from one to the next of the same connection.
    id : In(id_bits), steering : Out(Steering)
        Two cycles after ``id``, from a flip-flop; it knows what was written up to the cycle before ``id``.
    now : In(TICK_BITS)
    tick_us : In(TICK_US_BITS)
        Microseconds of a tick.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "news": In(valid_only(congestion_news(cfg))),
                "id": In(cfg.id_bits),
                "steering": Out(Steering),
                "now": In(TICK_BITS),
                "tick_us": In(TICK_US_BITS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        cfg, told = self._cfg, self.news.payload
        m.submodules.steerings = steerings = Memory(
            shape=Steering, depth=cfg.connections, init=[], attrs={"ram_style": "block"}
        )
        read, write = steerings.read_port(), steerings.write_port()
        m.d.comb += read.addr.eq(self.id)
        m.d.sync += self.steering.eq(read.data)
        begins = Signal()
        m.d.comb += begins.eq(self.news.valid & told.begin)
        initial = self._initial(m, told.told.algorithm, "initial")
        if not any(algorithm.programs for _, algorithm in built_in(cfg)):
            m.d.comb += [write.en.eq(begins), write.addr.eq(told.id), write.data.eq(initial)]
            return m

        m.submodules.processor = processor = Processor(cfg)
        ident, found = Signal(cfg.id_bits), Signal(told_layout(cfg), reset_less=True)
        marks, clear = Signal(len(EVENTS)), Signal(len(EVENTS))
        self._marks(m, ident, marks, clear)
        before, now, load = Signal(CWND_BITS, reset_less=True), Signal(TICK_BITS, reset_less=True), Signal()
        self._latest(m, ident, load, found, before)
        with m.If(load):
            m.d.sync += now.eq(self.now)
        doomed, looking, writes = Signal(), Signal(), Signal()
        m.d.sync += doomed.eq((begins & (told.id == ident)) | (doomed & ~looking))
        first = Signal(range(len(EVENTS)))
        for number in reversed(range(len(EVENTS))):
            with m.If(marks[number]):
                m.d.comb += first.eq(number)
        event = Signal(range(ENTRIES))

        algorithm = self._initial(m, found.algorithm, "algorithm")
        growth, decrease = processor.settings.growth, processor.settings.decrease
        result, limited = Signal(Steering), Signal(DECREASE_BITS)
        with m.If(decrease[DECREASE_BITS:].any()):
            m.d.comb += limited.eq(~0)
        with m.Elif(decrease[:DECREASE_BITS] < HALF_LEFT):
            m.d.comb += limited.eq(HALF_LEFT)
        with m.Else():
            m.d.comb += limited.eq(decrease)
        m.d.comb += [
            result.growth.eq(growth),
            result.by_cwnd.eq(growth == 0),
            result.holds.eq(growth[GROWTH_BITS:].any() | (growth[:GROWTH_BITS] == NEVER)),
            result.decrease.eq(limited),
            result.keeps_most.eq(keeps_most(result.decrease)),
            result.first_ack.eq(algorithm.first_ack),
            result.hosts.eq(algorithm.hosts),
            result.slow.eq(processor.settings.slow),
            write.en.eq(begins | writes),
            write.addr.eq(Mux(begins, told.id, ident)),
            write.data.eq(Mux(begins, initial, result)),
            processor.entry.eq(Cat(event, found.algorithm)),
            processor.id.eq(ident),
            processor.initial.eq(algorithm.decrease),
            processor.news.tick_us.eq(self.tick_us),
            processor.news.now.eq(now << NOW_SHIFT),
            processor.news.before.eq(before),
        ]
        m.d.comb += [
            processor.news[name].eq(found[name]) for name in ("cwnd", "una", "mss", "srtt", "limited", "marked")
        ]

        with m.FSM():
            with m.State("Look"):  # the marks' memory takes ``ident``
                m.d.comb += looking.eq(1)
                m.next = "Judge"
            with m.State("Judge"):
                m.d.sync += event.eq(first)
                with m.If(marks.any()):
                    m.next = "Clear"
                with m.Else():
                    m.d.sync += ident.eq(ident + 1)
                    m.next = "Look"
            with m.State("Clear"):  # before the news are read: newer ones set the mark again
                with m.If(~self.news.valid):
                    m.d.comb += clear.eq(1 << event)
                    m.next = "Address"
            with m.State("Address"):
                m.next = "Load"
            with m.State("Load"):
                m.d.comb += load.eq(1)
                m.next = "Start"
            with m.State("Start"):
                m.d.comb += processor.start.eq(1)
                m.next = "Run"
            with m.State("Run"):
                with m.If(processor.done):
                    m.next = "Leave"
                    with m.If(processor.ended & self._has_program(found.algorithm, event)):
                        m.next = "Write"
            with m.State("Write"):
                with m.If(~begins):
                    m.d.comb += writes.eq(~doomed)
                    m.next = "Leave"
            with m.State("Leave"):
                m.d.sync += ident.eq(ident + 1)
                m.next = "Look"
        return m

    def _initial(self, m, algorithm, name):
        """With what the algorithm of this number begins; NewReno's for one that is not built in."""
        steering = Signal(Steering, name=name)
        with m.Switch(algorithm):
            for number, known in built_in(self._cfg):
                with m.Case(number):
                    m.d.comb += [Value.cast(steering[field]).eq(v) for field, v in steering_of(known).items()]
            with m.Default():
                m.d.comb += [steering.by_cwnd.eq(1), steering.decrease.eq(HALF_LEFT)]
        return steering

    def _has_program(self, algorithm, event):
        """1 bit: there is a program for the event; else nothing is written."""
        hit = 0
        for number, known in built_in(self._cfg):
            for name in known.programs:
                hit |= (algorithm == number) & (event == EVENTS.index(name))
        return hit

    def _marks(self, m, ident, marks, clear):
        """A memory of one bit for each kind of event: set by news, cleared in a cycle without any."""
        told = self.news.payload
        for number, name in enumerate(EVENTS):
            m.submodules[f"mark_{name}"] = memory = Memory(shape=1, depth=self._cfg.connections, init=[])
            read, write = memory.read_port(), memory.write_port()
            m.d.comb += [
                read.addr.eq(ident),
                marks[number].eq(read.data),
                write.addr.eq(Mux(self.news.valid, told.id, ident)),
                write.data.eq(self.news.valid & told[name]),
                # What was told of the id's former life does not count any more.
                write.en.eq(Mux(self.news.valid, told[name] | told.begin, clear[number])),
            ]

    def _latest(self, m, ident, load, found, before):
        """What was told last, and cwnd before the last loss or the last sample of the first slow start: taken with
        ``load``, a cycle behind ``ident`` at least."""
        told = self.news.payload
        for name, layout, what, when, into in (
            ("latest", told_layout(self._cfg), told.told, self.news.valid, found),
            ("losses", CWND_BITS, told.before, self.news.valid & (told.loss | told.timeout | told.rtt), before),
        ):
            m.submodules[name] = memory = Memory(
                shape=layout, depth=self._cfg.connections, init=[], attrs={"ram_style": "block"}
            )
            read, write = memory.read_port(), memory.write_port()
            m.d.comb += [read.addr.eq(ident), write.addr.eq(told.id), write.data.eq(what), write.en.eq(when)]
            with m.If(load):
                m.d.sync += into.eq(read.data)
