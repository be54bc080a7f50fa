"""The bound of the control queue (``tx/control_queue.py``): whoever begins an answer while there is room finds the queue ready,
and has it taken within a few cycles, however long the line stands still.

The makers of answers are as free as they can be within what the engine's keep to; the merges between them and the queue
are the engine's own (``engine.py``, ``listen/cookies.py``).
"""

from typing import Any

from amaranth.hdl import Assert, Assume, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In

from tiptoe_hdl.listen.cookies import MAKERS
from tiptoe_hdl.messages import TxControl
from tiptoe_hdl.tx.control_queue import ROOM, ControlQueue
from tiptoe_hdl.wire.half_buffer import HalfBuffer
from tiptoe_hdl.wire.stream_merge import StreamMerge

from .join import elaborated

BOUND = ROOM + 5
"""So many are inside at most."""
DISPATCHER_WAITS, LISTEN_WAITS, COOKIE_WAITS = 3, 5, 8
"""Cycles in which an answer is offered and not taken."""
DISPATCHER_GAP, LISTEN_GAP, COOKIE_GAP = 3, 1, 22
"""Cycles from an answer's leaving to the next look at the room: "Reset" to "Nobody", "SynAck" to what ``syn_ready`` comes from,
"Send" to "Number"."""


class Maker:
    """Makes an answer at a time: begins while there is room, offers it (at once, if ``prompt``), and rests when it is taken."""

    def __init__(self, m: Module, name: str, *, gap: int, room: Any, may: Any, offers: Any, prompt: bool) -> None:
        rest, making, waiting = (
            Signal(range(gap + 1), name=f"{name}_rest"), Signal(name=f"{name}_making"), Signal(name=f"{name}_waiting"),
        )  # fmt: skip
        self.port = stream.Signature(TxControl).create(path=(name,))
        self.making = making
        self.waits = Signal(4, name=f"{name}_waits")
        gone = self.port.valid & self.port.ready
        m.d.comb += self.port.valid.eq(making & (waiting | prompt | offers))
        m.d.sync += waiting.eq(self.port.valid & ~self.port.ready)
        m.d.sync += self.waits.eq(Mux(self.port.valid & ~self.port.ready, self.waits + (self.waits != 15), 0))
        with m.If(gone):
            m.d.sync += [making.eq(0), rest.eq(gap - 1)]
        with m.Elif(rest.any()):
            m.d.sync += rest.eq(rest - 1)
        with m.Elif(~making & room & may):
            m.d.sync += making.eq(1)
        m.d.comb += [Assert(making | ~waiting), Assert(~making | ~rest.any()), Assert(rest < gap)]


class ControlsProof(wiring.Component):
    """Dispatcher, listen unit and the makers of cookies before the queue.

    ``looks``: the listen unit looks at the room before it begins. If not, there is a fault to be found; what the induction needs
    is not asked for then.
    """

    def __init__(self, looks: bool = True) -> None:
        self._looks = looks
        many = 2 + MAKERS
        super().__init__({"taken": In(1), "may": In(many), "offers": In(many)})

    def elaborate(self, platform: Any) -> Module:
        """The module."""
        m = Module()
        control: Any = elaborated(m, "control", ControlQueue(), platform)
        queue, entry = control.queue, control.entry
        inner = queue.elaborate(platform)
        queue.elaborate = lambda platform: inner  # its counts can be seen
        listen_room = control.room if self._looks else Const(1)
        kinds = [
            ("dispatcher", DISPATCHER_GAP, control.room_for_resets, True),
            ("listen", LISTEN_GAP, listen_room, False),
        ]
        kinds += [(f"cookie{n}", COOKIE_GAP, control.room, True) for n in range(MAKERS)]
        makers = [
            Maker(m, name, gap=gap, room=room, may=self.may[n], offers=self.offers[n], prompt=prompt)
            for n, (name, gap, room, prompt) in enumerate(kinds)
        ]
        cookies = elaborated(m, "cookies", StreamMerge(TxControl, MAKERS), platform)
        controls = elaborated(m, "controls", StreamMerge(TxControl, 3), platform)
        for n, maker in enumerate(makers):
            wiring.connect(m, maker.port, controls.i[n] if n < 2 else cookies.i[n - 2])
        made = elaborated(m, "cookie_made", HalfBuffer(TxControl), platform)
        wiring.connect(m, cookies.o, made.i)
        wiring.connect(m, made.o, controls.i[2])
        wiring.connect(m, controls.o, control.i)
        m.d.comb += control.o.ready.eq(self.taken)

        m.d.comb += [
            Assert(control.inside <= BOUND), Assert(~queue.i.valid | queue.i.ready),
            Assert(makers[0].waits <= DISPATCHER_WAITS), Assert(makers[1].waits <= LISTEN_WAITS),
            *(Assert(maker.waits <= COOKIE_WAITS) for maker in makers[2:]),
        ]  # fmt: skip
        if self._looks:
            in_memory = (queue.written - queue.taken)[: len(queue.taken)]
            m.d.comb += [
                Assert(control.inside == in_memory + control.o.valid),
                Assert(queue.following == (queue.written + 1)[: len(queue.taken)]),
                Assert(cookies.turn < MAKERS), Assert(controls.turn < 3),
                # A look at the room does not know of the last transfer.
                Assert(
                    control.inside + entry.o.valid + made.o.valid + sum((maker.making for maker in makers), Const(0)) <= BOUND
                ),
            ]  # fmt: skip
        else:
            # The line stands still, and everybody is as quick as can be: the search is short.
            m.d.comb += [Assume(~self.taken), Assume(self.may.all()), Assume(self.offers.all())]
        return m
