"""Connection doorbells: register writes at 0x80000 + id * 8 become messages to the flow pipeline."""

from amaranth.hdl import Cat, Const, Module, ResetInserter
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import ErrorEvent, doorbell
from ..wire.queue import Queue
from ..wire.skid import SkidBuffer
from ..wire.valid_only import valid_only
from .abi import ErrorCode

DOORBELL_QUEUE = 8
"""Doorbells that wait for the pipeline before AXI writes stall."""

Write = data.StructLayout({"word": 17, "data": 32, "full": 1})
"""A write into the doorbell half of the register space: ``word`` = id * 2 + which."""


class Doorbells(wiring.Component):
    """Checks the id of each doorbell and queues the good ones.

    A write of less than a full word or for an id the engine does not have is refused, counted and told by an
    error event (argument: the byte address in the register space). One doorbell a cycle, latency three cycles.

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    i : In(stream of Write)
    accepted : Out(1)
        Combinational from ``i.payload``: the doorbell is a good one.
    o : Out(stream of doorbell(cfg))
    error : Out(valid-only ErrorEvent)
    count_bad_doorbell : Out(1)
    clear : In(1)
        Empties the queue; what is taken in its first cycle is lost too.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "i": In(stream.Signature(Write)),
                "accepted": Out(1),
                "o": Out(stream.Signature(doorbell(cfg))),
                "error": Out(valid_only(ErrorEvent)),
                "count_bad_doorbell": Out(1),
                "clear": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # In front of the queue, so that the bus side's ready is a flip-flop.
        skid = SkidBuffer(doorbell(self._cfg))
        queue = Queue(doorbell(self._cfg), DOORBELL_QUEUE)
        m.submodules.skid = ResetInserter(self.clear)(skid)
        m.submodules.queue = ResetInserter(self.clear)(queue)
        wiring.connect(m, skid.o, queue.i)
        id_bits = self._cfg.id_bits
        known = ~self.i.p.word[1 + id_bits :].any() if id_bits < 16 else Const(1)
        m.d.comb += [
            self.accepted.eq(self.i.p.full & known),
            skid.i.valid.eq(self.i.valid & self.accepted),
            skid.i.p.id.eq(self.i.p.word[1 : 1 + id_bits]),
            skid.i.p.which.eq(self.i.p.word[0]),
            skid.i.p.position.eq(self.i.p.data),
            # Refused writes wait for room too: whether one is taken does not depend on what it is.
            self.i.ready.eq(skid.i.ready),
            self.o.valid.eq(queue.o.valid),
            self.o.payload.eq(queue.o.payload),
            queue.o.ready.eq(self.o.ready),
            self.count_bad_doorbell.eq(self.error.valid),
        ]
        m.d.sync += [
            self.error.valid.eq(self.i.valid & self.i.ready & ~self.accepted),
            self.error.payload.code.eq(ErrorCode.BAD_DOORBELL),
            self.error.payload.argument.eq(Cat(Const(0, 2), self.i.p.word, Const(1, 1))),
        ]
        return m
