"""States of the listen unit for segments: a SYN for a listener, and segments of half-open connections.

RFC 9293 sections 3.10.7.2 (LISTEN) and 3.10.7.4 (SYN-RECEIVED). ``u`` is the ListenUnit.
"""

from amaranth.hdl import Signal

from ..messages import Status, TableOp, is_v6
from .handshake import Action, Verdict
from .jobs import SYN_ACK_TICKS, Job
from .syncache import EntryState


def syn(m, u):
    """A SYN for no connection, whose number is there: entry, table, SYN,ACK. The queue goes on after "Store"."""
    s, request, entry = u.states, u.syns.o.payload, u.listeners.entry
    same_port, same_address, listening = Signal(), Signal(), Signal()
    again = Signal()  # the cookie was sent before: which of both SYN,ACKs is acknowledged nobody knows
    anywhere = entry.laddr == 0
    if u.cfg.ipv6:
        anywhere &= ~is_v6(request.tuple)
    m.d.sync += [
        same_port.eq(entry.lport == request.tuple.lport),
        same_address.eq((entry.laddr == request.tuple.laddr) | anywhere),
        listening.eq(entry.enable & same_port & same_address),
    ]
    with s("Syn"):
        # The listener may have gone since the dispatcher looked, or another one has its place.
        with m.If(listening & ~u.listeners.changing):
            m.d.comb += u.cache.take.eq(1)
            s.go("Store")
        with m.Elif(~u.listeners.changing):
            m.d.comb += [u.reservations.returned.eq(1), u.reservations.freed.eq(1), u.entered.eq(1)]
            s.go("Dealt")
    with s("Store"):
        m.d.comb += [u.cache.write_peer.eq(1), u.cache.write_own.eq(1), u.pop_syn.eq(1)]
        m.d.sync += again.eq(request.returned)
        s.go("Load")
    with s("Insert"):
        m.d.comb += [u.table.valid.eq(1), u.table.payload.op.eq(TableOp.INSERT)]
        with m.If(u.table.ready):
            s.go("Inserted")
    with s("Inserted"):
        m.d.comb += u.table_status.ready.eq(1)
        status = u.table_status.payload.status
        with m.If(u.table_status.valid):
            m.d.comb += u.pulse["syn_dropped_full"].eq(status == Status.TABLE_FULL)
            with m.If(status == Status.OK):
                s.go("SynAck")
            with m.Else():
                s.go("Undo")
    with s("Undo"):
        # EXISTS: the SYN came twice at once, or the host opens this connection; one SYN is enough.
        m.d.comb += [u.cache.release.eq(1), u.reservations.freed.eq(1), u.reservations.returned.eq(1), u.entered.eq(1)]
        s.go("Idle")
    with s("Arm"):
        u.change_status(
            m, state=EntryState.FRESH, generation=u.facts.generation_next, retries=0, remaining=SYN_ACK_TICKS,
            repeats=again,
        )  # fmt: skip
        m.d.comb += [u.push_report.eq(1), u.entered.eq(1)]
        s.go("Idle")


def segment(m, u):
    """A segment of a half-open connection, and what is said to its peer and to the dispatcher."""
    s, action = u.states, u.facts.action
    with s("Judge"):
        proven = u.facts.meta.proven
        bad_ack = (action == Action.RESET) & ~proven
        m.d.comb += u.pulse["syncache_bad_ack"].eq(bad_ack)
        with m.Switch(action):
            with m.Case(Action.RETRY):
                s.go("Retry")
            with m.Case(Action.REMOVE):
                s.go("Delete")
            with m.Case(Action.SYN_ACK):
                with m.If(u.control_room):
                    s.go("SynAck")
                with m.Else():
                    s.go("Dealt")  # the timer sends one
            with m.Case(Action.CHALLENGE, Action.OLD):
                with m.If((action == Action.OLD) & u.syn_to_host):
                    s.go("Left to host")
                with m.Elif(u.control_room & u.may_challenge):
                    s.go("Challenge")
                with m.Else():
                    m.d.comb += u.pulse["challenge_suppressed"].eq(1)
                    s.go("Dealt")
            with m.Case(Action.RESET):
                # The host's SYN,ACK has the same peer in the same place. An old ACK has not (Action.OLD).
                # Who returns a cookie gets an entry of its own, if there is room for it: it looks again when this one has gone.
                with m.If(u.syn_to_host | proven & u.room_to_return):
                    s.go("Delete")
                with m.Elif(proven):
                    s.go("Dealt")
                with m.Elif(u.control_room & u.may_reset):
                    s.go("Refuse")
                with m.Else():
                    m.d.comb += u.pulse["rst_suppressed"].eq(1)
                    s.go("Dealt")
            with m.Case(Action.ACCEPT):
                with m.If(u.facts.acceptable):
                    s.go("Endpoint")
                with m.Else():
                    s.go("Dealt")
            with m.Default():
                s.go("Dealt")
    with s("SynAck"):
        m.d.comb += u.control.valid.eq(1)
        with m.If(u.control.ready):
            for job, state in ((Job.SYN, "Arm"), (Job.SEGMENT, "Repeated"), (Job.TIMER, "Rearm")):
                with m.If(u.job[job]):
                    s.go(state)
    with s("Repeated"):
        u.change_status(m, repeats=u.facts.repeats_next)
        s.go("Dealt")
    for name, state in (("Challenge", "Dealt"), ("Refuse", "Dealt"), ("Reset", "Retire")):
        with s(name):
            m.d.comb += u.control.valid.eq(1)
            with m.If(u.control.ready):
                if name == "Challenge":
                    m.d.comb += u.pulse["challenge_acks"].eq(1)
                if name == "Refuse":
                    m.d.comb += u.pulse["reset_sent"].eq(1)
                s.go(state)
    for name, verdict in (("Dealt", Verdict.DROP), ("Retry", Verdict.RETRY), ("Left to host", Verdict.HOST)):
        with s(name):
            # Nobody waits for a verdict on what comes from the queue.
            with m.If(u.queued):
                m.d.comb += u.pop_syn.eq(1)
            with m.Else():
                m.d.comb += u.handshake.ready.eq(1)
                m.d.sync += [u.verdict.valid.eq(1), u.verdict.payload.eq(verdict)]
            s.go("Idle")


