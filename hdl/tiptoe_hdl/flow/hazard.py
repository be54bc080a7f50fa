"""The hazard rule: an event waits until its TCB can be read or forwarded."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..wire.skid import SkidBuffer
from ..wire.valid_only import valid_only
from .event import Kind, flow_event
from .pipeline import FORWARD, RESULT, WRITTEN_EARLY


class Hazard(wiring.Component):
    """Holds one event, the candidate, in the pipeline's stage 0 until it may go.

    Everything in the pipeline moves every cycle, so what the candidate meets is known a cycle before: all comparisons of
    ids are made then. The events wait in distributed memory, so that no wide register has to stand still.

    Ports
    -----
    i : In(stream flow_event)
        ``ready`` comes from a flip-flop.
    o : Out(valid-only flow_event), forward : Out(1)
        The candidate, going; its payload from the memory.
    id : Out
        The candidate's id from a flip-flop, to read its TCB with.
    ids, busy : In
        What stands in the pipeline's stages 1 to 11, reports apart.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "i": In(stream.Signature(flow_event(cfg))),
                "o": Out(valid_only(flow_event(cfg))),
                "forward": Out(1),
                "id": Out(cfg.id_bits),
                "ids": In(data.ArrayLayout(cfg.id_bits, RESULT - 1)),
                "busy": In(RESULT - 1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        head = data.StructLayout({"id": self._cfg.id_bits, "is_report": 1})
        m.submodules.waiting = waiting = SkidBuffer(head)
        m.submodules.events = events = Memory(shape=flow_event(self._cfg), depth=16, init=[])
        write, read = events.write_port(), events.read_port(domain="comb")
        following = waiting.o.payload
        candidate = Signal(head, reset_less=True)
        valid = Signal()
        clash = Signal(3)  # any of them: in parts, so that each is decided in few steps
        load = ~valid | ~clash.any()
        m.d.comb += [
            waiting.i.valid.eq(self.i.valid),
            waiting.i.payload.id.eq(self.i.payload.id),
            waiting.i.payload.is_report.eq(self.i.payload.kind == Kind.REPORT),
            self.i.ready.eq(waiting.i.ready),
            waiting.o.ready.eq(load),
            # Written all the time: what stands behind the last event does not count.
            write.en.eq(1),
            write.data.eq(self.i.payload),
            self.o.valid.eq(valid & ~clash.any()),
            self.o.payload.eq(read.data),
            self.id.eq(candidate.id),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += write.addr.eq(write.addr + 1)
        with m.If(self.o.valid):
            m.d.sync += read.addr.eq(read.addr + 1)
        with m.If(load):
            m.d.sync += [valid.eq(waiting.o.valid), candidate.eq(following)]

        # met[k]: the candidate's id stands in stage k + 1 of the pipeline, from the next cycle on.
        met_by_next = Cat(
            valid & ~candidate.is_report & (candidate.id == following.id),
            *(self.busy[k] & (self.ids[k] == following.id) for k in range(RESULT - 1)),
        )
        met = Signal(RESULT)
        met_later = Cat(0, met[:-1])
        m.d.sync += [
            met.eq(Mux(load, met_by_next, met_later)),
            clash.eq(Mux(load, self._clash(following, met_by_next), self._clash(candidate, met_later))),
        ]
        m.d.comb += self.forward.eq(met[FORWARD - 1])
        return m

    @staticmethod
    def _clash(event, met):
        """Whether the event has to wait.

        A report takes whatever the memories hold: the news it is to tell were written before it was asked for, and later
        ones are told again. Only it must not read in the cycle in which an event writes; and as it reads the banks of the
        first step a cycle before those of the second, it would find the new of these with the old of those a cycle earlier.
        """
        others = [met[k] for k in range(RESULT) if k + 1 != FORWARD]
        half = len(others) // 2
        return Cat(
            ~event.is_report & Cat(others[:half]).any(),
            ~event.is_report & Cat(others[half:]).any(),
            event.is_report & Cat(met[WRITTEN_EARLY - 3 : WRITTEN_EARLY - 1]).any(),
        )
