"""Syncache: the data of half-open connections (RFC 4987 section 3.3), found by index through the connection table.

An entry's life: taken from the free list, FRESH once its SYN,ACK is sent, REPORTED once the host took its SYN_RECEIVED
event; then it is accepted and free at once, or GONE until the host took its SYNCACHE_GONE event.
"""

from amaranth.hdl import Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, enum, fifo, memory, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import FourTuple, peer_fields
from ..wire.apart import APART

REF_GENERATION = 8
"""Lowest bit of the generation in a syncache reference, unless the index is wider."""


class EntryState(enum.Enum, shape=unsigned(2)):
    """State of a syncache entry."""

    FREE = 0
    FRESH = 1
    REPORTED = 2
    GONE = 3


def peer(cfg: EngineConfig) -> data.StructLayout:
    """What the SYN said."""
    return data.StructLayout(
        {
            # mss is the peer's, 536 if it gave none (RFC 9293 section 3.7.1), 1220 over IPv6.
            "tuple": FourTuple,
            "smac": 48,
            "irs": 32,
            "mss": 16,
            "ws_present": 1,
            "ws": 4,
            "sack_ok": 1,  # said, and we agree
            "ecn_ok": 1,  # likewise
            "ts_ok": 1,  # likewise, timestamps
            "tsval": 32,  # TS.Recent of half-open connections (RFC 7323 section 4.3)
            **dict.fromkeys(peer_fields(cfg), 128),
        }
    )


def own(cfg: EngineConfig) -> data.StructLayout:
    """What our SYN,ACK says."""
    return data.StructLayout(
        {
            "iss": 32,
            "listener": cfg.listener_bits,
            "mss": 16,
            "rcv_scale": 4,
            "wnd": 16,
            "by_cookie": 1,  # it was a SYN cookie's before
        }
    )


def index_bits(cfg: EngineConfig) -> int:
    """Bits of a syncache index as stored."""
    return max(1, cfg.syncache_bits)


def generation_bits(cfg: EngineConfig) -> int:
    """Bits of a reference's generation: those of 16 above bit 8 and above the index."""
    return 16 - max(REF_GENERATION, cfg.syncache_bits)


def entry_status(cfg: EngineConfig) -> data.StructLayout:
    """What changes in the life of an entry. ``remaining``: ticks until the SYN,ACK is due again. ``retries``: how often it was;
    ``repeats``: how often it was sent again, for the peer's SYN too, at most 2."""
    return data.StructLayout(
        {
            "state": EntryState,
            "generation": generation_bits(cfg),
            "retries": 8,
            "remaining": 16,
            "repeats": 2,
        }
    )


def reference(cfg: EngineConfig, index, generation) -> Value:
    """A syncache reference as the host sees it: the index below, the generation on top."""
    generation_at = 16 - generation_bits(cfg)
    return index | generation << generation_at if generation_bits(cfg) else index


class Syncache(wiring.Component):
    """Memories of the entries, one index at a time, and the list of free entries.

    Timing: ``peer``, ``own`` and ``status`` show entry ``index`` from the second cycle after ``index`` took its value,
    third after a write. After reset all entries are made free, one a cycle; ``ready`` then.

    Members
    -------
    index : In
    peer, own, status : Out, registered
    write_peer, write_own, write_status : In(1)
        Store ``peer_data``, ``own_data``, ``status_data`` at ``index``; ``index`` must stay for one more cycle.
    free : Out(1); free_index : Out
        There is a free entry, and which; void in the two cycles after ``take``.
    take : In(1)
        ``free_index`` is no longer free.
    release : In(1)
        Entry ``index`` becomes free. The caller keeps to once for each index taken from ``free``.
    ready : Out(1)
    """

    def __init__(self, cfg: EngineConfig):
        self.cfg = cfg
        bits = index_bits(cfg)
        super().__init__(
            {
                "index": In(bits),
                "peer": Out(peer(cfg)),
                "own": Out(own(cfg)),
                "status": Out(entry_status(cfg)),
                "write_peer": In(1),
                "peer_data": In(peer(cfg)),
                "write_own": In(1),
                "own_data": In(own(cfg)),
                "write_status": In(1),
                "status_data": In(entry_status(cfg)),
                "free": Out(1),
                "free_index": Out(bits),
                "take": In(1),
                "release": In(1),
                "ready": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        clearing = Signal(range(cfg.syncache_entries + 1))
        m.d.comb += self.ready.eq(clearing[-1])
        with m.If(~self.ready):
            m.d.sync += clearing.eq(clearing + 1)

        for name, shape in (("peer", peer(cfg)), ("own", own(cfg)), ("status", entry_status(cfg))):
            m.submodules[name] = storage = memory.Memory(
                shape=shape, depth=cfg.syncache_entries, init=[], attrs={"ram_style": "block"} | APART
            )  # entries are not read while written
            write, read = storage.write_port(), storage.read_port()
            m.d.comb += [
                read.addr.eq(self.index),
                read.en.eq(~write.en),  # never both at one address
                write.addr.eq(self.index),
                write.data.eq(getattr(self, f"{name}_data")),
                write.en.eq(getattr(self, f"write_{name}")),
            ]
            m.d.sync += getattr(self, name).eq(read.data)
            if name == "status":  # its data comes from afar: one more register
                self.statuses = storage.data
                late = Signal()
                late_data = Signal(shape, reset_less=True)
                m.d.sync += [late.eq(self.write_status), late_data.eq(self.status_data)]
                m.d.comb += [write.en.eq(late), write.data.eq(late_data)]
                with m.If(~self.ready):
                    m.d.comb += [write.addr.eq(clearing), write.data.eq(0), write.en.eq(1)]

        # One entry a cycle goes in while clearing, which a buffered queue of 2 cannot take. Registers in front: what
        # comes in comes from afar.
        m.submodules.free_list = free = fifo.SyncFIFOBuffered(width=index_bits(cfg), depth=max(4, cfg.syncache_entries))
        m.d.sync += [
            free.w_data.eq(Mux(self.ready, self.index, clearing)),
            free.w_en.eq(self.release | ~self.ready),
            free.r_en.eq(self.take),
        ]
        m.d.comb += [self.free_index.eq(free.r_data), self.free.eq(free.r_rdy)]
        return m
