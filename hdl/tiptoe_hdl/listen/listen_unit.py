"""Listen unit: the passive open up to the last ACK of the handshake (RFC 9293 section 3.10.7, RFC 4987).

A SYN to a listener gets a syncache entry, a place in the connection table and a SYN,ACK, if there is an id in stock that
no half-open connection was promised; the right ACK turns the entry into a connection with an id from the stock.
Nothing here waits for the host: what the host has not yet taken notice of is an entry that is not yet free. And nothing waits
for the line: what has something to send begins when there is room for it, or is left out.

The states are in choose.py (which job), passive_open.py (segments) and upkeep.py (commands, timer, events).
"""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import (
    ACK,
    SYN,
    FlowResponse,
    FourTuple,
    endpoint_write,
    flow_request,
    listen_write,
    syn_event,
    table_update,
    tx_control,
)
from ..wire.valid_only import valid_only
from . import passive_open, upkeep
from .choose import choose
from .facts import EntryFacts
from .handshake import Verdict, handshake, syn_request
from .jobs import Job
from .listen_table import ListenTable, LocalEndpoint, listens
from .outputs import outputs
from .reservations import Reservations
from .states import States
from .syn_queue import SynQueue
from .syncache import Syncache, index_bits
from .walk import Sweep, Walk

COUNTERS = (
    "syn_dropped_full", "syncache_expired", "syncache_bad_ack", "accepted", "challenge_acks", "challenge_suppressed",
    "rst_suppressed",
)  # fmt: skip

SETTLE = 4
"""Cycles from a SYN at the head of the queue to what its listener says."""


