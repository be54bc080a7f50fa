"""SEND_FRAME commands under way: their tags wait for the transmit path's word that memory was read."""

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..messages import CommandDone, FlowResponse, Status
from ..wire.queue import Queue
from .abi import Opcode

OUTSTANDING = 8
"""Frames between SEND_FRAME and its COMMAND_DONE."""


class SendFrames(wiring.Component):
    """Gives each finished frame its tag, in order.

    ``frame_done`` is never held up: results wait here until the event writer takes them, and no more frames begin
    than results have room.

    Members
    -------
    begin : In(stream of 16 bits)
        Tag of a frame handed to the transmit path in the same cycle.
    frame_done : In(stream of FlowResponse)
    done : Out(stream of CommandDone)
    """

    def __init__(self):
        super().__init__(
            {
                "begin": In(stream.Signature(unsigned(16))),
                "frame_done": In(stream.Signature(FlowResponse)),
                "done": Out(stream.Signature(CommandDone)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.tags = tags = Queue(unsigned(16), OUTSTANDING)
        m.submodules.results = results = Queue(Status, OUTSTANDING)
        begun = Signal(range(OUTSTANDING + 1))
        begin, done = self.begin.valid & self.begin.ready, self.done.valid & self.done.ready
        m.d.sync += begun.eq(begun + begin - done)
        m.d.comb += [
            self.begin.ready.eq(begun != OUTSTANDING),  # so both queues have room
            tags.i.valid.eq(begin),
            tags.i.payload.eq(self.begin.payload),
            results.i.valid.eq(self.frame_done.valid),
            results.i.payload.eq(self.frame_done.p.status),
            self.frame_done.ready.eq(results.i.ready),
            self.done.valid.eq(tags.o.valid & results.o.valid),
            self.done.p.opcode.eq(Opcode.SEND_FRAME),
            self.done.p.status.eq(results.o.payload),
            self.done.p.tag.eq(tags.o.payload),
            tags.o.ready.eq(done),
            results.o.ready.eq(done),
        ]
        return m
