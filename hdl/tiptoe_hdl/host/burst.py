"""Splits DMA requests into AXI4 bursts (Arm IHI 0022H, A3.4.1: at most 256 beats, none across a page)."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..config import EngineConfig
from .request_arbiter import client_bits, client_request

PAGE_LOG2 = 12
"""No burst crosses a 4 KiB page."""

MAX_BEATS = 256
"""Longest INCR burst."""


def burst(cfg: EngineConfig, clients: int) -> data.StructLayout:
    """One INCR burst of full-width beats."""
    lane = ceil_log2(cfg.bytes_per_beat)
    return data.StructLayout({
        "addr": cfg.addr_width,  # word aligned
        "len": 8,                # beats, less one (AxLEN)
        "first": 1,              # its first beat is the transfer's first word
        "last": 1,               # its last beat is the transfer's last word
        "first_lane": lane,      # lane of the transfer's first byte, in the transfer's first word
        "last_lane": lane,       # lane of the transfer's last byte, in the transfer's last word
        "client": client_bits(clients),
    })  # fmt: skip


class BurstSplitter(wiring.Component):
    """One request in, its bursts out, in order.

    A burst ends where the transfer ends, at a 4 KiB page, at the ring's end (``wrap_log2`` != 0) or after 256
    beats. All but the transfer's own ends are word aligned, so only its first and last words are partial.
    A ring smaller than a word counts as one word.

    Timing: a request of one burst takes three cycles, every further burst three more; the first burst appears
    three cycles after its request. ``o`` comes from flip-flops, and ``i.ready`` depends on flip-flops only.

    Parameters
    ----------
    cfg : EngineConfig
        ``data_width`` and ``addr_width`` are used.
    clients : int
        Number of clients; the client's number goes along.

    Members
    -------
    i : In stream of ``client_request``
    o : Out stream of ``burst``
    """

    def __init__(self, cfg: EngineConfig, clients: int):
        self._cfg = cfg
        super().__init__(
            {
                "i": In(stream.Signature(client_request(cfg, clients))),
                "o": Out(stream.Signature(burst(cfg, clients))),
            }
        )

    def elaborate(self, platform):
        cfg, m = self._cfg, Module()
        lane_bits = ceil_log2(cfg.bytes_per_beat)
        page_bits = PAGE_LOG2 - lane_bits  # of a word's number in its page
        word_bits = cfg.addr_width - lane_bits
        request, out = self.i.payload.request, self.o.payload

        word = Signal(word_bits)  # number of the burst's first word
        in_ring = Signal(word_bits)  # bits of a word's number that count; the others stay
        left = Signal(
            range((cfg.bytes_per_beat + (1 << cfg.length_bits) - 3 >> lane_bits) + 1)
        )  # the transfer's words, less one
        limit = Signal(range(MAX_BEATS))  # words a burst from here may have, less one
        first = Signal()
        first_lane, last_lane = Signal(lane_bits), Signal(lane_bits)
        client = Signal.like(out.client)

        # Distance from the first word's lane 0 to the last byte. The offset less one is a table, so that the
        # sum has a single carry chain.
        offset = request.addr[:lane_bits]
        offset_m1 = Signal.like(offset - 1)
        with m.Switch(offset):
            for value in range(cfg.bytes_per_beat):
                with m.Case(value):
                    m.d.comb += offset_m1.eq(value - 1)
        end = Signal(cfg.length_bits + 1)
        m.d.comb += end.eq(request.length + offset_m1)

        # Words from here to the end of the page or ring, less one.
        room = Signal(page_bits)
        m.d.comb += room.eq(~word[:page_bits] & in_ring[:page_bits])
        final = Signal()
        m.d.comb += final.eq(left <= limit)

        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)

        with m.FSM():
            with m.State("Request"):
                m.d.comb += self.i.ready.eq(1)

                # A table a bit: five inputs, one LUT.
                def inside(bit):
                    sizes = sum(1 << log2 for log2 in range(32) if log2 == 0 or log2 > bit)
                    return Const(sizes, 32).bit_select(request.wrap_log2, 1)

                m.d.sync += [
                    word.eq(request.addr[lane_bits:]),
                    in_ring.eq(Cat(inside(bit + lane_bits) for bit in range(word_bits))),
                    left.eq(end >> lane_bits),
                    first.eq(1),
                    first_lane.eq(offset),
                    last_lane.eq(end[:lane_bits]),
                    client.eq(self.i.payload.client),
                ]
                with m.If(self.i.valid):
                    m.next = "Measure"
            with m.State("Measure"):
                m.d.sync += limit.eq(Mux(room[8:].any(), MAX_BEATS - 1, room))
                m.next = "Burst"
            with m.State("Burst"):
                with m.If(~self.o.valid):
                    m.d.sync += [
                        self.o.valid.eq(1),
                        out.addr.eq(Cat(Const(0, lane_bits), word)),
                        out.len.eq(Mux(final, left, limit)),
                        out.first.eq(first),
                        out.last.eq(final),
                        out.first_lane.eq(first_lane),
                        out.last_lane.eq(last_lane),
                        out.client.eq(client),
                    ]
                    with m.If(final):
                        m.next = "Request"
                    with m.Else():
                        m.next = "Advance"
            with m.State("Advance"):
                m.d.sync += [
                    word.eq((word & ~in_ring) | ((word + limit + 1) & in_ring)),
                    left.eq(left - limit - 1),
                    first.eq(0),
                ]
                m.next = "Measure"
        return m
