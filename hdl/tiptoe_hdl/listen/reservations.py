"""Ids promised to half-open connections: a SYN,ACK leaves only when an id is certain for the ACK that it asks for."""

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig


class Reservations(wiring.Component):
    """Counts the ids in stock less the half-open connections.

    Invariant: half-open connections <= ids in stock. It is kept by taking a SYN only while ``available``. Which id a
    half-open connection gets is open until its ACK comes; so ids that come into stock later serve the ACKs that are
    waited for before any later SYN. Each connection takes an id and an entry at once, which leaves the difference as it is.

    Only an id that the pipeline refuses breaks the invariant, since it leaves the stock and its half-open connection stays:
    the difference is negative then, and the next ids make up for it before a SYN is taken.

    Timing: ``available`` follows the pulses in three cycles. Two SYNs are further apart.

    Members
    -------
    stocked : In(1)
        An id comes into stock.
    promised : In(1)
        A SYN becomes a half-open connection.
    returned : In(1)
        A half-open connection ends without a connection.
    lost : In(1)
        An id leaves the stock without a connection.
    available : Out(1)
        There is an id that nobody was promised.
    """

    def __init__(self, cfg: EngineConfig):
        self.cfg = cfg
        super().__init__({
            "stocked": In(1), "promised": In(1), "returned": In(1), "lost": In(1), "available": Out(1),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        more, less = Signal(2), Signal(2)
        self.spare = spare = Signal(signed(self.cfg.id_bits + 2))  # at most ids, at least -ids
        m.d.sync += [
            more.eq(self.stocked + self.returned),
            less.eq(self.promised + self.lost),
            spare.eq(spare + more - less),
            self.available.eq(spare > 0),
        ]
        return m
