"""Event writer: what the host is told, from all blocks, into the event ring (docs/rings.md)."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import CommandDone, ErrorEvent, connection_report, dma_request, frame_event, is_v6, placed, syn_event
from ..wire.valid_only import valid_only
from .abi import EVENT_BYTES, EVENTS, EventType
from .connection_events import ConnectionEvents
from .dma_write import DmaDone
from .event_ring import EventRing

SYN_QUIET_CYCLES = 4
"""So long without a SYN event at the door, and none waits behind it."""

SYN_BACKLOG = 32
"""SYN events that may wait behind each other before they get here, at most."""


def event_entry(event: EventType, **fields) -> Value:
    """An event's 256 bits from the values of its fields, by the tables of ``abi``; the phase is left 0.

    Raises ValueError when a field is missing or too many are given.
    """
    places = {name: (32 * dword + low, width) for name, dword, low, width in EVENTS[event]}
    if fields.keys() != places.keys():
        raise ValueError(f"{event.name} has the fields {sorted(places)}, not {sorted(fields)}")
    parts, at = [], 0
    for name, (low, width) in sorted(places.items(), key=lambda item: item[1]):
        value = Value.cast(fields[name])
        if len(value) > width:
            raise ValueError(f"{event.name}.{name} has {width} bits, not {len(value)}")
        parts += [Const(0, low - at), value, Const(0, width - len(value))]
        at = low + width
    type_at = 7 * 32
    return Cat(*parts, Const(0, 8 * EVENT_BYTES - at)) | Const(event << type_at, 8 * EVENT_BYTES)


class EventWriter(wiring.Component):
    """Takes events in turn from its sources and writes them into the ring.

    A SYN_RECEIVED comes before any CONNECTION event of the connection that grew out of it: a CONNECTION event waits
    until no SYN event is at the door, or as many were written meanwhile as can have been waiting.

    Error events: the newest not yet written replaces older ones.

    Parameters
    ----------
    cfg : EngineConfig

    Members
    -------
    ready, notify, placed, broken, clear, report_request, report
        See ConnectionEvents.
    enable, base, log2, consumer, producer, pending, request, data, dma_done, count_events_written, count_event_ring_full
        See EventRing.
    syn : In(stream of ``syn_event(cfg)``), done : In(stream of CommandDone), frame : In(stream of ``frame_event``)
    error : In(valid-only ErrorEvent)
    waiting, progress, asleep : Out(1)
        For the watchdog: an event is to be written, and can be; one is, or is found to be none; one can't, since the host
        has not read.
    event_irq : Out(1)
        Pulse: an event is in host memory.
    error_irq : Out(1)
        Pulse: an error was told or found here.
    """

    def __init__(self, cfg: EngineConfig):
        self._cfg = cfg
        id_shape = unsigned(cfg.id_bits)
        super().__init__(
            {
                "ready": Out(1),
                "notify": In(valid_only(id_shape)),
                "placed": In(stream.Signature(placed(cfg))),
                "broken": In(stream.Signature(id_shape)),
                "clear": In(valid_only(id_shape)),
                "report_request": Out(stream.Signature(id_shape)),
                "report": In(stream.Signature(connection_report(cfg))),
                "syn": In(stream.Signature(syn_event(cfg))),
                "done": In(stream.Signature(CommandDone)),
                "frame": In(stream.Signature(frame_event(cfg))),
                "error": In(valid_only(ErrorEvent)),
                "enable": In(1),
                "base": In(cfg.addr_width),
                "log2": In(5),
                "consumer": In(32),
                "producer": Out(32),
                "pending": Out(1),
                "request": Out(stream.Signature(dma_request(cfg))),
                "data": Out(stream.Signature(unsigned(cfg.data_width))),
                "dma_done": In(stream.Signature(DmaDone)),
                "waiting": Out(1),
                "progress": Out(1),
                "asleep": Out(1),
                "event_irq": Out(1),
                "error_irq": Out(1),
                "count_events_written": Out(1),
                "count_event_ring_full": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.connections = connections = ConnectionEvents(self._cfg)
        m.submodules.ring = ring = EventRing(self._cfg)
        for name in ("notify", "placed", "broken", "clear", "report_request", "report"):
            wiring.connect(m, getattr(connections, name), wiring.flipped(getattr(self, name)))
        for name in ("request", "data", "dma_done"):
            wiring.connect(m, getattr(ring, name), wiring.flipped(getattr(self, name)))
        m.d.comb += [
            self.ready.eq(connections.ready),
            connections.enable.eq(self.enable),
            ring.enable.eq(self.enable & self.ready),
            ring.base.eq(self.base),
            ring.log2.eq(self.log2),
            ring.consumer.eq(self.consumer),
            self.producer.eq(ring.producer),
            self.count_events_written.eq(ring.count_events_written),
            self.count_event_ring_full.eq(ring.count_event_ring_full),
            self.event_irq.eq(ring.count_events_written),
            self.pending.eq(ring.pending),
            self.waiting.eq(ring.under_way | ((ring.i.valid | connections.waiting) & ~ring.full & self.enable)),
            self.progress.eq(ring.count_events_written | (self.report.valid & self.report.ready)),
            self.asleep.eq(ring.i.valid & ring.full & self.enable),
            self.error_irq.eq(self.error.valid | ring.error.valid),
        ]
        sources = [
            self._syn_source(m),
            (self.done.valid, self.done.ready, self._done_entry()),
            (self.frame.valid, self.frame.ready, self._frame_entry()),
            self._error_source(m, ring),
            self._connection_source(m, connections.o),
        ]
        self._choose(m, ring, sources)
        return m

    def _choose(self, m, ring, sources):
        """Round robin; a choice stays until its entry is taken."""
        count = len(sources)
        wanted, chosen = Signal(count), Signal(count)
        last = Signal(range(count))
        # A cycle old: without the one being served, which may have nothing more.
        served = Signal(count)
        m.d.sync += wanted.eq(Cat(valid for valid, _, _ in sources) & ~served)
        with m.FSM():
            with m.State("Choose"):
                with m.Switch(last):
                    for before in range(count):
                        with m.Case(before):
                            for distance in reversed(range(1, count + 1)):
                                number = (before + distance) % count
                                with m.If(wanted[number]):
                                    m.d.sync += [chosen.eq(1 << number), last.eq(number)]
                with m.If(wanted.any()):
                    m.next = "Give"
            with m.State("Give"):
                m.d.comb += ring.i.valid.eq(1)
                with m.If(ring.i.ready):
                    m.d.comb += [ready.eq(chosen[number]) for number, (_, ready, _) in enumerate(sources)]
                    m.d.comb += served.eq(chosen)
                    m.next = "Choose"
        entry = 0
        for number, (_, _, value) in enumerate(sources):
            entry = entry | (value & chosen[number].replicate(8 * EVENT_BYTES))
        m.d.comb += ring.i.payload.eq(entry)

    def _syn_source(self, m):
        """Over IPv6 a SYN_RECEIVED comes behind a SYN_ADDRESS."""
        if not self._cfg.ipv6:
            return self.syn.valid, self.syn.ready, self._syn_entry()
        syn, given, told = self.syn.p, Signal(), Signal()
        first = is_v6(syn.tuple) & ~syn.gone & ~told
        m.d.comb += self.syn.ready.eq(given & ~first)
        with m.If(given):
            m.d.sync += told.eq(first)
        address = event_entry(
            EventType.SYN_ADDRESS,
            syncache_ref=syn.syncache_ref,
            faddr6_low=syn.faddr6[:64],
            faddr6_high=syn.faddr6[64:],
        )
        return self.syn.valid, given, Mux(first, address, self._syn_entry())

    def _syn_entry(self):
        syn = self.syn.p
        received = event_entry(
            EventType.SYN_RECEIVED,
            syncache_ref=syn.syncache_ref,
            listener=syn.listener,
            faddr=syn.tuple.faddr,
            laddr=syn.tuple.laddr,
            fport=syn.tuple.fport,
            lport=syn.tuple.lport,
            iss=syn.iss,
            irs=syn.irs,
            mss=syn.mss,
            ws=syn.ws,
            ws_present=syn.ws_present,
            sack_ok=syn.sack_ok,
            ts_ok=syn.ts_ok,
        )
        gone = event_entry(EventType.SYNCACHE_GONE, syncache_ref=syn.syncache_ref, listener=syn.listener)
        return Mux(syn.gone, gone, received)

    def _done_entry(self):
        done = self.done.p
        return event_entry(
            EventType.COMMAND_DONE,
            argument=done.argument,
            opcode=done.opcode,
            status=done.status,
            tag=done.tag,
            value=done.value,
        )

    def _frame_entry(self):
        return event_entry(EventType.FRAME, slot=self.frame.p.slot, length=self.frame.p.length)

    def _error_source(self, m, ring):
        """The newest error waits in ``newest``, the one being written in ``current``."""
        newest, current = Signal(ErrorEvent), Signal(ErrorEvent)
        waiting, valid, ready = Signal(), Signal(), Signal()
        with m.If(~valid | ready):
            m.d.sync += [valid.eq(waiting), current.eq(newest), waiting.eq(0)]
        with m.If(ring.error.valid):
            m.d.sync += [newest.eq(ring.error.payload), waiting.eq(1)]
        with m.If(self.error.valid):
            m.d.sync += [newest.eq(self.error.payload), waiting.eq(1)]
        return valid, ready, event_entry(EventType.ERROR, code=current.code, argument=current.argument)

    def _connection_source(self, m, news):
        """Eligible when the SYN events before it are written."""
        quiet = Signal(range(SYN_QUIET_CYCLES + 1))
        passed = Signal(range(SYN_BACKLOG + 1))
        eligible = Signal()
        with m.If(self.syn.valid):
            m.d.sync += quiet.eq(0)
        with m.Elif(quiet != SYN_QUIET_CYCLES):
            m.d.sync += quiet.eq(quiet + 1)
        with m.If(~news.valid | news.ready):
            m.d.sync += passed.eq(0)
        with m.Elif(self.syn.valid & self.syn.ready & (passed != SYN_BACKLOG)):
            m.d.sync += passed.eq(passed + 1)
        m.d.sync += eligible.eq((quiet == SYN_QUIET_CYCLES) | (passed == SYN_BACKLOG))
        report = news.p.report
        entry = event_entry(
            EventType.CONNECTION,
            tid=Cat(report.id, Const(0, 16 - len(report.id)), report.generation),
            rcv_position=news.p.rcv_position,
            snd_una_position=report.snd_una_position,
            syncache_ref=report.syncache_ref,
            mss=report.mss,
            iss=report.iss,
            irs=report.irs,
            state=report.state,
            snd_scale=report.snd_scale,
            rcv_scale=report.rcv_scale,
            established=report.established,
            peer_closed=report.peer_closed,
            terminal=report.terminal,
            bad_doorbell=report.bad_doorbell,
            reason=report.reason,
            urgent=report.urgent,
            ts_ok=report.ts_ok,
            rcv_up=report.rcv_up,
        )
        return news.valid & eligible, news.ready, entry
