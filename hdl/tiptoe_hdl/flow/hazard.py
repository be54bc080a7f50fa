"""The hazard rule: an event waits until its TCB can be read or forwarded."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..wire.skid import SkidBuffer
from ..wire.valid_only import valid_only
from .event import Kind, flow_event
from .pipeline import FORWARD, RESULT


class Hazard(wiring.Component):
    """Holds one event, the candidate, in the pipeline's stage 0 until it may go.

    Everything in the pipeline moves every cycle, so what the candidate meets is known a cycle before: all comparisons of
    ids are made then.

    Ports
    -----
    i : In(stream flow_event)
        ``ready`` comes from a flip-flop.
    o : Out(valid-only flow_event), forward : Out(1)
        The candidate, going.
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
                "ids": In(data.ArrayLayout(cfg.id_bits, RESULT - 1)),
                "busy": In(RESULT - 1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.waiting = waiting = SkidBuffer(flow_event(self._cfg))
        wiring.connect(m, wiring.flipped(self.i), waiting.i)
        following = waiting.o.payload
        candidate = Signal(flow_event(self._cfg), reset_less=True)
        valid, clash = Signal(), Signal()
        load = ~valid | ~clash
        m.d.comb += [
            waiting.o.ready.eq(load),
            self.o.valid.eq(valid & ~clash),
            self.o.payload.eq(candidate),
        ]
        with m.If(load):
            m.d.sync += [valid.eq(waiting.o.valid), candidate.eq(following)]

        # met[k]: the candidate's id stands in stage k + 1 of the pipeline, from the next cycle on.
        changes = candidate.kind != Kind.REPORT
        met_by_next = Cat(
            valid & changes & (candidate.id == following.id),
            *(self.busy[k] & (self.ids[k] == following.id) for k in range(RESULT - 1)),
        )
        met = Signal(RESULT)
        met_later = Cat(0, met[:-1])
        m.d.sync += [met.eq(Mux(load, met_by_next, met_later)), clash.eq(
            Mux(load, self._clash(following, met_by_next), self._clash(candidate, met_later))
        )]  # fmt: skip
        m.d.comb += self.forward.eq(met[FORWARD - 1])
        return m

    @staticmethod
    def _clash(event, met):
        """Whether the event has to wait.

        A report takes whatever the memory holds: the news it is to tell were written before it was asked for, and later
        ones are told again. Only it must not read the word in the cycle in which that is written.
        """
        others = Cat(met[k] for k in range(RESULT) if k + 1 != FORWARD).any()
        return Mux(event.kind == Kind.REPORT, met[RESULT - 1], others)
