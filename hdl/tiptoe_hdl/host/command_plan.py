"""What is known of a command before its first step: whether it may be carried out, and what it begins with."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from ..messages import FlowOp, Status
from .abi import ALWAYS_DONE, Opcode
from .command_check import CHECK_CYCLES
from .command_ids import KnownId

PLAN_CYCLES = CHECK_CYCLES + 1
"""From the command to its plan."""

FLOW_COMMANDS = {
    Opcode.PROVISION: FlowOp.PROVISION,
    Opcode.OPEN: FlowOp.OPEN,
    Opcode.CLOSE: FlowOp.CLOSE,
    Opcode.ABORT: FlowOp.ABORT,
    Opcode.RELEASE: FlowOp.RELEASE,
    Opcode.PATH_MTU: FlowOp.PATH_MTU,
    Opcode.READ_TCB: FlowOp.READ,
    Opcode.SET_CONGESTION: FlowOp.CONGESTION,
    Opcode.KEEPALIVE: FlowOp.KEEPALIVE,
    Opcode.URGENT: FlowOp.URGENT,
    Opcode.SET_CWND: FlowOp.CWND,
    Opcode.SET_PACING: FlowOp.PACING,
}


class First(enum.Enum, shape=4):
    """What a command begins with."""

    NOTHING = 0
    FLOW = 1
    ISN = 2
    TABLE = 3
    LISTEN = 4
    DROP = 5
    NEXT_HOP = 6
    FRAME = 7
    IP_HEADER = 8


FIRST = {
    Opcode.PROVISION: First.FLOW,
    Opcode.OPEN: First.ISN,
    Opcode.CLOSE: First.FLOW,
    Opcode.ABORT: First.FLOW,
    Opcode.RELEASE: First.TABLE,
    Opcode.LISTEN: First.LISTEN,
    Opcode.UNLISTEN: First.LISTEN,
    Opcode.SYNCACHE_DROP: First.DROP,
    Opcode.NEXT_HOP: First.NEXT_HOP,
    Opcode.PATH_MTU: First.FLOW,
    Opcode.SEND_FRAME: First.FRAME,
    Opcode.READ_TCB: First.FLOW,
    Opcode.SET_IP_HEADER: First.IP_HEADER,
    Opcode.SET_CONGESTION: First.FLOW,
    Opcode.KEEPALIVE: First.FLOW,
    Opcode.URGENT: First.FLOW,
    Opcode.SET_CWND: First.FLOW,
    Opcode.SET_PACING: First.FLOW,
}

Command = data.StructLayout({"opcode": Opcode, "failed": 1, "generation": 8, "stock": 1})
"""Of a command, what decides about its steps; ``failed``: it could not be read."""

Plan = data.StructLayout(
    {
        "judgement": Status,  # OK: it may be carried out
        "first": First,
        "op": FlowOp,  # what the pipeline is asked for
        "provisions": 1,
        "opens": 1,
        "releases": 1,
        "reads": 1,
        "names_owner": 1,  # the id's generation is judged here, not by the pipeline
        "binds": 1,  # changes the connection table before it asks the pipeline
        "always_done": 1,  # COMMAND_DONE answers it in any case
    }
)


class CommandPlan(wiring.Component):
    """Decides, ahead of the steps, all that they depend on. Every output comes from a flip-flop.

    Members
    -------
    command : In(Command)
        Stays unchanged for PLAN_CYCLES.
    checked : In(Status)
        Of CommandCheck, CHECK_CYCLES after ``command``.
    known : In(KnownId)
        Two cycles after ``command``.
    plan : Out(Plan)
    """

    def __init__(self):
        super().__init__({"command": In(Command), "checked": In(Status), "known": In(KnownId), "plan": Out(Plan)})

    def elaborate(self, platform):
        m = Module()
        command, known, plan = self.command, self.known, self.plan
        opcode = Signal(Opcode)
        openable, other_generation = Signal(), Signal()
        m.d.sync += [
            opcode.eq(command.opcode),
            plan.provisions.eq(opcode == Opcode.PROVISION),
            plan.opens.eq(opcode == Opcode.OPEN),
            plan.releases.eq(opcode == Opcode.RELEASE),
            plan.reads.eq(opcode == Opcode.READ_TCB),
            plan.names_owner.eq(
                (opcode == Opcode.OPEN) | (opcode == Opcode.RELEASE) | (opcode == Opcode.SET_IP_HEADER)
            ),
            plan.binds.eq((opcode == Opcode.OPEN) | ((opcode == Opcode.RELEASE) & ~known.unbound)),
            plan.first.eq(First.NOTHING),
            plan.always_done.eq(0),
            openable.eq(known.openable),
            other_generation.eq(known.generation != command.generation),
        ]
        with m.Switch(opcode):
            for code, first in FIRST.items():
                with m.Case(code):
                    m.d.sync += plan.first.eq(first)
                    if code in FLOW_COMMANDS:
                        m.d.sync += plan.op.eq(FLOW_COMMANDS[code])
                    if code == Opcode.RELEASE:
                        with m.If(known.unbound):
                            m.d.sync += plan.first.eq(First.FLOW)
        with m.Switch(opcode):
            with m.Case(*ALWAYS_DONE):
                m.d.sync += plan.always_done.eq(1)

        m.d.sync += plan.judgement.eq(self.checked)
        with m.If(command.failed):
            m.d.sync += plan.judgement.eq(Status.DMA_ERROR)
        with m.Elif(self.checked == Status.OK):
            with m.If(plan.opens & ~openable):
                m.d.sync += plan.judgement.eq(Status.BAD_STATE)
            with m.Elif(plan.names_owner & other_generation):
                m.d.sync += plan.judgement.eq(Status.BAD_GENERATION)
        return m
