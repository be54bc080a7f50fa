"""Passive opens: listen table, half-open connections, and what becomes of them (contract: LSN, SC)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from ..hardware import abi_gen as abi
from ..hardware.alias import LADDR_V6
from ..hardware.memory import window_scale
from ..hardware.toepcb import TP_EVENTS_PENDING, toepcb
from ..netinet.if_var import IFCAP_TOE, ifnet
from ..netinet.in6 import usable
from ..netinet.offload import TOE_SC_DROP, TOE_SC_ENTRY_PRESENT
from ..netinet.stack import Stack
from ..netinet.structures import INP_IPV4, INP_IPV6, tcpcb
from .calls import ToeCalls

_LONGER = 20
"""Bytes that IPv6's header has more than IPv4's."""
FIRST_IDS = 8
"""Ids in stock before the engine listens for the first time."""


class ListenState(Enum):
    """Life of a listen table entry."""

    STARTING = 1  # LISTEN posted: a SYN that overtakes it finds no listener
    ACTIVE = 2
    STOPPING = 3  # UNLISTEN posted: the entry is not reused before the engine has answered


@dataclass(slots=True, eq=False)
class listen_ctx:
    """A listen table entry, its socket's tcpcb and its version of IP: a socket of both has an entry for each."""

    lid: int
    tp: tcpcb
    on_v6: bool
    lport: int
    mss: int  # offered
    state: ListenState = ListenState.STARTING


@dataclass(slots=True, eq=False)
class synq_entry:
    """A half-open connection of the engine: the context that the stack's syncache names in tu_syncache_event.

    ``dropped`` once the stack did not want it; ``syn`` is the event that told of it.
    """

    ref: int
    syn: abi.SynReceivedEvent
    four_tuple: tuple[int, int, int, int]  # local address and port, foreign address and port
    dropped: bool = False


