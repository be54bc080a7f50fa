"""From a frame and its verdict to a place in host memory: the first half of placement."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..config import EngineConfig
from ..host.abi import host_frame_slot_bytes
from ..messages import dma_request, frame_info, ring_write, rx_verdict
from ..wire.apart import APART
from ..wire.realign import realign_command
from ..wire.valid_only import valid_only
from .buffer import buffer_words

_PAD_BYTES = 2
"""``frame_info``'s ``payload_offset`` counts from this many bytes before the stored frame."""

FRAME_IN_SLOT = 2
"""A host frame begins at this byte of its slot, so that its IP header is aligned."""

MOST_SLOTS_LOG2 = 15
"""Log2 of the slots of the largest host frame ring."""

IN_FLIGHT = 6
"""Frames that may still come out of ``TargetPipeline`` after ``go`` has fallen."""


def extraction(cfg: EngineConfig) -> data.StructLayout:
    """What to do with the oldest frame in the buffer: read its words ``first`` to ``first + more`` when ``write``, and
    give back its ``free_words``."""
    return data.StructLayout({
        "write": 1, "first": ceil_log2(buffer_words(cfg)), "more": range(cfg.frame_words + 1),
        "free_words": range(cfg.frame_words + 1),
    })  # fmt: skip


def conclusion(cfg: EngineConfig) -> data.StructLayout:
    """What to do once the write, if there is one, is over; nothing, of a frame that is dropped. ``value`` is the verdict's
    ``upto``, or the slot (16 bits) and the length of a host frame."""
    return data.StructLayout({"host": 1, "write": 1, "notify": 1, "id": cfg.id_bits, "value": 32})


def target(cfg: EngineConfig) -> data.StructLayout:
    """All about one frame; ``request`` and ``realign`` count when ``extraction.write``."""
    return data.StructLayout({
        "extraction": extraction(cfg), "conclusion": conclusion(cfg),
        "request": dma_request(cfg), "realign": realign_command(cfg),
    })  # fmt: skip


def ring_mask(log2: int, slot_log2: int) -> int:
    """Which address bits from ``slot_log2`` on the position gives, in a ring of ``2**log2`` bytes."""
    return (1 << max(0, min(log2 - slot_log2, MOST_SLOTS_LOG2))) - 1


def ring_address(base: Value, position: Value, mask: Value, slot_log2: int) -> Value:
    """The address of ``position`` in the aligned ring that holds ``base``, of the size that ``ring_mask`` gave."""
    above = slot_log2 + MOST_SLOTS_LOG2
    high = [
        Mux(mask[bit - slot_log2], position[bit], base[bit]) if bit < above else base[bit]
        for bit in range(slot_log2, len(base))
    ]
    return Cat(position[:slot_log2], *high)


