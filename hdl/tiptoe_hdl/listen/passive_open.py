"""States of the listen unit for segments: a SYN to a listener, and segments of half-open connections.

RFC 9293 sections 3.10.7.2 (LISTEN) and 3.10.7.4 (SYN-RECEIVED). ``u`` is the ListenUnit.
"""

from amaranth.hdl import Cat, Mux, Signal

from ..messages import Status, TableOp
from .handshake import Action, Verdict
from .jobs import SYN_ACK_TICKS, Job, Kind
from .syncache import EntryState


def syn(m, u):
    """A SYN for no connection: listener, entry, number, table, SYN,ACK. The dispatcher goes on after "Store"."""
    found = u.listeners.found
    stored = Signal()
    with m.State("Find"):
        m.d.comb += u.listeners.find.valid.eq(1)
        with m.If(u.listeners.find.ready):
            m.next = "Found"
    with m.State("Found"):
        with m.If(found.valid):
            with m.If(found.payload.hit & u.cache.free.valid & u.ids.r_rdy):
                m.d.comb += [u.count_syn_received.eq(1), u.cache.free.ready.eq(1)]
                m.d.sync += u.index.eq(u.cache.free.payload)
                m.next = "Store"
            with m.Else():
                m.d.comb += [
                    found.ready.eq(1),
                    u.count_syn_received.eq(found.payload.hit),
                    u.count_syn_dropped_full.eq(found.payload.hit),
                ]
                u.finish(m, Mux(found.payload.hit, Verdict.DROP, Verdict.UNKNOWN))
    with m.State("Store"):
        m.d.comb += [u.cache.write_peer.eq(1), u.handshake.ready.eq(1)]
        m.d.sync += [
            u.verdict.valid.eq(1), u.verdict.payload.eq(Verdict.DROP),
            u.job.eq(Job.SYN), u.delay.eq(1),
        ]
        m.next = "Load"
    with m.State("Number"):
        m.d.comb += u.isn_request.valid.eq(1)
        with m.If(u.isn_request.ready):
            m.next = "Numbered"
    with m.State("Numbered"):
        with m.If(u.isn.valid):
            m.d.comb += [u.isn.ready.eq(1), u.cache.write_own.eq(1), found.ready.eq(1)]
            m.next = "Insert"
    with m.State("Insert"):
        m.d.comb += [u.table.valid.eq(1), u.table.payload.op.eq(TableOp.INSERT)]
        with m.If(u.table.ready):
            m.next = "Inserted"
    with m.State("Inserted"):
        m.d.comb += u.table_status.ready.eq(1)
        m.d.sync += stored.eq(u.table_status.payload.status == Status.OK)
        with m.If(u.table_status.valid):
            m.d.comb += u.count_syn_dropped_full.eq(u.table_status.payload.status == Status.TABLE_FULL)
            m.next = "Stored"
    with m.State("Stored"):
        with m.If(stored):
            u.send(m, Kind.SYN_ACK)
        with m.Else():
            # EXISTS: the SYN came twice at once, or the host opens this connection; one SYN is enough.
            m.d.comb += u.cache.release.eq(1)
            m.next = "Idle"
    with m.State("Arm"):
        m.d.comb += [
            u.write_status(state=EntryState.FRESH, generation=u.generation_next, retries=0,
                               remaining=SYN_ACK_TICKS),
            u.reports.w_en.eq(1),
            u.reports.w_data.eq(Cat(0, u.index)),
        ]
        m.next = "Idle"


def segment(m, u):
    """A segment of a half-open connection."""
    with m.State("Judge"):
        with m.Switch(u.action):
            with m.Case(Action.RETRY):
                u.finish(m, Verdict.RETRY)
            with m.Case(Action.REMOVE):
                m.next = "Delete"
            with m.Case(Action.SYN_ACK):
                u.send(m, Kind.SYN_ACK)
            with m.Case(Action.CHALLENGE):
                u.send(m, Kind.CHALLENGE)
            with m.Case(Action.RESET):
                m.d.comb += u.count_syncache_bad_ack.eq(1)
                u.send(m, Kind.REFUSE)
            with m.Case(Action.ACCEPT):
                with m.If(u.acceptable):
                    m.next = "Endpoint"
                with m.Else():
                    u.finish(m, Verdict.DROP)
            with m.Default():
                u.finish(m, Verdict.DROP)


def accept(m, u):
    """Endpoint, table, pipeline; when the pipeline refuses the id, the entry is as before and the id is lost."""
    restore = Signal()
    with m.State("Endpoint"):
        m.d.comb += u.endpoint.valid.eq(1)
        m.d.sync += restore.eq(0)
        with m.If(u.endpoint.ready):
            m.next = "Replace"
    with m.State("Replace"):
        m.d.comb += [u.table.valid.eq(1), u.table.payload.op.eq(TableOp.REPLACE)]
        with m.If(~restore):
            m.d.comb += [u.table.payload.is_syncache.eq(0), u.table.payload.index.eq(u.ids.r_data)]
        with m.If(u.table.ready):
            m.next = "Replaced"
    with m.State("Replaced"):
        m.d.comb += u.table_status.ready.eq(1)
        with m.If(u.table_status.valid):
            with m.If(restore):
                m.d.comb += u.ids.r_en.eq(1)
                u.finish(m, Verdict.DROP)
            with m.Else():
                m.next = "Accept"
    with m.State("Accept"):
        m.d.comb += u.flow.valid.eq(1)
        with m.If(u.flow.ready):
            m.next = "Accepted"
    with m.State("Accepted"):
        m.d.comb += u.flow_status.ready.eq(1)
        with m.If(u.flow_status.valid):
            with m.If(u.flow_status.payload.status == Status.OK):
                m.d.comb += [
                    u.count_accepted.eq(1),
                    u.ids.r_en.eq(1),
                    u.cache.release.eq(1),
                    u.write_status(state=EntryState.FREE),
                ]
                u.finish(m, Verdict.RETRY)
            with m.Else():
                m.d.sync += restore.eq(1)
                m.next = "Replace"


def remove(m, u):
    """The entry leaves the table, the peer gets a reset unless it sent one or is silent, the host an event."""
    with m.State("Delete"):
        m.d.comb += [u.table.valid.eq(1), u.table.payload.op.eq(TableOp.DELETE)]
        with m.If(u.table.ready):
            m.next = "Deleted"
    with m.State("Deleted"):
        m.d.comb += u.table_status.ready.eq(1)
        with m.If(u.table_status.valid):
            with m.If((u.job == Job.DROP) | (u.job == Job.KILL)):
                u.send(m, Kind.RESET)
            with m.Else():
                m.next = "Retire"
    with m.State("Retire"):
        m.d.comb += [
            u.write_status(state=EntryState.GONE),
            u.reports.w_en.eq(1),
            u.reports.w_data.eq(Cat(1, u.index)),
        ]
        with m.Switch(u.job):
            with m.Case(Job.SEGMENT):
                u.finish(m, Verdict.DROP)
            with m.Case(Job.DROP):
                u.done(m, u.drop, u.drop_status, Status.OK)
            with m.Case(Job.KILL):
                m.next = "Killed"
            with m.Default():
                m.next = "Timed"
