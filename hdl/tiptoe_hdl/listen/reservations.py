"""Ids and entries promised to SYNs: a SYN,ACK leaves only when an id is certain for the ACK that it asks for."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig

RESERVED = 8
"""One entry and id of so many is kept for those who return a cookie: a flood of SYNs cannot take it."""


class Reservations(wiring.Component):
    """Counts the ids in stock less the half-open connections and the SYNs that wait to become one; and in the same way the
    free entries of the syncache.

    Invariant: half-open connections and SYNs that wait <= ids in stock; SYNs that wait <= free entries. It is kept by taking
    a SYN only while ``available``. Which id a
    half-open connection gets is open until its ACK comes; so ids that come into stock later serve the ACKs that are
    waited for before any later SYN. Each connection takes an id and an entry at once, which leaves the difference as it is.

    Only an id that the pipeline refuses breaks the invariant, since it leaves the stock and its half-open connection stays:
    the difference is negative then, and the next ids make up for it before a SYN is taken.

    Timing: ``available`` follows the pulses in two cycles. Two SYNs are further apart.

    Members
    -------
    stocked : In(1)
        An id comes into stock.
    promised : In(1)
        A SYN is taken that wants to become a half-open connection.
    returned : In(1)
        It comes to nothing, or a half-open connection ends without a connection.
    freed : In(1)
        An entry becomes free, or the SYN that it was promised comes to nothing.
    accepted : In(1)
        A half-open connection becomes a connection.
    lost : In(1)
        An id leaves the stock without a connection.
    reserve : In(1)
        Keep RESERVE of both for those who return a cookie.
    available : Out(1)
        There are an id and an entry that nobody was promised, and that are not kept.
    crowded : Out(1)
        Less is left than is to be kept: half-open connections that have been silent for long have to go.
    any_left : Out(1)
        There are an id and an entry that nobody was promised.
    """

    def __init__(self, cfg: EngineConfig):
        self.cfg = cfg
        super().__init__({
            "stocked": In(1), "promised": In(1), "returned": In(1), "freed": In(1), "accepted": In(1), "lost": In(1),
            "reserve": In(1), "available": Out(1), "any_left": Out(1), "crowded": Out(1),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        more, less = Signal(2), Signal(2)
        self.spare = spare = Signal(signed(self.cfg.id_bits + 2))  # at most ids, at least -ids
        self.entries = entries = Signal(range(self.cfg.syncache_entries + 1), init=self.cfg.syncache_entries)
        m.d.sync += [
            more.eq(self.stocked + self.returned),
            less.eq(self.promised + self.lost),
            spare.eq(spare + more - less),
            entries.eq(entries + self.freed - self.promised),
        ]
        # What a SYN takes has to be seen by the next one, five cycles behind: so no flip-flop here.
        half_open, promised = Signal(range(self.cfg.syncache_entries + 1)), Signal()  # and SYNs that wait
        kept = max(1, self.cfg.syncache_entries // RESERVED)
        m.d.sync += [
            promised.eq(self.promised),
            half_open.eq(half_open + promised - self.returned - self.accepted),
            self.crowded.eq(
                self.reserve & half_open.any() & ((spare < kept) | (half_open > self.cfg.syncache_entries - kept))
            ),
        ]
        m.d.comb += [
            self.any_left.eq((spare > 0) & entries.any()),
            self.available.eq(Mux(self.reserve, (spare > kept) & (entries > kept), self.any_left)),
        ]
        return m
