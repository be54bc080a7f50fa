"""Which connections have news for the host: each id is queued at most once, however often it is marked."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..wire.valid_only import valid_only

FORGET_CYCLES = 6
"""From clearing an id's mark to giving the id away. A mark that found the id still marked is older than that."""


class PendingIds(wiring.Component):
    """A set of ids with a queue.

    An id is marked when its bits in two memories differ: ``marks``, which marking changes, and ``cleared``, which
    taking changes; so each memory has one writer. An id's mark is cleared *before* the id is given away: what is
    marked later queues the id again, what is marked earlier is known to whoever takes the id.

    Timing: an id may be marked in every cycle; one can be taken every eleven cycles.

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    ready : Out(1)
        The memories are scrubbed, as many cycles after reset as there are ids; earlier marks are lost.
    mark : In(valid-only id)
    o : Out(stream of id)
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "ready": Out(1),
                "mark": In(valid_only(unsigned(cfg.id_bits))),
                "o": Out(stream.Signature(unsigned(cfg.id_bits))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        depth, id_bits = self._cfg.connections, self._cfg.id_bits
        m.submodules.marks = marks = memory.Memory(shape=1, depth=depth, init=[])
        m.submodules.cleared = cleared = memory.Memory(shape=1, depth=depth, init=[])
        m.submodules.queue = queue = memory.Memory(shape=unsigned(id_bits + 1), depth=depth, init=[])
        mark_read, mark_write = marks.read_port(), marks.write_port()
        clear_read, clear_write = cleared.read_port(), cleared.write_port()
        queue_read, queue_write = queue.read_port(), queue.write_port()
        head, tail = Signal(id_bits), Signal(id_bits)
        count = Signal(range(depth + 1))
        push, pop = Signal(), Signal()

        scrub = Signal(id_bits)
        with m.If(~self.ready):
            m.d.sync += [scrub.eq(scrub + 1), self.ready.eq(scrub == depth - 1)]

        # Marking: read, register, decide. One that follows a decision on the same id by one or two cycles would
        # not see what that wrote: it has nothing to add.
        ids = [self.mark.payload, *(Signal(id_bits, name=f"id_{n}") for n in range(1, 4))]
        valid_1, valid_2, decided_3 = Signal(), Signal(), Signal()
        marked, taken, repeated = Signal(), Signal(), Signal()
        decided_2 = valid_2 & ~repeated
        m.d.comb += [
            mark_read.addr.eq(ids[0]),
            clear_read.addr.eq(ids[0]),
            push.eq(decided_2 & (marked == taken)),
            mark_write.en.eq(push | ~self.ready),
            mark_write.addr.eq(Mux(self.ready, ids[2], scrub)),
            mark_write.data.eq(self.ready & ~marked),
            queue_write.en.eq(push),
            queue_write.addr.eq(tail),
            queue_write.data.eq(Cat(ids[2], ~marked)),
        ]
        m.d.sync += [
            *(ids[stage].eq(ids[stage - 1]) for stage in range(1, 4)),
            valid_1.eq(self.mark.valid & self.ready),
            valid_2.eq(valid_1),
            decided_3.eq(decided_2),
            marked.eq(mark_read.data),
            taken.eq(clear_read.data),
            repeated.eq((decided_2 & (ids[1] == ids[2])) | (decided_3 & (ids[1] == ids[3]))),
            count.eq(count + push - pop),
        ]
        with m.If(push):
            m.d.sync += tail.eq(tail + 1)

        # Taking.
        entry = data.StructLayout({"id": id_bits, "mark": 1})
        first, first_late = Signal(entry), Signal(entry)  # the latter directly behind the memory
        m.d.sync += first_late.eq(queue_read.data)
        timer = Signal(range(FORGET_CYCLES))
        m.d.comb += [
            queue_read.addr.eq(head),
            self.o.payload.eq(first.id),
            clear_write.addr.eq(Mux(self.ready, first.id, scrub)),
            clear_write.data.eq(self.ready & first.mark),
            clear_write.en.eq(~self.ready),
        ]
        with m.FSM():
            with m.State("Wait"):
                with m.If(count != 0):
                    m.next = "Read"
            with m.State("Read"):
                m.next = "Take"
            with m.State("Take"):
                m.d.sync += first.eq(first_late)
                m.next = "Clear"
            with m.State("Clear"):
                m.d.comb += [clear_write.en.eq(1), pop.eq(1)]
                m.d.sync += [head.eq(head + 1), timer.eq(FORGET_CYCLES - 1)]
                m.next = "Forget"
            with m.State("Forget"):
                m.d.sync += timer.eq(timer - 1)
                with m.If(timer == 0):
                    m.next = "Offer"
            with m.State("Offer"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "Wait"
        return m
