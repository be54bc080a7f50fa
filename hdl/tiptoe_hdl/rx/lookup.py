"""Lookups of the dispatcher: received segments in order, each with whose it is (RFC 9293 section 3.10.7)."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..listen.listen_table import LocalEndpoint, listens
from ..messages import ACK, RST, SYN, FourTuple, rx_meta, table_result
from ..wire.valid_only import valid_only

Kind = data.StructLayout({"host": 1, "connection": 1, "syn": 1, "wait": 1, "nobody": 1, "silent": 1, "returned": 1})
"""Whose a segment is, as far as the tables tell; all 0: not known yet. ``syn``: the listen unit's, which nobody waits for.
``wait``: of a half-open connection. ``silent``: of nobody, and not reset. ``returned``: of nobody or a
half-open connection, but perhaps the ACK of a SYN cookie."""

_Flags = data.StructLayout({"opens": 1, "syn": 1, "bare": 1, "acks": 1})
"""Of a segment: a SYN alone (with or without FIN); one with a SYN, no reset; one with neither SYN, ACK nor RST; one with an ACK,
neither SYN nor RST."""


def told(cfg: EngineConfig) -> data.StructLayout:
    """What is kept of a ``table_result`` and of what the listen table found with it; decoded on arrival."""
    return data.StructLayout({
        "hit": 1, "is_connection": 1, "full": 1, "index": table_result(cfg)["index"].shape,
        "listens": 1, "listener": cfg.listener_bits,
    })  # fmt: skip


class Lookup(wiring.Component):
    """Holds two segments: the head, which the dispatcher deals with, and the next one, whose lookup is already under way.

    Timing: ``meta.ready`` does not depend on the head's fate. The head and its ``kind`` stay until the cycle after ``done``.
    ``lookup``, ``find`` and ``meta.ready`` are combinational from the other's side.

    Members
    -------
    meta : In stream of ``rx_meta``
    lookup : Out stream of FourTuple; result : In stream of ``table_result``
        The connection table.
    find : Out valid-only of LocalEndpoint; found : In stream of ``listens``
        The listen table: a search with each lookup; found is there when the lookup's result is, and taken together with it.
    head : Out ``rx_meta``; told : Out ``told``; kind : Out Kind
        Flip-flops. The first two count from the cycle on in which ``kind`` is not 0.
    done : In(1)
        The head's last cycle.
    again : In(1); repeated : Out(1)
        The head wants another lookup, until that is on its way: ``kind`` is 0 from then until its result comes.
    cookies_recent : In(1)
        ACKs of cookies may come.
    opening : In(1); crossed : Out(1)
        SYNs are on their way to the connection table; they were since the head was looked up.
    arrivals_issued : Out(8)
        Counts segments taken, each with its lookup; wraps.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        self._told = told(cfg)
        super().__init__(
            {
                "meta": In(stream.Signature(rx_meta(cfg))),
                "lookup": Out(stream.Signature(FourTuple)),
                "result": In(stream.Signature(table_result(cfg))),
                "find": Out(valid_only(LocalEndpoint)),
                "found": In(stream.Signature(listens(cfg))),
                "head": Out(rx_meta(cfg)),
                "told": Out(self._told),
                "kind": Out(Kind),
                "done": In(1),
                "again": In(1),
                "repeated": Out(1),
                "cookies_recent": In(1),
                "opening": In(1),
                "crossed": Out(1),
                "arrivals_issued": Out(8),
            }
        )

    def elaborate(self, platform):
        m = Module()
        kind = self.kind
        head, told = Signal(rx_meta(self._cfg), reset_less=True), Signal(self._told, reset_less=True)
        m.d.comb += [self.head.eq(head), self.told.eq(told)]
        head_valid, head_flags = Signal(), Signal(_Flags)
        next_, next_valid, next_flags = Signal(rx_meta(self._cfg), reset_less=True), Signal(), Signal(_Flags)
        syn, ack, rst = (next_.flags[bit] for bit in (SYN, ACK, RST))
        m.d.comb += [
            next_flags.opens.eq(syn & ~ack & ~rst), next_flags.syn.eq(syn & ~rst), next_flags.bare.eq(~syn & ~ack & ~rst),
            next_flags.acks.eq(ack & ~syn & ~rst),
        ]  # fmt: skip
        next_told, next_told_valid = Signal(self._told, reset_less=True), Signal()
        head_waiting, next_waiting = Signal(), Signal()  # a result is outstanding
        behind = Signal()  # the head's outstanding result comes after the next one's
        offered = Signal()  # the lookup of ``meta`` is on offer: it must stay
        repeat, taken = Signal(), Signal()
        next_crossed = Signal()
        m.d.sync += [
            self.crossed.eq(self.crossed | self.opening),
            next_crossed.eq(self.opening | (next_crossed & next_valid)),
        ]
        m.d.comb += [
            repeat.eq(self.again & ~offered),
            self.repeated.eq(repeat & self.lookup.ready),
            self.lookup.valid.eq(repeat | (self.meta.valid & ~self.meta.payload.to_host & ~next_valid)),
            self.lookup.payload.eq(Mux(repeat, head.tuple, self.meta.payload.tuple)),
            self.meta.ready.eq(~next_valid & ~repeat & (self.lookup.ready | self.meta.payload.to_host)),
            taken.eq(self.meta.valid & self.meta.ready),
            self.find.valid.eq(self.lookup.valid & self.lookup.ready),
            self.find.payload.laddr.eq(self.lookup.payload.laddr),
            self.find.payload.lport.eq(self.lookup.payload.lport),
        ]
        m.d.sync += self.arrivals_issued.eq(self.arrivals_issued + taken)
        m.d.sync += offered.eq(self.lookup.valid & ~self.lookup.ready & ~repeat)

        result, arrived = self._arrival(m)
        arrived_head, arrived_next = Signal(), Signal()
        m.d.comb += [
            arrived_head.eq(arrived & head_waiting & ~behind),
            arrived_next.eq(arrived & ~arrived_head),
        ]
        with m.If(arrived_head):
            m.d.sync += [told.eq(result), head_waiting.eq(0)]
            self._sort(m, result, head_flags)
        with m.If(arrived_next):
            m.d.sync += [next_told.eq(result), next_told_valid.eq(1), next_waiting.eq(0), behind.eq(0)]
        with m.If(self.repeated):
            m.d.sync += [kind.eq(0), head_waiting.eq(1), behind.eq(next_waiting & ~arrived_next)]
        with m.If(self.done):
            m.d.sync += [head_valid.eq(0), kind.eq(0)]
        with m.If(~head_valid):
            known = data.View(self._told, Mux(arrived_next, result, next_told))
            m.d.sync += [
                head.eq(next_),
                head_flags.eq(next_flags),
                head_valid.eq(next_valid),
                self.crossed.eq(next_crossed | self.opening),
                head_waiting.eq(next_waiting & ~arrived_next),
                told.eq(known),
                kind.host.eq(next_valid & next_.to_host),
            ]
            with m.If(next_told_valid | arrived_next):
                self._sort(m, known, next_flags)
            m.d.sync += [next_valid.eq(0), next_waiting.eq(0), next_told_valid.eq(0)]
        # The next one's place is free only when it is empty.
        with m.If(~next_valid):
            m.d.sync += [
                next_.eq(self.meta.payload), next_valid.eq(taken),
                next_waiting.eq(taken & ~self.meta.payload.to_host), next_told_valid.eq(0),
            ]  # fmt: skip
        return m

    def _arrival(self, m):
        """Both tables' answers: the listen table's is there before the other one. Returns them, and whether they are there: each
        lookup has its place."""
        result, arrived = Signal(self._told), Signal()
        m.d.comb += [
            arrived.eq(self.result.valid),
            self.result.ready.eq(1),
            self.found.ready.eq(self.result.valid),
            result.hit.eq(self.result.payload.hit),
            result.is_connection.eq(self.result.payload.hit & ~self.result.payload.is_syncache),
            result.full.eq(self.result.payload.full),
            result.index.eq(self.result.payload.index),
            result.listens.eq(self.found.payload.hit),
            result.listener.eq(self.found.payload.listener),
        ]
        return result, arrived

    def _sort(self, m, result, flags):
        """The head's lookup has come."""
        half_open = result.hit & ~result.is_connection
        syn = Mux(result.hit, half_open & flags.syn, result.listens & flags.opens)
        m.d.sync += [
            self.kind.connection.eq(result.is_connection),
            self.kind.syn.eq(syn),
            self.kind.wait.eq(half_open & ~flags.syn),
            self.kind.nobody.eq(~result.hit & ~syn),
            self.kind.silent.eq(result.listens & flags.bare),
            self.kind.returned.eq(~result.is_connection & result.listens & flags.acks & self.cookies_recent),
        ]
