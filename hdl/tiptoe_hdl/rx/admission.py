"""Which SYNs the dispatcher lets in (RFC 9293 section 3.10.7.2, second; RFC 4987): nobody waits for them, so what cannot be
served is dropped, answered with a cookie, or left to the host."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..listen.cookie_maker import options_of
from ..listen.handshake import syn_request
from ..messages import ACK, CWR, ECE, SYN, peer_fields, rx_meta
from .lookup import told


class Admission(wiring.Component):
    """A register before the queue of SYNs, and who gets into it.

    Timing: a SYN is decided upon in the cycle of ``admit`` or ``place``; ``syn`` has it in the next one. ``to_host`` and the
    counts are combinational.

    Members
    -------
    head : In ``rx_meta``; told : In ``told``
        The segment, and what the tables say.
    admit : In(1)
        Pulse: the head is a SYN for a listener, or of a half-open connection.
    to_host : Out(1)
        It was not let in, and its frame goes to the host.
    crossed : In(1)
        See Lookup.
    place : In(1)
        Pulse, while ``waits`` is not set: the head is the ACK of a cookie.
    waits : Out(1)
        The SYN in the register waits for a maker of cookies: it leaves within a few cycles, unlike one that waits for the queue.
    syn : Out stream of ``syn_request``
    unserved : Out stream of ``syn_request``
        Without room: it gets a cookie. There is one register for both, and a valid bit for each.
    room, room_for_returned, cookies, syn_to_host : In(1)
        As the dispatcher's.
    settled : Out(1)
        What the SYN before takes shows in ``room``: neither ``admit`` nor ``place`` without it. Two cycles behind one.
    count_syn_received, count_syn_dropped_full, count_syn_queue_full : Out(1)
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        super().__init__(
            {
                "head": In(rx_meta(cfg)),
                "told": In(told(cfg)),
                "admit": In(1),
                "settled": Out(1),
                "to_host": Out(1),
                "crossed": In(1),
                "place": In(1),
                "waits": Out(1),
                "syn": Out(stream.Signature(syn_request(cfg))),
                "unserved": Out(stream.Signature(syn_request(cfg))),
                "room": In(1),
                "room_for_returned": In(1),
                "cookies": In(1),
                "syn_to_host": In(1),
                "count_syn_received": Out(1),
                "count_syn_dropped_full": Out(1),
                "count_syn_queue_full": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        head, told, syn = self.head, self.told, self.syn.payload
        m.d.comb += [self.waits.eq(self.unserved.valid), self.unserved.payload.eq(syn)]
        left = Signal(2)
        m.d.sync += left.eq(Cat(self.syn.valid & self.syn.ready, left))
        m.d.comb += self.settled.eq(~left.any())
        for port in (self.syn, self.unserved):
            with m.If(port.ready):
                m.d.sync += port.valid.eq(0)
        self._held = held = Signal()
        m.d.comb += held.eq(self.syn.valid | self.unserved.valid)
        with m.If(~held):
            m.d.sync += [syn.hit.eq(told.hit), syn.index.eq(told.index), syn.listener.eq(told.listener)]
            m.d.sync += [syn.is_ack.eq(head.flags[ACK]), syn.returned.eq(0)]
            m.d.sync += [
                syn[name].eq(head[name])
                for name in ("tuple", "smac", "seq", "ack", "mss", "ts_present", "tsval", *peer_fields(self._cfg))
            ]
            # Without timestamps a cookie agrees to nothing.
            is_syn, (returned, has_scale) = head.flags[SYN], options_of(head.tsecr)
            stamped = head.ts_present
            m.d.sync += [
                syn.ws_present.eq(Mux(is_syn, head.ws_present, has_scale & stamped)),
                syn.ws.eq(Mux(is_syn, head.ws, returned.ws)),
                syn.sack_ok.eq(Mux(is_syn, head.sack_ok, returned.sack_ok & stamped)),
                # ECE and CWR with SYN: an ECN-setup SYN (RFC 3168 section 6.1.1).
                syn.ecn_ok.eq(Mux(is_syn, head.flags[ECE] & head.flags[CWR], returned.ecn_ok & stamped)),
            ]
        with m.If(self.admit):
            self._admit(m)
        with m.If(self.place):
            m.d.comb += [
                self.count_syn_dropped_full.eq(~self.room_for_returned),
                self.count_syn_queue_full.eq(self.room_for_returned & held),
            ]
            with m.If(self.room_for_returned & ~held):
                m.d.sync += [self.syn.valid.eq(1), syn.returned.eq(1)]
        return m

    def _admit(self, m):
        """One that belongs to a half-open connection needs no room but the register."""
        fresh, full = Signal(), Signal()
        m.d.comb += [fresh.eq(~self.told.hit), full.eq(self.told.full), self.count_syn_received.eq(fresh)]
        with m.If(fresh & ~self.room & ~full & self.cookies & self.room_for_returned & ~self.crossed):
            # Only while there would be room for its return: a peer that has a SYN,ACK believes in it. And the line may have
            # doubled a SYN that has room.
            m.d.comb += self.count_syn_queue_full.eq(self._held)
            with m.If(~self._held):
                m.d.sync += self.unserved.valid.eq(1)
        with m.Elif(fresh & (~self.room | full)):
            m.d.comb += [self.count_syn_dropped_full.eq(1), self.to_host.eq(self.syn_to_host)]
        with m.Elif(self._held):
            m.d.comb += [self.count_syn_queue_full.eq(1), self.to_host.eq(self.syn_to_host & fresh)]
        with m.Else():
            m.d.sync += self.syn.valid.eq(1)
