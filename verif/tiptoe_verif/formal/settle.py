"""RELEASE waits for what was issued before it: the wait ends in time, whatever passes meanwhile, and not before.

The proof is of the command processor's steps as they are (``host/command_execute.py``), with any commands, plans, answers
and aborts, and any pace of received frames and segments.
"""

from typing import Any

from amaranth.hdl import Assert, Assume, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tiptoe_hdl.config import TINY
from tiptoe_hdl.host.command_execute import CommandExecution
from tiptoe_hdl.host.in_flight import COUNT_BITS, InFlight

from .join import elaborated, join

WAIT_CYCLES = 3
"""So many cycles RELEASE waits at most when there is nothing left to wait for."""

SMALL_BITS = 4

KINDS = ("arrivals", "segments")


class Compared(wiring.Component):
    """A fault to be found: what it was before, a comparison of the counts as signed numbers. Ports of ``InFlight``.

    Of the counts it looks at four bits, so that the search need not go on for hundreds of cycles before they turn round.
    """

    def __init__(self) -> None:
        super().__init__({
            "note": In(1), "issued": In(SMALL_BITS), "done": In(SMALL_BITS), "none": Out(1), "left": Out(SMALL_BITS),
        })  # fmt: skip

    def elaborate(self, platform: Any) -> Module:
        """The module."""
        m = Module()
        noted = Signal(SMALL_BITS)
        with m.If(self.note):
            m.d.sync += noted.eq(self.issued)
        m.d.comb += self.left.eq(noted - self.done)
        m.d.sync += self.none.eq(~self.note & (self.left.as_signed() <= 0))
        return m


class SettleProof(wiring.Component):
    """The steps of commands, and what has to hold of RELEASE's wait.

    ``in_flight`` as for CommandExecution; of another one than InFlight the invariants that the induction needs are not
    asked for. All inputs are free. As many are under way at once as counts of that width can tell when they are signed.
    """

    def __init__(self, in_flight: type = InFlight) -> None:
        self._invariants = in_flight is InFlight
        self.execution = CommandExecution(TINY, in_flight)
        members = dict(self.execution.signature.members)
        ports = {name: member for name, member in members.items() if name.rpartition("_")[0] not in KINDS}
        super().__init__(ports | {f"{kind}_{event}": In(1) for kind in KINDS for event in ("issue", "finish")})

    def elaborate(self, platform: Any) -> Module:
        """The module."""
        m = Module()
        execution = elaborated(m, "execution", self.execution, platform)
        join(m, self, execution)
        at, settling, aborting = execution.at, execution.settling, execution.aborting
        # From the pipeline's answer to the report, the service of aborts included.
        waits = Signal()
        m.d.comb += waits.eq(at["Settle"] | (settling & aborting))
        m.d.comb += [
            Assert(~settling | at["Settle"] | (aborting & (at["Flow"] | at["Broken"]))),
            Assert(~aborting | at["Idle"] | at["Flow"] | at["Broken"] | at["Settle"]),
        ]

        nothing_left = Signal(init=1)
        m.d.comb += nothing_left.eq(1)
        for kind in KINDS:
            left = self._count(m, kind, waits)
            with m.If(left != 0):
                m.d.comb += nothing_left.eq(0)

        # In time: cycles with nothing left to wait for, but for the service of aborts.
        in_vain = Signal(range(WAIT_CYCLES + 1))
        with m.If(~waits):
            m.d.sync += in_vain.eq(0)
        with m.Elif(at["Settle"] & nothing_left & (in_vain != WAIT_CYCLES)):
            m.d.sync += in_vain.eq(in_vain + 1)
        m.d.comb += [Assert(~waits | (in_vain < WAIT_CYCLES)), Assert(~waits | (in_vain == 0) | nothing_left)]

        # Not before: what was left when the wait ended.
        waited = Signal()
        m.d.sync += waited.eq(at["Settle"])
        m.d.comb += Assert(~waited | waits | nothing_left)
        return m

    def _count(self, m: Module, kind: str, waits: Signal) -> Signal:
        """Received frames or segments at any pace; returns how many of those before the wait are not done."""
        most = 2 ** (len(getattr(self.execution, kind).issued) - 1) - 1
        issue, finish = getattr(self, f"{kind}_issue"), getattr(self, f"{kind}_finish")
        issued, done = Signal(COUNT_BITS, name=f"{kind}_issued"), Signal(COUNT_BITS, name=f"{kind}_done")
        under_way, left = Signal(COUNT_BITS, name=f"{kind}_under_way"), Signal(COUNT_BITS, name=f"{kind}_left")
        m.d.comb += [
            under_way.eq(issued - done),
            Assume(~issue | (under_way < most)),
            Assume(~finish | (under_way != 0)),
            getattr(self.execution, f"{kind}_issued").eq(issued),
            getattr(self.execution, f"{kind}_done").eq(done),
            Assert(under_way <= most),
        ]
        m.d.sync += [issued.eq(issued + issue), done.eq(done + finish)]
        with m.If(~waits):
            m.d.sync += left.eq(under_way - finish)
        with m.Elif(finish & (left != 0)):
            m.d.sync += left.eq(left - 1)
        if self._invariants:
            finished = Signal(name=f"{kind}_finished")
            m.d.sync += finished.eq(finish)
            theirs = getattr(self.execution, kind).left
            with m.If(waits):
                m.d.comb += Assert(left == theirs - (finished & (theirs != 0)))
        return left
