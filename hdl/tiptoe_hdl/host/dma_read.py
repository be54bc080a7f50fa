"""DMA reader: the engine's AXI4 read master (Arm IHI 0022H), shared by several clients."""

from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..config import EngineConfig
from ..messages import dma_read_data, dma_request
from ..wire.queue import Queue
from ..wire.skid import SkidBuffer
from . import axi
from .burst import BurstSplitter
from .request_arbiter import RequestArbiter, at_rest, client_bits


class DmaReader(wiring.Component):
    """Reads byte ranges of host memory for its clients: requests in, words in memory alignment out.

    Requests are taken round robin, split into bursts, and issued ahead of their data: up to
    ``max_outstanding`` bursts are in flight. Data comes back in the order of the requests and goes straight
    to its client: a client that is not ready holds up all others, so it must have room for a transfer before
    it asks. An AXI error marks the transfer (``error`` in its last word) and nothing else; all its words come.

    Timing: a request of one burst is taken every three cycles; its address is on the bus five cycles after
    the request; a word reaches its client one cycle after the bus; R runs without bubbles, across bursts and
    transfers. All AXI outputs come from flip-flops.

    Parameters
    ----------
    cfg : EngineConfig
    clients : int
        Number of clients.
    max_outstanding : int
        Bursts in flight (one more fits): a power of two, 2 to 64. 16 full-size segments cover far more than 1 us; for
        transfers of n words at a latency of t cycles, t / n are needed to keep the bus busy.

    Members
    -------
    request : In array of streams of ``dma_request``
    data : Out array of streams of ``dma_read_data``
    axi : Out ``Axi4ReadSignature``
    quiesce : In, 1 bit
        From the cycle after it rises no further request is taken.
    quiet : Out, 1 bit
        ``quiesce`` is high and all data has come: reset is safe for the bus.
    count_dma_read_error : Out, 1 bit
        High for one cycle for every transfer with an error.
    """

    def __init__(self, cfg: EngineConfig, clients: int = 1, max_outstanding: int = 16):
        if clients < 1:
            raise ValueError(f"clients must be at least 1, not {clients}")
        self._cfg, self._clients, self._max_outstanding = cfg, clients, max_outstanding
        super().__init__(
            {
                "request": In(stream.Signature(dma_request(cfg))).array(clients),
                "data": Out(stream.Signature(dma_read_data(cfg))).array(clients),
                "axi": Out(axi.Axi4ReadSignature(cfg.addr_width, cfg.data_width)),
                "quiesce": In(1),
                "quiet": Out(1),
                "count_dma_read_error": Out(1),
            }
        )

    def elaborate(self, platform):
        cfg, m = self._cfg, Module()
        bus = self.axi
        m.submodules.arbiter = arbiter = RequestArbiter(cfg, self._clients)
        m.submodules.splitter = splitter = BurstSplitter(cfg, self._clients)
        # Whose data comes next: one entry a burst.
        route = data.StructLayout({"client": client_bits(self._clients), "last": 1})
        m.submodules.routes = routes = Queue(route, self._max_outstanding)
        m.d.comb += arbiter.allow.eq(Mux(self.quiesce, 0, Const(-1, self._clients)))
        for mine, theirs in zip(self.request, arbiter.request, strict=True):
            wiring.connect(m, wiring.flipped(mine), theirs)
        wiring.connect(m, arbiter.o, splitter.i)

        # Address channel. Only this pushes routes, so room that is there stays until the handshake.
        burst = splitter.o
        m.d.comb += [
            bus.araddr.eq(burst.payload.addr),
            bus.arlen.eq(burst.payload.len),
            bus.arsize.eq(ceil_log2(cfg.bytes_per_beat)),
            bus.arburst.eq(axi.Burst.INCR),
            bus.arcache.eq(axi.READ_CACHE),
            bus.arprot.eq(axi.PROTECTION),
            bus.arvalid.eq(burst.valid & routes.i.ready),
            burst.ready.eq(bus.arready & routes.i.ready),
            routes.i.valid.eq(burst.valid & bus.arready),
            routes.i.payload.client.eq(burst.payload.client),
            routes.i.payload.last.eq(burst.payload.last),
        ]

        busy = arbiter.o.valid | ~splitter.i.ready | burst.valid | routes.o.valid
        m.d.comb += self.quiet.eq(at_rest(m, self.quiesce, busy))

        # Data channel: to the client of the route in front.
        word = data.StructLayout({"data": cfg.data_width, "error": 1, "last": 1})
        m.submodules.skid = skid = SkidBuffer(word)
        m.d.comb += [
            skid.i.payload.data.eq(bus.rdata),
            skid.i.payload.error.eq(axi.is_error(bus.rresp)),
            skid.i.payload.last.eq(bus.rlast),
            skid.i.valid.eq(bus.rvalid),
            bus.rready.eq(skid.i.ready),
        ]
        beat, head = skid.o, routes.o
        failed = Signal()  # an earlier beat of the transfer had an error
        error = Signal()
        taken = Signal()
        m.d.comb += [
            error.eq(failed | beat.payload.error),
            beat.ready.eq(taken),
            head.ready.eq(taken & beat.payload.last),
        ]
        for client, port in enumerate(self.data):
            mine = Signal(name=f"mine{client}")
            m.d.comb += [
                mine.eq(head.valid & (head.payload.client == client)),
                port.valid.eq(beat.valid & mine),
                port.payload.data.eq(beat.payload.data),
                port.payload.last.eq(beat.payload.last & head.payload.last),
                port.payload.error.eq(error),
            ]
            with m.If(port.valid & port.ready):
                m.d.comb += taken.eq(1)

        end = Signal()
        m.d.comb += end.eq(taken & beat.payload.last & head.payload.last)
        with m.If(taken):
            m.d.sync += failed.eq(error & ~end)
        m.d.sync += self.count_dma_read_error.eq(end & error)
        return m
