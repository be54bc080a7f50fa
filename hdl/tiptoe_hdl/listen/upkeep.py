"""States of the listen unit for all but segments: commands, retransmission of SYN,ACKs, events.

``u`` is the ListenUnit.
"""

from amaranth.hdl import Mux

from ..messages import Status, peer_fields
from .syncache import EntryState


def commands(m, u):
    """SYNCACHE_DROP, LISTEN, UNLISTEN."""
    cfg, s = u.cfg, u.states
    ref = u.drop.payload
    with s("Drop"):
        in_range = ref[cfg.syncache_bits : max(8, cfg.syncache_bits)] == 0
        with m.If(u.facts.named):
            s.go("Delete")
        with m.Else():
            u.answer(m, u.drop, u.drop_status, Mux(in_range, Status.BAD_GENERATION, Status.BAD_ID))
            s.go("Idle")
    with s("Dropped"):
        u.answer(m, u.drop, u.drop_status, Status.OK)
        s.go("Idle")
    with s("Listen"):
        # The table takes its time for a write; the unit looks after other things meanwhile.
        m.d.sync += u.writing.eq(1)
        with m.If(u.writing):
            m.d.comb += u.listeners.written.ready.eq(1)
            m.d.sync += u.writing.eq(0)
            status = u.listeners.written.payload.status
            with m.If(~u.listen.payload.enable & (status == Status.OK)):
                # No new children from here on; visit every entry for those that exist.
                m.d.comb += u.killer.start.eq(1)
            with m.Else():
                u.answer(m, u.listen, u.listen_status, status)
        s.go("Idle")
    with s("Kill"):
        with m.If(u.facts.child):
            s.go("Delete")
        with m.Else():
            s.go("Killed")
    with s("Killed"):
        m.d.comb += u.killer.step.eq(1)
        with m.If(u.killer.last):
            u.answer(m, u.listen, u.listen_status, Status.OK)
        s.go("Idle")


def timer(m, u):
    """One entry of the sweep."""
    s, facts = u.states, u.facts
    with s("Timer"):
        u.change_status(m, when=facts.live & ~facts.due, remaining=facts.left)
        with m.If(~facts.live | ~facts.due):
            s.go("Timed")
        with m.Elif(facts.last_try):
            m.d.comb += u.pulse["syncache_expired"].eq(1)
            s.go("Delete")
        with m.Else():
            s.go("SynAck")
    with s("Rearm"):
        u.change_status(m, retries=facts.retries_next, remaining=facts.backoff, repeats=facts.repeats_next)
        s.go("Timed")
    with s("Timed"):
        m.d.comb += u.sweep.step.eq(1)
        s.go("Idle")


def events(m, u):
    """An event waits in its port's register, so that a host that does not take it holds up nothing else."""
    peer, own, s = u.cache.peer, u.cache.own, u.states
    gone = u.report[0]
    with s("Report"):
        out = u.event.payload
        m.d.sync += [
            out.gone.eq(gone),
            out.syncache_ref.eq(u.facts.reference),
            out.listener.eq(own.listener),
            out.tuple.eq(peer.tuple),
            out.iss.eq(own.iss),
            out.irs.eq(peer.irs),
            out.mss.eq(peer.mss),
            out.ws_present.eq(peer.ws_present),
            out.ws.eq(peer.ws),
            out.sack_ok.eq(peer.sack_ok),
            out.ts_ok.eq(peer.ts_ok),
            *(out[name].eq(peer[name]) for name in peer_fields(u.cfg)),
            u.event.valid.eq(1),
        ]
        s.go("Idle")
    with s("Left"):
        m.d.sync += u.left_pending.eq(0)
        u.change_status(m, when=gone | u.facts.fresh, state=Mux(gone, EntryState.FREE.value, EntryState.REPORTED.value))
        m.d.comb += [u.cache.release.eq(gone), u.reservations.freed.eq(gone)]
        s.go("Idle")