def accept(m, u):
    """Endpoint, table, pipeline; when the pipeline refuses the id, the entry is as before and the id is lost."""
    s, restore, accepted = u.states, Signal(), Signal()
    with s("Endpoint"):
        m.d.comb += u.endpoint.valid.eq(1)
        m.d.sync += restore.eq(0)
        with m.If(u.endpoint.ready):
            s.go("Replace")
    with s("Replace"):
        m.d.comb += [u.table.valid.eq(1), u.table.payload.op.eq(TableOp.REPLACE)]
        with m.If(~restore):
            m.d.comb += [u.table.payload.is_syncache.eq(0), u.table.payload.index.eq(u.ids.r_data)]
        with m.If(u.table.ready):
            s.go("Replaced")
    with s("Replaced"):
        m.d.comb += u.table_status.ready.eq(1)
        with m.If(u.table_status.valid):
            with m.If(restore):
                m.d.comb += [u.pop_id.eq(1), u.reservations.lost.eq(1)]
                s.go("Dealt")
            with m.Else():
                s.go("Accept")
    with s("Accept"):
        m.d.comb += u.flow.valid.eq(1)
        with m.If(u.flow.ready):
            s.go("Accepted")
    with s("Accepted"):
        m.d.comb += u.flow_status.ready.eq(1)
        m.d.sync += accepted.eq(u.flow_status.payload.status == Status.OK)
        with m.If(u.flow_status.valid):
            s.go("Decided")
    with s("Decided"):
        m.d.sync += restore.eq(~accepted)
        m.d.comb += [u.pulse["accepted"].eq(accepted), u.pop_id.eq(accepted), u.cache.release.eq(accepted)]
        m.d.comb += [u.reservations.freed.eq(accepted), u.reservations.accepted.eq(accepted)]
        u.change_status(m, when=accepted, state=EntryState.FREE)
        with m.If(accepted):
            s.go("Retry")
        with m.Else():
            s.go("Replace")


def remove(m, u):
    """The entry leaves the table, the peer gets a reset unless it sent one or is silent, the host an event."""
    s = u.states
    with s("Delete"):
        m.d.comb += [u.table.valid.eq(1), u.table.payload.op.eq(TableOp.DELETE)]
        with m.If(u.table.ready):
            s.go("Deleted")
    with s("Deleted"):
        m.d.comb += u.table_status.ready.eq(1)
        with m.If(u.table_status.valid):
            with m.If(u.job[Job.DROP] | u.job[Job.KILL]):
                s.go("Reset")
            with m.Else():
                s.go("Retire")
    with s("Retire"):
        u.change_status(m, state=EntryState.GONE)
        m.d.comb += [u.push_report.eq(1), u.reservations.returned.eq(1)]
        for job, state in ((Job.DROP, "Dropped"), (Job.KILL, "Killed"), (Job.TIMER, "Timed")):
            with m.If(u.job[job]):
                s.go(state)
        with m.If(u.job[Job.SEGMENT]):
            with m.If(u.facts.action == Action.RESET):
                s.go("Retry")  # nobody's now: the host knows whether it is its own
            with m.Else():
                s.go("Dealt")
