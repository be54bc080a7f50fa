"""Sequencer: decides, beat by beat, what the assembler reads, and keeps the books of the frames."""

from amaranth.hdl import Module, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..host.abi import ErrorCode
from ..messages import ErrorEvent, FlowResponse, Status
from ..wire.valid_only import valid_only
from .job import (
    IP_CHECKSUM_BYTE,
    TCP_CHECKSUM_BYTE,
    TCP_CHECKSUM_BYTE_V6,
    PayloadResult,
    TxBegin,
    sums_first,
    tx_info,
    tx_step,
)
from .outlet import Outlet
from .resolve import HOST_FRAMES

BEATS_ON_THE_WAY = 16
"""Beats between their step and ``o``'s transfer: the pipeline's, and what a stalled ``o`` leaves behind."""


class Sequencer(wiring.Component):
    """Steps through the frames in order, a beat a cycle, without a pause inside a frame or between two.

    A frame begins when its payload is complete, and one whose header's sums come late (at 256 bits: any) when they are there: by
    then the sums of the frame before are taken. One whose payload could not be read is read past.

    Timing: the first step is in the cycle after ``info`` and ``result`` are valid. ``o`` and ``begin`` come from
    flip-flops through one level of logic, all other outputs from flip-flops. A frame has two beats at least.

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    info : In stream of ``tx_info``
    result : In stream of ``PayloadResult``
        One per ``info`` with ``payload``.
    sums_ready : In
        The sums of the next frame's header are there.
    o : Out, valid-only, ``tx_step``
    begin : Out, valid-only, ``TxBegin``
        Not after the frame's first step.
    delivered : In
        Pulse: an emitted beat left; at most ``BEATS_ON_THE_WAY`` are on the way.
    frame_finished : Out
        Pulse: one ``info`` is done.
    frame_done : Out stream of ``FlowResponse``
        One per host frame once it is read: OK, DMA_ERROR or BAD_ARGUMENT. Has room for ``HOST_FRAMES``.
    segments_done : Out, 8 bits
        Counts every ``info`` with ``segment``, when nothing of it is needed in host memory any more; wraps.
    error : Out, valid-only, ``ErrorEvent``
        A segment's payload could not be read.
    count_* : Out
        Pulses: frames sent, TCP segments among them, RSTs among those; frames dropped.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "info": In(stream.Signature(tx_info(cfg))),
                "result": In(stream.Signature(PayloadResult)),
                "sums_ready": In(1),
                "o": Out(valid_only(tx_step(cfg))),
                "begin": Out(valid_only(TxBegin)),
                "delivered": In(1),
                "frame_finished": Out(1),
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
        info, result, o = self.info.payload, self.result.payload, self.o.payload

        # The frame under way, and the place in it: all flags are prepared by the beat before, so that no comparison
        # stands before a step.
        now, drop = Signal.like(info), Signal()
        active = Signal()
        index = Signal.like(info.last)
        following = Signal.like(info.last, init=1)
        has_header, has_payload = Signal(), Signal()
        at_seam = Signal()  # the header's last beat, which is the payload's first
        at_ip_checksum, at_tcp_checksum = Signal(), Signal()
        at_last = Signal()
        on_the_way = Signal(range(BEATS_ON_THE_WAY + 1))
        step, free, load, begun = self.o.valid, Signal(), Signal(), Signal()
        summed: Value = ~info.late | self.sums_ready
        if sums_first(cfg):
            # A frame of two beats may end while its own sums are still there.
            taking = Signal()
            m.d.sync += taking.eq(begun)
            summed = info.host | info.bad | (self.sums_ready & ~taking)
        m.d.comb += [
            step.eq(active & ~on_the_way[-1]),
            free.eq(~active | (at_last & ~on_the_way[-1])),
            load.eq(free & self.info.valid & (~info.payload | self.result.valid) & summed),
            self.info.ready.eq(free & (~info.payload | self.result.valid) & summed),
            self.result.ready.eq(free & self.info.valid & info.payload & summed),

            o.emit.eq(~drop),
            o.header.eq(has_header),
            o.payload.eq(has_payload),
            o.index.eq(index),
            o.header_last.eq(at_seam),
            o.ip_checksum.eq(at_ip_checksum),
            o.tcp_checksum.eq(at_tcp_checksum),
            o.last.eq(at_last),
            o.last_lane.eq(now.last_lane),
        ]  # fmt: skip
        with m.If(free):
            m.d.sync += [
                now.eq(info), drop.eq(info.payload & result.error), active.eq(load & ~info.bad),
                index.eq(0), following.eq(1),
                has_header.eq(~info.host), has_payload.eq(info.host), at_seam.eq(0),
                at_ip_checksum.eq(~info.host & (IP_CHECKSUM_BYTE // cfg.bytes_per_beat == 0)),
                at_tcp_checksum.eq(0), at_last.eq(0),
            ]  # fmt: skip
        with m.Elif(step):
            m.d.sync += [
                index.eq(following),
                following.eq(following + 1),
                at_seam.eq(~now.host & (following == now.payload_start)),
                at_ip_checksum.eq(~now.host & (following == IP_CHECKSUM_BYTE // cfg.bytes_per_beat)),
                at_tcp_checksum.eq(~now.host & (following == TCP_CHECKSUM_BYTE // cfg.bytes_per_beat)),
                at_last.eq(following == now.last),
            ]
            with m.If(at_seam):
                m.d.sync += has_header.eq(0)
            with m.If(index == now.payload_last):
                m.d.sync += has_payload.eq(0)
            with m.Elif(now.payload & ~now.host & (following == now.payload_start)):
                m.d.sync += has_payload.eq(1)
        if cfg.ipv6:
            at_tcp_checksum_v6, holds = Signal(), following == TCP_CHECKSUM_BYTE_V6 // cfg.bytes_per_beat
            m.d.comb += o.tcp_checksum_v6.eq(at_tcp_checksum_v6)
            with m.If(free):
                m.d.sync += [at_tcp_checksum_v6.eq(0)]
                with m.If(info.v6):
                    m.d.sync += at_ip_checksum.eq(0)
            with m.Elif(step):
                m.d.sync += at_tcp_checksum_v6.eq(now.v6 & holds & ~now.host)
                with m.If(now.v6):
                    m.d.sync += [at_ip_checksum.eq(0), at_tcp_checksum.eq(0)]
        m.d.sync += on_the_way.eq(on_the_way + (step & ~drop) - self.delivered)

        # The books, one register later.
        m.d.sync += begun.eq(load)
        sent, bad_frame = Signal(), Signal()
        m.d.comb += [
            self.begin.valid.eq(begun & ~now.bad),
            self.begin.payload.header.eq(~now.host),
            self.begin.payload.payload.eq(now.payload),
            sent.eq(step & at_last & ~drop),
            bad_frame.eq(now.bad | drop),
        ]
        m.d.sync += [
            self.frame_finished.eq((step & at_last) | (begun & now.bad)),
            self.segments_done.eq(self.segments_done + (begun & now.segment)),
            self.error.valid.eq(begun & now.segment & drop),
            self.error.payload.code.eq(ErrorCode.PAYLOAD_READ),
            self.error.payload.argument.eq(now.id),
            self.count_tx_frames.eq(sent),
            self.count_tx_segments.eq(sent & ~now.host),
            self.count_tx_rst.eq(sent & now.rst),
            self.count_tx_dropped.eq(begun & bad_frame),
        ]

        # At most HOST_FRAMES are accepted ahead of their frame_done, so there is room.
        m.submodules.done = done = Outlet(FlowResponse, HOST_FRAMES)
        wiring.connect(m, done.o, wiring.flipped(self.frame_done))
        m.d.comb += done.i.valid.eq(begun & now.host)
        with m.If(now.bad):
            m.d.comb += done.i.payload.status.eq(Status.BAD_ARGUMENT)
        with m.Elif(drop):
            m.d.comb += done.i.payload.status.eq(Status.DMA_ERROR)
        with m.Else():
            m.d.comb += done.i.payload.status.eq(Status.OK)
        return m
