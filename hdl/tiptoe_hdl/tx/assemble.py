"""Assembler: header and payload, each in its memory, become the beats of a frame; the checksums join them."""

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import beat
from ..wire.apart import APART
from ..wire.valid_only import valid_only
from .job import (
    IP_CHECKSUM_BYTE,
    TCP_CHECKSUM_BYTE,
    TCP_CHECKSUM_BYTE_V6,
    HeaderSums,
    PayloadSums,
    TxBegin,
    buffer_words,
    frames_inside,
    header_word,
    slot_words,
    tx_step,
)
from .outlet import Outlet
from .sequence import BEATS_ON_THE_WAY


class Assembler(wiring.Component):
    """Reads both memories a beat a cycle, merges them and puts the checksums in.

    Timing: a beat stepped in cycle 0 is in ``o`` in cycle 3 unless ``o`` is stalled. A word written in one cycle
    can be read by a step in the next. The sums of a frame must be valid at the latest four cycles after its first
    step (two at 128 bits, one at 256), or before it. ``o`` comes from flip-flops.

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    i_header : In, valid-only, ``header_word``
    i_payload : In, valid-only, data_width bits
        Words for the memories; header words with address, payload words in order.
    step : In, valid-only, ``tx_step``
    begin : In, valid-only, ``TxBegin``
        With a frame's first step or earlier, after the last step of the frame before.
    header_sums : In stream of ``HeaderSums``
    payload_sum : In stream of 16 bits
        One per ``begin`` with ``header``, with ``payload``.
    delivered : Out
        Pulse: a beat was taken from ``o``, in the cycle before.
    freed : Out
        Pulse: a word of the payload memory is free.
    o : Out stream of ``beat``
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "i_header": In(valid_only(header_word(cfg))),
                "i_payload": In(valid_only(cfg.data_width)),
                "step": In(valid_only(tx_step(cfg))),
                "begin": In(valid_only(TxBegin)),
                "header_sums": In(stream.Signature(HeaderSums)),
                "payload_sum": In(stream.Signature(PayloadSums)),
                "delivered": Out(1),
                "freed": Out(1),
                "o": Out(stream.Signature(beat(cfg))),
            }
        )

    def elaborate(self, platform):
        cfg, m = self._cfg, Module()
        header, payload = self._memories(m)
        ip_checksum, tcp_checksum = self._checksums(m)

        # What a step reads arrives two cycles later.
        step, at = self.step, self.step
        for stage in range(2):
            before, at = at, valid_only(tx_step(cfg)).create(path=(f"stage{stage}",))
            m.d.sync += [at.valid.eq(before.valid), at.payload.eq(before.payload)]
        place = at.payload

        m.submodules.outlet = outlet = Outlet(beat(cfg), BEATS_ON_THE_WAY)
        wiring.connect(m, outlet.o, wiring.flipped(self.o))
        inserts = {}
        insertions = [
            (IP_CHECKSUM_BYTE, place.ip_checksum, ip_checksum),
            (TCP_CHECKSUM_BYTE, place.tcp_checksum, tcp_checksum),
        ]
        if cfg.ipv6:
            insertions.append((TCP_CHECKSUM_BYTE_V6, place.tcp_checksum_v6, tcp_checksum))
        for first, flag, checksum in insertions:
            assert first % cfg.bytes_per_beat not in inserts, "two checksums in one lane"
            for byte, value in ((first, checksum[8:]), (first + 1, checksum[:8])):
                inserts[byte % cfg.bytes_per_beat] = value & flag.replicate(8)
        for lane in range(cfg.bytes_per_beat):
            m.d.comb += [
                outlet.i.payload.data.word_select(lane, 8).eq(
                    (header.word_select(lane, 8) & place.header.replicate(8))
                    | (payload.word_select(lane, 8) & place.payload.replicate(8))
                    | inserts.get(lane, 0)
                ),
                outlet.i.payload.keep[lane].eq(~place.last | (lane <= place.last_lane)),
            ]
        m.d.comb += [
            outlet.i.valid.eq(at.valid & place.emit),
            outlet.i.payload.last.eq(place.last),
        ]
        m.d.sync += [
            self.freed.eq(step.valid & step.payload.payload),
            self.delivered.eq(self.o.valid & self.o.ready),
        ]
        return m

    def _memories(self, m: Module) -> tuple[Value, Value]:
        """Header slots and payload buffer; their outputs, registered, two cycles after the step."""
        cfg, step = self._cfg, self.step.payload

        m.submodules.headers = headers = memory.Memory(
            shape=cfg.data_width, depth=frames_inside(cfg) * slot_words(cfg), init=[], attrs=APART
        )  # a header is read a beat behind
        write, read = headers.write_port(), headers.read_port()
        slot = Signal(range(frames_inside(cfg)))
        with m.If(self.step.valid & step.header_last):
            m.d.sync += slot.eq(slot + 1)
        m.d.comb += [
            write.en.eq(self.i_header.valid),
            write.addr.eq(self.i_header.payload.address),
            write.data.eq(self.i_header.payload.data),
            read.addr.eq(Cat(step.index, slot)),
        ]
        header = Signal(cfg.data_width)
        m.d.sync += header.eq(read.data)

        m.submodules.payloads = payloads = memory.Memory(
            shape=cfg.data_width, depth=buffer_words(cfg), init=[], attrs=APART
        )  # a payload is complete
        write, read = payloads.write_port(), payloads.read_port()
        with m.If(self.i_payload.valid):
            m.d.sync += write.addr.eq(write.addr + 1)
        with m.If(self.step.valid & step.payload):
            m.d.sync += read.addr.eq(read.addr + 1)
        m.d.comb += [write.en.eq(self.i_payload.valid), write.data.eq(self.i_payload.payload)]
        payload = Signal(cfg.data_width)
        m.d.sync += payload.eq(read.data)
        return header, payload

    def _checksums(self, m: Module) -> tuple[Value, Value]:
        """The IPv4 and the TCP checksum of the frame begun last: one and two cycles after its sums are there."""
        header, payload, sum_now = self.header_sums, self.payload_sum, Signal()
        waiting, need = Signal(), Signal(TxBegin)
        m.d.comb += [
            sum_now.eq(waiting & (header.valid | ~need.header) & (payload.valid | ~need.payload)),
            header.ready.eq(waiting & need.header & (payload.valid | ~need.payload)),
            payload.ready.eq(waiting & need.payload & (header.valid | ~need.header)),
        ]
        with m.If(self.begin.valid):
            m.d.sync += [waiting.eq(1), need.eq(self.begin.payload)]
        with m.Elif(sum_now):
            m.d.sync += waiting.eq(0)

        ip_checksum, tcp_sum, tcp_checksum = Signal(16), Signal(17), Signal(16)
        with m.If(waiting):
            m.d.sync += [
                ip_checksum.eq(header.payload.ip_checksum),
                tcp_sum.eq(header.payload.tcp + (payload.payload & need.payload.replicate(16))),
            ]
        m.d.sync += tcp_checksum.eq(~(tcp_sum[:16] + tcp_sum[16]))
        return ip_checksum, tcp_checksum
