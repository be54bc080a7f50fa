"""Segments without a connection that wait for the line: SYN,ACKs, resets, challenge ACKs."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..messages import TxControl
from ..wire.queue import HalfQueue

DEPTH = 16
ROOM = 11
"""Up to here a job of the listen unit may begin; until it has something to say, the dispatcher has added one reset at most."""
ROOM_FOR_RESETS = 8
"""A flood of segments of nobody leaves room for SYN,ACKs."""


class ControlQueue(wiring.Component):
    """A queue, and whether there is room in it: so the blocks before it never wait for the line, but leave an answer out.

    Invariant: whoever begins to make a segment while ``room``, or ``room_for_resets``, finds ``i.ready``, if listen unit,
    dispatcher and the three makers of cookies make one each at a time: at most ROOM + 4 are inside (proven, docs/waits.md). That
    counts on the cycles from an answer's leaving to the next look at the room: 1, of the dispatcher 3, of a maker of cookies 22.

    Timing: ``room`` follows ``i`` and ``o`` in two cycles.

    Ports
    -----
    i, o : stream of TxControl
    room, room_for_resets : Out(1)
    """

    def __init__(self):
        super().__init__({
            "i": In(stream.Signature(TxControl)), "o": Out(stream.Signature(TxControl)),
            "room": Out(1), "room_for_resets": Out(1),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = self.queue = queue = HalfQueue(TxControl, DEPTH)  # for the proof, as ``inside``
        wiring.connect(m, wiring.flipped(self.i), queue.i)
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        self.inside = inside = Signal(range(DEPTH + 2))
        m.d.sync += [
            inside.eq(inside + (self.i.valid & self.i.ready) - (self.o.valid & self.o.ready)),
            self.room.eq(inside < ROOM),
            self.room_for_resets.eq(inside < ROOM_FOR_RESETS),
        ]
        return m
