"""DMA writer: the engine's AXI4 write master (Arm IHI 0022H), shared by several clients."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..config import EngineConfig
from ..messages import dma_request
from ..wire.half_buffer import HalfBuffer
from ..wire.ones import ones_below
from ..wire.queue import Queue
from ..wire.skid import SkidBuffer
from . import axi
from .burst import BurstSplitter
from .request_arbiter import RequestArbiter, at_rest, client_bits

DmaDone = data.StructLayout({"error": 1})
"""A write's end: all its responses have come; ``error`` if one was SLVERR or DECERR."""


class DmaWriter(wiring.Component):
    """Writes byte ranges of host memory for its clients: requests and words in, a ``done`` for each request.

    Requests are taken round robin, split into bursts, and issued ahead of their data: up to
    ``max_outstanding`` bursts are in flight. W follows the order of the requests, so a client that has asked
    must be able to give all its words whatever the others do. A client's words are in memory alignment: the
    first has the first byte in lane ``addr mod B``, and there are ceil((addr mod B + length) / B) of them;
    other lanes do not matter.

    ``done`` comes in the order of the client's requests. Responses never wait: a client has at most
    ``max_outstanding`` transfers between request and taken ``done``, and all have their place; so a client
    that does not look at ``done`` stops only itself.

    Timing: a request of one burst is taken every three cycles; its address is on the bus five cycles after
    the request; W runs without bubbles, across bursts and transfers, but a burst of one word takes two cycles;
    a word is on the bus one cycle after it is taken, ``done`` comes three cycles after the last response. All AXI
    outputs come from flip-flops.

    Parameters
    ----------
    cfg : EngineConfig
    clients : int
        Number of clients.
    max_outstanding : int
        Bursts in flight (one more fits), and transfers of one client not yet done: a power of two, 2 to 64.

    Members
    -------
    request : In array of streams of ``dma_request``
    data : In array of streams of ``unsigned(data_width)``
    done : Out array of streams of ``DmaDone``
    axi : Out ``Axi4WriteSignature``
    quiesce : In, 1 bit
        From the cycle after it rises no further request is taken.
    quiet : Out, 1 bit
        ``quiesce`` is high and all responses have come: reset is safe for the bus.
    count_dma_write_error : Out, 1 bit
        High for one cycle for every transfer with an error.
    """

    def __init__(self, cfg: EngineConfig, clients: int = 1, max_outstanding: int = 16):
        if clients < 1:
            raise ValueError(f"clients must be at least 1, not {clients}")
        self._cfg, self._clients, self._max_outstanding = cfg, clients, max_outstanding
        super().__init__(
            {
                "request": In(stream.Signature(dma_request(cfg))).array(clients),
                "data": In(stream.Signature(unsigned(cfg.data_width))).array(clients),
                "done": Out(stream.Signature(DmaDone)).array(clients),
                "axi": Out(axi.Axi4WriteSignature(cfg.addr_width, cfg.data_width)),
                "quiesce": In(1),
                "quiet": Out(1),
                "count_dma_write_error": Out(1),
            }
        )

    def elaborate(self, platform):
        cfg, m = self._cfg, Module()
        m.submodules.arbiter = arbiter = RequestArbiter(cfg, self._clients)
        m.submodules.splitter = splitter = BurstSplitter(cfg, self._clients)
        for mine, theirs in zip(self.request, arbiter.request, strict=True):
            wiring.connect(m, wiring.flipped(mine), theirs)
        wiring.connect(m, arbiter.o, splitter.i)
        credit = Cat(self._credit(m, client) for client in range(self._clients))
        m.d.comb += arbiter.allow.eq(Mux(self.quiesce, 0, credit))

        pending, awaited = self._address(m, splitter.o)
        self._words(m, pending)
        self._responses(m, awaited)
        busy = arbiter.o.valid | ~splitter.i.ready | splitter.o.valid | awaited.valid
        m.d.comb += self.quiet.eq(at_rest(m, self.quiesce, busy))
        return m

    def _credit(self, m, client):
        """Whether the client may ask: its transfers not yet done all have a place in its queue of results."""
        request, done = self.request[client], self.done[client]
        open_ = Signal(range(self._max_outstanding + 1), name=f"open{client}")
        allow = Signal(init=1, name=f"allow{client}")
        change = Signal(2, name=f"change{client}")
        # A cycle late: the arbiter looks again two cycles after it took a request.
        m.d.sync += change.eq(Cat(request.valid & request.ready, done.valid & done.ready))
        with m.Switch(change):
            with m.Case(0b01):
                m.d.sync += [open_.eq(open_ + 1), allow.eq(open_ != self._max_outstanding - 1)]
            with m.Case(0b10):
                m.d.sync += [open_.eq(open_ - 1), allow.eq(1)]
        return allow

    def _address(self, m, burst):
        """Address channel; returns the queues of bursts whose words, or whose response, are still to come."""
        cfg, bus = self._cfg, self.axi
        lane_bits = ceil_log2(cfg.bytes_per_beat)
        # Both queues get a burst when its address is shown, not when it is taken: AXI forbids a master to
        # wait for AWREADY before it shows WVALID (A3.3.1).
        m.submodules.pending = pending = Queue(data.StructLayout({
            "client": client_bits(self._clients), "len": 8, "first": 1, "last": 1,
            "first_lane": lane_bits, "last_lane": lane_bits,
        }), self._max_outstanding)  # fmt: skip
        m.submodules.awaited = awaited = Queue(
            data.StructLayout({"client": client_bits(self._clients), "last": 1}), self._max_outstanding
        )
        shown = Signal()  # the burst in front is in both queues
        push = Signal()
        # A burst leaves `awaited` after it leaves `pending`, so `pending` has room as well. A cycle late: the next
        # burst comes later.
        room = Signal()
        m.d.sync += room.eq(awaited.i.ready)
        m.d.comb += [
            push.eq(burst.valid & ~shown & room),
            awaited.i.valid.eq(push),
            pending.i.valid.eq(push),
            bus.awvalid.eq(shown),
            burst.ready.eq(shown & bus.awready),
            bus.awaddr.eq(burst.payload.addr),
            bus.awlen.eq(burst.payload.len),
            bus.awsize.eq(lane_bits),
            bus.awburst.eq(axi.Burst.INCR),
            bus.awcache.eq(axi.WRITE_CACHE),
            bus.awprot.eq(axi.PROTECTION),
            awaited.i.payload.client.eq(burst.payload.client),
            awaited.i.payload.last.eq(burst.payload.last),
        ]
        m.d.comb += [pending.i.payload[field].eq(burst.payload[field]) for field, _ in pending.i.payload.shape()]
        with m.If(push):
            m.d.sync += shown.eq(1)
        with m.Elif(bus.awready):
            m.d.sync += shown.eq(0)
        return pending.o, awaited.o

    def _words(self, m, pending):
        """Data channel: the words of the burst in front, with their strobes."""
        cfg, bus = self._cfg, self.axi
        lanes = cfg.bytes_per_beat
        m.submodules.skid = skid = SkidBuffer(data.StructLayout({"data": cfg.data_width, "strobe": lanes, "last": 1}))
        m.d.comb += [
            bus.wdata.eq(skid.o.payload.data),
            bus.wstrb.eq(skid.o.payload.strobe),
            bus.wlast.eq(skid.o.payload.last),
            bus.wvalid.eq(skid.o.valid),
            skid.o.ready.eq(bus.wready),
        ]

        # The next burst, its strobes worked out.
        every = Const(-1, lanes)
        m.submodules.next = following = HalfBuffer(data.StructLayout({
            "client": client_bits(self._clients), "len": 8, "single": 1, "first_strobe": lanes, "last_strobe": lanes,
        }))  # fmt: skip
        burst, entry = pending.payload, following.i.payload
        m.d.comb += [
            following.i.valid.eq(pending.valid),
            pending.ready.eq(following.i.ready),
            entry.client.eq(burst.client),
            entry.len.eq(burst.len),
            entry.single.eq(burst.len == 0),
            entry.first_strobe.eq(Mux(burst.first, ~ones_below(burst.first_lane, lanes), every)),
            entry.last_strobe.eq(Mux(burst.last, ones_below(burst.last_lane + 1, lanes), every)),
        ]

        source = Signal(self._clients)  # the client whose words go out, one bit each; none: idle
        select = Signal(client_bits(self._clients))  # its number, for the words; it stays while idle
        left = Signal(8)  # beats after this one
        last = Signal()  # this is the burst's last beat
        first_strobe = Signal(lanes)  # all ones but in the transfer's first word
        last_strobe = Signal(lanes)  # the same for the burst's last word
        idle = Signal()
        load = Signal()
        taken = Signal()
        for client, port in enumerate(self.data):
            m.d.comb += port.ready.eq(source[client] & skid.i.ready)
            with m.If(source[client]):
                m.d.comb += skid.i.valid.eq(port.valid)
        with m.Switch(select):
            for client, port in enumerate(self.data):
                with m.Case(client):
                    m.d.comb += skid.i.payload.data.eq(port.payload)
        m.d.comb += [
            taken.eq(skid.i.valid & skid.i.ready),
            skid.i.payload.strobe.eq(first_strobe & Mux(last, last_strobe, every)),
            skid.i.payload.last.eq(last),
            idle.eq(source == 0),
            load.eq(idle | (taken & last)),
            following.o.ready.eq(load),
        ]
        burst = following.o.payload
        with m.If(load):
            m.d.sync += [
                source.eq(Mux(following.o.valid, 1 << burst.client, 0)),
                select.eq(burst.client),
                last_strobe.eq(burst.last_strobe),
            ]
        with m.If(idle | taken):
            with m.If(idle | last):
                m.d.sync += [left.eq(burst.len), last.eq(burst.single), first_strobe.eq(burst.first_strobe)]
            with m.Else():
                m.d.sync += [left.eq(left - 1), last.eq(left == 1), first_strobe.eq(every)]

    def _responses(self, m, awaited):
        """Response channel: always ready; the last response of a transfer makes its client's ``done``."""
        bus = self.axi
        came = Signal()
        bad = Signal()
        # Responses come no faster than one a cycle and in the order of the bursts, whose entries are there
        # long before; so a register stage without backpressure is enough.
        m.d.comb += bus.bready.eq(1)
        m.d.sync += [came.eq(bus.bvalid), bad.eq(axi.is_error(bus.bresp))]

        failed = Signal()  # an earlier burst of the transfer had an error
        error = Signal()
        end = Signal()
        m.d.comb += [
            awaited.ready.eq(came),
            error.eq(failed | bad),
            end.eq(came & awaited.valid & awaited.payload.last),
        ]
        with m.If(came):
            m.d.sync += failed.eq(error & ~end)
        m.d.sync += self.count_dma_write_error.eq(end & error)
        for client, port in enumerate(self.done):
            m.submodules[f"done{client}"] = results = Queue(DmaDone, self._max_outstanding)
            m.d.comb += [
                results.i.valid.eq(end & (awaited.payload.client == client)),
                results.i.payload.error.eq(error),
            ]
            wiring.connect(m, results.o, wiring.flipped(port))
