"""Placement: payload of received segments straight to its place in the connection's receive ring, frames of nobody to
the host frame ring."""

from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..host.abi import ErrorCode
from ..host.consumer_check import ConsumerCheck
from ..messages import ErrorEvent, dma_request, frame_event, frame_info, placed, ring_write, rx_verdict
from ..wire.queue import HalfQueue, Queue
from ..wire.realign import Realigner, realign_command
from ..wire.valid_only import valid_only
from .buffer import read_port
from .conclude import Conclusions, abort_request
from .extract import FrameExtractor
from .target import IN_FLIGHT, TargetPipeline, conclusion, extraction

_WRITES = 16
"""Writes that are asked for but not yet taken by the DMA writer or the realigner, and frames not yet read."""

_CONCLUSIONS = 32
"""Frames whose writes are not over: 26 of them may be on the bus."""

_FRAME_EVENTS = 8


class Placement(wiring.Component):
    """Takes frames in order, has them written, and reports when the bus has acknowledged.

    The parts run each at its own pace, coupled by queues: ``TargetPipeline`` finds addresses, ``FrameExtractor`` reads
    and frees frames, ``Realigner`` shifts, ``Conclusions`` waits for the writes. So the next frames are read while the
    data of one drains, and many writes are on their way at once.

    Timing: one word a cycle and one or two cycles a frame on top; at least two cycles a write, four a verdict; frames
    that are dropped three. A write is asked for six cycles after its verdict.

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    info : In stream of ``frame_info(cfg)``
    verdict : In stream of ``rx_verdict(cfg)``
        Taken for an info that asks.
    ring : In valid-only of ``ring_write(cfg)``
        Base and size of an id's receive ring.
    read : Out(read_port(cfg))
        The receive buffer's read side.
    request : Out stream of ``dma_request(cfg)``, data : Out stream of words, done : In stream of ``{error}``
        The DMA writer. Every word is asked for; bytes around the transfer's are 0.
    placed : Out stream of ``placed(cfg)``
    abort : Out stream of ``{id}``
        A connection's payload could not be written; once, and nothing is reported as placed for the id from then on
        until it has a new ring.
    error : Out valid-only of ``ErrorEvent``
        PAYLOAD_WRITE, argument: id, or all ones for a host frame; BAD_FRAME_CONSUMER.
    frame : Out stream of ``frame_event(cfg)``
        A host frame is in its slot; with length 0 the write failed and the slot holds nothing.
    host_base : In(addr_width), host_slots_log2 : In(4), host_consumer : In(16), host_enable : In(1)
        The host frame ring, aligned to its size. A ``host_consumer`` that no host can have reached is ignored.
    arrivals_done : Out(8)
        Counts frames completely finished, in order, those that are dropped too; wraps.
    count_rx_host_dropped : Out(1)
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "info": In(stream.Signature(frame_info(cfg))),
                "verdict": In(stream.Signature(rx_verdict(cfg))),
                "ring": In(valid_only(ring_write(cfg))),
                "read": Out(read_port(cfg)),
                "request": Out(stream.Signature(dma_request(cfg))),
                "data": Out(stream.Signature(unsigned(cfg.data_width))),
                "done": In(stream.Signature(data.StructLayout({"error": 1}))),
                "placed": Out(stream.Signature(placed(cfg))),
                "abort": Out(stream.Signature(abort_request(cfg))),
                "error": Out(valid_only(ErrorEvent)),
                "frame": Out(stream.Signature(frame_event(cfg))),
                "host_base": In(cfg.addr_width),
                "host_slots_log2": In(4),
                "host_consumer": In(16),
                "host_enable": In(1),
                "arrivals_done": Out(8),
                "count_rx_host_dropped": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        cfg = self._cfg
        m.submodules.targets = targets = TargetPipeline(cfg)
        m.submodules.extractor = extractor = FrameExtractor(cfg)
        m.submodules.realigner = realigner = Realigner(cfg)
        m.submodules.conclusions = conclusions = Conclusions(cfg)
        m.submodules.frames = frames = Queue(frame_event(cfg), _FRAME_EVENTS)

        wiring.connect(m, wiring.flipped(self.info), targets.info)
        wiring.connect(m, wiring.flipped(self.verdict), targets.verdict)
        wiring.connect(m, extractor.read, wiring.flipped(self.read))
        wiring.connect(m, extractor.o, realigner.i)
        wiring.connect(m, wiring.flipped(self.done), conclusions.done)
        wiring.connect(m, conclusions.placed, wiring.flipped(self.placed))
        wiring.connect(m, conclusions.abort, wiring.flipped(self.abort))
        wiring.connect(m, conclusions.frame, frames.i)
        wiring.connect(m, frames.o, wiring.flipped(self.frame))
        m.submodules.check = check = ConsumerCheck(16)
        # Of two errors at once the newer is told, as everywhere.
        m.d.comb += [
            self.error.valid.eq(conclusions.error.valid | check.wrong),
            self.error.payload.eq(conclusions.error.payload),
        ]
        with m.If(check.wrong):
            m.d.comb += [
                self.error.payload.code.eq(ErrorCode.BAD_FRAME_CONSUMER),
                self.error.payload.argument.eq(check.count),
            ]
        m.d.comb += [
            check.i.eq(self.host_consumer),
            check.producer.eq(targets.host_producer),
            targets.ring.valid.eq(self.ring.valid),
            targets.ring.payload.eq(self.ring.payload),
            conclusions.ring.valid.eq(self.ring.valid),
            conclusions.ring.payload.eq(self.ring.payload),
            targets.host_base.eq(self.host_base),
            targets.host_slots_log2.eq(self.host_slots_log2),
            targets.host_consumer.eq(check.o),
            targets.host_enable.eq(self.host_enable),
            self.arrivals_done.eq(conclusions.arrivals_done),
            self.count_rx_host_dropped.eq(targets.count_rx_host_dropped),
            self.data.valid.eq(realigner.o.valid),
            self.data.payload.eq(realigner.o.payload.data),
            realigner.o.ready.eq(self.data.ready),
        ]

        # Every target goes to the queues it concerns; none is ever full, since ``go`` falls before.
        o = targets.o
        writes = o.valid & o.payload.extraction.write
        rooms = [
            self._queue(m, "extractions", extraction(cfg), _WRITES, o.valid, o.payload.extraction, extractor.i),
            self._queue(m, "commands", realign_command(cfg), _WRITES, writes, o.payload.realign, realigner.cmd),
            self._queue(m, "requests", dma_request(cfg), _WRITES, writes, o.payload.request,
                        wiring.flipped(self.request)),
            self._queue(m, "waiting", conclusion(cfg), _CONCLUSIONS, o.valid, o.payload.conclusion, conclusions.i, HalfQueue),
        ]  # fmt: skip
        m.d.comb += targets.go.eq(Cat(*rooms).all())

        # Frame events always find room.
        open_frames = Signal(range(_FRAME_EVENTS + 1))
        event_taken = Signal()
        m.d.comb += event_taken.eq(self.frame.valid & self.frame.ready)
        with m.Switch(Cat(targets.frame_taken, event_taken)):
            with m.Case(0b01):
                m.d.sync += open_frames.eq(open_frames + 1)
            with m.Case(0b10):
                m.d.sync += open_frames.eq(open_frames - 1)
        m.d.comb += targets.frame_credit.eq(open_frames != _FRAME_EVENTS)
        return m

    def _queue(self, m, name, shape, depth, push, entry, sink, kind=Queue):
        """A queue before ``sink``; returns a flip-flop that is high while it can take ``IN_FLIGHT`` more and one."""
        queue = kind(shape, depth)
        m.submodules[name] = queue
        m.d.comb += [queue.i.valid.eq(push), queue.i.payload.eq(entry)]
        wiring.connect(m, queue.o, sink)
        count = Signal(range(depth + 1), name=f"{name}_count")
        room = Signal(name=f"{name}_room")
        popped = Signal(name=f"{name}_popped")
        m.d.sync += popped.eq(queue.o.valid & queue.o.ready)
        with m.Switch(Cat(push, popped)):
            with m.Case(0b01):
                m.d.sync += count.eq(count + 1)
            with m.Case(0b10):
                m.d.sync += count.eq(count - 1)
        m.d.sync += room.eq(count < depth - IN_FLIGHT)
        return room
