"""Dispatcher: whose is a received segment (RFC 9293 section 3.10.7)? And resets for those of nobody (section 3.10.7.1)."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
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
    frame_info,
    interval,
    peer_fields,
    rx_meta,
    rx_sack,
    rx_segment,
    table_result,
    tx_control,
)
from ..wire.valid_only import valid_only
from .admission import Admission
from .lookup import Lookup
from .sack_forward import SackForward


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
    meta : In stream of ``rx_meta``
    lookup : Out stream of FourTuple; result : In stream of ``table_result``
        The connection table.
    find : Out valid-only of LocalEndpoint; found : In stream of ``listens``
        The listen table: a search with each lookup; found is taken together with the lookup's result.
    block : In stream of ``interval``
        As many as ``meta`` says, in its order.
    segment : Out stream of ``rx_segment``
        Segments of connections, each with an ``info`` whose ``ask`` is set.
    sack : Out stream of ``rx_sack``
        Blocks of the segment that was taken last; the next segment comes behind them.
    info : Out stream of ``frame_info``
        One for each ``meta``, in order.
    syn : Out stream of ``syn_request``
        The listen unit: SYNs for a listener, and those of half-open connections.
    unserved : Out stream of ``syn_request``
        SYNs that get a cookie.
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
        Is an ACK of nobody one of a cookie? If so its frame is given up, and ``syn`` has it with ``returned``. One of a half-open
        connection goes to the listen unit as ``proven``.
    room_for_returned : In(1)
        As ``room``, for these.
    opening : In(1)
        SYNs are on their way from ``syn`` to the connection table. What was looked up meanwhile may be one of theirs: a SYN gets
        no cookie, or it would get an entry's number and a cookie's; an ACK that is no cookie may stand behind one: no reset.
    rst_unknown : In(1)
        1: segments of nobody are answered with a reset; 0: they go to the host.
    syn_to_host : In(1)
        SYNs for a listener that find no room go to the host.
    may_reset : In(1)
        A reset may be sent now, and is taken within a few cycles; four cycles after ``reset_sent`` that one is counted.
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
        super().__init__(
            {
                "meta": In(stream.Signature(rx_meta(cfg))),
                "lookup": Out(stream.Signature(FourTuple)),
                "result": In(stream.Signature(table_result(cfg))),
                "find": Out(valid_only(LocalEndpoint)),
                "found": In(stream.Signature(listens(cfg))),
                "block": In(stream.Signature(interval)),
                "segment": Out(stream.Signature(rx_segment(cfg))),
                "sack": Out(stream.Signature(rx_sack(cfg))),
                "info": Out(stream.Signature(frame_info(self.cfg))),
                "syn": Out(stream.Signature(syn_request(cfg))),
                "unserved": Out(stream.Signature(syn_request(cfg))),
                "room": In(1),
                "handshake": Out(stream.Signature(handshake(cfg))),
                "verdict": In(stream.Signature(Verdict)),
                "control": Out(stream.Signature(tx_control(cfg))),
                "cookies": In(1),
                "cookies_recent": In(1),
                "cookies_current": In(5),
                "cookies_before": In(5),
                "cookie": Out(stream.Signature(Question)),
                "cookie_answered": In(1),
                "cookie_good": In(1),
                "room_for_returned": In(1),
                "opening": In(1),
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
        m.submodules.fetch = self._fetch = fetch = Lookup(self.cfg)
        m.submodules.admission = self._admission = admission = Admission(self.cfg)
        m.submodules.blocks = self._blocks = blocks = SackForward(self.cfg)
        wiring.connect(m, wiring.flipped(self.block), blocks.block)
        wiring.connect(m, blocks.o, wiring.flipped(self.sack))
        head, kind, told = fetch.head, fetch.kind, fetch.told
        done = fetch.done  # the head's last cycle
        again = Signal()  # the head wants another lookup
        self._connect(m, again)

        # Resets: what the segment occupies in sequence space.
        length, end = Signal(self.cfg.length_bits + 1), Signal(32)
        m.d.sync += [
            length.eq(head.payload_length + head.flags[SYN] + head.flags[FIN]),
            end.eq(head.seq + length),
        ]
        has_ack = head.flags[ACK]
        m.d.comb += [
            self.control.payload.tuple.eq(head.tuple),
            self.control.payload.dmac.eq(head.smac),
            *(self.control.payload[name].eq(head[name]) for name in peer_fields(self.cfg)),
            self.control.payload.seq.eq(Mux(has_ack, head.ack, 0)),
            self.control.payload.ack.eq(Mux(has_ack, 0, end)),
            self.control.payload.flags.eq(Mux(has_ack, 1 << RST, 1 << RST | 1 << ACK)),
            self.handshake.payload.index.eq(told.index),
            self.handshake.payload.meta.eq(head),
        ]

        cookie = Signal(Cookie)
        m.d.sync += cookie.eq(head.ack - head.seq)
        m.d.comb += [
            self.cookie.payload.tuple.eq(head.tuple), self.cookie.payload.cookie.eq(cookie),
            self.cookie.payload.seq.eq(head.seq),
        ]  # fmt: skip
        self._outputs(m, head, kind, told)
        m.d.comb += [
            blocks.i.valid.eq(done & (head.sacks != 0)),
            blocks.i.payload.id.eq(told.index),
            blocks.i.payload.count.eq(head.sacks),
            blocks.i.payload.keep.eq(kind.connection),
            blocks.segment_waits.eq(self.segment.valid),
        ]
        to_host = self.info.payload.to_host
        with m.FSM():
            with m.State("Decide"):
                with m.If(kind.host):
                    self._inform(m, done)
                with m.If(kind.connection & ~self.segment.valid & blocks.i.ready):
                    self._inform(m, done)
                    m.d.sync += self.segment.valid.eq(done)
                with m.If(kind.syn):
                    m.next = "Syn"
                m.d.sync += self.handshake.payload.proven.eq(0)
                with m.If((kind.wait | kind.nobody) & kind.returned):
                    m.next = "Returned"
                with m.Else():
                    self._unproven(m, kind)
            with m.State("Syn"):
                with m.If(admission.settled):
                    self._inform(m, done)
                m.d.comb += admission.admit.eq(done)
                with m.If(done):
                    m.d.sync += to_host.eq(admission.to_host)
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
                with m.If(fetch.repeated):
                    m.d.sync += again.eq(0)
                    m.next = "Decide"
            with m.State("Returned"):
                # Of 16 segments with any numbers one has a clock that could be right.
                with m.If((cookie.time == self.cookies_current) | (cookie.time == self.cookies_before)):
                    m.next = "Ask cookie"
                with m.Else():
                    self._unproven(m, kind)
            with m.State("Ask cookie"):
                m.d.comb += self.cookie.valid.eq(1)
                with m.If(self.cookie.ready):
                    m.next = "Cookie"
            with m.State("Cookie"):
                with m.If(self.cookie_answered):
                    m.d.sync += self.handshake.payload.proven.eq(self.cookie_good)
                    self._unproven(m, kind)
                    with m.If(self.cookie_good & kind.nobody):
                        m.next = "Place"
            with m.State("Place"):
                with m.If(~admission.waits & admission.settled):
                    m.d.comb += admission.place.eq(1)
                    m.next = "Drop"
            with m.State("Nobody"):
                m.d.comb += self.count_rx_unknown_segment.eq(1)
                with m.If(~self.rst_unknown):
                    m.next = "Host"
                with m.Elif(head.flags[RST] | kind.silent | (kind.returned & fetch.crossed)):
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

    def _unproven(self, m, kind):
        """What is not known to return a cookie: the listen unit's if it is of a half-open connection, or nobody's."""
        with m.If(kind.wait):
            m.d.sync += self.handshake.valid.eq(1)
            m.next = "Ask"
        with m.If(kind.nobody):
            m.next = "Nobody"

    def _connect(self, m, again):
        """Ports of the parts that are the dispatcher's own."""
        fetch, admission = self._fetch, self._admission
        for name in ("meta", "lookup", "result", "find", "found"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(fetch, name))
        wiring.connect(m, admission.syn, wiring.flipped(self.syn))
        wiring.connect(m, admission.unserved, wiring.flipped(self.unserved))
        m.d.comb += [
            fetch.opening.eq(self.opening | (self.syn.valid & ~self.syn.payload.hit)),
            admission.crossed.eq(fetch.crossed),
            fetch.again.eq(again), fetch.cookies_recent.eq(self.cookies_recent),
            self.arrivals_issued.eq(fetch.arrivals_issued), admission.head.eq(fetch.head), admission.told.eq(fetch.told),
        ]  # fmt: skip
        m.d.comb += [
            getattr(admission, name).eq(getattr(self, name))
            for name in ("room", "room_for_returned", "cookies", "syn_to_host")
        ]
        m.d.comb += [
            getattr(self, name).eq(getattr(admission, name))
            for name in ("count_syn_received", "count_syn_dropped_full", "count_syn_queue_full")
        ]

    def _outputs(self, m, head, kind, told):
        """The registers of ``segment`` and ``info``: their payloads follow the head while they are not valid."""
        segment, info = self.segment.payload, self.info.payload
        with m.If(self.segment.ready):
            m.d.sync += self.segment.valid.eq(0)
        with m.If(self.info.ready):
            m.d.sync += self.info.valid.eq(0)
        with m.If(~self.segment.valid):
            m.d.sync += [
                segment.id.eq(told.index), segment.length.eq(head.payload_length), segment.has_sack.eq(head.sacks != 0),
            ]  # fmt: skip
            m.d.sync += [
                segment[name].eq(head[name])
                for name in ("seq", "ack", "flags", "wnd", "mss", "ws_present", "ws", "sack_ok", "urgent", "ecn", "ts_present",
                             "tsval", "tsecr")
            ]  # fmt: skip
        with m.If(~self.info.valid):
            m.d.sync += [
                info.ask.eq(kind.connection),
                info.to_host.eq(kind.host),
                info.payload_offset.eq(head.payload_offset),
                info.frame_length.eq(head.frame_length),
            ]

    def _inform(self, m, done):
        """Push the head's ``frame_info``; it is ``done`` when there is room, and somebody to take its SACK blocks."""
        with m.If(~self.info.valid & self._blocks.i.ready):
            m.d.comb += done.eq(1)
            m.d.sync += self.info.valid.eq(1)
