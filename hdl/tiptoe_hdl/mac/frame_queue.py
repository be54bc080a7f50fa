"""Queue of whole frames beside a MAC that can't wait (IEEE 802.3 clause 4: a frame's bits follow each other without a gap)."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..config import EngineConfig
from ..messages import beat, rx_beat
from ..wire.apart import APART


class FrameQueue(wiring.Component):
    """Gives out only what it has whole, beat after beat without a gap for as long as ``o.ready`` is high.

    Towards the engine, from a MAC without back pressure (``lossy``): ``i.ready`` is always high; a frame that finds no room is
    taken out as a whole, and so is a damaged one. From the engine to the MAC: ``i`` waits for room, and a MAC that takes a beat
    whenever it needs one finds it. Why that wait ends: the frames in the queue are whole, so they leave as the MAC takes them;
    and a frame that has the whole queue to itself and does not fit is taken out, whoever sent it.

    Timing: a frame's first beat leaves two cycles after its last one came. One beat a cycle. ``o.payload`` comes from the
    memory's output, ``i.ready`` from flip-flops.

    Parameters
    ----------
    cfg : EngineConfig
        ``data_width`` and ``max_frame_bytes``.
    words : int
        Beats of room, a power of two; more than the longest frame has.
    lossy : bool

    Members
    -------
    i : In stream of ``rx_beat(cfg)``
        ``error`` counts in the last beat. ``keep`` without holes, all ones but in the last beat: else the frame is damaged.
    o : Out stream of ``beat(cfg)``
    count_dropped : Out(1)
        Pulse: a frame found no room, or is longer than the queue.
    count_damaged : Out(1)
        Pulse: a frame came with ``error``, or with a ``keep`` that no frame has.
    """

    def __init__(self, cfg: EngineConfig, words: int, *, lossy: bool):
        if words & (words - 1) or words <= -(-cfg.max_frame_bytes // cfg.bytes_per_beat):
            raise ValueError(
                f"words must be a power of two, and more than a frame of {cfg.max_frame_bytes} bytes has beats of "
                f"{cfg.bytes_per_beat}; not {words}"
            )
        self._cfg, self._words, self._lossy = cfg, words, lossy
        super().__init__(
            {
                "i": In(stream.Signature(rx_beat(cfg))),
                "o": Out(stream.Signature(beat(cfg))),
                "count_dropped": Out(1),
                "count_damaged": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes = self._cfg.bytes_per_beat
        # A word and its bytes less one fit the parity bits of block memory; ``empty``: the last beat holds none.
        word = data.StructLayout({"data": 8 * lanes, "last": 1, "empty": 1, "highest": ceil_log2(lanes)})
        m.submodules.memory = storage = memory.Memory(
            shape=word, depth=self._words, init=[], attrs=APART
        )  # what is read is whole
        write, read = storage.write_port(), storage.read_port()

        begin = Signal(range(self._words))  # of the frame that comes in: what lies before it is whole
        end, after = Signal.like(begin), Signal.like(begin)
        oldest = Signal.like(begin)
        lost, damaged = Signal(), Signal()  # the frame that comes in, by what has come of it
        full, alone = Signal(), Signal()
        taken, bad, gone = Signal(), Signal(), Signal()
        beat_in = self.i.payload
        m.d.comb += [
            after.eq(end + 1),
            full.eq(after == oldest),
            alone.eq(begin == oldest),
            self.i.ready.eq(~full | lost | alone if not self._lossy else 1),
            taken.eq(self.i.valid & self.i.ready),
            bad.eq(damaged | _holes(beat_in.keep) | Mux(beat_in.last, beat_in.error, ~beat_in.keep.all())),
            gone.eq(lost | full),
            write.addr.eq(end),
            write.en.eq(taken & ~gone),
            write.data.data.eq(beat_in.data),
            write.data.last.eq(beat_in.last),
            write.data.empty.eq(~beat_in.keep[0]),
            write.data.highest.eq(sum(beat_in.keep[1:])),
            self.count_dropped.eq(taken & beat_in.last & ~bad & gone),
            self.count_damaged.eq(taken & beat_in.last & bad),
        ]
        with m.If(taken):
            m.d.sync += [lost.eq(gone & ~beat_in.last), damaged.eq(bad & ~beat_in.last)]
            with m.If(~gone):
                m.d.sync += end.eq(after)
            with m.If(beat_in.last):
                with m.If(bad | gone):
                    m.d.sync += end.eq(begin)
                with m.Else():
                    m.d.sync += begin.eq(after)

        following = Signal.like(oldest)
        m.d.comb += [
            following.eq(oldest + (self.o.valid & self.o.ready)),
            read.addr.eq(following),
            read.en.eq(1),
            self.o.payload.data.eq(read.data.data),
            self.o.payload.last.eq(read.data.last),
            self.o.payload.keep.eq(Mux(read.data.empty, 0, (2 << read.data.highest) - 1)),
        ]
        m.d.sync += [oldest.eq(following), self.o.valid.eq(following != begin)]
        return m


def _holes(keep):
    """Whether a one stands above a zero."""
    return (keep & (keep + 1)).any()