class TargetPipeline(wiring.Component):
    """Takes frames in order, with their verdicts, and says where their bytes go.

    A frame for the host gets the next slot of the host frame ring; without a free slot, or with
    ``frame_credit`` = 0, or without ``host_enable``, it is dropped and counted.

    Timing: one frame a cycle (after one for the host three cycles' pause); ``o`` comes three cycles after its frame,
    out of flip-flops, without a ready: the owner lowers ``go`` while there is still room for ``IN_FLIGHT``.

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    go : In(1)
        Frames may be taken, from the next cycle on.
    info : In stream of ``frame_info(cfg)``
    verdict : In stream of ``rx_verdict(cfg)``
        Taken with an info that asks.
    ring : In valid-only of ``ring_write(cfg)``
        Base and size of an id's receive ring, before its first verdict.
    host_base : In(addr_width), host_slots_log2 : In(4), host_consumer : In(16), host_enable : In(1)
        The host frame ring, its base aligned to its size; how many frames the host has taken since reset.
    frame_credit : In(1)
        A frame event more can be kept.
    frame_taken : Out(1)
        Pulse: a host frame has got a slot.
    host_producer : Out(16)
        Host frames that have got a slot since reset.
    o : Out valid-only of ``target(cfg)``
    count_rx_host_dropped : Out(1)
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__({
            "go": In(1),
            "info": In(stream.Signature(frame_info(cfg))),
            "verdict": In(stream.Signature(rx_verdict(cfg))),
            "ring": In(valid_only(ring_write(cfg))),
            "host_base": In(cfg.addr_width), "host_slots_log2": In(4), "host_consumer": In(16), "host_enable": In(1),
            "frame_credit": In(1), "frame_taken": Out(1), "host_producer": Out(16),
            "o": Out(valid_only(target(cfg))),
            "count_rx_host_dropped": Out(1),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        cfg = self._cfg
        length_bits, word_log2 = cfg.length_bits, ceil_log2(cfg.bytes_per_beat)
        slot_log2 = ceil_log2(host_frame_slot_bytes(cfg.max_frame_bytes))
        place = data.StructLayout({"base": cfg.addr_width - slot_log2, "log2": 5})
        # An id has no verdict under way while it gets a ring.
        m.submodules.rings = rings = memory.Memory(shape=place, depth=cfg.connections, init=[], attrs=APART)
        write = rings.write_port()
        read = rings.read_port()
        m.d.comb += [
            write.en.eq(self.ring.valid),
            write.addr.eq(self.ring.payload.id),
            write.data.base.eq(self.ring.payload.base[slot_log2:]),
            write.data.log2.eq(self.ring.payload.log2),
            read.en.eq(1),
            read.addr.eq(self.verdict.payload.id),
        ]

        # Take a frame.
        ask = self.info.payload.ask
        pause = Signal(2)
        free_to_go = Signal()
        take = Signal()
        m.d.comb += [
            take.eq(free_to_go & self.info.valid & (~ask | self.verdict.valid)),
            self.info.ready.eq(free_to_go & (~ask | self.verdict.valid)),
            self.verdict.ready.eq(free_to_go & self.info.valid & ask),
        ]
        to_host = ~ask & self.info.payload.to_host
        m.d.sync += [
            pause.eq(Cat(take & to_host, pause)),
            free_to_go.eq(self.go & ~(take & to_host) & ~pause.any()),
        ]

        # Host frame ring: room is known two cycles after it changed, hence the pause.
        producer = self.host_producer
        used = Signal(16)
        mask = Signal(16)
        room = Signal()
        with m.Switch(self.host_slots_log2):
            for log2 in range(16):
                with m.Case(log2):
                    m.d.sync += mask.eq((1 << log2) - 1)
        m.d.sync += [
            used.eq(producer - self.host_consumer),
            room.eq(self.host_enable & self.frame_credit & ~(used & ~mask).any()),
        ]

        # Stage 1: the frame; the ring's place comes out of its memory.
        one_valid = Signal()
        one = Signal(data.StructLayout({
            "ask": 1, "to_host": 1, "offset": 8, "length": length_bits, "verdict": rx_verdict(cfg),
        }), reset_less=True)  # fmt: skip
        m.d.sync += [
            one_valid.eq(take),
            one.ask.eq(ask),
            one.to_host.eq(to_host),
            one.offset.eq(self.info.payload.payload_offset),
            one.length.eq(self.info.payload.frame_length),
            one.verdict.eq(self.verdict.payload),
        ]

        # Stage 2: what is written, from where; which slot.
        to_slot = Signal()
        m.d.comb += to_slot.eq(one_valid & one.to_host & room)
        two_valid = Signal()
        two = Signal(data.StructLayout({
            "ask": 1, "host": 1, "write": 1,
            "source": length_bits, "length": length_bits, "frame_length": length_bits, "free_words": length_bits,
            "notify": 1, "id": cfg.id_bits, "upto": 32, "position": 32, "slot": 16, "place": place,
        }), reset_less=True)  # fmt: skip
        m.d.sync += [
            two_valid.eq(one_valid),
            two.ask.eq(one.ask),
            two.host.eq(to_slot),
            two.write.eq(Mux(one.ask, one.verdict.length != 0, to_slot)),
            two.source.eq(Mux(one.ask, one.offset + one.verdict.skip - _PAD_BYTES, 0)),
            two.length.eq(Mux(one.ask, one.verdict.length, one.length)),
            two.frame_length.eq(one.length),
            two.free_words.eq((one.length + (cfg.bytes_per_beat - 1)) >> word_log2),
            two.notify.eq(one.verdict.notify),
            two.id.eq(one.verdict.id),
            two.upto.eq(one.verdict.upto),
            two.position.eq(one.verdict.position),
            two.slot.eq(producer & mask),
            two.place.eq(read.data),
            self.frame_taken.eq(to_slot),
            self.count_rx_host_dropped.eq(one_valid & one.to_host & ~room),
        ]
        with m.If(to_slot):
            m.d.sync += producer.eq(producer + 1)

        # Stage 3: addresses.
        slot_position = Signal(32)
        base = Signal(cfg.addr_width)
        position = Signal(32)
        place_mask = Signal(MOST_SLOTS_LOG2)
        address = Signal(cfg.addr_width)
        with m.Switch(two.place.log2):
            for log2 in range(32):
                with m.Case(log2):
                    m.d.comb += place_mask.eq(ring_mask(log2, slot_log2))
        m.d.comb += [
            slot_position.eq(Cat(Const(FRAME_IN_SLOT, slot_log2), two.slot)),
            base.eq(Mux(two.host, self.host_base, Cat(Const(0, slot_log2), two.place.base))),
            position.eq(Mux(two.host, slot_position, two.position)),
            address.eq(ring_address(base, position, Mux(two.host, mask, place_mask), slot_log2)),
        ]
        o = self.o.payload
        first_byte = two.source[:word_log2]
        m.d.sync += [
            self.o.valid.eq(two_valid),
            o.extraction.write.eq(two.write),
            o.extraction.first.eq(two.source[word_log2:]),
            o.extraction.more.eq((two.length + Cat(first_byte, Const(0, 1)) - 1) >> word_log2),
            o.extraction.free_words.eq(two.free_words),
            o.conclusion.host.eq(two.host),
            o.conclusion.write.eq(two.write),
            o.conclusion.notify.eq(two.ask & two.notify),
            o.conclusion.id.eq(two.id),
            o.conclusion.value.eq(Mux(two.host, Cat(two.slot, two.frame_length), two.upto)),
            o.request.addr.eq(address),
            o.request.length.eq(two.length),
            # Frames end before their slots do.
            o.request.wrap_log2.eq(Mux(two.host, 0, two.place.log2)),
            o.realign.src_offset.eq(first_byte),
            o.realign.dst_offset.eq(position[:word_log2]),
            o.realign.length.eq(two.length),
        ]
        return m
