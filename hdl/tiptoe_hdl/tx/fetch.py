"""Payload fetcher: reads payload from host memory ahead of its frame, aligned for it, and sums it on the way."""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..config import EngineConfig
from ..messages import dma_read_data, dma_request
from ..wire.realign import Realigner, realign_command
from ..wire.valid_only import valid_only
from .job import (
    PayloadResult,
    PayloadSums,
    buffer_words,
    fetch_job,
    frames_inside,
    result_delay,
)
from .outlet import Outlet
from .payload_sum import PayloadSum

READ_ERRORS = 4
"""Transfers inside the realigner: fewer, since each takes it two cycles."""


class PayloadFetcher(wiring.Component):
    """Requests a payload once the buffer has room for the longest one, so that read data never waits for the wire.

    Any number of requests up to ``frames_inside(cfg)`` are outstanding. Words leave in the order of the jobs, and so do
    results and sums.

    Timing: ``request`` is valid two cycles after the job is taken, one job in two cycles. A word passes the realigner and
    comes out one cycle later (``o_word``). After a payload's last word, ``o_result`` is valid in the next cycle (the
    third at 128 bits, the fifth at 256), ``o_sum`` five cycles later (four at 32 bits, six at 128, seven at 256).

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    i : In stream of ``fetch_job``
    request : Out stream of ``dma_request``
    data : In stream of ``dma_read_data``
    o_word : Out, valid-only
        Words for the payload buffer, in order.
    o_result : Out stream of ``PayloadResult``
    o_sum : Out stream of 16 bits
        Both one per job. They never block: they have room for all frames inside.
    freed : In
        Pulse: a word of the buffer is free again.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "i": In(stream.Signature(fetch_job(cfg))),
                "request": Out(stream.Signature(dma_request(cfg))),
                "data": In(stream.Signature(dma_read_data(cfg))),
                "o_word": Out(valid_only(cfg.data_width)),
                "o_result": Out(stream.Signature(PayloadResult)),
                "o_sum": Out(stream.Signature(PayloadSums)),
                "freed": In(1),
            }
        )

    def elaborate(self, platform):
        cfg, m = self._cfg, Module()
        lane_bits = ceil_log2(cfg.bytes_per_beat)
        m.submodules.commands = commands = Outlet(realign_command(cfg), frames_inside(cfg))
        m.submodules.realigner = realigner = Realigner(cfg)
        m.submodules.errors = errors = Outlet(1, READ_ERRORS)
        m.submodules.sum = payload_sum = PayloadSum(cfg)
        m.submodules.results = results = Outlet(PayloadResult, frames_inside(cfg))
        m.submodules.sums = sums = Outlet(PayloadSums, frames_inside(cfg))
        wiring.connect(m, commands.o, realigner.cmd)
        wiring.connect(m, results.o, wiring.flipped(self.o_result))
        wiring.connect(m, sums.o, wiring.flipped(self.o_sum))

        # Requests. What is left of the buffer is compared with the longest payload, not with this one: that is ready
        # in time, and in a buffer of many frames no loss. Wherever it begins, it takes no more words than its frame. (A job
        # follows another two cycles later.)
        job, waiting = Signal(fetch_job(cfg)), Signal()
        room = Signal(range(buffer_words(cfg) + 1), init=buffer_words(cfg))
        roomy, issue = Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(~waiting),
            issue.eq(waiting & ~self.request.valid & roomy),
            commands.i.valid.eq(issue),
            commands.i.payload.src_offset.eq(job.addr[:lane_bits]),
            commands.i.payload.dst_offset.eq(job.dst_offset),
            commands.i.payload.length.eq(job.length),
        ]
        with m.If(~waiting):
            m.d.sync += [waiting.eq(self.i.valid), job.eq(self.i.payload)]
        with m.Elif(issue):
            m.d.sync += waiting.eq(0)
        m.d.sync += roomy.eq(room >= cfg.frame_words)
        with m.If(self.request.ready):
            m.d.sync += self.request.valid.eq(0)
        with m.If(issue):
            m.d.sync += self.request.valid.eq(1)
        with m.If(~self.request.valid):
            m.d.sync += [
                self.request.payload.addr.eq(job.addr),
                self.request.payload.length.eq(job.length),
                self.request.payload.wrap_log2.eq(job.wrap_log2),
            ]
        with m.If(issue):
            m.d.sync += room.eq(room - job.words + self.freed)
        with m.Else():
            m.d.sync += room.eq(room + self.freed)

        # Read data through the realigner; the error flag of a transfer waits for its last word.
        m.d.comb += [
            realigner.i.valid.eq(self.data.valid),
            realigner.i.payload.eq(self.data.payload.data),
            self.data.ready.eq(realigner.i.ready),
        ]
        m.d.sync += [
            errors.i.valid.eq(self.data.valid & self.data.ready & self.data.payload.last),
            errors.i.payload.eq(self.data.payload.error),
        ]

        # To the buffer, which has room.
        last = Signal()
        m.d.comb += realigner.o.ready.eq(1)
        m.d.sync += [
            self.o_word.valid.eq(realigner.o.valid),
            self.o_word.payload.eq(realigner.o.payload.data),
            last.eq(realigner.o.payload.last),
        ]
        m.d.comb += [
            payload_sum.valid.eq(self.o_word.valid),
            payload_sum.data.eq(self.o_word.payload),
            payload_sum.last.eq(last),
            sums.i.valid.eq(payload_sum.o_valid),
            sums.i.payload.eq(payload_sum.o_sum),
        ]
        complete, error = self.o_word.valid & last, errors.o.payload
        m.d.comb += errors.o.ready.eq(complete)
        for stage in range(result_delay(cfg)):
            later_complete, later_error = Signal(name=f"complete{stage}"), Signal(name=f"error{stage}")
            m.d.sync += [later_complete.eq(complete), later_error.eq(error)]
            complete, error = later_complete, later_error
        m.d.comb += [results.i.valid.eq(complete), results.i.payload.error.eq(error)]
        return m
