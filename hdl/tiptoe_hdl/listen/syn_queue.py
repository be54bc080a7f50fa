"""SYNs that wait for the listen unit."""

from amaranth.hdl import Module, Signal, Value
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from .handshake import syn_request

LEAST = 16


class SynQueue(wiring.Component):
    """As many as there are entries in the syncache: a burst that they have room for is served, however fast it comes. Only
    SYNs that come again, or return a cookie, can find it full.

    Timing: three cycles from ``i`` to ``o``, which comes from flip-flops; a transfer of ``o`` every other cycle.

    Ports
    -----
    i, o : stream of syn_request
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        self.depth = max(LEAST, cfg.syncache_entries)
        super().__init__({"i": In(stream.Signature(syn_request(cfg))), "o": Out(stream.Signature(syn_request(cfg)))})

    def elaborate(self, platform):
        m = Module()
        shape = syn_request(self._cfg)
        m.submodules.fifo = queue = fifo.SyncFIFOBuffered(width=shape.size, depth=self.depth)
        payload = Signal(shape, reset_less=True)  # valid tells whether it counts
        m.d.comb += [
            queue.w_data.eq(self.i.payload),
            queue.w_en.eq(self.i.valid),
            self.i.ready.eq(queue.w_rdy),
            queue.r_en.eq(~self.o.valid),
            self.o.payload.eq(payload),
        ]
        with m.If(~self.o.valid):
            m.d.sync += [Value.cast(payload).eq(queue.r_data), self.o.valid.eq(queue.r_rdy)]
        with m.Elif(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        return m
