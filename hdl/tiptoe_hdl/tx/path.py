"""Transmit path: segments, control segments and host frames in, Ethernet frames out."""

from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import (
    ErrorEvent,
    FlowResponse,
    TimeStamp,
    beat,
    dma_read_data,
    dma_request,
    endpoint_write,
    ip_header_write,
    next_hop_write,
    ring_write,
    sack_list,
    tx_control,
    tx_frame,
    tx_segment,
)
from ..wire.valid_only import valid_only
from .assemble import Assembler
from .fetch import PayloadFetcher
from .header import HeaderBuilder
from .job import buffer_words, frames_inside, tx_info
from .outlet import Outlet
from .resolve import Resolver
from .sequence import Sequencer


class TxPath(wiring.Component):
    """Sends frames in the order in which it accepts them, sources in turn.

    ::

        segment ─┐           ┌─ HeaderBuilder ── header memory ─┐
        control ─┼─ Resolver ┼─ PayloadFetcher ─ payload memory ┼─ Assembler ─ o
        frame ───┘           └─ info queue ───── Sequencer ─────┘

    A frame is sent whole: it begins when its payload is in the buffer without a read error, and its beats then
    follow each other without a pause (unless ``o`` is stalled). Frames shorter than 60 bytes are padded with zeros.

    Timing (64 bits): without payload, first beat eight cycles after ``segment.valid``, seventeen with SACK blocks. With
    payload, ``request.valid`` four cycles after ``segment.valid``, first beat nine cycles after the payload's last word.
    One frame in ``max(beats, 3)`` cycles; at 128 bits, in ``beats + 1`` with one or two SACK blocks, ``beats + 2`` with more; at
    256 in ``beats + 4`` with any, and without payload the first beat comes after eleven.

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    segment, control, frame : In streams of ``tx_segment``, ``tx_control``, ``tx_frame``
    endpoint[2] : In streams of ``endpoint_write``
    ring, next_hop, ip_header : In, valid-only
        Send rings; MAC addresses; time to live and type of service of a connection.
    mac : In, 48 bits
    ttl, tos : In, 8 bits
        Source address of all segments, time to live and type of service of those that have no own; may change while
        nothing is sent.
    ip6 : In, 128 bits
        With IPv6: the source address there; likewise.
    request, data : stream of ``dma_request`` out, of ``dma_read_data`` in
        The DMA reader.
    ts_now : In, 32 bits
    stamp_id : Out
    stamp : In, ``TimeStamp``
        See :class:`Resolver`.
    sack_id : Out
    sack : In, ``sack_list``
        See :class:`SackBlocks`.
    o : Out stream of ``beat``
    frame_done, segments_done, error, count_* : Out
        See :class:`Sequencer`.
    """

    def __init__(self, cfg: EngineConfig):
        if buffer_words(cfg) < 2 * cfg.frame_words:
            raise ValueError(
                f"tx_buffer_bytes must hold two frames of {cfg.max_frame_bytes} bytes, not {cfg.tx_buffer_bytes}"
            )
        self._cfg = cfg
        super().__init__(
            {
                "segment": In(stream.Signature(tx_segment(cfg))),
                "control": In(stream.Signature(tx_control(cfg))),
                "frame": In(stream.Signature(tx_frame(cfg))),
                "endpoint": In(stream.Signature(endpoint_write(cfg))).array(2),
                "ring": In(valid_only(ring_write(cfg))),
                "next_hop": In(valid_only(next_hop_write(cfg))),
                "ip_header": In(valid_only(ip_header_write(cfg))),
                "mac": In(48),
                **({"ip6": In(128)} if cfg.ipv6 else {}),
                "ttl": In(8),
                "tos": In(8),
                "request": Out(stream.Signature(dma_request(cfg))),
                "data": In(stream.Signature(dma_read_data(cfg))),
                "ts_now": In(32),
                "stamp_id": Out(cfg.id_bits),
                "stamp": In(TimeStamp),
                "sack_id": Out(cfg.id_bits),
                "sack": In(sack_list(cfg)),
                "o": Out(stream.Signature(beat(cfg))),
                "frame_done": Out(stream.Signature(FlowResponse)),
                "segments_done": Out(8),
                "error": Out(valid_only(ErrorEvent)),
                "count_tx_frames": Out(1),
                "count_tx_segments": Out(1),
                "count_tx_rst": Out(1),
                "count_tx_dropped": Out(1),
            }
        )

    def elaborate(self, platform):
        cfg, m = self._cfg, Module()
        m.submodules.resolver = resolver = Resolver(cfg)
        m.submodules.builder = builder = HeaderBuilder(cfg)
        m.submodules.fetcher = fetcher = PayloadFetcher(cfg)
        m.submodules.sequencer = sequencer = Sequencer(cfg)
        m.submodules.assembler = assembler = Assembler(cfg)
        m.submodules.infos = infos = Outlet(tx_info(cfg), frames_inside(cfg))

        def outside(inner, port):
            wiring.connect(m, inner, wiring.flipped(port))

        outside(resolver.segment, self.segment)
        outside(resolver.control, self.control)
        outside(resolver.host, self.frame)
        for inner, port in zip(resolver.endpoint, self.endpoint, strict=True):
            outside(inner, port)
        outside(resolver.ring, self.ring)
        outside(resolver.next_hop, self.next_hop)
        outside(resolver.ip_header, self.ip_header)
        outside(fetcher.request, self.request)
        outside(fetcher.data, self.data)
        outside(assembler.o, self.o)
        outside(sequencer.frame_done, self.frame_done)
        outside(sequencer.error, self.error)
        m.d.comb += [
            resolver.tos.eq(self.tos), resolver.ttl.eq(self.ttl), builder.mac.eq(self.mac),
            resolver.ts_now.eq(self.ts_now), resolver.stamp.eq(self.stamp), self.stamp_id.eq(self.segment.payload.id),
            builder.next_id.eq(self.segment.payload.id), self.sack_id.eq(builder.sack_id), builder.sack.eq(self.sack),
            self.segments_done.eq(sequencer.segments_done),
            self.count_tx_frames.eq(sequencer.count_tx_frames),
            self.count_tx_segments.eq(sequencer.count_tx_segments),
            self.count_tx_rst.eq(sequencer.count_tx_rst),
            self.count_tx_dropped.eq(sequencer.count_tx_dropped),
        ]  # fmt: skip

        if cfg.ipv6:
            m.d.comb += builder.ip6.eq(self.ip6)

        # Resolver to all three at once.
        taken = resolver.o.valid & resolver.o.ready
        m.d.comb += [
            resolver.o.ready.eq(builder.i.ready & fetcher.i.ready),
            builder.i.valid.eq(taken & resolver.o.header_valid),
            builder.i.payload.eq(resolver.o.header),
            fetcher.i.valid.eq(taken & resolver.o.fetch_valid),
            fetcher.i.payload.eq(resolver.o.fetch),
        ]
        wiring.connect(m, resolver.info, infos.i)

        wiring.connect(m, infos.o, sequencer.info)
        wiring.connect(m, fetcher.o_result, sequencer.result)
        wiring.connect(m, sequencer.o, assembler.step)
        wiring.connect(m, sequencer.begin, assembler.begin)
        wiring.connect(m, builder.o_word, assembler.i_header)
        wiring.connect(m, builder.o_sums, assembler.header_sums)
        wiring.connect(m, fetcher.o_sum, assembler.payload_sum)
        wiring.connect(m, fetcher.o_word, assembler.i_payload)
        m.d.comb += [
            sequencer.delivered.eq(assembler.delivered),
            sequencer.sums_ready.eq(builder.o_sums.valid),
            fetcher.freed.eq(assembler.freed),
            resolver.frame_finished.eq(sequencer.frame_finished),
            resolver.host_finished.eq(self.frame_done.valid & self.frame_done.ready),
        ]
        return m
