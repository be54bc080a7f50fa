"""The offload device: toe_usrreqs on one side, the engine's events on the other.

Calls come with the inpcb lock I held and only write memory, doorbells and commands; events come without any lock and
take P before I where they may end the connection.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from . import abi_gen as abi
from .device import Device
from .engine import Engine, EngineOptions
from .hostif import HostInterface
from .memory import window_scale
from .offload import TOE_SC_DROP, TOE_SC_ENTRY_PRESENT, sockaddr_in, toe_usrreqs, toedev
from .positions import advance, distance
from .routes import parse_ipv4, parse_mac, route
from .sockbuf import SBS_CANTRCVMORE, sbattach, sbcommit, sbdrop, sbflush
from .socketvar import socantrcvmore, soisconnected, soisdisconnected, sorwakeup, sowwakeup
from .stack import Stack
from .structures import (
    IFCAP_TOE,
    SS_NOFDREF,
    TCPS_CLOSE_WAIT,
    TCPS_CLOSED,
    TCPS_CLOSING,
    TCPS_ESTABLISHED,
    TCPS_FIN_WAIT_1,
    TCPS_FIN_WAIT_2,
    TCPS_LAST_ACK,
    TCPS_SYN_RECEIVED,
    TCPS_SYN_SENT,
    TCPS_TIME_WAIT,
    TF_NEEDFIN,
    TF_RCVD_SCALE,
    TF_REQ_SCALE,
    TF_SENTFIN,
    TF_TOE,
    TP_ABORT_SENT,
    TP_ATTACHED,
    TP_BAD_DOORBELL,
    TP_ESTABLISHED,
    TP_EVENTS_PENDING,
    TP_FIN_SENT,
    TP_PEER_CLOSED,
    TP_RELEASING,
    TP_RESOLVING,
    TP_SEND_FIN,
    TP_STOCK,
    TP_TERMINAL,
    ifnet,
    socket,
    sotoinpcb,
    tcpcb,
    toepcb,
)
from .tcp_subr import tcp_close, tcp_drop, tcp_twstart

ACKED_OUR_FIN = (TCPS_FIN_WAIT_2, TCPS_TIME_WAIT)
"""States of the device in which the peer has acknowledged our FIN."""

_OPEN_ERRNO: dict[int, int] = {abi.Status.EXISTS: errno.EADDRINUSE, abi.Status.TABLE_FULL: errno.ENOBUFS}
_REASON_ERRNO: dict[int, int] = {
    abi.Reason.REFUSED: errno.ECONNREFUSED,
    abi.Reason.TIMEOUT: errno.ETIMEDOUT,
    abi.Reason.LOCAL_ABORT: errno.ECONNABORTED,
}


class ListenState(Enum):
    """Life of a listen table entry."""

    ACTIVE = 1
    STOPPING = 2  # UNLISTEN posted: the entry is not reused before the engine has answered


@dataclass(slots=True, eq=False)
class listen_ctx:
    """A listen table entry and its socket's tcpcb."""

    lid: int
    tp: tcpcb
    lport: int
    state: ListenState = ListenState.ACTIVE


@dataclass(slots=True, eq=False)
class synq_entry:
    """A half-open connection of the engine: the context that the stack's syncache names in tu_syncache_event.

    ``dropped`` once the stack did not want it; ``syn`` is the event that told of it.
    """

    ref: int
    syn: abi.SynReceivedEvent
    lctx: listen_ctx
    dropped: bool = False

    @property
    def four_tuple(self) -> tuple[int, int, int, int]:
        """Local address and port, foreign address and port."""
        return self.syn.laddr, self.syn.lport, self.syn.faddr, self.syn.fport