class PassiveOpens:
    """Listeners on one engine, and their half-open connections.

    Parameters
    ----------
    wanted : callable
        Whether the policy lets the engine listen for a tcpcb at this address of ours.

    Attributes
    ----------
    listeners : list
        Entry of the listen table by listener id.
    half_open : dict
        synq_entry by syncache reference.
    """

    def __init__(self, stack: Stack, calls: ToeCalls, ifp: ifnet, wanted: Callable[[tcpcb, int], bool]) -> None:
        self._stack = stack
        self._calls = calls
        self._engine = calls.engine
        self._counters = calls.engine.counters
        self._ifp = ifp
        self._wanted = wanted
        self._rcv_bytes = calls.engine.ids.ring_pool.rcv_bytes
        self.listeners: list[listen_ctx | None] = [None] * calls.engine.capabilities.listeners
        self._by_tcpcb: dict[tuple[tcpcb, bool], listen_ctx] = {}  # and whether it is on IPv6
        self._withdrawn: list[tcpcb] = []  # listeners that come back with resume
        self._unserved = False  # a listener found the table full
        self.half_open: dict[int, synq_entry] = {}
        self._addresses: dict[int, int] = {}  # IPv6 addresses of SYNs that are told of next, by syncache reference

    def start(self, tp: tcpcb) -> None:
        """Event handler: ``tp`` listens, or offers another MSS than before. Ignored when it is not for our address, not wanted,
        or the table is full: for one version, maybe, and not for the other. I is held."""
        inp = tp.t_inpcb
        inp.lock.require()
        for on_v6, version in ((False, INP_IPV4), (True, INP_IPV6)):
            if not inp.inp_vflag & version:
                continue
            lctx = self._by_tcpcb.get((tp, on_v6))
            if lctx is not None:
                self._offer(lctx)
            else:
                self._start(tp, on_v6)

    def _start(self, tp: tcpcb, on_v6: bool) -> None:
        inp = tp.t_inpcb
        own = self._ifp.if_addr6 if on_v6 else self._ifp.if_addr
        if not own or inp.inp_laddr not in (0, own):
            return
        if not self._may_listen():
            return
        if not self._wanted(tp, own):
            self._counters["policy_refused"] += 1
            return
        lid = next((n for n, lctx in enumerate(self.listeners) if lctx is None), None)
        if lid is None:
            self._counters["listen_table_full"] += 1
            self._unserved = True
            return
        lctx = listen_ctx(lid, tp, on_v6, inp.inp_lport, self._mss(tp, on_v6))
        self.listeners[lid] = self._by_tcpcb[tp, on_v6] = lctx
        # A few ids, then the listener, then the others: it is there when the first SYNs come, and so are ids for them.
        self._engine.ids.stock_up(FIRST_IDS)

        def done(status: int, argument: int) -> None:
            if lctx.state is not ListenState.STARTING:
                return
            if status == abi.Status.OK:
                lctx.state = ListenState.ACTIVE
            else:
                self._counters["listen_refused"] += 1
                self.listeners[lid] = None
                del self._by_tcpcb[tp, on_v6]

        self._listen(lctx, done)
        self._engine.ids.replenish()

    def _offer(self, lctx: listen_ctx) -> None:
        """LISTEN once more, for another MSS: the listener stays, so no SYN is refused. If the first LISTEN is refused, this one
        is too, and that one's answer tells of it."""
        mss = self._mss(lctx.tp, lctx.on_v6)
        if mss != lctx.mss:
            lctx.mss = mss
            self._listen(lctx, lambda status, argument: None)

    def _mss(self, tp: tcpcb, on_v6: bool) -> int:
        """What an entry offers. The headers of a socket of both versions count as IPv4's."""
        both = tp.t_inpcb.inp_vflag == INP_IPV4 | INP_IPV6
        return self._calls.own_mss(tp, _LONGER if both and on_v6 else 0)

    def _listen(self, lctx: listen_ctx, done: Callable[[int, int], None]) -> None:
        self._engine.commands.post_control(
            abi.pack_listen(
                self._engine.commands.tag(done),
                listener=lctx.lid,
                laddr=LADDR_V6 if lctx.on_v6 else lctx.tp.t_inpcb.inp_laddr,
                lport=lctx.lport,
                mss=lctx.mss,
                rcv_scale=window_scale(self._rcv_bytes),
                wnd=min(self._rcv_bytes, 0xFFFF),
            )
        )

    @property
    def starting(self) -> bool:
        """Whether a listener is on its way to the engine: a SYN that overtakes it is refused."""
        return any(lctx.state is ListenState.STARTING for lctx in self._by_tcpcb.values())

    def stop(self, tp: tcpcb) -> None:
        """Event handler: ``tp`` listens no more; the engine resets its half-open connections. Unknown: ignored. I is held."""
        tp.t_inpcb.lock.require()
        if tp in self._withdrawn:
            self._withdrawn.remove(tp)
        for on_v6 in (False, True):
            lctx = self._by_tcpcb.pop((tp, on_v6), None)
            if lctx is not None:
                self._stop(lctx)

    def _stop(self, lctx: listen_ctx) -> None:
        lctx.state = ListenState.STOPPING

        def done(status: int, argument: int) -> None:
            self.listeners[lctx.lid] = None
            if self._unserved:
                self.resume()

        self._engine.commands.post_control(abi.pack_unlisten(self._engine.commands.tag(done), listener=lctx.lid))

    def _listening(self) -> list[tcpcb]:
        """Whoever has an entry, once."""
        return list(dict.fromkeys(tp for tp, _ in self._by_tcpcb))

    def _may_listen(self) -> bool:
        """Whether the device takes new connections."""
        return bool(self._ifp.if_capenable & IFCAP_TOE and self._ifp.if_running)

    def withdraw(self) -> None:
        """Stop listening on this engine, though the sockets listen on; ``resume`` begins anew."""
        with self._stack.tcbinfo.lock:
            for tp in self._listening():
                with tp.t_inpcb.lock:
                    self.stop(tp)
                self._withdrawn.append(tp)

    def resume(self) -> None:
        """Listen for every socket that does: those withdrawn, and those that came meanwhile."""
        if not self._may_listen():
            return
        self._unserved = False
        withdrawn, self._withdrawn = self._withdrawn, []
        with self._stack.tcbinfo.lock:
            for tp in [*withdrawn, *self._stack.listeners()]:
                with tp.t_inpcb.lock:
                    self.start(tp)

    def forget_half_open(self) -> None:
        """Half-open connections become no sockets: should a handshake complete all the same, it is reset."""
        for entry in self.half_open.values():
            entry.dropped = True
            self._stack.syncache.chkrst(entry.four_tuple, entry)

    def reset(self) -> None:
        """The engine was reset: it has no listener and no half-open connection. Listeners are back with ``resume``."""
        self._withdrawn += self._listening()
        self._by_tcpcb.clear()
        self.listeners = [None] * len(self.listeners)
        self.forget_half_open()
        self.half_open.clear()
        self._addresses.clear()

    # ------------------------------------------------------------------ half-open connections

    def syn_address(self, event: abi.SynAddressEvent) -> None:
        """The address that stands before the engine's answer to a SYN over IPv6."""
        self._addresses[event.syncache_ref] = event.faddr6_high << 64 | event.faddr6_low

    def syn_received(self, event: abi.SynReceivedEvent) -> None:
        """The engine has answered a SYN."""
        lctx = self.listeners[event.listener] if event.listener < len(self.listeners) else None
        old = self.half_open.pop(event.syncache_ref, None)
        if old is not None:  # its SYNCACHE_GONE was lost
            self._counters["stale_events"] += 1
            self._stack.syncache.chkrst(old.four_tuple, old)
        if event.listener >= len(self.listeners):
            self._counters["stale_events"] += 1
            self._drop_syn(event.syncache_ref)
            return
        laddr, faddr = event.laddr, event.faddr
        if v6 := laddr == LADDR_V6:
            laddr, faddr = self._ifp.if_addr6, self._addresses.pop(event.syncache_ref, 0)
        entry = synq_entry(event.syncache_ref, event, (laddr, event.lport, faddr, event.fport))
        self.half_open[event.syncache_ref] = entry
        if lctx is None or lctx.lport != event.lport or lctx.on_v6 != v6:
            # The answer to UNLISTEN has overtaken this event. SYNCACHE_GONE follows, or the CONNECTION event of a
            # handshake that was faster: only who knows its four-tuple can release that.
            entry.dropped = True
            self._drop_syn(event.syncache_ref)
            return
        listener = lctx.tp.t_inpcb.inp_socket
        if lctx.state is ListenState.STOPPING or listener is None:
            entry.dropped = True  # UNLISTEN, on its way, resets it
            return
        if not (usable(faddr) if v6 else self._ifp.one_host(faddr)):
            entry.dropped = True  # everybody cannot connect (RFC 9293 MUST-63)
            self._counters["bad_foreign_addresses"] += 1
            self._drop_syn(event.syncache_ref)
            return
        tw = self._stack.time_wait.find(entry.four_tuple)
        if tw is not None and not tw.reopened_by(event.irs):
            entry.dropped = True
            self._counters["time_wait_old_syns"] += 1
            self._drop_syn(event.syncache_ref)
            return
        self._stack.syncache.add(entry.four_tuple, listener, self._calls.usrreqs, entry)

    def syncache_gone(self, event: abi.SyncacheGoneEvent) -> None:
        """The engine has given a half-open connection up."""
        entry = self.half_open.pop(event.syncache_ref, None)
        if entry is None:
            self._counters["stale_events"] += 1
            return
        entry.dropped = True
        self._stack.syncache.chkrst(entry.four_tuple, entry)

    def tu_syncache_event(self, event: int, toep: synq_entry) -> None:
        """The stack will make no connection of a half-open one: drop it on the engine. B is held."""
        self._stack.syncache.lock(toep.four_tuple).require()
        if event not in (TOE_SC_DROP, TOE_SC_ENTRY_PRESENT) or toep.dropped:
            return
        toep.dropped = True
        if self.half_open.get(toep.ref) is toep:
            self._drop_syn(toep.ref)

    def _drop_syn(self, ref: int) -> None:
        """SYNCACHE_DROP. When the handshake has completed meanwhile, the CONNECTION event comes and is answered
        with ABORT."""
        self._engine.commands.post_control(
            abi.pack_syncache_drop(self._engine.commands.tag(lambda status, argument: None), syncache_ref=ref)
        )

    def accept(self, toep: toepcb, event: abi.ConnectionEvent) -> None:
        """The engine has made a connection of a half-open one, with an id of the stock."""
        self._engine.ids.unstock(toep)
        self._engine.ids.replenish()
        toep.flags |= TP_EVENTS_PENDING
        toep.refcount += 1
        entry = self.half_open.pop(event.syncache_ref, None)
        if entry is None:
            # Its four-tuple is not known, so the id cannot be released; the peer must not be left hanging, though.
            self._counters["stale_events"] += 1
            self._calls.abort(toep)
            self._engine.ids.lose(toep)
            return
        toep.four_tuple, toep.alias = entry.four_tuple, entry.syn.faddr
        self._calls.four_tuples.add(toep.four_tuple)
        so = None
        if not event.established:
            self._stack.syncache.chkrst(entry.four_tuple, entry)
        elif not entry.dropped:
            tw = self._stack.time_wait.find(entry.four_tuple)
            if tw is not None:
                self._stack.time_wait.close(tw)  # not with the SYN, which may be an old duplicate
            with self._stack.tcbinfo.lock:
                so = self._stack.syncache.expand(entry.four_tuple, entry, lambda tp: self._attach(toep, tp))
        if so is None:
            self._calls.abort(toep)
        entry.dropped = True

    def _attach(self, toep: toepcb, tp: tcpcb) -> None:
        self._calls.attach(toep, tp)
        self._calls.options.begin(toep, tp)
