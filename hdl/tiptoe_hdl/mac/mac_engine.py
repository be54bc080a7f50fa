"""The engine beside a MAC that can't wait: whole frames in, whole frames out (IEEE 802.3 clause 4)."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect, flipped

from ..config import EngineConfig
from ..engine import Engine
from .frame_queue import FrameQueue

QUEUE_WORDS = 512
"""Beats of each queue unless told otherwise: at 64 bits 4 KiB, two block memories of ECP5."""


class MacEngine(wiring.Component):
    """:class:`~tiptoe_hdl.engine.Engine` with a queue of whole frames at each frame port; its other ports are the engine's.

    ``s_axis_rx.tready`` is always high: a frame that the engine has no room for is taken out as a whole and counted, and its
    sender's TCP repairs it. ``m_axis_tx`` gives a frame only when all of it is there, and then without a gap for as long as
    ``tready`` is high.

    Parameters
    ----------
    cfg : EngineConfig
    rx_words, tx_words : int
        Beats in the queues; powers of two, each more than the longest frame has.

    Members
    -------
    rx_dropped : Out(32)
        Frames from the MAC that found no room, modulo 2**32.
    rx_damaged : Out(32)
        Frames that the MAC marked as damaged, modulo 2**32.
    tx_dropped : Out(32)
        Frames of the engine that were longer than their queue: 0, unless ``max_frame_bytes`` is wrong.
    """

    def __init__(self, cfg: EngineConfig, rx_words: int = QUEUE_WORDS, tx_words: int = QUEUE_WORDS):
        self._engine = Engine(cfg)
        self._rx = FrameQueue(cfg, rx_words, lossy=True)
        self._tx = FrameQueue(cfg, tx_words, lossy=False)
        counts = {name: Out(32) for name in ("rx_dropped", "rx_damaged", "tx_dropped")}
        super().__init__(dict(self._engine.signature.members) | counts)

    def elaborate(self, platform):
        m = Module()
        m.submodules.engine = engine = self._engine
        m.submodules.rx_queue, m.submodules.tx_queue = rx, tx = self._rx, self._tx
        for name in ("s_axil", "m_axi_read", "m_axi_write"):
            connect(m, flipped(getattr(self, name)), getattr(engine, name))
        m.d.comb += [self.irq.eq(engine.irq), engine.tick.eq(self.tick)]
        from_axis(m, self.s_axis_rx, rx.i)
        to_axis(m, rx.o, engine.s_axis_rx)
        from_axis(m, engine.m_axis_tx, tx.i)
        to_axis(m, tx.o, self.m_axis_tx)
        for pulse, total in (
            (rx.count_dropped, self.rx_dropped),
            (rx.count_damaged, self.rx_damaged),
            (tx.count_dropped, self.tx_dropped),
        ):
            m.d.sync += total.eq(total + pulse)
        return m


def from_axis(m, axis, sink):
    """Wire an AXI4-Stream to a stream of ``rx_beat``; without TUSER nothing is damaged."""
    m.d.comb += [
        sink.valid.eq(axis.tvalid),
        axis.tready.eq(sink.ready),
        sink.payload.data.eq(axis.tdata),
        sink.payload.keep.eq(axis.tkeep),
        sink.payload.last.eq(axis.tlast),
        sink.payload.error.eq(getattr(axis, "tuser", 0)),
    ]


def to_axis(m, source, axis):
    """Wire a stream of ``beat`` to an AXI4-Stream; TUSER, where there is one, stays 0."""
    m.d.comb += [
        axis.tvalid.eq(source.valid),
        source.ready.eq(axis.tready),
        axis.tdata.eq(source.payload.data),
        axis.tkeep.eq(source.payload.keep),
        axis.tlast.eq(source.payload.last),
    ]
