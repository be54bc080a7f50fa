"""Which event enters the pipeline next: sources in turn, credits for what a pass may produce, and the hazard rule."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import doorbell, flow_request, rx_segment
from ..wire.skid import SkidBuffer
from ..wire.valid_only import valid_only
from .actions import REPORT_DEPTH, TX_DEPTH, VERDICT_DEPTH
from .event import Kind, flow_event
from .pipeline import FORWARD, RESULT
from .sweep import timer_event

SEGMENT, DOORBELL, COMMAND, ACCEPT, TIMER, REPORT, OUTPUT = range(7)


def _first(bits: Value) -> Value:
    """One-hot: the lowest bit that is set."""
    return Cat(bits[k] & ~bits[:k].any() for k in range(len(bits)))


class Issue(wiring.Component):
    """Round robin over seven sources.

    Segments and doorbells never wait for the transmit path: without a transmit credit they pass with ``may_output`` 0
    and the connection gets its turn later (else two engines could block each other through their wires). Requests, timers
    and turns wait for a credit.

    Ports
    -----
    segment, doorbell, command, accept, timer, report, output : In(stream)
        Sources. ``report`` and ``output`` carry ids.
    o : Out(valid-only flow_event), forward : Out(1)
        To the pipeline.
    ids, busy : In
        What stands in the pipeline's stages 0 to 10, reports apart.
    tx_returned, verdict_returned, report_returned : In
        Credits given back.
    enable : In(1)
        No event before the memories are cleared.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        ident = cfg.id_bits
        super().__init__(
            {
                "segment": In(stream.Signature(rx_segment(cfg))),
                "doorbell": In(stream.Signature(doorbell(cfg))),
                "command": In(stream.Signature(flow_request(cfg))),
                "accept": In(stream.Signature(flow_request(cfg))),
                "timer": In(stream.Signature(timer_event(cfg))),
                "report": In(stream.Signature(ident)),
                "output": In(stream.Signature(ident)),
                "o": Out(valid_only(flow_event(cfg))),
                "forward": Out(1),
                "ids": In(data.ArrayLayout(ident, RESULT)),
                "busy": In(RESULT),
                "tx_returned": In(2),
                "verdict_returned": In(1),
                "report_returned": In(1),
                "enable": In(1),
            }
        )

    def _as_event(self, m, index, port, kind):
        """The flow_event a source's payload stands for."""
        event = Signal(flow_event(self._cfg), name=f"event_{index}")
        p = port.payload
        m.d.comb += event.kind.eq(kind)
        if index in (REPORT, OUTPUT):
            m.d.comb += event.id.eq(p)
            return event
        renamed = {"position": "seq", "a": "seq", "b": "ack", "snd_scale": "ws"}
        for name in p.shape().members:
            m.d.comb += Value.cast(event[renamed.get(name, name)]).eq(Value.cast(p[name]))
        if kind == Kind.REQUEST:
            m.d.comb += event.port.eq(index == ACCEPT)
        return event

    def elaborate(self, platform):
        m = Module()
        cfg = self._cfg
        ports = (self.segment, self.doorbell, self.command, self.accept, self.timer, self.report, self.output)
        kinds = (
            Kind.SEGMENT,
            Kind.DOORBELL,
            Kind.REQUEST,
            Kind.REQUEST,
            Kind.TIMER,
            Kind.REPORT,
            Kind.OUTPUT,
        )
        events = [
            self._as_event(m, index, port, kind)
            for index, (port, kind) in enumerate(zip(ports, kinds, strict=True))
        ]
        m.submodules.candidate = candidate = SkidBuffer(flow_event(cfg))

        tx_free = Signal(range(TX_DEPTH + 1), init=TX_DEPTH)
        verdict_free = Signal(range(VERDICT_DEPTH + 1), init=VERDICT_DEPTH)
        report_free = Signal(range(REPORT_DEPTH + 1), init=REPORT_DEPTH)
        may_output = tx_free != 0

        allowed = [Signal(name=f"allowed_{k}") for k in range(7)]
        m.d.comb += [
            allowed[SEGMENT].eq(verdict_free != 0),
            allowed[DOORBELL].eq(1),
            allowed[COMMAND].eq(may_output),
            allowed[ACCEPT].eq(may_output),
            allowed[TIMER].eq(may_output),
            allowed[REPORT].eq(report_free != 0),
            allowed[OUTPUT].eq(may_output),
        ]
        # The choice is made a cycle ahead, its credits taken with it; the chosen source stands aside for the next choice.
        grant = Signal(7)
        granted = Signal()
        grant_outputs = Signal()
        later = Signal(7)
        eligible = Signal(7)
        pick = Signal(7)
        choose = Signal()
        m.d.comb += [
            eligible.eq(Cat(port.valid & ok for port, ok in zip(ports, allowed, strict=True)) & ~grant),
            pick.eq(Mux((eligible & later).any(), _first(eligible & later), _first(eligible))),
            choose.eq((~granted | candidate.i.ready) & self.enable),
        ]
        with m.If(choose):
            m.d.sync += [
                granted.eq(eligible.any()),
                grant.eq(pick),
                grant_outputs.eq(may_output & ~pick[REPORT]),
            ]
            with m.If(eligible.any()):
                m.d.sync += later.eq(Cat(pick[:k].any() for k in range(7)))
        takes = choose & eligible.any()
        m.d.sync += [
            tx_free.eq(tx_free + self.tx_returned - (takes & may_output & ~pick[REPORT])),
            verdict_free.eq(verdict_free + self.verdict_returned - (choose & pick[SEGMENT])),
            report_free.eq(report_free + self.report_returned - (choose & pick[REPORT])),
        ]
        m.d.comb += [port.ready.eq(grant[k] & candidate.i.ready) for k, port in enumerate(ports)]
        selected = 0
        for k, event in enumerate(events):
            selected |= Mux(grant[k], Value.cast(event), 0)
        m.d.comb += [
            candidate.i.valid.eq(granted),
            Value.cast(candidate.i.payload).eq(selected),
            candidate.i.payload.may_output.eq(grant_outputs),
        ]

        # The candidate would stand in stage 0 when what is in stage k now stands in k + 1.
        same = Signal(RESULT)
        m.d.comb += same.eq(
            Cat(self.busy[k] & (self.ids[k] == candidate.o.payload.id) for k in range(RESULT))
        )
        # A report takes whatever the memory holds: the news it is to tell were written before it was asked for, and later
        # ones are told again. Only it must not read the word in the cycle in which that is written.
        clash = Signal()
        others = Cat(same[k] for k in range(RESULT) if k + 1 != FORWARD).any()
        report = candidate.o.payload.kind == Kind.REPORT
        m.d.comb += clash.eq(Mux(report, same[RESULT - 1], others))
        m.d.comb += [
            candidate.o.ready.eq(~clash),
            self.o.valid.eq(candidate.o.valid & ~clash),
            self.o.payload.eq(candidate.o.payload),
            self.forward.eq(same[FORWARD - 1]),
        ]
        return m
