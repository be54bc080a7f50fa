"""Dispatcher: whose is a received segment (RFC 9293 section 3.10.7)? And resets for those of nobody (section 3.10.7.1)."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..listen.cookie_maker import Cookie, Question
from ..listen.handshake import Verdict, handshake, syn_request
from ..listen.listen_table import LocalEndpoint, listens
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
from ..wire.valid_only import valid_only

_Kind = data.StructLayout({"host": 1, "connection": 1, "syn": 1, "wait": 1, "nobody": 1, "silent": 1, "returned": 1})
"""Whose a segment is, as far as the tables tell; all 0: not known yet. ``syn``: the listen unit's, which nobody waits for.
``wait``: of a half-open connection. ``silent``: of nobody, and not reset. ``returned``: of nobody, but perhaps
the ACK of a SYN cookie."""

_Flags = data.StructLayout({"opens": 1, "syn": 1, "bare": 1, "acks": 1})
"""Of a segment: a SYN alone (with or without FIN); one with a SYN, no reset; one with neither SYN, ACK nor RST; one with an ACK,
neither SYN nor RST."""


class Dispatcher(wiring.Component):
    """Looks each segment up and passes it on, strictly in frame order.

    Two segments are held: the head, which is being dealt with, and the next one, whose lookup is already under way. Nothing
    that the line, the host or a SYN needs holds up the head:

    - A SYN goes to a queue of its own, its frame is given up. Without room it is dropped, or left to the host.
    - Any other segment of a half-open connection waits for the listen unit's verdict, since it may make a connection of it
      and be its first segment; so what comes behind it finds the connection. That takes a few dozen cycles.
    - A reset that may not be sent, or not now, is left out.

    The next segment's result may be older than what the head changes in the table. That does no harm: the listen unit
    compares four-tuples itself and asks to look again (RETRY), and a connection that has just ended ignores segments.

    Timing: a segment every 6 cycles with the connection table's latency of 7, one of nobody every 8; 9 cycles from ``meta`` to
    ``segment``. ``lookup``, ``find`` and ``meta.ready`` are combinational from the other's side.

    Members
    -------
    meta : In stream of RxMeta
    lookup : Out stream of FourTuple; result : In stream of ``table_result``
        The connection table.
    find : Out valid-only of LocalEndpoint; found : In stream of ``listens``
        The listen table: a search with each lookup; found is taken together with the lookup's result.
    segment : Out stream of ``rx_segment``
        Segments of connections, each with an ``info`` whose ``ask`` is set.
    info : Out stream of FrameInfo
        One for each ``meta``, in order.
    syn : Out stream of ``syn_request``
        The listen unit: SYNs for a listener, and those of half-open connections.
    room : In(1)
        There is an entry and an id for a SYN more; three cycles after ``syn`` was taken that one is counted.
    handshake : Out stream of ``handshake``; verdict : In stream of Verdict
        The listen unit: other segments of half-open connections.
    control : Out stream of TxControl
        Resets.
    cookies : In(1)
        A SYN without ``room`` gets a cookie while there is ``room_for_returned``.
    cookies_recent : In(1); cookies_current, cookies_before : In(5)
        ACKs of cookies may come, and what their clock says.
    cookie : Out stream of Question; cookie_answered, cookie_good : In(1)
        Is an ACK of nobody one of a cookie? If so its frame is given up, and ``syn`` has it with ``returned``.
    room_for_returned : In(1)
        As ``room``, for these.
    rst_unknown : In(1)
        1: segments of nobody are answered with a reset; 0: they go to the host.
    syn_to_host : In(1)
        SYNs for a listener that find no room go to the host.
    may_reset : In(1)
        A reset may be sent now, and is taken within a few cycles; two cycles after ``reset_sent`` that one is counted.
    reset_sent : Out(1)
        Pulse.
    arrivals_issued : Out(8)
        Counts frames taken, each with its lookup; wraps. What the lookup tells stays true of a frame until placement is done
        with it: no id serves another connection before (CommandProcessor, RELEASE). What goes to the listen unit without
        its frame names no id, and is compared with the tables again there.
    count_rx_unknown_segment, count_syn_received, count_syn_dropped_full, count_syn_queue_full, count_rst_suppressed : Out(1)
    """

    def __init__(self, cfg: EngineConfig):
        self.cfg = cfg
        # What is kept of a ``table_result``; decoded on arrival.
        self._result = data.StructLayout({
            "hit": 1, "is_connection": 1, "full": 1, "index": table_result(cfg)["index"].shape,
            "listens": 1, "listener": cfg.listener_bits,
        })  # fmt: skip
        super().__init__(
            {
                "meta": In(stream.Signature(RxMeta)),
                "lookup": Out(stream.Signature(FourTuple)),
                "result": In(stream.Signature(table_result(cfg))),
                "find": Out(valid_only(LocalEndpoint)),
                "found": In(stream.Signature(listens(cfg))),
                "segment": Out(stream.Signature(rx_segment(cfg))),
                "info": Out(stream.Signature(FrameInfo)),
                "syn": Out(stream.Signature(syn_request(cfg))),
                "room": In(1),
                "handshake": Out(stream.Signature(handshake(cfg))),
                "verdict": In(stream.Signature(Verdict)),
                "control": Out(stream.Signature(TxControl)),
                "cookies": In(1),
                "cookies_recent": In(1),
                "cookies_current": In(5),
                "cookies_before": In(5),
                "cookie": Out(stream.Signature(Question)),
                "cookie_answered": In(1),
                "cookie_good": In(1),
                "room_for_returned": In(1),
                "rst_unknown": In(1),
                "syn_to_host": In(1),
                "may_reset": In(1),
                "reset_sent": Out(1),
                "arrivals_issued": Out(8),
                "count_rx_unknown_segment": Out(1),
                "count_syn_received": Out(1),
                "count_syn_dropped_full": Out(1),
                "count_syn_queue_full": Out(1),
                "count_rst_suppressed": Out(1),
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
            self.handshake.payload.index.eq(found.index),
            self.handshake.payload.meta.eq(head),
        ]

        cookie = Signal(Cookie)
        m.d.sync += cookie.eq(head.ack - head.seq)
        m.d.comb += [
            self.cookie.payload.tuple.eq(head.tuple), self.cookie.payload.cookie.eq(cookie),
            self.cookie.payload.seq.eq(head.seq),
        ]  # fmt: skip
        self._outputs(m, head, kind, found)
        to_host = self.info.payload.to_host
        with m.FSM():
            with m.State("Decide"):
                with m.If(kind.host):
                    self._inform(m, done)
                with m.If(kind.connection & ~self.segment.valid):
                    self._inform(m, done)
                    m.d.sync += self.segment.valid.eq(done)
                with m.If(kind.syn):
                    m.next = "Syn"
                with m.If(kind.wait):
                    m.d.sync += self.handshake.valid.eq(1)
                    m.next = "Ask"
                with m.If(kind.nobody):
                    m.next = "Nobody"
                    with m.If(kind.returned):
                        m.next = "Returned"
            with m.State("Syn"):
                self._inform(m, done)
                with m.If(done):
                    self._admit(m, found)
                    m.next = "Decide"
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
                        with m.Case(Verdict.HOST):
                            m.next = "Host"
                        with m.Default():
                            m.next = "Drop"
            with m.State("Again"):
                with m.If(again_taken):
                    m.d.sync += again.eq(0)
                    m.next = "Decide"
            with m.State("Returned"):
                # Of 16 segments with any numbers one has a clock that could be right.
                with m.If((cookie.time == self.cookies_current) | (cookie.time == self.cookies_before)):
                    m.next = "Ask cookie"
                with m.Else():
                    m.next = "Nobody"
            with m.State("Ask cookie"):
                m.d.comb += self.cookie.valid.eq(1)
                with m.If(self.cookie.ready):
                    m.next = "Cookie"
            with m.State("Cookie"):
                with m.If(self.cookie_answered):
                    m.next = "Nobody"
                    with m.If(self.cookie_good):
                        m.next = "Place"
            with m.State("Place"):
                # A SYN that waits for its own cookie has left within a few cycles; one that waits for the line has not.
                with m.If(~self.syn.valid | ~self.syn.payload.cookie):
                    m.d.comb += [
                        self.count_syn_dropped_full.eq(~self.room_for_returned),
                        self.count_syn_queue_full.eq(self.room_for_returned & self.syn.valid),
                    ]
                    with m.If(self.room_for_returned & ~self.syn.valid):
                        m.d.sync += [self.syn.valid.eq(1), self.syn.payload.returned.eq(1)]
                    m.next = "Drop"
            with m.State("Nobody"):
                m.d.comb += self.count_rx_unknown_segment.eq(1)
                with m.If(~self.rst_unknown):
                    m.next = "Host"
                with m.Elif(head.flags[RST] | kind.silent):
                    m.next = "Drop"
                with m.Elif(self.may_reset):
                    m.d.comb += self.reset_sent.eq(1)
                    m.next = "Reset"
                with m.Else():
                    m.d.comb += self.count_rst_suppressed.eq(1)
                    m.next = "Drop"
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

    def _admit(self, m, found):
        """A SYN's frame is given up, or given to the host; it goes to the queue if it can be served."""
        fresh = ~found.hit
        with m.If(fresh):
            m.d.comb += self.count_syn_received.eq(1)
        with m.If(fresh & ~self.room & ~found.full & self.cookies & self.room_for_returned):
            # Only while there would be room for its return: a peer that has a SYN,ACK believes in it.
            m.d.comb += self.count_syn_queue_full.eq(self.syn.valid)
            m.d.sync += self.syn.valid.eq(1)
            with m.If(~self.syn.valid):
                m.d.sync += self.syn.payload.cookie.eq(1)
        with m.Elif(fresh & (~self.room | found.full)):
            m.d.comb += self.count_syn_dropped_full.eq(1)
            m.d.sync += self.info.payload.to_host.eq(self.syn_to_host)
        with m.Elif(self.syn.valid):
            m.d.comb += self.count_syn_queue_full.eq(1)
            m.d.sync += self.info.payload.to_host.eq(self.syn_to_host & fresh)
        with m.Else():
            m.d.sync += self.syn.valid.eq(1)

    def _outputs(self, m, head, kind, found):
        """The registers of ``segment``, ``info`` and ``syn``: their payloads follow the head while they are not valid."""
        segment, info, syn = self.segment.payload, self.info.payload, self.syn.payload
        with m.If(self.syn.ready):
            m.d.sync += self.syn.valid.eq(0)
        with m.If(~self.syn.valid):
            m.d.sync += [syn.hit.eq(found.hit), syn.index.eq(found.index), syn.listener.eq(found.listener)]
            m.d.sync += [syn.is_ack.eq(head.flags[ACK]), syn.cookie.eq(0), syn.returned.eq(0)]
            m.d.sync += [
                syn[name].eq(head[name])
                for name in ("tuple", "smac", "seq", "ack", "mss", "ws_present", "ws", "sack_ok")
            ]
        with m.If(self.segment.ready):
            m.d.sync += self.segment.valid.eq(0)
        with m.If(self.info.ready):
            m.d.sync += self.info.valid.eq(0)
        with m.If(~self.segment.valid):
            m.d.sync += [segment.id.eq(found.index), segment.length.eq(head.payload_length)]
            m.d.sync += [
                segment[name].eq(head[name])
                for name in ("seq", "ack", "flags", "wnd", "mss", "ws_present", "ws", "sack_ok")
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

    def _sort(self, m, kind, result, flags):
        """A segment's lookup has come."""
        half_open = result.hit & ~result.is_connection
        syn = Mux(result.hit, half_open & flags.syn, result.listens & flags.opens)
        m.d.sync += [
            kind.connection.eq(result.is_connection),
            kind.syn.eq(syn),
            kind.wait.eq(half_open & ~flags.syn),
            kind.nobody.eq(~result.hit & ~syn),
            kind.silent.eq(result.listens & flags.bare),
            kind.returned.eq(~result.hit & result.listens & flags.acks & self.cookies_recent),
        ]

    def _fetch(self, m, head, kind, found, done, again):
        """Keep the next segment and its lookup going. Returns: the head's repeated lookup is on its way."""
        head_valid, head_flags = Signal(), Signal(_Flags)
        next_, next_valid, next_flags = Signal(RxMeta), Signal(), Signal(_Flags)
        syn, ack, rst = (next_.flags[bit] for bit in (SYN, ACK, RST))
        m.d.comb += [
            next_flags.opens.eq(syn & ~ack & ~rst), next_flags.syn.eq(syn & ~rst), next_flags.bare.eq(~syn & ~ack & ~rst),
            next_flags.acks.eq(ack & ~syn & ~rst),
        ]  # fmt: skip
        result = Signal(self._result)
        next_found, next_found_valid = Signal.like(found), Signal()
        head_waiting, next_waiting = Signal(), Signal()  # a result is outstanding
        behind = Signal()  # the head's outstanding result comes after the next one's
        offered = Signal()  # the lookup of ``meta`` is on offer: it must stay
        repeat, taken = Signal(), Signal()
        arrived, arrived_head, arrived_next = Signal(), Signal(), Signal()
        m.d.comb += [
            repeat.eq(again & ~offered),
            self.lookup.valid.eq(repeat | (self.meta.valid & ~self.meta.payload.to_host & ~next_valid)),
            self.lookup.payload.eq(Mux(repeat, head.tuple, self.meta.payload.tuple)),
            self.meta.ready.eq(~next_valid & ~repeat & (self.lookup.ready | self.meta.payload.to_host)),
            taken.eq(self.meta.valid & self.meta.ready),
            self.find.valid.eq(self.lookup.valid & self.lookup.ready),
            self.find.payload.laddr.eq(self.lookup.payload.laddr),
            self.find.payload.lport.eq(self.lookup.payload.lport),
            arrived.eq(self.result.valid & self.found.valid),  # each lookup has its place
            self.result.ready.eq(arrived),
            self.found.ready.eq(arrived),
            result.hit.eq(self.result.payload.hit),
            result.is_connection.eq(self.result.payload.hit & ~self.result.payload.is_syncache),
            result.full.eq(self.result.payload.full),
            result.index.eq(self.result.payload.index),
            result.listens.eq(self.found.payload.hit),
            result.listener.eq(self.found.payload.listener),
            arrived_head.eq(arrived & head_waiting & ~behind),
            arrived_next.eq(arrived & ~arrived_head),
        ]
        m.d.sync += self.arrivals_issued.eq(self.arrivals_issued + taken)
        m.d.sync += offered.eq(self.lookup.valid & ~self.lookup.ready & ~repeat)

        with m.If(arrived_head):
            m.d.sync += [found.eq(result), head_waiting.eq(0)]
            self._sort(m, kind, result, head_flags)
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
                head_flags.eq(next_flags),
                head_valid.eq(next_valid),
                head_waiting.eq(next_waiting & ~arrived_next),
                found.eq(known),
                kind.host.eq(next_valid & next_.to_host),
            ]
            with m.If(next_found_valid | arrived_next):
                self._sort(m, kind, known, next_flags)
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
