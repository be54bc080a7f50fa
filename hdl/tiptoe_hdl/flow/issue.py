"""Which event enters the pipeline next: sources by age, credits for what a pass may produce."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import doorbell, flow_request, rx_sack, rx_segment
from ..wire.valid_only import valid_only
from .actions import TX_DEPTH, VERDICT_DEPTH
from .arbiter import AgeArbiter
from .event import Kind, flow_event
from .hazard import Hazard
from .inquiries import REPORT_DEPTH
from .pacing import turn
from .pipeline import RESULT
from .sweep import timer_event

SEGMENT, DOORBELL, COMMAND, ACCEPT, TIMER, REPORT, OUTPUT, SACK = range(8)


class Issue(wiring.Component):
    """Eight sources, the one served longest ago first; a source has a turn every other cycle at most.

    Segments and doorbells never wait for the transmit path: without a transmit credit they pass with ``may_output`` 0
    and the connection gets its turn later (else two engines could block each other through their wires). So do accepts: the
    dispatcher waits for them. Requests of the command processor, timers and turns wait for a credit. A SACK block sends nothing:
    what it makes go again goes in a turn.

    Ports
    -----
    segment, doorbell, command, accept, timer, report, output, sack : In(stream)
        Sources. ``report`` carries ids.
    o : Out(valid-only flow_event), forward : Out(1), id : Out
        To the pipeline.
    ids, busy : In
        What stands in the pipeline's stages 1 to 11, reports apart.
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
                "output": In(stream.Signature(turn(cfg))),
                "sack": In(stream.Signature(rx_sack(cfg))),
                "o": Out(valid_only(flow_event(cfg))),
                "forward": Out(1),
                "id": Out(ident),
                "ids": In(data.ArrayLayout(ident, RESULT - 1)),
                "busy": In(RESULT - 1),
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
        if index == REPORT:
            m.d.comb += event.id.eq(p)
            return event
        renamed = {
            "position": "seq", "a": "seq", "b": "ack", "snd_scale": "ws", "elapsed": "length", "repeats": "timers",
            "start": "seq", "end": "ack", "first": "which", "more": "has_sack", "ecn_ok": "ecn", "due": "which",
        }  # fmt: skip
        for name in p.shape().members:
            m.d.comb += Value.cast(event[renamed.get(name, name)]).eq(Value.cast(p[name]))
        if kind == Kind.REQUEST:
            m.d.comb += event.port.eq(index == ACCEPT)
        return event

    def elaborate(self, platform):
        m = Module()
        cfg = self._cfg
        ports = (
            self.segment,
            self.doorbell,
            self.command,
            self.accept,
            self.timer,
            self.report,
            self.output,
            self.sack,
        )
        kinds = (
            Kind.SEGMENT,
            Kind.DOORBELL,
            Kind.REQUEST,
            Kind.REQUEST,
            Kind.TIMER,
            Kind.REPORT,
            Kind.OUTPUT,
            Kind.SACK,
        )
        events = [
            self._as_event(m, index, port, kind) for index, (port, kind) in enumerate(zip(ports, kinds, strict=True))
        ]
        m.submodules.hazard = hazard = Hazard(cfg)
        m.submodules.arbiter = arbiter = AgeArbiter(len(ports))
        m.d.comb += [
            hazard.ids.eq(self.ids),
            hazard.busy.eq(self.busy),
            self.o.valid.eq(hazard.o.valid),
            self.o.payload.eq(hazard.o.payload),
            self.forward.eq(hazard.forward),
            self.id.eq(hazard.id),
        ]

        # The choice is made a cycle ahead; the chosen source stands aside for the next choice.
        grant = Signal(len(ports))
        granted = Signal()
        grant_new = Signal()
        may_use = Signal()
        grant_outputs = may_use & ~grant[REPORT] & ~grant[SACK]
        choose = Signal()
        may_output = self._credit(m, "tx", TX_DEPTH, self.tx_returned, grant_new & grant_outputs)
        verdict = self._credit(m, "verdict", VERDICT_DEPTH, self.verdict_returned, grant_new & grant[SEGMENT])
        report = self._credit(m, "report", REPORT_DEPTH, self.report_returned, grant_new & grant[REPORT])
        allowed = {
            SEGMENT: verdict,
            DOORBELL: 1,
            COMMAND: may_output,
            ACCEPT: 1,
            TIMER: may_output,
            REPORT: report,
            OUTPUT: may_output,
            SACK: 1,
        }
        m.d.comb += [
            arbiter.requests.eq(Cat(port.valid & allowed[k] for k, port in enumerate(ports)) & ~grant),
            choose.eq((~granted | hazard.i.ready) & self.enable),
            arbiter.served.eq(grant),  # in time: it stands aside for the next choice
        ]
        m.d.sync += grant_new.eq(0)
        with m.If(choose):
            m.d.sync += [
                grant.eq(arbiter.grant),
                granted.eq(arbiter.requests.any()),
                grant_new.eq(arbiter.requests.any()),
                may_use.eq(may_output),
            ]
        m.d.comb += [port.ready.eq(grant[k] & hazard.i.ready) for k, port in enumerate(ports)]
        selected = 0
        for k, event in enumerate(events):
            selected |= Mux(grant[k], Value.cast(event), 0)
        m.d.comb += [
            hazard.i.valid.eq(granted),
            Value.cast(hazard.i.payload).eq(selected),
            hazard.i.payload.may_output.eq(grant_outputs),
        ]
        return m

    @staticmethod
    def _credit(m, name, depth, returned, taken):
        """1 bit, registered: a pass may take a credit.

        ``taken`` comes a cycle after the choice and the answer is a cycle old, so two choices may not be counted yet: the
        last three credits stay unused.
        """
        free = Signal(range(depth + 1), init=depth, name=f"{name}_free")
        enough = Signal(init=1, name=f"{name}_enough")
        m.d.sync += [free.eq(free + returned - taken), enough.eq(free[2:].any())]
        return enough
