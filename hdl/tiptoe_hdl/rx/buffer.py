"""Packet memory of the receive path: frames wait here for their verdict."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..config import EngineConfig
from ..wire.apart import APART

HEADROOM = 16
"""Words that are kept free for beats already under way when ``room`` falls."""


def buffer_words(cfg: EngineConfig) -> int:
    """Words of the receive buffer."""
    return cfg.rx_buffer_bytes // cfg.bytes_per_beat


def store_port(cfg: EngineConfig) -> wiring.Signature:
    """Write side, as the writer sees it: in a cycle with ``store``, ``data`` is the next word of the frame under way;
    with its last word or after it comes ``end``, and ``commit`` with that keeps the frame; without, its words are free
    again."""
    return wiring.Signature({"data": Out(cfg.data_width), "store": Out(1), "end": Out(1), "commit": Out(1)})


def read_port(cfg: EngineConfig) -> wiring.Signature:
    """Read side, as the reader sees it: with ``valid`` it asks for word ``word``, counted from the oldest frame's
    first; ``data`` answers when ``data_valid``, in order. ``free`` gives back the oldest frame, of ``free_words``."""
    return wiring.Signature({
        "valid": Out(1), "word": Out(ceil_log2(buffer_words(cfg))),
        "data": In(cfg.data_width), "data_valid": In(1),
        "free": Out(1), "free_words": Out(range(cfg.frame_words + 1)),
    })  # fmt: skip


class RxBuffer(wiring.Component):
    """Ring of words; every frame begins at a word.

    Write side: words are taken in every cycle; the writer stops within ``HEADROOM`` words after ``room`` falls,
    so nothing is ever overwritten. Read side: words may be read at random, also of frames behind the oldest, as
    long as they are committed; ``free`` gives back the oldest frame's words, and addresses count from the next
    frame from the following cycle on.

    Timing: ``read.data`` is valid three cycles after ``read.valid``, out of flip-flops, one word a cycle. ``room``
    follows writes and frees after three cycles.

    Parameters
    ----------
    cfg : EngineConfig
        ``rx_buffer_bytes``, ``data_width``, ``max_frame_bytes``.

    Members
    -------
    store : In(store_port(cfg))
    room : Out(1)
        At least ``HEADROOM`` words are free.
    read : In(read_port(cfg))
    level : Out
        Words in use, the frame under way included; two cycles late.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        words = buffer_words(cfg)
        if words < 2 * (cfg.frame_words + HEADROOM):
            raise ValueError(
                f"rx_buffer_bytes must hold two frames of {cfg.max_frame_bytes} bytes and {2 * HEADROOM} words, "
                f"not {cfg.rx_buffer_bytes} bytes"
            )
        super().__init__(
            {
                "store": In(store_port(cfg)),
                "room": Out(1),
                "read": In(read_port(cfg)),
                "level": Out(ceil_log2(words)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        words = buffer_words(self._cfg)
        m.submodules.memory = mem = memory.Memory(
            shape=unsigned(self._cfg.data_width), depth=words, init=[], attrs=APART
        )  # only committed frames are read
        write = mem.write_port()
        read = mem.read_port()

        start = Signal(range(words))  # the frame under way begins here
        end = Signal(range(words))  # its next word
        oldest = Signal(range(words))  # the oldest frame's first word
        ahead = Signal(range(words))
        m.d.comb += ahead.eq(end + self.store.store)
        with m.If(self.store.end):
            behind = Signal(range(words))
            m.d.comb += behind.eq(Mux(self.store.commit, ahead, start))
            m.d.sync += [start.eq(behind), end.eq(behind)]
        with m.Else():
            m.d.sync += end.eq(ahead)
        m.d.comb += [
            write.addr.eq(end),
            write.data.eq(self.store.data),
            write.en.eq(self.store.store),
        ]
        with m.If(self.read.free):
            m.d.sync += oldest.eq(oldest + self.read.free_words)

        # Pointers never meet from behind, so no extra bit is needed. Reset leaves room at 0 for a cycle or two.
        m.d.sync += [
            self.level.eq(end - oldest),
            self.room.eq(self.level < words - HEADROOM),
        ]

        word = Signal(range(words))
        valid = Signal(2)
        m.d.sync += [
            word.eq(oldest + self.read.word),
            valid.eq(Cat(self.read.valid, valid)),
            self.read.data_valid.eq(valid[1]),
            self.read.data.eq(read.data),
        ]
        m.d.comb += [read.addr.eq(word), read.en.eq(1)]
        return m
