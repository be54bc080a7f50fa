"""Sequencer: decides, beat by beat, what the assembler reads, and keeps the books of the frames."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..host.abi import ErrorCode
from ..messages import ErrorEvent, FlowResponse, Status
from ..wire.queue import Queue
from ..wire.valid_only import valid_only
from .job import IP_CHECKSUM_BYTE, TCP_CHECKSUM_BYTE, PayloadResult, TxBegin, tx_info, tx_step
from .resolve import HOST_FRAMES

BEATS_ON_THE_WAY = 16
"""Beats between their step and ``o``'s transfer: the pipeline's, and what a stalled ``o`` leaves behind."""


class Sequencer(wiring.Component):
    """Steps through the frames in order, a beat a cycle, without a pause inside a frame or between two.

    A frame begins when its payload is complete. One whose payload could not be read is read past.

    Timing: the first step is in the cycle in which ``info`` and ``result`` are valid. All outputs but ``o`` and
    ``begin`` come from flip-flops.

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    info : In stream of ``tx_info``
    result : In stream of ``PayloadResult``
        One per ``info`` with ``payload``.
    o : Out, valid-only, ``tx_step``
    begin : Out, valid-only, ``TxBegin``
        With a frame's first step.
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
        super().__init__({
            "info": In(stream.Signature(tx_info(cfg))),
            "result": In(stream.Signature(PayloadResult)),
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
        })

    def elaborate(self, platform):
        cfg, m = self._cfg, Module()
        info, result, o = self.info.payload, self.result.payload, self.o.payload

        # The place in the frame; flags prepared by the beat before, so that no comparison stands before a step.
        index = Signal.like(info.last)
        following = Signal.like(info.last, init=1)
        at_start = Signal(init=1)
        at_seam = Signal()  # the header's last beat, which is the payload's first
        behind_seam = Signal()
        behind_payload = Signal()
        at_last = Signal()
        drop, dropping = Signal(), Signal()
        on_the_way = Signal(range(BEATS_ON_THE_WAY + 1))
        step, skip = self.o.valid, Signal()
        m.d.comb += [
            step.eq(self.info.valid & ~info.bad & ~on_the_way[-1]
                    & (~at_start | ~info.payload | self.result.valid)),
            skip.eq(self.info.valid & info.bad),
            drop.eq(Mux(at_start, info.payload & result.error, dropping)),
            self.info.ready.eq((step & at_last) | skip),
            self.result.ready.eq(step & at_start & info.payload),
            self.begin.valid.eq(step & at_start),
            self.begin.payload.header.eq(~info.host),
            self.begin.payload.payload.eq(info.payload),

            o.emit.eq(~drop),
            o.header.eq(~info.host & ~behind_seam),
            o.payload.eq(info.payload & (info.host | at_seam | behind_seam) & ~behind_payload),
            o.index.eq(index),
            o.header_last.eq(at_seam),
            o.ip_checksum.eq(o.header & (o.index == IP_CHECKSUM_BYTE // cfg.bytes_per_beat)),
            o.tcp_checksum.eq(o.header & (o.index == TCP_CHECKSUM_BYTE // cfg.bytes_per_beat)),
            o.last.eq(at_last),
            o.last_lane.eq(info.last_lane),
        ]  # fmt: skip
        with m.If(step):
            m.d.sync += [
                index.eq(following),
                following.eq(following + 1),
                at_start.eq(0),
                at_seam.eq(~info.host & (following == info.payload_start)),
                behind_seam.eq(behind_seam | at_seam),
                behind_payload.eq(behind_payload | (index == info.payload_last)),
                at_last.eq(following == info.last),
                dropping.eq(drop),
            ]
            with m.If(at_last):
                m.d.sync += [
                    index.eq(0), following.eq(1), at_start.eq(1),
                    at_seam.eq(0), behind_seam.eq(0), behind_payload.eq(0), at_last.eq(0),
                ]  # fmt: skip
        m.d.sync += on_the_way.eq(on_the_way + (step & o.emit) - self.delivered)

        # The books, one register later.
        first, sent = Signal(), Signal()
        bad_frame = Signal()
        m.d.comb += [
            first.eq((step & at_start) | skip),
            sent.eq(step & at_last & ~drop),
            bad_frame.eq(info.bad | (info.payload & result.error)),
        ]
        m.d.sync += [
            self.frame_finished.eq(self.info.ready),
            self.segments_done.eq(self.segments_done + (first & info.segment)),
            self.error.valid.eq(step & at_start & info.segment & info.payload & result.error),
            self.error.payload.code.eq(ErrorCode.PAYLOAD_READ),
            self.error.payload.argument.eq(info.id),
            self.count_tx_frames.eq(sent),
            self.count_tx_segments.eq(sent & ~info.host),
            self.count_tx_rst.eq(sent & info.rst),
            self.count_tx_dropped.eq(first & bad_frame),
        ]

        # At most HOST_FRAMES are accepted ahead of their frame_done, so the queue has room.
        m.submodules.done = done = Queue(FlowResponse, HOST_FRAMES)
        wiring.connect(m, done.o, wiring.flipped(self.frame_done))
        m.d.comb += done.i.valid.eq(first & info.host)
        with m.If(info.bad):
            m.d.comb += done.i.payload.status.eq(Status.BAD_ARGUMENT)
        with m.Elif(bad_frame):
            m.d.comb += done.i.payload.status.eq(Status.DMA_ERROR)
        with m.Else():
            m.d.comb += done.i.payload.status.eq(Status.OK)
        return m
