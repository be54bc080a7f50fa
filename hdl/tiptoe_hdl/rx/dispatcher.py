"""Dispatcher: whose is a received segment (RFC 9293 section 3.10.7)? And resets for those of nobody (section 3.10.7.1)."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..listen.handshake import Verdict, handshake
from ..messages import (
    ACK,
    FIN,
    RST,
    SYN,
    FourTuple,
    FrameInfo,
    RxMeta,
    TxControl,
    rx_segment,
    table_result,
)

_Kind = data.StructLayout({"host": 1, "connection": 1, "other": 1, "worth_asking": 1})
"""Whose a segment is, as far as the table tells; all 0: not known yet. ``worth_asking``: the listen unit may know another one."""


class Dispatcher(wiring.Component):
    """Looks each segment up and passes it on, strictly in frame order.

    Two segments are held: the head, which is being dealt with, and the next one, whose lookup is already under way. The
    head waits for the listen unit's verdict while that holds it; all other outputs drain without the dispatcher.

    The next segment's result may be older than what the head changes in the table. That does no harm: the listen unit
    compares four-tuples itself and asks to look again (RETRY), and a connection that has just ended ignores segments.

    Timing: a segment every 6 cycles with the connection table's latency of 7; 9 cycles from ``meta`` to ``segment``.
    ``lookup`` and ``meta.ready`` are combinational from the other's side.

    Members
    -------
    meta : In stream of RxMeta
    lookup : Out stream of FourTuple; result : In stream of ``table_result``
        The connection table.
    segment : Out stream of ``rx_segment``
        Segments of connections, each with an ``info`` whose ``ask`` is set.
    info : Out stream of FrameInfo
        One for each ``meta``, in order.
    handshake : Out stream of ``handshake``; verdict : In stream of Verdict
        The listen unit: SYNs of nobody, and segments of half-open connections.
    control : Out stream of TxControl
        Resets.
    rst_unknown : In(1)
        1: segments of nobody are answered with a reset; 0: they go to the host.
    arrivals_issued : Out(8)
        Counts frames taken, each with its lookup; wraps. What the lookup tells stays true of a frame until placement is done
        with it: no id serves another connection before (CommandProcessor, RELEASE).
    count_rx_unknown_segment : Out(1)
    """

    def __init__(self, cfg: EngineConfig):
        self.cfg = cfg
        # What is kept of a ``table_result``; decoded on arrival.
        self._result = data.StructLayout({"hit": 1, "is_connection": 1, "index": table_result(cfg)["index"].shape})
        super().__init__(
            {
                "meta": In(stream.Signature(RxMeta)),
                "lookup": Out(stream.Signature(FourTuple)),
                "result": In(stream.Signature(table_result(cfg))),
                "segment": Out(stream.Signature(rx_segment(cfg))),
                "info": Out(stream.Signature(FrameInfo)),
                "handshake": Out(stream.Signature(handshake(cfg))),
                "verdict": In(stream.Signature(Verdict)),
                "control": Out(stream.Signature(TxControl)),
                "rst_unknown": In(1),
                "arrivals_issued": Out(8),
                "count_rx_unknown_segment": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        head = Signal(RxMeta)
        kind = Signal(_Kind)  # of the head, once it is known
        found = Signal(self._result)
        done = Signal()  # the head's last cycle
        again = Signal()  # the head wants another lookup
        again_taken = self._fetch(m, head, kind, found, done, again)

        # Resets: what the segment occupies in sequence space.
        length, end = Signal(13), Signal(32)
        m.d.sync += [
            length.eq(head.payload_length + head.flags[SYN] + head.flags[FIN]),
            end.eq(head.seq + length),
        ]
        has_ack = head.flags[ACK]
        m.d.comb += [
            self.control.payload.tuple.eq(head.tuple),
            self.control.payload.dmac.eq(head.smac),
            self.control.payload.seq.eq(Mux(has_ack, head.ack, 0)),
            self.control.payload.ack.eq(Mux(has_ack, 0, end)),
            self.control.payload.flags.eq(Mux(has_ack, 1 << RST, 1 << RST | 1 << ACK)),
            self.handshake.payload.hit.eq(found.hit),
            self.handshake.payload.index.eq(found.index),
            self.handshake.payload.meta.eq(head),
        ]

        self._outputs(m, head, kind, found)
        to_host = self.info.payload.to_host
        with m.FSM():
            with m.State("Decide"):
                with m.If(kind.host):
                    self._inform(m, done)
                with m.If(kind.connection & ~self.segment.valid):
                    self._inform(m, done)
                    m.d.sync += self.segment.valid.eq(done)
                with m.If(kind.other):
                    with m.If(kind.worth_asking):
                        m.d.sync += self.handshake.valid.eq(1)
                        m.next = "Ask"
                    with m.Else():
                        m.next = "Nobody"
            with m.State("Ask"):
                with m.If(self.handshake.ready):
                    m.d.sync += self.handshake.valid.eq(0)
                    m.next = "Verdict"
            with m.State("Verdict"):
                m.d.comb += self.verdict.ready.eq(1)
                with m.If(self.verdict.valid):
                    with m.Switch(self.verdict.payload):
                        with m.Case(Verdict.RETRY):
                            m.d.sync += again.eq(1)
                            m.next = "Again"
                        with m.Case(Verdict.UNKNOWN):
                            m.next = "Nobody"
                        with m.Case(Verdict.HOST):
                            m.next = "Host"
                        with m.Default():
                            m.next = "Drop"
            with m.State("Again"):
                with m.If(again_taken):
                    m.d.sync += again.eq(0)
                    m.next = "Decide"
            with m.State("Nobody"):
                m.d.comb += self.count_rx_unknown_segment.eq(1)
                with m.If(~self.rst_unknown):
                    m.next = "Host"
                with m.Elif(head.flags[RST]):
                    m.next = "Drop"
                with m.Else():
                    m.next = "Reset"
            with m.State("Reset"):
                m.d.comb += self.control.valid.eq(1)
                with m.If(self.control.ready):
                    m.next = "Drop"
            for state in ("Drop", "Host"):
                with m.State(state):
                    self._inform(m, done)
                    with m.If(~self.info.valid):
                        m.d.sync += to_host.eq(state == "Host")
                    with m.If(done):
                        m.next = "Decide"
        return m

    def _outputs(self, m, head, kind, found):
        """The registers of ``segment`` and ``info``: their payloads follow the head while they are not valid."""
        segment, info = self.segment.payload, self.info.payload
        with m.If(self.segment.ready):
            m.d.sync += self.segment.valid.eq(0)
        with m.If(self.info.ready):
            m.d.sync += self.info.valid.eq(0)
        with m.If(~self.segment.valid):
            m.d.sync += [segment.id.eq(found.index), segment.length.eq(head.payload_length)]
            m.d.sync += [
                segment[name].eq(head[name]) for name in ("seq", "ack", "flags", "wnd", "mss", "ws_present", "ws")
            ]
        with m.If(~self.info.valid):
            m.d.sync += [
                info.ask.eq(kind.connection),
                info.to_host.eq(kind.host),
                info.payload_offset.eq(head.payload_offset),
                info.frame_length.eq(head.frame_length),
            ]

    def _inform(self, m, done):
        """Push the head's FrameInfo; it is ``done`` when there is room."""
        with m.If(~self.info.valid):
            m.d.comb += done.eq(1)
            m.d.sync += self.info.valid.eq(1)

    def _sort(self, m, kind, result, syn_only):
        """A segment's lookup has come."""
        m.d.sync += [
            kind.connection.eq(result.is_connection),
            kind.other.eq(~result.is_connection),
            kind.worth_asking.eq(result.hit | syn_only),
        ]

    def _fetch(self, m, head, kind, found, done, again):
        """Keep the next segment and its lookup going. Returns: the head's repeated lookup is on its way."""
        head_valid, head_syn_only = Signal(), Signal()
        next_, next_valid = Signal(RxMeta), Signal()
        flags = next_.flags
        syn_only = flags[SYN] & ~flags[ACK] & ~flags[RST] & ~flags[FIN]
        result = Signal(self._result)
        next_found, next_found_valid = Signal.like(found), Signal()
        head_waiting, next_waiting = Signal(), Signal()  # a result is outstanding
        behind = Signal()  # the head's outstanding result comes after the next one's
        offered = Signal()  # the lookup of ``meta`` is on offer: it must stay
        repeat, taken = Signal(), Signal()
        arrived_head, arrived_next = Signal(), Signal()
        m.d.comb += [
            repeat.eq(again & ~offered),
            self.lookup.valid.eq(repeat | (self.meta.valid & ~self.meta.payload.to_host & ~next_valid)),
            self.lookup.payload.eq(Mux(repeat, head.tuple, self.meta.payload.tuple)),
            self.meta.ready.eq(~next_valid & ~repeat & (self.lookup.ready | self.meta.payload.to_host)),
            taken.eq(self.meta.valid & self.meta.ready),
            self.result.ready.eq(1),  # each lookup has its place
            result.hit.eq(self.result.payload.hit),
            result.is_connection.eq(self.result.payload.hit & ~self.result.payload.is_syncache),
            result.index.eq(self.result.payload.index),
            arrived_head.eq(self.result.valid & head_waiting & ~behind),
            arrived_next.eq(self.result.valid & ~arrived_head),
        ]
        m.d.sync += self.arrivals_issued.eq(self.arrivals_issued + taken)
        m.d.sync += offered.eq(self.lookup.valid & ~self.lookup.ready & ~repeat)

        with m.If(arrived_head):
            m.d.sync += [found.eq(result), head_waiting.eq(0)]
            self._sort(m, kind, result, head_syn_only)
        with m.If(arrived_next):
            m.d.sync += [
                next_found.eq(result), next_found_valid.eq(1), next_waiting.eq(0), behind.eq(0),
            ]  # fmt: skip
        with m.If(repeat & self.lookup.ready):
            m.d.sync += [kind.eq(0), head_waiting.eq(1), behind.eq(next_waiting & ~arrived_next)]
        with m.If(done):
            m.d.sync += [head_valid.eq(0), kind.eq(0)]
        with m.If(~head_valid):
            known = data.View(self._result, Mux(arrived_next, result, next_found))
            m.d.sync += [
                head.eq(next_),
                head_syn_only.eq(syn_only),
                head_valid.eq(next_valid),
                head_waiting.eq(next_waiting & ~arrived_next),
                found.eq(known),
                kind.host.eq(next_valid & next_.to_host),
            ]
            with m.If(next_found_valid | arrived_next):
                self._sort(m, kind, known, syn_only)
            m.d.sync += [
                next_valid.eq(0), next_waiting.eq(0), next_found_valid.eq(0),
            ]  # fmt: skip
        # The next one's place is free only when it is empty: ``meta.ready`` does not depend on the head's fate.
        with m.If(~next_valid):
            m.d.sync += [
                next_.eq(self.meta.payload), next_valid.eq(taken),
                next_waiting.eq(taken & ~self.meta.payload.to_host), next_found_valid.eq(0),
            ]  # fmt: skip
        return repeat & self.lookup.ready
