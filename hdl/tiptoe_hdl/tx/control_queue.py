"""Segments without a connection that wait for the line: SYN,ACKs, resets, challenge ACKs."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..messages import TxControl
from ..wire.queue import HalfQueue
from ..wire.stage import Stage

DEPTH = 16
ROOM = 10
"""Up to here a job of the listen unit may begin; until it has something to say, the dispatcher has added one reset at most."""
ROOM_FOR_RESETS = 8
"""A flood of segments of nobody leaves room for SYN,ACKs."""


class ControlQueue(wiring.Component):
    """A queue, and whether there is room in it: so the blocks before it never wait for the line, but leave an answer out.

    Invariant: what whoever begins to make while ``room``, or ``room_for_resets``, has its place, if listen unit, dispatcher
    and the three makers of cookies make one each at a time: at most ROOM + 5 are inside (proven, docs/waits.md). That counts
    on the cycles from an answer's leaving to the next look at the room: 1, of the dispatcher 3, of a maker of cookies 22. So
    ``i.ready`` is always 1.

    Timing: ``room`` follows ``i`` in three cycles, ``o`` in two. ``o`` comes three cycles behind ``i``.

    Parameters
    ----------
    shape
        ``tx_control(cfg)``.

    Ports
    -----
    i, o : stream of ``shape``
    room, room_for_resets : Out(1)
    """

    def __init__(self, shape=TxControl):
        self._shape = shape
        super().__init__({
            "i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape)),
            "room": Out(1), "room_for_resets": Out(1),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = self.queue = queue = HalfQueue(self._shape, DEPTH)  # for the proof, as ``inside``
        m.submodules.entry = self.entry = entry = Stage(self._shape)  # its makers stand far apart
        m.d.comb += [
            self.i.ready.eq(1), entry.i.valid.eq(self.i.valid), entry.i.payload.eq(self.i.payload),
            queue.i.valid.eq(entry.o.valid), queue.i.payload.eq(entry.o.payload),
        ]  # fmt: skip
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        self.inside = inside = Signal(range(DEPTH + 2))
        m.d.sync += [
            inside.eq(inside + entry.o.valid - (self.o.valid & self.o.ready)),
            self.room.eq(inside < ROOM),
            self.room_for_resets.eq(inside < ROOM_FOR_RESETS),
        ]
        return m
