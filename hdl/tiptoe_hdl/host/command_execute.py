"""The order of things within a command: what is asked of which block, and what follows from the answers."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import FlowOp, Status
from ..wire.valid_only import valid_only
from .command_ids import KnownId
from .command_plan import PLAN_CYCLES, Command, First, Plan
from .in_flight import COUNT_BITS, InFlight

REQUESTS = ("isn_request", "table", "endpoint", "flow", "broken", "stock", "listen", "drop", "frame")
"""Ports of the command processor at which it asks other blocks for something."""


class CommandExecution(wiring.Component):
    """Takes one command after the other through its steps; serves ``abort`` between them, and where a command waits for
    what may not come before the abort is served: placement stands still while it waits to tell of one.

    Timing: a command's first step begins seven cycles after the command; each step takes two cycles besides the waiting
    for its answer.

    Parameters
    ----------
    cfg : EngineConfig
    in_flight : class
        Waits for what is under way: InFlight, but for the proof that finds another one wanting.

    Members
    -------
    enable : In(1)
        Needed for ``abort``.
    command : In(stream of Command)
        Taken when it is done.
    plan : In(Plan)
        Of CommandPlan, PLAN_CYCLES after ``command``.
    note : Out(valid-only KnownId)
    abort : In(stream of id)
    ask : Out(struct of a bit for each of REQUESTS)
        One cycle, one at a time: the request is to be made.
    answer : In(valid-only Status)
        The request was answered, or taken if it has no answer.
    op : Out(FlowOp)
        For ``flow``: what is asked for.
    insert : Out(1)
        For ``table``: insert, not delete.
    aborting : Out(1)
        The request is made for ``abort``, not for the command.
    provisioned : Out(1), next_hop : Out(1), ip_header : Out(1)
        Pulses: rings and placed position, or the next hop, or fields of the IP header are to be set.
    frame_room : In(1)
        A frame may begin; stays until one begins.
    arrivals_issued, arrivals_done, segments_issued, segments_done : In(8)
        See CommandProcessor and InFlight.
    status : Out(Status), report : Out(1), reportable : In(1)
        ``report`` is a pulse: COMMAND_DONE with ``status`` is to be given out. No command begins while not ``reportable``.
    """

    def __init__(self, cfg: EngineConfig, in_flight=InFlight):
        super().__init__(
            {
                "enable": In(1),
                "command": In(stream.Signature(Command)),
                "plan": In(Plan),
                "note": Out(valid_only(KnownId)),
                "abort": In(stream.Signature(data.StructLayout({"id": cfg.id_bits}))),
                "ask": Out(data.StructLayout(dict.fromkeys(REQUESTS, 1))),
                "answer": In(valid_only(Status)),
                "op": Out(FlowOp),
                "insert": Out(1),
                "aborting": Out(1),
                "provisioned": Out(1),
                "next_hop": Out(1),
                "ip_header": Out(1),
                "frame_room": In(1),
                "arrivals_issued": In(COUNT_BITS),
                "arrivals_done": In(COUNT_BITS),
                "segments_issued": In(COUNT_BITS),
                "segments_done": In(COUNT_BITS),
                "status": Out(Status),
                "report": Out(1),
                "reportable": In(1),
            }
        )
        self.arrivals, self.segments = in_flight(), in_flight()
        self.settling = Signal()  # a RELEASE waits: after an abort it goes on waiting

    def elaborate(self, platform):
        m = Module()
        self._settle(m)
        self._steps(m)
        return m

    def _settle(self, m):
        """Whether all that was under way at the pipeline's answer is done: each of the two stays done once it is."""
        m.submodules.arrivals = arrivals = self.arrivals
        m.submodules.segments = segments = self.segments
        self._note, self._settled = Signal(), Signal()
        m.d.comb += [
            arrivals.note.eq(self._note),
            arrivals.issued.eq(self.arrivals_issued),
            arrivals.done.eq(self.arrivals_done),
            segments.note.eq(self._note),
            segments.issued.eq(self.segments_issued),
            segments.done.eq(self.segments_done),
            self._settled.eq(arrivals.none & segments.none),
        ]

    def _steps(self, m):
        """One state for each request, left with its answer."""
        answer, plan, status = self.answer, self.plan, self.status
        undoing = Signal()  # the pipeline refused: the connection table gets back what it had
        unbinding = Signal()  # that failed: the connection can't be found any more, so it ends
        failed = answer.payload != Status.OK
        timer = Signal(range(PLAN_CYCLES))
        refused = Signal()
        asked = Signal()  # the request of this state is made
        m.d.sync += asked.eq(0)
        m.d.comb += [
            self.op.eq(Mux(self.aborting, FlowOp.DMA_ABORT, Mux(unbinding, FlowOp.ABORT, plan.op))),
            self.insert.eq(plan.opens ^ undoing),
            self.note.payload.generation.eq(self.command.p.generation),
        ]
        # The status of a change undone, or of an end made on the way, is the one that led there.
        with m.If(answer.valid & ~undoing & ~self.aborting):
            m.d.sync += status.eq(answer.payload)

        def ask(name):
            m.d.comb += self.ask[name].eq(~asked)
            m.d.sync += asked.eq(~answer.valid)

        def step(state, request, following):
            with m.State(state):
                ask(request)
                with m.If(answer.valid):
                    m.next = following

        def note(openable=0, unbound=0):
            """What PROVISION, OPEN and RELEASE leave in the memory of ids, besides the generation."""
            m.d.comb += [
                self.note.valid.eq(1),
                self.note.payload.openable.eq(openable),
                self.note.payload.unbound.eq(unbound),
            ]

        def serve_abort():
            """If there is one; m.Elif may follow."""
            m.d.comb += self.abort.ready.eq(self.enable)
            with m.If(self.abort.valid & self.enable):
                m.d.sync += self.aborting.eq(1)
                m.next = "Flow"

        with m.FSM() as fsm:
            self.at = {state: fsm.ongoing(state) for state in ("Idle", "Flow", "Broken", "Settle")}
            with m.State("Idle"):
                m.d.sync += [
                    timer.eq(PLAN_CYCLES - 1),
                    self.aborting.eq(0),
                    undoing.eq(0),
                    unbinding.eq(0),
                ]
                serve_abort()
                with m.Elif(self.command.valid & self.reportable):
                    m.next = "Check"
            with m.State("Check"):
                m.d.sync += [
                    timer.eq(timer - 1),
                    status.eq(plan.judgement),
                    refused.eq(plan.judgement != Status.OK),
                ]
                with m.If(timer == 0):
                    m.next = "Begin"
            with m.State("Begin"):
                with m.Switch(Mux(refused, First.NOTHING, plan.first)):
                    for first in (First.ISN, First.TABLE, First.FLOW, First.LISTEN, First.DROP):
                        with m.Case(first):
                            m.next = first.name.capitalize()
                    with m.Case(First.FRAME):
                        with m.If(self.frame_room):
                            m.next = "Frame"
                        with m.Elif(self.abort.valid):  # room comes when the host reads: the command begins anew
                            m.next = "Idle"
                    with m.Case(First.NEXT_HOP):
                        m.d.comb += self.next_hop.eq(1)
                        m.next = "Report"
                    with m.Case(First.IP_HEADER):
                        m.d.comb += self.ip_header.eq(1)
                        m.next = "Report"
                    with m.Default():
                        m.next = "Report"

            # ---- OPEN: initial sequence number, connection table, endpoint; then the pipeline
            step("Isn", "isn_request", "Table")
            with m.State("Table"):  # of RELEASE too, and the change undone
                ask("table")
                with m.If(answer.valid):
                    with m.If(failed & undoing & plan.releases):
                        m.d.sync += unbinding.eq(1)
                        m.next = "Flow"
                    with m.Elif(failed | undoing):
                        m.next = "Report"
                    with m.Elif(plan.opens):
                        m.next = "Endpoint"
                    with m.Else():
                        m.next = "Flow"
            step("Endpoint", "endpoint", "Flow")

            # ---- the pipeline
            with m.State("Flow"):
                ask("flow")
                m.d.comb += self._note.eq(~self.aborting)
                with m.If(answer.valid):
                    with m.If(self.aborting):
                        m.next = "Broken"
                    with m.Elif(unbinding):
                        note(unbound=1)
                        m.next = "Report"
                    with m.Elif(failed & plan.binds):
                        m.d.sync += undoing.eq(1)
                        m.next = "Table"
                    with m.Elif(failed):
                        m.next = "Report"
                    with m.Elif(plan.provisions):
                        m.next = "Provision"
                    with m.Elif(plan.releases):
                        note()
                        m.next = "Settle"
                    with m.Else():
                        with m.If(plan.opens):
                            note()
                        m.next = "Report"
            with m.State("Broken"):
                ask("broken")
                with m.If(answer.valid):
                    with m.If(self.settling):
                        m.next = "Settle"
                    with m.Else():
                        m.next = "Idle"
            with m.State("Provision"):
                stock = self.command.p.stock
                note(openable=~stock, unbound=~stock)
                m.d.comb += self.provisioned.eq(1)
                with m.If(stock):
                    m.next = "Stock"
                with m.Else():
                    m.next = "Report"
            step("Stock", "stock", "Report")
            with m.State("Settle"):
                m.d.sync += [self.settling.eq(~self._settled), self.aborting.eq(0)]
                with m.If(self._settled):
                    m.next = "Report"
                with m.Else():  # a received frame may be waiting for it
                    serve_abort()

            # ---- the rest
            step("Listen", "listen", "Report")
            step("Drop", "drop", "Report")
            step("Frame", "frame", "Finish")  # the frame's end is reported, not its beginning
            with m.State("Report"):
                m.d.comb += self.report.eq(plan.always_done | (status != Status.OK))
                m.next = "Finish"
            with m.State("Finish"):
                m.d.comb += self.command.ready.eq(1)
                m.next = "Idle"