class Tiptoe(toedev):
    """One engine attached to the stack as interface and offload device.

    Parameters
    ----------
    stack : Stack
        The stack; it gets the interface, its routes, and the device to poll.
    device : Device
        The seam to the hardware or its simulation.
    name : str
        Interface name.
    address : str
        Own IPv4 address with the prefix length of its subnet, ``10.0.0.1/24``.
    mac : str
        Own MAC address.
    gateway : str
        Next hop of the default route; empty: none.
    mtu : int
        Longest IP packet in bytes.
    """

    def __init__(self, stack: Stack, device: Device, *, address: str, mac: str, name: str = "tiptoe0",
                 gateway: str = "", mtu: int = 1500, options: EngineOptions | None = None) -> None:
        ip, _, prefix = address.partition("/")
        self.stack = stack
        self.tod_ifp = ifnet(name, parse_ipv4(ip), int(prefix or 32), parse_mac(mac), mtu,
                             IFCAP_TOE, IFCAP_TOE, True, self)
        self.tod_usrreqs = toe_usrreqs(self.tu_send, self.tu_rcvd, self.tu_disconnect, self.tu_reset,
                                       self.tu_detach, self.tu_syncache_event)
        self.engine = Engine(device, self, self.tod_ifp.if_lladdr, self.tod_ifp.if_addr, options or EngineOptions())
        self.counters = self.engine.counters
        self._mss = min(mtu, self.engine.capabilities.max_frame_bytes - 14) - 40
        self._rcv_scale = window_scale(self.engine.ring_pool.rcv_bytes)
        self._listen: dict[tcpcb, listen_ctx] = {}
        self._listen_by_id: list[listen_ctx | None] = [None] * self.engine.capabilities.listeners
        self._synq: dict[int, synq_entry] = {}
        self._tuples: set[tuple[int, int, int, int]] = set()
        self._next_hops: dict[int, int] = {}
        self.hostif = HostInterface(stack, self.engine, self.tod_ifp, self._neighbour_changed)
        stack.attach_interface(self.tod_ifp, parse_ipv4(gateway))
        stack.devices.append(self)
        stack.tcp_offload_listen_start.register(Tiptoe.listen_start, self)
        stack.tcp_offload_listen_stop.register(Tiptoe.listen_stop, self)
        for tp in stack.listeners():
            self.listen_start(tp)

    # ------------------------------------------------------------------ Pollable

    def poll(self) -> bool:
        """Handle what the engine has reported; whether there was anything."""
        busy = self.engine.poll()
        self.hostif.flush()
        return busy

    def wait(self, timeout_us: int | None) -> bool:
        """Let time pass until the engine reports something."""
        busy = self.engine.wait(timeout_us)
        self.hostif.flush()
        return busy

    def now_us(self) -> int:
        """The device's clock."""
        return self.engine.device.now_us()

    # ------------------------------------------------------------------ toe_usrreqs

    def tu_send(self, tp: tcpcb) -> int:
        """New data may be in so_snd; in a closing state its FIN follows it."""
        toep = self._usable(tp)
        if toep is None:
            return errno.EPERM
        if tp.t_state in (TCPS_FIN_WAIT_1, TCPS_CLOSING, TCPS_LAST_ACK) or tp.t_flags & TF_NEEDFIN:
            toep.flags |= TP_SEND_FIN
        return self._push(toep, tp)

    def tu_rcvd(self, tp: tcpcb) -> int:
        """Data may have been consumed from so_rcv."""
        toep = self._usable(tp)
        if toep is None:
            return errno.EPERM
        self._return_credits(toep, tp)
        return 0

    def tu_disconnect(self, tp: tcpcb) -> int:
        """The data that waits, then FIN; a second call does nothing."""
        toep = self._usable(tp)
        if toep is None:
            return errno.EPERM
        toep.flags |= TP_SEND_FIN
        self._return_credits(toep, tp)  # close throws away what was not read
        return self._push(toep, tp)

    def tu_reset(self, tp: tcpcb) -> int:
        """RST to the peer; the toepcb is detached."""
        toep = self._usable(tp)
        if toep is None:
            return errno.EPERM
        so = tp.t_inpcb.inp_socket
        if so is not None:
            sbflush(so.so_snd)
        self._abort(toep)
        self._detach(toep)
        return 0

    def tu_detach(self, tp: tcpcb) -> None:
        """The socket goes away. A connection whose FIN is on its way completes without it; any other is reset."""
        toep = tp.t_toe
        if toep is None:
            return
        if not toep.flags & TP_FIN_SENT:
            self._abort(toep)
        self._detach(toep)

    def tu_syncache_event(self, event: int, toep: synq_entry) -> None:
        """The stack will make no connection of a half-open one: drop it on the engine. B is held."""
        if event not in (TOE_SC_DROP, TOE_SC_ENTRY_PRESENT) or toep.dropped:
            return
        toep.dropped = True
        if self._synq.get(toep.ref) is toep:
            self._drop_syn(toep.ref)

    def _usable(self, tp: tcpcb) -> toepcb | None:
        """The toepcb of a connection that calls may still be made for."""
        toep = tp.t_toe
        if toep is None or toep.tp is not tp or toep.flags & TP_ABORT_SENT:
            return None
        return toep

    def _push(self, toep: toepcb, tp: tcpcb) -> int:
        """Tell the device how far so_snd reaches, and that the FIN follows when it does."""
        so = tp.t_inpcb.inp_socket
        if so is None or toep.flags & (TP_ESTABLISHED | TP_TERMINAL) != TP_ESTABLISHED:
            return 0  # what is in the ring goes out when the connection is established
        end = so.so_snd.tail
        if toep.flags & TP_FIN_SENT:
            return 0 if end == toep.snd_told else errno.EPERM
        if toep.flags & TP_SEND_FIN:
            toep.flags |= TP_FIN_SENT
            tp.t_flags |= TF_SENTFIN
            self.engine.commands.post_control(abi.pack_close(0, tid=toep.tid, snd_end=end))
        elif end != toep.snd_told:
            self.engine.send_doorbell(toep, end)
        toep.snd_told = end
        tp.snd_nxt = tp.snd_max = advance(tp.iss + 1, end)
        return 0

    def _return_credits(self, toep: toepcb, tp: tcpcb) -> None:
        """Give what was consumed from so_rcv since last time back to the device."""
        so = tp.t_inpcb.inp_socket
        if so is None or toep.flags & (TP_ESTABLISHED | TP_TERMINAL) != TP_ESTABLISHED:
            return
        consumed = so.so_rcv.head
        count = distance(consumed, toep.rcv_credited)
        if count:
            toep.rcv_credited = consumed
            toep.credits += count
            self.engine.receive_doorbell(toep, consumed)
        self._update_window(toep, tp)

    @staticmethod
    def _update_window(toep: toepcb, tp: tcpcb) -> None:
        """The receive window as the device may advertise it."""
        tp.rcv_wnd = toep.rings.rcv.size - distance(toep.rcv_position, toep.rcv_credited)
        tp.rcv_adv = advance(tp.rcv_nxt, tp.rcv_wnd)

    def _abort(self, toep: toepcb) -> None:
        """Have the device send a RST, once, if it knows the connection."""
        if toep.flags & (TP_EVENTS_PENDING | TP_ABORT_SENT | TP_TERMINAL) == TP_EVENTS_PENDING:
            self.engine.commands.post_control(abi.pack_abort(0, tid=toep.tid))
        toep.flags |= TP_ABORT_SENT

    # ------------------------------------------------------------------ toepcb

    def _attach(self, toep: toepcb, tp: tcpcb, so: socket) -> None:
        """Make ``tp`` an offloaded connection: its socket buffers are the rings of ``toep`` from now on."""
        so.so_rings = toep.rings.hold()
        sbattach(so.so_snd, toep.rings.snd)
        sbattach(so.so_rcv, toep.rings.rcv)
        toep.tp = tp
        toep.flags |= TP_ATTACHED
        toep.refcount += 1
        tp.t_toe = toep
        tp.t_tu = self.tod_usrreqs
        tp.t_flags |= TF_TOE

    def _detach(self, toep: toepcb) -> None:
        """Part tcpcb and toepcb."""
        tp = toep.tp
        if tp is not None:
            tp.t_toe = None
            tp.t_tu = None
            tp.t_flags &= ~TF_TOE
        toep.tp = None
        self._let_go(toep, TP_ATTACHED)

    def _let_go(self, toep: toepcb, flag: int) -> None:
        """Clear ATTACHED or EVENTS_PENDING; with the last of them the id is released."""
        if not toep.flags & flag:
            return
        toep.flags &= ~flag
        toep.refcount -= 1
        if toep.refcount:
            return
        self._tuples.discard(toep.four_tuple)
        if toep.flags & TP_RESOLVING:  # the device knows nothing of the connection
            self.engine.give_back(toep)
        elif not toep.flags & TP_RELEASING:
            self.engine.release(toep)

    # ------------------------------------------------------------------ active open

    def tod_connect(self, so: socket, ro: route, nam: sockaddr_in) -> int:
        """Begin an active open. When the next hop's MAC address is not known yet, OPEN waits for ARP."""
        inp = sotoinpcb(so)
        tp = inp.inp_ppcb
        if tp is None or tp.t_toe is not None or so.so_rings is not None:
            return errno.EPERM
        if self.tod_four_tuple_busy(inp.four_tuple):
            return errno.EADDRINUSE
        toep, error = self.engine.acquire()
        if toep is None:
            return error
        toep.four_tuple = inp.four_tuple
        self._tuples.add(toep.four_tuple)
        toep.flags |= TP_RESOLVING
        if self._rcv_scale:
            tp.t_flags |= TF_REQ_SCALE
        tp.t_maxseg = min(tp.t_maxseg_user or self._mss, self._mss)
        tp.rcv_wnd = toep.rings.rcv.size
        self._attach(toep, tp, so)
        next_hop = ro.next_hop(nam.sin_addr)
        self.hostif.arp.resolve(next_hop, lambda mac: self._resolved(toep, tp, ro, next_hop, mac))
        return 0

    def tod_four_tuple_busy(self, four_tuple: tuple[int, int, int, int]) -> bool:
        """Whether the engine still has a connection with this four-tuple."""
        return four_tuple in self._tuples

    def _resolved(self, toep: toepcb, tp: tcpcb, ro: route, next_hop: int, mac: int | None) -> None:
        """ARP has answered (``mac``) or given up (None)."""
        if toep.tp is not tp or not toep.flags & TP_RESOLVING:
            return  # closed meanwhile
        if mac is None:
            self._drop(toep, errno.EHOSTUNREACH if ro.ro_gateway else errno.EHOSTDOWN)
            return
        toep.flags = toep.flags & ~TP_RESOLVING | TP_EVENTS_PENDING
        toep.refcount += 1
        laddr, lport, faddr, fport = toep.four_tuple
        index = self._next_hop_index(next_hop, mac)
        self.engine.commands.post_control(abi.pack_open(
            0, tid=toep.tid, laddr=laddr, faddr=faddr, lport=lport, fport=fport,
            dmac=mac, use_next_hop=int(index is not None), next_hop=index or 0,
            mss=tp.t_maxseg, rcv_scale=self._rcv_scale))

    def _next_hop_index(self, ip: int, mac: int) -> int | None:
        """Entry of the next-hop table for a neighbour; None when the table is full."""
        index = self._next_hops.get(ip)
        if index is None and len(self._next_hops) < min(self.engine.capabilities.next_hops, 256):
            index = self._next_hops[ip] = len(self._next_hops)
            self.engine.commands.post_control(abi.pack_next_hop(0, index=index, dmac=mac))
        return index

    def _neighbour_changed(self, ip: int, mac: int) -> None:
        """A neighbour has another MAC address: its connections follow."""
        index = self._next_hops.get(ip)
        if index is not None:
            self.engine.commands.post_control(abi.pack_next_hop(0, index=index, dmac=mac))

    def open_failed(self, toep: toepcb, status: int) -> None:
        """The engine refused OPEN: the four-tuple exists, the table is full, or the id is not as it should be."""
        if not toep.flags & TP_EVENTS_PENDING or toep.flags & TP_ESTABLISHED:
            self.counters["stale_events"] += 1
            return
        error = _OPEN_ERRNO.get(status, errno.EIO)
        toep.flags |= TP_TERMINAL
        if error == errno.EIO:
            self.engine.lose(toep)
        else:
            toep.flags |= TP_RESOLVING  # provisioned still: it can serve the next active open
        self._drop(toep, error)
        self._let_go(toep, TP_EVENTS_PENDING)

    def _drop(self, toep: toepcb, error: int) -> None:
        """End an active open that came to nothing."""
        tp = toep.tp
        if tp is not None:
            with self.stack.tcbinfo.lock, tp.t_inpcb.lock:
                tcp_drop(tp, error)
                self._detach(toep)

    # ------------------------------------------------------------------ listen

    def listen_start(self, tp: tcpcb) -> None:
        """Event handler: ``tp`` listens. Ignored when it is known, not for our address, or the table is full."""
        inp = tp.t_inpcb
        if tp in self._listen or inp.inp_laddr not in (0, self.tod_ifp.if_addr):
            return
        if not self.tod_ifp.if_capenable & IFCAP_TOE:
            return
        lid = next((n for n, lctx in enumerate(self._listen_by_id) if lctx is None), None)
        if lid is None:
            self.counters["listen_table_full"] += 1
            return
        lctx = self._listen_by_id[lid] = self._listen[tp] = listen_ctx(lid, tp, inp.inp_lport)
        self.engine.stock_up()

        def done(status: int, argument: int) -> None:
            if status != abi.Status.OK and lctx.state is ListenState.ACTIVE:
                self.counters["listen_refused"] += 1
                self._listen_by_id[lid] = None
                del self._listen[tp]

        self.engine.commands.post_control(abi.pack_listen(
            self.engine.commands.tag(done), listener=lid, laddr=inp.inp_laddr, lport=inp.inp_lport,
            mss=self._mss, rcv_scale=self._rcv_scale, wnd=min(self.engine.ring_pool.rcv_bytes, 0xFFFF)))

    def listen_stop(self, tp: tcpcb) -> None:
        """Event handler: ``tp`` listens no more; the engine resets its half-open connections. Unknown: ignored."""
        lctx = self._listen.pop(tp, None)
        if lctx is None:
            return
        lctx.state = ListenState.STOPPING

        def done(status: int, argument: int) -> None:
            self._listen_by_id[lctx.lid] = None

        self.engine.commands.post_control(abi.pack_unlisten(self.engine.commands.tag(done), listener=lctx.lid))

    # ------------------------------------------------------------------ passive open

    def syn_received(self, event: abi.SynReceivedEvent) -> None:
        """The engine has answered a SYN."""
        lctx = self._listen_by_id[event.listener] if event.listener < len(self._listen_by_id) else None
        old = self._synq.pop(event.syncache_ref, None)
        if old is not None:  # its SYNCACHE_GONE was lost
            self.counters["stale_events"] += 1
            self.stack.syncache.chkrst(old.four_tuple, old)
        if lctx is None or lctx.lport != event.lport:
            self.counters["stale_events"] += 1
            self._drop_syn(event.syncache_ref)
            return
        entry = self._synq[event.syncache_ref] = synq_entry(event.syncache_ref, event, lctx)
        listener = lctx.tp.t_inpcb.inp_socket
        if lctx.state is ListenState.STOPPING or listener is None:
            entry.dropped = True  # UNLISTEN, on its way, resets it
            return
        self.stack.syncache.add(entry.four_tuple, listener, self.tod_usrreqs, entry)

    def syncache_gone(self, event: abi.SyncacheGoneEvent) -> None:
        """The engine has given a half-open connection up."""
        entry = self._synq.pop(event.syncache_ref, None)
        if entry is None:
            self.counters["stale_events"] += 1
            return
        entry.dropped = True
        self.stack.syncache.chkrst(entry.four_tuple, entry)

    def _drop_syn(self, ref: int) -> None:
        """SYNCACHE_DROP. When the handshake has completed meanwhile, the CONNECTION event comes and is answered
        with ABORT."""
        self.engine.commands.post_control(abi.pack_syncache_drop(
            self.engine.commands.tag(lambda status, argument: None), syncache_ref=ref))

    def _accept(self, toep: toepcb, event: abi.ConnectionEvent) -> None:
        """The engine has made a connection of a half-open one, with an id of the stock."""
        self.engine.unstock(toep)
        self.engine.replenish()
        toep.flags |= TP_EVENTS_PENDING
        toep.refcount += 1
        entry = self._synq.pop(event.syncache_ref, None)
        if entry is None:
            # Its four-tuple is not known, so the id cannot be released; the peer must not be left hanging, though.
            self.counters["stale_events"] += 1
            self._abort(toep)
            self.engine.lose(toep)
            return
        toep.four_tuple = entry.four_tuple
        self._tuples.add(toep.four_tuple)
        so = None
        if not event.established:
            self.stack.syncache.chkrst(entry.four_tuple, entry)
        elif not entry.dropped:
            with self.stack.tcbinfo.lock:
                so = self.stack.syncache.expand(entry.four_tuple, entry, self._filler(toep))
        if so is None:
            self._abort(toep)
        entry.dropped = True

    def _filler(self, toep: toepcb) -> Callable[[tcpcb], None]:
        def fill(tp: tcpcb) -> None:
            so = tp.t_inpcb.inp_socket
            if so is not None:
                self._attach(toep, tp, so)
        return fill

    # ------------------------------------------------------------------ connection events

    def frame_received(self, frame: memoryview) -> None:
        """A frame for the host."""
        self.hostif.input(frame)

    def connection_event(self, toep: toepcb, event: abi.ConnectionEvent) -> None:
        """A snapshot: find out what is new since the last one, in TCP's order."""
        if event.terminal and toep.flags & (TP_STOCK | TP_EVENTS_PENDING):
            toep.flags |= TP_TERMINAL
        if toep.flags & TP_STOCK:
            if not event.established and not event.terminal:
                return  # not yet
            self._accept(toep, event)
        if not toep.flags & TP_EVENTS_PENDING:
            self.counters["stale_events"] += 1
            return
        if event.bad_doorbell and not toep.flags & TP_BAD_DOORBELL:
            toep.flags |= TP_BAD_DOORBELL
            self.counters["bad_doorbells"] += 1
        tp = toep.tp
        if tp is None:
            self._orphan_event(toep, event)
        else:
            so = tp.t_inpcb.inp_socket
            closing = event.terminal or event.peer_closed or (so is not None and so.so_state & SS_NOFDREF)
            if closing:  # may end the connection: P comes before I
                with self.stack.tcbinfo.lock, tp.t_inpcb.lock:
                    self._attached_event(toep, tp, event)
            else:
                with tp.t_inpcb.lock:
                    self._attached_event(toep, tp, event)
        if event.terminal:
            self._let_go(toep, TP_EVENTS_PENDING)

    def _progress(self, toep: toepcb, event: abi.ConnectionEvent) -> tuple[int, int]:
        """Bytes newly acknowledged and newly arrived; (0, 0) and a counter when the positions cannot be."""
        acked = distance(event.snd_una_position, toep.snd_una)
        # The peer's FIN counts as one in rcv_position, but is no byte of the ring.
        arrived = distance(event.rcv_position - event.peer_closed, toep.rcv_position)
        if toep.flags & TP_PEER_CLOSED:
            arrived = 0
        room = toep.rings.rcv.size - distance(toep.rcv_position, toep.rcv_credited)
        if acked > distance(toep.snd_told, toep.snd_una) or arrived > room:
            self.counters["bad_positions"] += 1
            return 0, 0
        toep.snd_una = advance(toep.snd_una, acked)
        toep.rcv_position = advance(toep.rcv_position, arrived)
        return acked, arrived

    def _orphan_event(self, toep: toepcb, event: abi.ConnectionEvent) -> None:
        """An event of a connection whose socket is gone: data that nobody will read is answered with a reset."""
        _, arrived = self._progress(toep, event)
        if event.established:
            toep.flags |= TP_ESTABLISHED
        if arrived:
            self._abort(toep)

    def _attached_event(self, toep: toepcb, tp: tcpcb, event: abi.ConnectionEvent) -> None:
        """An event of a connection with its tcpcb. I is held, and P when the event may end the connection."""
        so = tp.t_inpcb.inp_socket
        if so is None:
            return
        if event.established and not toep.flags & TP_ESTABLISHED:
            self._established(toep, tp, so, event)
        elif event.state == TCPS_SYN_RECEIVED and tp.t_state == TCPS_SYN_SENT:
            tp.t_state = TCPS_SYN_RECEIVED  # both sides have opened at once
        if toep.flags & TP_ESTABLISHED:
            acked, arrived = self._progress(toep, event)
            if acked:
                with so.lock:
                    sbdrop(so.so_snd, min(acked, so.so_snd.sb_cc))
                tp.snd_una = advance(tp.iss + 1, toep.snd_una)
                sowwakeup(so)
            if arrived and not self._arrived(toep, tp, so, arrived):
                return
            self._return_credits(toep, tp)
            tp.t_maxseg = event.mss or tp.t_maxseg
            if event.peer_closed and not toep.flags & TP_PEER_CLOSED:
                self._peer_closed(toep, tp, so)
            if event.state in ACKED_OUR_FIN or (event.terminal and event.reason == abi.Reason.NORMAL):
                self._fin_acked(tp, so)
        if event.terminal:
            self._terminal(toep, tp, so, event)

    def _established(self, toep: toepcb, tp: tcpcb, so: socket, event: abi.ConnectionEvent) -> None:
        """The handshake is complete; what the user did meanwhile goes out."""
        toep.flags |= TP_ESTABLISHED
        tp.iss, tp.irs = event.iss, event.irs
        tp.snd_una = tp.snd_nxt = tp.snd_max = tp.snd_up = advance(tp.iss, 1)
        tp.rcv_nxt = advance(tp.irs, 1)
        tp.snd_scale, tp.rcv_scale = event.snd_scale, event.rcv_scale
        if event.rcv_scale or event.snd_scale:
            tp.t_flags |= TF_RCVD_SCALE
        tp.t_maxseg = event.mss or tp.t_maxseg
        self._update_window(toep, tp)
        tp.t_state = TCPS_ESTABLISHED
        if tp.t_flags & TF_NEEDFIN:
            tp.t_state = TCPS_FIN_WAIT_1
            tp.t_flags &= ~TF_NEEDFIN
            toep.flags |= TP_SEND_FIN
        soisconnected(so)
        self._push(toep, tp)

    def _arrived(self, toep: toepcb, tp: tcpcb, so: socket, count: int) -> bool:
        """``count`` bytes have arrived in the receive ring; False when that ended the connection."""
        tp.rcv_nxt = advance(tp.rcv_nxt, count)
        if so.so_state & SS_NOFDREF and tp.t_state > TCPS_CLOSE_WAIT and not toep.flags & TP_TERMINAL:
            # Data after close: nobody will ever read it.
            self.counters["received_after_close"] += 1
            tcp_drop(tp, errno.ECONNABORTED)
            return False
        with so.lock:
            sbcommit(so.so_rcv, count)
            if so.so_rcv.sb_state & SBS_CANTRCVMORE:
                sbflush(so.so_rcv)  # the user does not want to read: room for the peer again
        sorwakeup(so)
        return True

    def _peer_closed(self, toep: toepcb, tp: tcpcb, so: socket) -> None:
        """The peer's FIN has arrived, all data before it is in so_rcv."""
        toep.flags |= TP_PEER_CLOSED
        tp.rcv_nxt = advance(tp.rcv_nxt, 1)
        socantrcvmore(so)
        if tp.t_state == TCPS_ESTABLISHED:
            tp.t_state = TCPS_CLOSE_WAIT
        elif tp.t_state == TCPS_FIN_WAIT_1:
            tp.t_state = TCPS_CLOSING
        elif tp.t_state == TCPS_FIN_WAIT_2:
            tcp_twstart(tp)

    @staticmethod
    def _fin_acked(tp: tcpcb, so: socket) -> None:
        """The peer has acknowledged our FIN."""
        if tp.t_state == TCPS_FIN_WAIT_1:
            tp.t_state = TCPS_FIN_WAIT_2
            if so.so_rcv.sb_state & SBS_CANTRCVMORE:
                soisdisconnected(so)
        elif tp.t_state == TCPS_CLOSING:
            tcp_twstart(tp)

    def _terminal(self, toep: toepcb, tp: tcpcb, so: socket, event: abi.ConnectionEvent) -> None:
        """The device has no connection any more. P and I are held."""
        so.so_error = so.so_error or terminal_errno(event.reason, tp.t_state)
        tp.t_state = TCPS_CLOSED
        self._detach(toep)
        tcp_close(tp)


def terminal_errno(reason: int, t_state: int) -> int:
    """What the user is told of the end of a connection in state ``t_state``."""
    if reason in (abi.Reason.NORMAL, abi.Reason.NONE):
        return 0
    if reason == abi.Reason.PEER_RESET:
        if t_state in (TCPS_CLOSING, TCPS_LAST_ACK, TCPS_TIME_WAIT):
            return 0
        if t_state in (TCPS_SYN_SENT, TCPS_SYN_RECEIVED):
            return errno.ECONNREFUSED
        return errno.EPIPE if t_state == TCPS_CLOSE_WAIT else errno.ECONNRESET
    return _REASON_ERRNO.get(reason, errno.EIO)