class ListenUnit(wiring.Component):
    """Serves one segment, SYN, event, command or timer step at a time, segments before the rest. No job takes longer than
    about 60 cycles, and the longest is the one that makes a connection.

    Timing: with an idle unit about 75 cycles from a SYN to its SYN,ACK, of which 40 for the initial sequence number: that is
    asked for before the unit begins with the SYN, so that it has 30 cycles of work with it. From the last ACK to its verdict
    about 25 and the time of the flow pipeline. A tick takes 9 cycles for each entry, in between.

    Members
    -------
    find : In valid-only of LocalEndpoint; found : Out stream of ``listens``
        The dispatcher's searches in the listen table.
    syn : In stream of ``syn_request``
        They wait in a SynQueue.
    room : Out(1)
        An entry and an id are free that no SYN has yet. It comes within three cycles of a transfer of ``syn``.
    room_for_returned : Out(1)
        The same for who returns a cookie: some are kept.
    syn_cookies : In(1)
        SYNs that find no room are answered with cookies: some room is kept for those who return them.
    sack : In(1)
        SYN,ACKs permit selective acknowledgements if the SYN did (RFC 2018 section 2); what was said stays with the entry.
    timestamps : In(1)
        Likewise, with timestamps (RFC 7323 section 3.2).
    cookie_index : In(listener_bits); cookie_entry : Out(listen_write)
        What a listener says, two cycles later.
    changing : Out(1)
        Void if asked for while this is set, or two cycles before.
    opening : Out(1)
        A SYN that wants an entry, or who returned a cookie, has been taken, and is not in the connection table yet.
    pressure : In(1)
        Pulse: a SYN was turned away by the dispatcher.
    handshake : In stream of ``handshake``; verdict : Out stream of Verdict
        From and to the dispatcher: one verdict for each segment, before the next segment.
    listen : In stream of ``listen_write``; listen_status : Out stream of FlowResponse
        LISTEN: OK, also for a listener in use at the same endpoint, whose next SYN,ACKs say what is new; EXISTS (it is in use
        at another one). UNLISTEN: OK after the resets of its half-open connections are sent,
        BAD_STATE (not in use).
    drop : In stream of 16 bits; drop_status : Out stream of FlowResponse
        SYNCACHE_DROP of a reference: OK after the reset is sent, BAD_ID, BAD_GENERATION (no such half-open
        connection any more).
    stock : In stream of id
        Ids for passive opens; never waits.
    isn_request : Out stream of FourTuple; isn : In stream of 32 bits
    table : Out stream of ``table_update``; table_status : In stream of FlowResponse
    flow : Out stream of ``flow_request``; flow_status : In stream of FlowResponse
    endpoint : Out stream of ``endpoint_write``
        Before the request to the pipeline.
    control : Out stream of TxControl
        Taken within a few cycles while ``control_room``.
    control_room : In(1)
        So much room that what begins now, and the dispatcher's resets meanwhile, find some.
    may_reset, may_challenge : In(1)
        A reset, a challenge ACK may be sent (RFC 5961 section 7).
    reset_sent : Out(1)
        Pulse. The one for a challenge ACK is its counter's.
    event : Out stream of SynEvent
        Each reference comes once as SYN_RECEIVED, and then either as a connection's or once with ``gone``.
    tick : In(1)
        Pulse, nominally a millisecond.
    syn_retries : In(8)
        SYN,ACKs sent after the first one before an entry is given up. While SYNs find no room, after PRESSED_RETRIES.
    syn_to_host : In(1)
        A software TCP listens too: it gets a half-open connection whose peer acknowledges the software's SYN,ACK instead
        of ours (its first SYN found no room here). By the acknowledgement alone, an old duplicate looks the same; so it has to
        stand at RCV.NXT or in the window. Another one goes to the host without the half-open connection's end.
    ready : Out(1)
        The tables are cleared.
    count_* : Out(1)
    """

    def __init__(self, cfg: EngineConfig):
        if cfg.syncache_entries < 2:
            raise ValueError("the listen unit needs at least 2 syncache entries")
        self.cfg = cfg
        status = stream.Signature(FlowResponse)
        super().__init__(
            {
                "find": In(valid_only(LocalEndpoint)),
                "found": Out(stream.Signature(listens(cfg))),
                "syn": In(stream.Signature(syn_request(cfg))),
                "room": Out(1),
                "room_for_returned": Out(1),
                "syn_cookies": In(1),
                "sack": In(1),
                "ecn": In(1),
                "timestamps": In(1),
                "pressure": In(1),
                "cookie_index": In(cfg.listener_bits),
                "cookie_entry": Out(listen_write(cfg)),
                "changing": Out(1),
                "opening": Out(1),
                "handshake": In(stream.Signature(handshake(cfg))),
                "verdict": Out(stream.Signature(Verdict)),
                "listen": In(stream.Signature(listen_write(cfg))),
                "listen_status": Out(status),
                "drop": In(stream.Signature(16)),
                "drop_status": Out(status),
                "stock": In(stream.Signature(cfg.id_bits)),
                "isn_request": Out(stream.Signature(FourTuple)),
                "isn": In(stream.Signature(32)),
                "table": Out(stream.Signature(table_update(cfg))),
                "table_status": In(status),
                "flow": Out(stream.Signature(flow_request(cfg))),
                "flow_status": In(status),
                "endpoint": Out(stream.Signature(endpoint_write(cfg))),
                "control": Out(stream.Signature(tx_control(cfg))),
                "control_room": In(1, init=1),
                "may_reset": In(1, init=1),
                "may_challenge": In(1, init=1),
                "reset_sent": Out(1),
                "event": Out(stream.Signature(syn_event(cfg))),
                "tick": In(1),
                "syn_retries": In(8),
                "syn_to_host": In(1),
                "ready": Out(1),
                **{f"count_{name}": Out(1) for name in COUNTERS},
            }
        )

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        m.submodules.listeners = self.listeners = ListenTable(cfg)
        m.submodules.cache = self.cache = Syncache(cfg)
        m.submodules.facts = self.facts = EntryFacts(cfg)
        m.submodules.sweep = self.sweep = Sweep(cfg)
        m.submodules.killer = self.killer = Walk(cfg)
        self.index = Signal(index_bits(cfg))
        self.job = {job: Signal(name=f"job_{job.name}") for job in Job}  # what is being done, always for one entry
        self.report = Signal(index_bits(cfg) + 1)  # the event last given out: its entry, and in bit 0 "gone"
        self.left_pending = Signal()  # it has been taken, and the entry does not know yet
        self.pulse = {name: Signal(name=f"pulse_{name}") for name in (*COUNTERS, "reset_sent")}
        self.writing = Signal()  # the listen table has a write
        self.queued = Signal()  # the segment being dealt with comes from the queue of SYNs
        self.states = States(m, "Start")
        self._queues(m)
        m.d.comb += [
            self.ready.eq(self.cache.ready & self.listeners.ready),
            self.listeners.find.valid.eq(self.find.valid), self.listeners.find.payload.eq(self.find.payload),
            self.found.valid.eq(self.listeners.found.valid), self.found.payload.eq(self.listeners.found.payload),
            self.listeners.found.ready.eq(self.found.ready),
            self.listeners.cookie_index.eq(self.cookie_index), self.cookie_entry.eq(self.listeners.cookie_entry),
            self.changing.eq(self.listeners.changing),
            self.listeners.write.valid.eq(self.writing & ~self.listeners.written.valid),
            self.cache.index.eq(self.index),
            self.cache.status_data.eq(self.cache.status),
            self.facts.index.eq(self.index), self.facts.peer.eq(self.cache.peer),
            self.facts.own.eq(self.cache.own), self.facts.status.eq(self.cache.status),
            self.facts.elapsed.eq(self.sweep.elapsed), self.facts.syn_retries.eq(self.syn_retries),
            self.facts.dropped.eq(self.drop.payload), self.facts.listener.eq(self.listen.payload.listener),
            self.facts.stocked.eq(self.ids.r_rdy), self.facts.crowded.eq(self.reservations.crowded),
            self.sweep.tick.eq(self.tick),
            self.sweep.pressure.eq(self.pulse["syn_dropped_full"] | self.pressure),
            # Where SYNs without room are the host's nobody is kept out: then nobody is given up whose ACK may be on its way.
            self.facts.pressed.eq(self.sweep.pressed & ~self.syn_to_host),
        ]  # fmt: skip
        for name, pulse in self.pulse.items():
            m.d.sync += getattr(self, name if name == "reset_sent" else f"count_{name}").eq(pulse)
        self._syns(m)

        outputs(m, self)
        choose(m, self)
        passive_open.syn(m, self)
        passive_open.segment(m, self)
        passive_open.accept(m, self)
        passive_open.remove(m, self)
        upkeep.commands(m, self)
        upkeep.timer(m, self)
        upkeep.events(m, self)
        self.states.done()
        return m

    def _queues(self, m):
        """Ids in stock and events to be reported; what the states do to them passes a register."""
        cfg = self.cfg
        m.submodules.ids = self.ids = fifo.SyncFIFOBuffered(width=cfg.id_bits, depth=cfg.connections)
        # An entry has at most two events under way before it is free again: this queue is never full.
        m.submodules.reports = self.reports = fifo.SyncFIFOBuffered(
            width=index_bits(cfg) + 1, depth=2 * cfg.syncache_entries
        )
        self.pop_id, self.pop_report, self.push_report = Signal(), Signal(), Signal()
        m.submodules.reservations = self.reservations = Reservations(cfg)
        m.d.comb += [
            self.ids.w_data.eq(self.stock.payload),
            self.ids.w_en.eq(self.stock.valid),
            self.stock.ready.eq(1),  # full means that an id is there twice
            self.reservations.stocked.eq(self.stock.valid & self.ids.w_rdy),
        ]
        m.d.sync += [
            self.ids.r_en.eq(self.pop_id),
            self.reports.r_en.eq(self.pop_report),
            self.reports.w_en.eq(self.push_report),
            self.reports.w_data.eq(Cat(self.states.at("Retire"), self.index)),
        ]

    def _syns(self, m):
        """SYNs that wait, and the number of the first of them, which is asked for ahead."""
        m.submodules.syns = self.syns = syns = SynQueue(self.cfg)
        self.pop_syn, self.syn_ready = Signal(), Signal()
        self.entered = Signal()  # a SYN is in the table, or came to nothing
        self.room_to_return = Signal()
        waiting, taken = Signal(range(syns.depth + 2)), Signal()
        wiring.connect(m, wiring.flipped(self.syn), syns.i)
        asked, waited = Signal(), Signal(SETTLE)
        since, told = Signal(7), Signal()  # cycles since the last SYN; the host's side has taken its event
        syn, said, meta = syns.o.payload, self.facts.meta, self.handshake.payload.meta
        numbered = syn.hit | syn.returned  # it has its number
        m.d.comb += [
            syns.o.ready.eq(self.pop_syn),
            self.isn_request.valid.eq(syns.o.valid & ~numbered & ~asked),
            self.isn.ready.eq(self.pop_syn & ~numbered),
            self.reservations.promised.eq(self.syn.valid & self.syn.ready & ~self.syn.payload.hit),
            self.room.eq(self.reservations.available),
            self.room_for_returned.eq(self.reservations.any_left),
            self.reservations.reserve.eq(self.syn_cookies),
            self.opening.eq(taken | waiting.any()),
            said.tuple.eq(Mux(self.queued, syn.tuple, meta.tuple)),
            said.seq.eq(Mux(self.queued, syn.seq, meta.seq)),
            said.ack.eq(meta.ack),
            said.length.eq(meta.payload_length),
            said.proven.eq(self.handshake.payload.proven & ~self.queued),
            said.flags.eq(Mux(self.queued, 1 << SYN | syn.is_ack << ACK, meta.flags)),
        ]
        m.d.sync += [
            taken.eq(self.reservations.promised),
            waiting.eq(waiting + taken - self.entered),
            self.room_to_return.eq(self.reservations.any_left),
            waited.eq(Mux(self.pop_syn | ~syns.o.valid, 0, Cat(1, waited))),
            since.eq(Mux(self.pop_syn, 0, since + ~since[-1])),
            told.eq(~(self.left_pending | self.reports.r_rdy | self.event.valid) & since[4:].any()),
            # Its ACK is taken only when the host knows: so the events keep up, unless the host does not read.
            self.syn_ready.eq(
                (told | since[-1]) & syns.o.valid & ~self.pop_syn & self.control_room
                & (syn.hit | ((numbered | (asked & self.isn.valid)) & waited[-1] & self.cache.free))
            ),
        ]  # fmt: skip
        with m.If(self.pop_syn):
            m.d.sync += asked.eq(0)
        with m.Elif(self.isn_request.valid & self.isn_request.ready):
            m.d.sync += asked.eq(1)

    # ------------------------------------------------------------------ steps that the states use

    def answer(self, m, command, port, status):
        """Take a command and answer it."""
        m.d.comb += command.ready.eq(1)
        m.d.sync += [port.valid.eq(1), port.payload.status.eq(status)]

    def change_status(self, m, *, when=1, **changes):
        """Store the entry's status with some fields changed. What is stored does not wait for ``when``."""
        m.d.comb += self.cache.write_status.eq(when)
        m.d.comb += [self.cache.status_data[name].eq(value) for name, value in changes.items()]
