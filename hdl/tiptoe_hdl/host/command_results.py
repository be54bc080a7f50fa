"""COMMAND_DONE of commands and of frames, merged into one stream."""

from amaranth.hdl import Module, Mux
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..messages import CommandDone, Status
from ..wire.half_buffer import HalfBuffer
from ..wire.skid import SkidBuffer


class CommandResults(wiring.Component):
    """Results of commands go before those of frames.

    Members
    -------
    command : In(stream of CommandDone)
        Not ready while a result waits: the next command begins when it is gone.
    frame : In(stream of CommandDone)
    o : Out(stream of CommandDone)
    count_bad_command : Out(1)
        Pulse: a result other than OK goes out.
    """

    def __init__(self):
        results = stream.Signature(CommandDone)
        super().__init__(
            {
                "command": In(results),
                "frame": In(results),
                "o": Out(results),
                "count_bad_command": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.waiting = waiting = HalfBuffer(CommandDone)
        m.submodules.results = results = SkidBuffer(CommandDone)
        wiring.connect(m, wiring.flipped(self.command), waiting.i)
        m.d.comb += [
            results.i.valid.eq(waiting.o.valid | self.frame.valid),
            results.i.payload.eq(Mux(waiting.o.valid, waiting.o.payload, self.frame.payload)),
            waiting.o.ready.eq(results.i.ready),
            self.frame.ready.eq(results.i.ready & ~waiting.o.valid),
            self.count_bad_command.eq(self.o.valid & self.o.ready & (self.o.p.status != Status.OK)),
        ]
        wiring.connect(m, results.o, wiring.flipped(self.o))
        return m
