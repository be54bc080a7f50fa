"""States of the listen unit for all but segments: commands, retransmission of SYN,ACKs, events.

``u`` is the ListenUnit.
"""

from amaranth.hdl import Array, Mux

from ..messages import Status
from .jobs import BACKOFF_LIMIT, SYN_ACK_TICKS, Kind
from .syncache import EntryState


def commands(m, u):
    """SYNCACHE_DROP, LISTEN, UNLISTEN."""
    cfg = u.cfg
    ref = u.drop.payload
    with m.State("Drop"):
        in_range = ref[cfg.syncache_bits : max(8, cfg.syncache_bits)] == 0
        with m.If(u.named):
            m.next = "Delete"
        with m.Else():
            u.done(m, u.drop, u.drop_status, Mux(in_range, Status.BAD_GENERATION, Status.BAD_ID))
    with m.State("Listen"):
        m.d.comb += u.listeners.write.valid.eq(1)
        with m.If(u.listeners.write.ready):
            m.next = "Listened"
    with m.State("Listened"):
        with m.If(u.listeners.written.valid):
            m.d.comb += u.listeners.written.ready.eq(1)
            status = u.listeners.written.payload.status
            with m.If(~u.listen.payload.enable & (status == Status.OK)):
                # No new children from here on; visit every entry for those that exist.
                m.d.sync += [u.killing.eq(1), u.kill_index.eq(0)]
                m.next = "Idle"
            with m.Else():
                u.done(m, u.listen, u.listen_status, status)
    with m.State("Kill"):
        with m.If(u.child):
            m.next = "Delete"
        with m.Else():
            m.next = "Killed"
    with m.State("Killed"):
        m.d.sync += u.kill_index.eq(u.kill_index + 1)
        m.next = "Idle"
        with m.If(u.kill_index == cfg.syncache_entries - 1):
            m.d.sync += u.killing.eq(0)
            u.done(m, u.listen, u.listen_status, Status.OK)


def timer(m, u):
    """One entry of the sweep."""
    backoff = Array(SYN_ACK_TICKS << doublings for doublings in range(BACKOFF_LIMIT + 1))
    with m.State("Timer"):
        m.next = "Timed"
        with m.If(u.live):
            with m.If(~u.due):
                m.d.comb += u.write_status(remaining=u.left)
            with m.Elif(u.last_try):
                m.d.comb += u.count_syncache_expired.eq(1)
                m.next = "Delete"
            with m.Else():
                u.send(m, Kind.SYN_ACK)
    with m.State("Rearm"):
        m.d.comb += u.write_status(retries=u.retries_next, remaining=backoff[u.doublings])
        m.next = "Timed"
    with m.State("Timed"):
        m.d.sync += u.sweep_index.eq(u.sweep_index + 1)
        with m.If(u.sweep_index == u.cfg.syncache_entries - 1):
            m.d.sync += u.sweeping.eq(0)
        m.next = "Idle"


def events(m, u):
    """An event waits in its port's register, so that a host that does not take it holds up nothing else."""
    peer, own = u.cache.peer, u.cache.own
    gone = u.report[0]
    with m.State("Report"):
        out = u.event.payload
        m.d.sync += [
            out.gone.eq(gone), out.syncache_ref.eq(u.reference), out.listener.eq(own.listener),
            out.tuple.eq(peer.tuple), out.iss.eq(own.iss), out.irs.eq(peer.irs),
            out.mss.eq(peer.mss), out.ws_present.eq(peer.ws_present), out.ws.eq(peer.ws),
            u.event.valid.eq(1),
        ]
        m.next = "Idle"
    with m.State("Left"):
        m.d.sync += u.left_pending.eq(0)
        with m.If(gone):
            m.d.comb += [u.write_status(state=EntryState.FREE), u.cache.release.eq(1)]
        with m.Elif(u.fresh):
            m.d.comb += u.write_status(state=EntryState.REPORTED)
        m.next = "Idle"
