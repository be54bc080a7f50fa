"""What the listen unit's states want to know of an entry, of the segment for it and of the commands: in flip-flops."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import ELAPSED_BITS, FIN, FourTuple
from ..wire.choice import equal_before
from ..wire.sequence import distance
from .handshake import Action, decide
from .jobs import BACKOFF_LIMIT, CROWDED_TICKS, PRESSED_RETRIES, SYN_ACK_TICKS
from .syncache import EntryState, entry_status, generation_bits, index_bits, own, peer, reference


def segment_says(cfg: EngineConfig) -> data.StructLayout:
    """What a segment says that matters for an entry."""
    return data.StructLayout(
        {"tuple": FourTuple, "seq": 32, "ack": 32, "flags": 8, "length": cfg.length_bits, "proven": 1}
    )


class EntryFacts(wiring.Component):
    """Follows the entry that the syncache shows and everything it is compared with.

    Timing: true one cycle after the entry, but ``due`` two, ``backoff`` three and ``action`` five cycles.

    Members
    -------
    index, peer, own, status : In
        The entry.
    meta : In
        The segment.
    elapsed : In(8); syn_retries : In(8)
        Ticks since the last visit; SYN,ACKs after the first one.
    pressed : In(1)
        SYNs find no room: who has left two SYN,ACKs unanswered gets no third one.
    crowded : In(1)
        Who has been silent for CROWDED_TICKS is given up: there is too little room for those who returned a SYN cookie.
    dropped, listener : In
        The reference to be dropped, the listener to be closed.
    stocked : In(1)
        There is an id: one was promised, but the pipeline may have refused it.
    iss_next, rcv_nxt : Out(32); mss : Out(16); generation_next, retries_next, repeats_next : Out
        ISS + 1, IRS + 1, the smaller of both MSS, and what is counted up.
    live, fresh : Out(1)
        Half-open; its SYN_RECEIVED was not yet taken.
    left : Out(17); due : Out(1); last_try : Out(1); backoff : Out(16)
        Ticks left (bit 16: less than none); none left, or no more are granted; no SYN,ACK after this one; ticks to the
        next one.
    since : Out(ELAPSED_BITS)
        Ticks since the SYN,ACK, as long as it was sent once.
    action : Out
        What to do about the segment.
    acceptable : Out(1)
        The host could know of the SYN, and there is an id; else the peer has to say its ACK again.
    named, child : Out(1)
        Half-open, and ``dropped`` is its reference; and it is a child of ``listener``.
    reference : Out(16)
    """

    def __init__(self, cfg: EngineConfig):
        self.cfg = cfg
        super().__init__({
            "index": In(index_bits(cfg)), "peer": In(peer(cfg)), "own": In(own(cfg)), "status": In(entry_status(cfg)),
            "meta": In(segment_says(cfg)), "elapsed": In(8), "pressed": In(1), "crowded": In(1), "syn_retries": In(8),
            "dropped": In(16), "listener": In(cfg.listener_bits), "stocked": In(1),
            "iss_next": Out(32), "rcv_nxt": Out(32), "mss": Out(16),
            "generation_next": Out(generation_bits(cfg)), "retries_next": Out(8), "repeats_next": Out(2),
            "since": Out(ELAPSED_BITS), "live": Out(1), "fresh": Out(1),
            "left": Out(17), "due": Out(1), "last_try": Out(1), "backoff": Out(16),
            "action": Out(Action), "acceptable": Out(1), "named": Out(1), "child": Out(1),
            "reference": Out(16),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        peer, own, status, meta = self.peer, self.own, self.status, self.meta
        half_open = (status.state == EntryState.FRESH) | (status.state == EntryState.REPORTED)

        # The segment.
        offset = Signal(32)
        ours, seq_is_irs, seq_is_next, in_window, ack_is_next = (Signal() for _ in range(5))
        # SEG.LEN in bytes; the segment begins so little left of RCV.NXT that it may reach beyond; where it then ends, from there.
        bits = len(meta.length)
        seg_len, left, end, at_edge, reaches_in = Signal(bits), Signal(), Signal(bits + 1), Signal(), Signal()
        m.d.sync += [
            ours.eq(self.live & equal_before(m, peer.tuple, meta.tuple)),
            offset.eq(distance(meta.seq, self.rcv_nxt)),
            seq_is_irs.eq(equal_before(m, meta.seq, peer.irs)),
            seq_is_next.eq(equal_before(m, meta.seq, self.rcv_nxt)),
            in_window.eq(offset < own.wnd),  # a distance, not a position
            seg_len.eq(meta.length + meta.flags[FIN]),
            left.eq(offset[bits:].all()),
            end.eq(offset[:bits] + seg_len),
            at_edge.eq((offset == own.wnd) & ~seg_len.any()),
            reaches_in.eq(at_edge | (left & end[bits] & end[:bits].any() & (end[:bits] <= own.wnd))),
            ack_is_next.eq(equal_before(m, meta.ack, self.iss_next)),
            self.action.eq(decide(
                m, meta.flags, live=ours, seq_is_irs=seq_is_irs, seq_is_next=seq_is_next, in_window=in_window,
                reaches_in=reaches_in, ack_is_next=ack_is_next, proven=meta.proven,
            )),
            self.acceptable.eq((status.state == EntryState.REPORTED) & self.stocked),
        ]  # fmt: skip

        # The timer.
        doublings = Signal(range(BACKOFF_LIMIT + 1))
        silent = Signal()
        in_the_way = self.crowded & silent
        m.d.sync += [
            self.left.eq(status.remaining - self.elapsed),
            silent.eq(status.retries.any() | (status.remaining <= SYN_ACK_TICKS - CROWDED_TICKS)),
            self.due.eq(
                self.left[16] | (self.left == 0) | (self.pressed & (status.retries > PRESSED_RETRIES)) | in_the_way
            ),
            self.last_try.eq(
                (status.retries >= self.syn_retries) | (self.pressed & (status.retries >= PRESSED_RETRIES)) | in_the_way
            ),
            self.retries_next.eq(status.retries + 1),
            self.repeats_next.eq(Cat(status.repeats == 0, status.repeats != 0)),
            self.since.eq(SYN_ACK_TICKS - status.remaining),
            doublings.eq(Mux(self.retries_next < BACKOFF_LIMIT, self.retries_next, BACKOFF_LIMIT)),
            self.backoff.eq(Array(SYN_ACK_TICKS << count for count in range(BACKOFF_LIMIT + 1))[doublings]),
        ]

        # The rest.
        m.d.comb += self.reference.eq(reference(self.cfg, self.index, status.generation))
        m.d.sync += [
            self.iss_next.eq(own.iss + 1),
            self.rcv_nxt.eq(peer.irs + 1),
            self.mss.eq(Mux(peer.mss < own.mss, peer.mss, own.mss)),
            self.live.eq(half_open),
            self.fresh.eq(status.state == EntryState.FRESH),
            self.generation_next.eq(status.generation + 1),
            self.named.eq(half_open & (self.reference == self.dropped)),
            self.child.eq(half_open & (own.listener == self.listener)),
        ]
        return m
