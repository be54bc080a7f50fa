"""The timer sweep (architecture idea 6): every deadline is looked at once a tick, one connection a clock."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..wire.apart import APART
from ..wire.queue import HalfQueue
from ..wire.valid_only import valid_only
from .tcb import TICK_BITS, TimerRecord, timer_write


def timer_event(cfg: EngineConfig) -> data.StructLayout:
    """Timers of ``id`` found due: bit 0 retransmission or persist, 1 delayed ACK, 2 2MSL."""
    return data.StructLayout({"id": cfg.id_bits, "timers": 3})


class TimerSweep(wiring.Component):
    """Table of deadlines, swept after every tick.

    A due timer is reported again at every tick until the pipeline has changed its record; the pipeline checks each report
    against the TCB. A tick that comes during a sweep starts another one behind it: a sweep may take longer than a tick.

    Ports
    -----
    write : In(valid-only timer_write)
        New deadlines of a connection.
    tick : In(1)
        One cycle per tick.
    now : Out(TICK_BITS)
        Ticks since reset, modulo 2**20.
    ready : Out(1)
        The table has been cleared after reset.
    o : Out(stream timer_event)
        Latency from tick: id + 4 cycles, and the queue.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "write": In(valid_only(timer_write(cfg))),
                "tick": In(1),
                "now": Out(TICK_BITS),
                "ready": Out(1),
                "o": Out(stream.Signature(timer_event(cfg))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        cfg = self._cfg
        # A deadline that changes while it is looked at is looked at again in the next tick.
        m.submodules.memory = memory = Memory(shape=TimerRecord, depth=cfg.connections, init=[], attrs=APART)
        read, write = memory.read_port(), memory.write_port()
        m.submodules.queue = queue = HalfQueue(timer_event(cfg), 8)
        wiring.connect(m, queue.o, wiring.flipped(self.o))

        scrub = Signal(cfg.id_bits + 1)
        m.d.comb += self.ready.eq(scrub[-1])
        with m.If(~self.ready):
            m.d.sync += scrub.eq(scrub + 1)
            m.d.comb += [write.en.eq(1), write.addr.eq(scrub[:-1])]
        with m.Else():
            m.d.comb += [
                write.en.eq(self.write.valid),
                write.addr.eq(self.write.payload.id),
                write.data.eq(self.write.payload.record),
            ]

        with m.If(self.tick):
            m.d.sync += self.now.eq(self.now + 1)
        again = Signal()
        sweeping = Signal()
        index = Signal(cfg.id_bits)
        # Four records may be on their way to the queue: stop while fewer places than that are free.
        in_queue = Signal(range(17))
        enters = queue.i.valid & queue.i.ready
        leaves = queue.o.valid & queue.o.ready
        m.d.sync += in_queue.eq(in_queue + enters - leaves)
        go = Signal()
        m.d.sync += go.eq(in_queue < 3)
        advance = sweeping & go
        with m.If(advance):
            m.d.sync += index.eq(index + 1)
            with m.If(index == cfg.connections - 1):
                m.d.sync += [sweeping.eq(again), again.eq(0)]
        with m.If(self.tick & self.ready):
            m.d.sync += sweeping.eq(1)
            with m.If(sweeping):
                m.d.sync += again.eq(1)

        valid = [Signal(name=f"valid_{k}") for k in range(3)]
        ids = [Signal(cfg.id_bits, name=f"id_{k}") for k in range(3)]
        record = Signal(TimerRecord)
        m.d.comb += read.addr.eq(index)
        m.d.sync += [
            valid[0].eq(advance),
            valid[1].eq(valid[0]),
            valid[2].eq(valid[1]),
            ids[0].eq(index),
            ids[1].eq(ids[0]),
            ids[2].eq(ids[1]),
            record.eq(read.data),
        ]
        due = Signal(3)
        m.d.sync += due.eq(
            Cat(
                record[f"{name}_on"] & ~(self.now - record[f"{name}_deadline"])[TICK_BITS - 1]
                for name in ("rexmt", "delack", "msl")
            )
        )
        m.d.comb += [
            queue.i.valid.eq(valid[2] & due.any()),
            queue.i.payload.id.eq(ids[2]),
            queue.i.payload.timers.eq(due),
        ]
        return m
