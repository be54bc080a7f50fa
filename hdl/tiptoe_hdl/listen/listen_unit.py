"""Listen unit: the passive open up to the last ACK of the handshake (RFC 9293 section 3.10.7, RFC 4987).

A SYN to a listener gets a syncache entry, a place in the connection table and a SYN,ACK; the right ACK turns the
entry into a connection with an id from the stock. Nothing here waits for the host: what the host has not yet taken
notice of is an entry that is not yet free.

The states are in passive_open.py (segments) and upkeep.py (commands, timer, events).
"""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import fifo, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import EngineConfig
from ..messages import (
    ACK,
    RST,
    SYN,
    FlowOp,
    FlowResponse,
    FourTuple,
    SynEvent,
    TxControl,
    endpoint_write,
    flow_request,
    listen_write,
    table_update,
)
from ..wire.sequence import distance
from . import passive_open, upkeep
from .handshake import Verdict, decide, handshake
from .jobs import BACKOFF_LIMIT, DEFAULT_MSS, Job, Kind
from .listen_table import ListenTable
from .syncache import EntryState, Syncache, index_bits, reference


class ListenUnit(wiring.Component):
    """Serves one segment, event, command or timer step at a time, each kind in turn.

    Timing: with an idle unit about 75 cycles from a SYN to its SYN,ACK, of which 40 for the initial sequence number; the
    dispatcher has its verdict after about 15 and one for each listener. From the last ACK to its verdict about 25 and
    the time of the flow pipeline. A tick takes 7 cycles for each entry, in between.

    Members
    -------
    handshake : In stream of ``handshake``; verdict : Out stream of Verdict
        From and to the dispatcher: one verdict for each segment, before the next segment.
    listen : In stream of ``listen_write``; listen_status : Out stream of FlowResponse
        LISTEN: OK, EXISTS (the listener is in use). UNLISTEN: OK after the resets of its half-open connections are sent,
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
    event : Out stream of SynEvent
        Each reference comes once as SYN_RECEIVED, and then either as a connection's or once with ``gone``.
    tick : In(1)
        Pulse, nominally a millisecond.
    syn_retries : In(8)
        SYN,ACKs sent after the first one before an entry is given up.
    ready : Out(1)
        The tables are cleared.
    count_* : Out(1)
    """

    def __init__(self, cfg: EngineConfig):
        if cfg.syncache_entries < 2:
            raise ValueError("the listen unit needs at least 2 syncache entries")
        self.cfg = cfg
        status = stream.Signature(FlowResponse)
        super().__init__({
            "handshake": In(stream.Signature(handshake(cfg))), "verdict": Out(stream.Signature(Verdict)),
            "listen": In(stream.Signature(listen_write(cfg))), "listen_status": Out(status),
            "drop": In(stream.Signature(16)), "drop_status": Out(status),
            "stock": In(stream.Signature(cfg.id_bits)),
            "isn_request": Out(stream.Signature(FourTuple)), "isn": In(stream.Signature(32)),
            "table": Out(stream.Signature(table_update(cfg))), "table_status": In(status),
            "flow": Out(stream.Signature(flow_request(cfg))), "flow_status": In(status),
            "endpoint": Out(stream.Signature(endpoint_write(cfg))),
            "control": Out(stream.Signature(TxControl)),
            "event": Out(stream.Signature(SynEvent)),
            "tick": In(1), "syn_retries": In(8), "ready": Out(1),
            "count_syn_received": Out(1), "count_syn_dropped_full": Out(1), "count_syncache_expired": Out(1),
            "count_syncache_bad_ack": Out(1), "count_accepted": Out(1), "count_challenge_acks": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self.cfg
        m.submodules.listeners = self.listeners = ListenTable(cfg)
        m.submodules.cache = self.cache = Syncache(cfg)
        m.submodules.ids = self.ids = fifo.SyncFIFOBuffered(width=cfg.id_bits, depth=cfg.connections)
        # An entry has at most two events under way before it is free again: this queue is never full.
        m.submodules.reports = self.reports = fifo.SyncFIFOBuffered(
            width=index_bits(cfg) + 1, depth=2 * cfg.syncache_entries
        )
        m.d.comb += [
            self.ids.w_data.eq(self.stock.payload),
            self.ids.w_en.eq(self.stock.valid),
            self.stock.ready.eq(1),  # full means that an id is there twice
            self.ready.eq(self.cache.ready),
        ]
        self.index = Signal(index_bits(cfg))
        self.job = Signal(Job)
        self.answer = Signal(Verdict)
        self.kind = Signal(Kind)
        self.delay = Signal(3)
        self.report = Signal(index_bits(cfg) + 1)  # the event last given out: its entry, and in bit 0 "gone"
        self.left_pending = Signal()  # it has been taken, and the entry does not know yet
        m.d.comb += self.cache.index.eq(self.index)
        self._ticks(m)
        self._facts(m)
        self._outputs(m)
        with m.FSM(name="unit"):
            self._idle(m)
            passive_open.syn(m, self)
            passive_open.segment(m, self)
            passive_open.accept(m, self)
            passive_open.remove(m, self)
            upkeep.commands(m, self)
            upkeep.timer(m, self)
            upkeep.events(m, self)
        return m

    # ------------------------------------------------------------------ what is known of the entry and the segment

    def _facts(self, m):
        """Flip-flops that follow the entry; those of the segment settle three cycles after the entry."""
        peer, own, status = self.cache.peer, self.cache.own, self.cache.status
        meta = self.handshake.payload.meta
        self.iss_next, self.rcv_nxt = Signal(32), Signal(32)
        self.mss, self.live = Signal(16), Signal()
        self.left, self.due, self.last_try = Signal(17), Signal(), Signal()
        self.retries_next, self.doublings = Signal(8), Signal(range(BACKOFF_LIMIT + 1))
        self.generation_next = Signal.like(status.generation)
        half_open = (status.state == EntryState.FRESH) | (status.state == EntryState.REPORTED)
        same = Signal(4)
        offset = Signal(32)
        ours, seq_is_irs, seq_is_next, in_window, ack_is_next = (Signal() for _ in range(5))
        m.d.sync += [
            self.iss_next.eq(own.iss + 1),
            self.rcv_nxt.eq(peer.irs + 1),
            self.mss.eq(Mux(peer.mss < own.mss, peer.mss, own.mss)),
            self.live.eq(half_open),
            self.left.eq(status.remaining - self.elapsed),
            self.due.eq(self.left[16] | (self.left == 0)),
            self.last_try.eq(status.retries >= self.syn_retries),
            self.retries_next.eq(status.retries + 1),
            self.doublings.eq(Mux(self.retries_next < BACKOFF_LIMIT, self.retries_next, BACKOFF_LIMIT)),
            self.generation_next.eq(status.generation + 1),
            same.eq(Cat(
                peer.tuple.laddr == meta.tuple.laddr, peer.tuple.faddr == meta.tuple.faddr,
                peer.tuple.lport == meta.tuple.lport, peer.tuple.fport == meta.tuple.fport,
            )),
            ours.eq(self.live & same.all()),
            offset.eq(distance(meta.seq, self.rcv_nxt)),
            seq_is_irs.eq(meta.seq == peer.irs),
            seq_is_next.eq(meta.seq == self.rcv_nxt),
            in_window.eq(offset < own.wnd),  # a distance, not a position
            ack_is_next.eq(meta.ack == self.iss_next),
        ]
        decision = decide(
            m, meta.flags, live=ours, seq_is_irs=seq_is_irs, seq_is_next=seq_is_next, in_window=in_window,
            ack_is_next=ack_is_next,
        )  # fmt: skip
        self.action = Signal.like(decision)
        self.reference = reference(self.cfg, self.index, status.generation)
        self.fresh, self.named, self.child = Signal(), Signal(), Signal()
        self.acceptable = Signal()
        m.d.sync += [
            self.action.eq(decision),
            self.fresh.eq(status.state == EntryState.FRESH),
            # Without an id, or before the host could know of the SYN, the peer has to say its ACK again.
            self.acceptable.eq((status.state == EntryState.REPORTED) & self.ids.r_rdy),
            self.named.eq(half_open & (self.reference == self.drop.payload)),
            self.child.eq(half_open & (own.listener == self.listen.payload.listener)),
        ]

    def _ticks(self, m):
        """Ticks wait until the sweep begins that serves them."""
        self.waiting, self.elapsed = Signal(8), Signal(8)
        self.sweeping, self.sweep_index = Signal(), Signal.like(self.index)
        self.killing, self.kill_index = Signal(), Signal.like(self.index)
        with m.If(~self.sweeping & self.waiting.any()):
            m.d.sync += [
                self.sweeping.eq(1), self.sweep_index.eq(0), self.elapsed.eq(self.waiting), self.waiting.eq(self.tick),
            ]
        with m.Elif(self.tick & ~self.waiting.all()):
            m.d.sync += self.waiting.eq(self.waiting + 1)

    # ------------------------------------------------------------------ ports that depend on the entry only

    def _outputs(self, m):
        peer, own = self.cache.peer, self.cache.own
        meta = self.handshake.payload.meta
        # The entry of a SYN, as it is stored: first what the peer said, with the number what we say.
        m.d.comb += [
            self.cache.peer_data.tuple.eq(meta.tuple),
            self.cache.peer_data.smac.eq(meta.smac),
            self.cache.peer_data.irs.eq(meta.seq),
            self.cache.peer_data.mss.eq(Mux(meta.mss.any(), meta.mss, DEFAULT_MSS)),
            self.cache.peer_data.ws_present.eq(meta.ws_present),
            self.cache.peer_data.ws.eq(meta.ws),
            self.cache.own_data.iss.eq(self.isn.payload),
            *(self.cache.own_data[name].eq(self.listeners.found.payload[name])
              for name in ("listener", "mss", "rcv_scale", "wnd")),
            self.listeners.find.payload.laddr.eq(meta.tuple.laddr),
            self.listeners.find.payload.lport.eq(meta.tuple.lport),
            self.listeners.write.payload.eq(self.listen.payload),
            self.isn_request.payload.eq(peer.tuple),
            self.table.payload.tuple.eq(peer.tuple),
            self.table.payload.is_syncache.eq(1),
            self.table.payload.index.eq(self.index),
        ]
        out = self.control.payload
        m.d.comb += [
            out.tuple.eq(peer.tuple), out.dmac.eq(peer.smac),
            out.seq.eq(self.iss_next), out.ack.eq(self.rcv_nxt), out.flags.eq(1 << ACK), out.wnd.eq(own.wnd),
            out.mss.eq(own.mss), out.ws_present.eq(peer.ws_present), out.ws.eq(own.rcv_scale),
        ]
        with m.Switch(self.kind):
            with m.Case(Kind.SYN_ACK):
                m.d.comb += [out.seq.eq(own.iss), out.flags.eq(1 << SYN | 1 << ACK)]
            with m.Case(Kind.RESET):
                m.d.comb += out.flags.eq(1 << RST | 1 << ACK)
            with m.Case(Kind.REFUSE):
                m.d.comb += [out.seq.eq(meta.ack), out.ack.eq(0), out.flags.eq(1 << RST)]
        m.d.comb += [
            self.endpoint.payload.id.eq(self.ids.r_data),
            self.endpoint.payload.endpoint.tuple.eq(peer.tuple),
            self.endpoint.payload.endpoint.dmac.eq(peer.smac),
            self.flow.payload.op.eq(FlowOp.ACCEPT),
            self.flow.payload.id.eq(self.ids.r_data),
            self.flow.payload.a.eq(own.iss),
            self.flow.payload.b.eq(peer.irs),
            self.flow.payload.mss.eq(self.mss),
            self.flow.payload.snd_scale.eq(Mux(peer.ws_present, peer.ws, 0)),
            self.flow.payload.rcv_scale.eq(Mux(peer.ws_present, own.rcv_scale, 0)),
            self.flow.payload.wnd.eq(own.wnd),
            self.flow.payload.syncache_ref.eq(self.reference),
        ]
        for port in (self.verdict, self.listen_status, self.drop_status):
            with m.If(port.ready):
                m.d.sync += port.valid.eq(0)
        with m.If(self.event.valid & self.event.ready):
            m.d.sync += [self.event.valid.eq(0), self.left_pending.eq(1)]

    # ------------------------------------------------------------------ the state machine

    # Steps that the states use.

    def load(self, m, job, index, cycles):
        """Begin ``job`` with entry ``index``; ``cycles`` until the facts it needs are there."""
        m.d.sync += [self.job.eq(job), self.index.eq(index), self.delay.eq(cycles - 1)]
        m.next = "Load"

    def finish(self, m, verdict):
        """Tell the dispatcher."""
        m.d.sync += self.answer.eq(verdict)
        m.next = "Answer"

    def send(self, m, kind):
        """Send a segment to the entry's peer, then go on as the job wants."""
        m.d.sync += self.kind.eq(kind)
        m.next = "Send"

    def done(self, m, command, port, status):
        """Take a command and answer it."""
        m.d.comb += command.ready.eq(1)
        m.d.sync += [port.valid.eq(1), port.payload.status.eq(status)]
        m.next = "Idle"

    def write_status(self, **changes):
        """Statements that store the entry's status with some fields changed."""
        data = self.cache.status_data
        return [
            self.cache.write_status.eq(1),
            *(data[name].eq(changes.get(name, self.cache.status[name])) for name, _ in data.shape()),
        ]

    def _idle(self, m):
        """Choose the next job, the kinds in turn; wait for its entry; go where it is done."""
        turn = Signal(range(3))
        prefer = Signal(init=1)  # the last job was no segment: segments go first
        segment = Signal()
        wanted = Array(Signal(name=f"wanted{kind}") for kind in range(3))
        m.d.comb += [
            segment.eq(self.handshake.valid & ~self.verdict.valid),
            wanted[0].eq(self.left_pending | (self.reports.r_rdy & ~self.event.valid)),
            wanted[1].eq((self.drop.valid & ~self.drop_status.valid)
                         | (self.listen.valid & ~self.listen_status.valid & ~self.killing)),
            wanted[2].eq(self.killing | self.sweeping),
        ]
        with m.State("Idle"):
            with m.If(~self.ready):
                pass
            with m.Elif(segment & (prefer | ~Cat(wanted).any())):
                m.d.sync += prefer.eq(0)
                with m.If(self.handshake.payload.hit):
                    self.load(m, Job.SEGMENT, self.handshake.payload.index, 6)
                with m.Else():
                    m.next = "Find"
            with m.Else():
                m.d.sync += turn.eq(Mux(turn == 2, 0, turn + 1))
                with m.If(wanted[turn]):
                    m.d.sync += prefer.eq(1)
                with m.Switch(turn):
                    with m.Case(0):
                        with m.If(self.left_pending):
                            self.load(m, Job.LEFT, self.report[1:], 3)
                        with m.Elif(wanted[0]):
                            m.d.comb += self.reports.r_en.eq(1)
                            m.d.sync += self.report.eq(self.reports.r_data)
                            self.load(m, Job.REPORT, self.reports.r_data[1:], 2)
                    with m.Case(1):
                        with m.If(self.drop.valid & ~self.drop_status.valid):
                            self.load(m, Job.DROP, self.drop.payload, 3)
                        with m.Elif(wanted[1]):
                            m.next = "Listen"
                    with m.Case(2):
                        with m.If(self.killing):
                            self.load(m, Job.KILL, self.kill_index, 3)
                        with m.Elif(self.sweeping):
                            self.load(m, Job.TIMER, self.sweep_index, 4)
        with m.State("Load"):
            m.d.sync += self.delay.eq(self.delay - 1)
            with m.If(self.delay == 0):
                with m.Switch(self.job):
                    for job, state in (
                        (Job.SYN, "Number"), (Job.SEGMENT, "Judge"), (Job.REPORT, "Report"), (Job.LEFT, "Left"),
                        (Job.DROP, "Drop"), (Job.KILL, "Kill"), (Job.TIMER, "Timer"),
                    ):
                        with m.Case(job):
                            m.next = state
        with m.State("Answer"):
            m.d.comb += self.handshake.ready.eq(1)
            m.d.sync += [self.verdict.valid.eq(1), self.verdict.payload.eq(self.answer)]
            m.next = "Idle"
        with m.State("Send"):
            m.d.comb += self.control.valid.eq(1)
            with m.If(self.control.ready):
                with m.Switch(self.job):
                    with m.Case(Job.SYN):
                        m.next = "Arm"
                    with m.Case(Job.SEGMENT):
                        m.d.comb += self.count_challenge_acks.eq(self.kind == Kind.CHALLENGE)
                        self.finish(m, Verdict.DROP)
                    with m.Case(Job.TIMER):
                        m.next = "Rearm"
                    with m.Default():
                        m.next = "Retire"
