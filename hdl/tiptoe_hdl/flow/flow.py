"""Connections: TCB pipeline, what feeds it and what it sets off, with its timers and output queue."""

from amaranth.hdl import Module
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import (
    FlowResponse,
    TimeStamp,
    connection_report,
    doorbell,
    flow_request,
    rx_sack,
    rx_segment,
    rx_verdict,
    sack_list,
    tx_segment,
)
from ..wire.valid_only import valid_only
from .ack_limit import AckLimit
from .actions import COUNTED, Actions
from .banks import LATER
from .congestion.unit import TICK_US_BITS, CongestionUnit
from .inquiries import Inquiries
from .issue import Issue
from .pacing import Pacing, departure
from .pipeline import Pipeline
from .result import Parameters
from .sweep import TimerSweep


class Flow(wiring.Component):
    """Everything TCP decides.

    Ports
    -----
    segment : In(stream rx_segment), verdict : Out(stream rx_verdict)
        Received segments and, in the same order, what to do with their payload.
    sack_block : In(stream rx_sack)
        Blocks of the segment before.
    doorbell : In(stream doorbell)
    request : In(stream flow_request) two, response : Out(stream FlowResponse) two
        Command processor (0) and listen unit (1); one request of each at a time.
    tcb_page : Out(64)
        What the command processor's READ asked for, from before its response to the next request.
    report_request : In(stream id), report : Out(stream connection_report)
    notify : Out(valid-only id)
    tx : Out(stream tx_segment)
    sack_id : In, sack : Out(sack_list)
    stamp_id : In, stamp : Out(TimeStamp)
        TS.Recent of a connection: two cycles after its id, from flip-flops behind a multiplexer.
    ts_now : In(32)
        The clock of timestamps, from a flip-flop.
    tick_us : In(TICK_US_BITS)
        Microseconds of a tick, for congestion control.
    tick : In(1), parameters : In(Parameters), invalid_ticks : In(16)
        See Pipeline and AckLimit.
    may_challenge : In(1), challenged : Out(1)
        There is a token for an ACK of a segment that is not taken; pulse: one goes.
    segments_issued : Out(8)
    ready : Out(1)
        Tables cleared after reset.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "segment": In(stream.Signature(rx_segment(cfg))),
                "verdict": Out(stream.Signature(rx_verdict(cfg))),
                "sack_block": In(stream.Signature(rx_sack(cfg))),
                "doorbell": In(stream.Signature(doorbell(cfg))),
                "request": In(stream.Signature(flow_request(cfg))).array(2),
                "response": Out(stream.Signature(FlowResponse)).array(2),
                "tcb_page": Out(64),
                "report_request": In(stream.Signature(cfg.id_bits)),
                "report": Out(stream.Signature(connection_report(cfg))),
                "notify": Out(valid_only(cfg.id_bits)),
                "tx": Out(stream.Signature(tx_segment(cfg))),
                "sack_id": In(cfg.id_bits),
                "sack": Out(sack_list(cfg)),
                "stamp_id": In(cfg.id_bits),
                "stamp": Out(TimeStamp),
                "tick": In(1),
                "ts_now": In(32),
                "tick_us": In(TICK_US_BITS, init=1000),
                "parameters": In(Parameters),
                "invalid_ticks": In(16),
                "may_challenge": In(1, init=1),
                "challenged": Out(1),
                "segments_issued": Out(8),
                "ready": Out(1),
                **{f"count_{counter.name.lower()}": Out(1) for counter in COUNTED},
            }
        )

    def elaborate(self, platform):
        m = Module()
        cfg = self._cfg
        connect, flipped = wiring.connect, wiring.flipped
        m.submodules.issue = issue = Issue(cfg)
        m.submodules.pipeline = pipeline = Pipeline(cfg)
        m.submodules.ack_limit = ack_limit = AckLimit(cfg)
        m.submodules.actions = actions = Actions(cfg)
        m.submodules.inquiries = inquiries = Inquiries(cfg)
        m.submodules.congestion = congestion = CongestionUnit(cfg)
        m.submodules.sweep = sweep = TimerSweep(cfg)
        # One place for every connection: an id stands in it at most once (tx_queued).
        m.submodules.turns = turns = fifo.SyncFIFOBuffered(width=cfg.id_bits, depth=cfg.connections)

        connect(m, flipped(self.segment), issue.segment)
        connect(m, flipped(self.sack_block), issue.sack)
        connect(m, flipped(self.doorbell), issue.doorbell)
        connect(m, flipped(self.request[0]), issue.command)
        connect(m, flipped(self.request[1]), issue.accept)
        connect(m, flipped(self.report_request), issue.report)
        connect(m, sweep.o, issue.timer)
        m.d.comb += [
            turns.w_en.eq(actions.push.valid),
            turns.w_data.eq(actions.push.payload),
            issue.ids.eq(pipeline.ids),
            issue.busy.eq(pipeline.busy),
            pipeline.forward.eq(issue.forward),
            pipeline.id.eq(issue.id),
            issue.tx_returned.eq(actions.tx_returned),
            issue.verdict_returned.eq(actions.verdict_returned),
            issue.report_returned.eq(inquiries.report_returned),
            self.ready.eq(pipeline.ready & sweep.ready),
            self.tcb_page.eq(inquiries.tcb_page),
            pipeline.sack_id.eq(self.sack_id),
            self.sack.eq(pipeline.sack),
            pipeline.stamp_id.eq(self.stamp_id),
            self.stamp.eq(pipeline.stamp),
            pipeline.ts_now.eq(self.ts_now),
            sweep.tick.eq(self.tick),
            pipeline.now.eq(sweep.now),
            congestion.now.eq(sweep.now),
            congestion.tick_us.eq(self.tick_us),
            congestion.id.eq(pipeline.steering_id),
            pipeline.steering.eq(congestion.steering),
            pipeline.parameters.eq(self.parameters),
            ack_limit.tick.eq(self.tick),
            ack_limit.interval.eq(self.invalid_ticks),
            ack_limit.id.eq(issue.id),
            pipeline.said.eq(ack_limit.said),
            pipeline.spent.eq(~self.may_challenge),
            self.challenged.eq(pipeline.challenged),
            self.segments_issued.eq(actions.segments_issued),
        ]
        if cfg.pacing:
            self._pace(m, pipeline.result, turns, issue)
        else:
            m.d.comb += [
                issue.output.valid.eq(turns.r_rdy),
                issue.output.payload.id.eq(turns.r_data),
                turns.r_en.eq(issue.output.ready),
            ]
        m.d.sync += issue.enable.eq(self.ready)
        connect(m, issue.o, pipeline.i)
        connect(m, pipeline.inquiry, inquiries.i)
        for step in LATER:
            connect(m, getattr(pipeline, f"inquiry_{step}"), getattr(inquiries, f"later_{step}"))
        connect(m, pipeline.arrival, actions.arrival)
        connect(m, pipeline.result, actions.i)
        connect(m, pipeline.says, ack_limit.write)
        connect(m, pipeline.news, congestion.news)
        connect(m, actions.timer, sweep.write)
        connect(m, actions.segment, flipped(self.tx))
        connect(m, actions.verdict, flipped(self.verdict))
        connect(m, inquiries.report, flipped(self.report))
        connect(m, actions.notify, flipped(self.notify))
        for port in range(2):
            connect(m, actions.response[port], flipped(self.response[port]))
        m.d.comb += [
            getattr(self, f"count_{counter.name.lower()}").eq(getattr(actions, f"count_{counter.name.lower()}"))
            for counter in COUNTED
        ]
        return m

    def _pace(self, m, result, turns, issue):
        """Turns go through ``Pacing``, which adds its own."""
        m.submodules.pacing = pacing = Pacing(self._cfg)
        found = {"length": "tx_length", "spacing": "still_spacing", "due": "is_due", "sets": "sets_rate"}
        m.d.comb += [
            pacing.i.valid.eq(result.valid & ~result.payload.is_report),
            *(
                pacing.i.payload[name].eq(result.payload[found.get(name, name)])
                for name in departure(self._cfg).members
            ),
            pacing.asked.valid.eq(issue.command.valid & issue.command.ready),
            pacing.asked.payload.eq(issue.command.payload.a),
            pacing.turn.valid.eq(turns.r_rdy),
            pacing.turn.payload.eq(turns.r_data),
            turns.r_en.eq(pacing.turn.ready),
        ]
        wiring.connect(m, pacing.o, issue.output)
