"""Active opens: from tcp_offload_connect through ARP to OPEN, and the ways in which that fails (contract: CONN-1)."""

from __future__ import annotations

import errno

from ..hardware import abi_gen as abi
from ..hardware.alias import on_v6
from ..hardware.memory import window_scale
from ..hardware.toepcb import TP_ESTABLISHED, TP_EVENTS_PENDING, TP_RESOLVING, TP_TERMINAL, toepcb
from ..netinet.routes import route
from ..netinet.stack import Stack
from ..netinet.structures import (
    TF_REQ_SCALE,
    TF_REQ_TSTMP,
    sockaddr_in,
    socket,
    sotoinpcb,
    tcp_congestion,
    tcpcb,
)
from ..netinet.tcp_subr import tcp_drop
from .calls import ToeCalls
from .hostif import HostInterface
from .next_hops import NextHops

_OPEN_ERRNO: dict[int, int] = {abi.Status.EXISTS: errno.EADDRINUSE, abi.Status.TABLE_FULL: errno.ENOBUFS}


class ActiveOpens:
    """Connections that we begin.

    Attributes
    ----------
    next_hops : NextHops
        The neighbours they use.
    """

    def __init__(self, stack: Stack, calls: ToeCalls, hostif: HostInterface) -> None:
        self._stack = stack
        self._calls = calls
        self._engine = calls.engine
        self._hostif = hostif
        self.next_hops = NextHops(stack, calls.engine, lambda ip: hostif.neighbours(ip).doubt(ip))
        hostif.arp.used = hostif.nd.used = self.next_hops.used

    def reset(self) -> None:
        """The engine was reset: its next-hop table is empty."""
        self.next_hops.reset()

    def connect(self, so: socket, ro: route, nam: sockaddr_in) -> int:
        """Begin an active open. When the next hop's MAC address is not known yet, OPEN waits for ARP."""
        inp = sotoinpcb(so)
        tp = inp.inp_ppcb
        if tp is None or tp.t_toe is not None or so.so_rings is not None:
            return errno.EPERM
        if inp.four_tuple in self._calls.four_tuples:
            return errno.EADDRINUSE
        next_hop = ro.next_hop(nam.sin_addr)
        neighbours = self._hostif.neighbours(next_hop)
        if neighbours.down(next_hop):
            return _unresolved(ro)
        if so.so_lent is not None and so.so_lent.pool is not self._engine.buffers:
            return errno.EXDEV  # the buffers are another device's
        toep, error = self._acquire(so)
        if toep is None:
            return error
        toep.four_tuple = inp.four_tuple
        self._calls.four_tuples.add(toep.four_tuple)
        toep.flags |= TP_RESOLVING
        if window_scale(toep.rings.rcv.size):
            tp.t_flags |= TF_REQ_SCALE
        if self._engine.timestamps:
            tp.t_flags |= TF_REQ_TSTMP
        tp.rcv_wnd = toep.rings.rcv.size
        self._calls.attach(toep, tp)
        mac = neighbours.lookup(next_hop)
        if mac is not None:
            self._open(toep, tp, next_hop, mac)
        else:
            neighbours.resolve(next_hop, lambda mac: self._resolved(toep, tp, ro, next_hop, mac))
        return 0

    def _acquire(self, so: socket) -> tuple[toepcb | None, int]:
        """An id, and rings: those that the application has lent, or of the size that it wants, if there is an id for them."""
        ids, wanted = self._engine.ids, so.so_rcv.sb_wanted
        if so.so_lent is not None or not wanted or not ids.unprovisioned:
            return ids.acquire(so.so_lent)
        size = min(max(self._engine.capabilities.ring_bytes_min, 1 << (wanted - 1).bit_length()), 1 << 24)
        own = self._engine.buffers.own(size)
        taken = ids.acquire(own)
        if own is not None:
            own.drop()  # the id's from now on
        return taken

    def _resolved(self, toep: toepcb, tp: tcpcb, ro: route, next_hop: int, mac: int | None) -> None:
        """ARP has answered (``mac``) or given up (None), later than connect."""
        with self._stack.tcbinfo.lock, tp.t_inpcb.lock:
            if toep.tp is not tp or not toep.flags & TP_RESOLVING:
                return  # closed meanwhile
            if mac is not None:
                self._open(toep, tp, next_hop, mac)
            else:
                self._drop(toep, tp, _unresolved(ro))

    def _open(self, toep: toepcb, tp: tcpcb, next_hop: int, mac: int) -> None:
        """Post OPEN. I is held."""
        toep.flags = toep.flags & ~TP_RESOLVING | TP_EVENTS_PENDING
        toep.refcount += 1
        _, lport, foreign, fport = toep.four_tuple
        toep.alias = self._engine.alias(foreign)
        laddr, faddr = toep.wire_addresses
        faddr6 = foreign if on_v6(foreign) else 0
        index = self.next_hops.take(toep, next_hop, mac)
        self._calls.options.before_open(toep, tp)
        self._engine.commands.post_control(
            abi.pack_open(
                0,
                tid=toep.tid,
                laddr=laddr,
                faddr=faddr,
                lport=lport,
                fport=fport,
                dmac=mac,
                use_next_hop=int(index is not None),
                next_hop=index or 0,
                mss=toep.maxseg,
                rcv_scale=window_scale(toep.rings.rcv.size),
                ecn=int(tcp_congestion(tp) == abi.Congestion.DCTCP),  # which is for nothing without
                faddr6_low=faddr6 & (1 << 64) - 1,
                faddr6_high=faddr6 >> 64,
            )
        )
        self._calls.options.begin(toep, tp)

    def failed(self, toep: toepcb, status: int) -> None:
        """The engine refused OPEN: the four-tuple exists, the table is full, or the id is not as it should be."""
        if not toep.flags & TP_EVENTS_PENDING or toep.flags & TP_ESTABLISHED:
            self._engine.counters["stale_events"] += 1
            return
        error = _OPEN_ERRNO.get(status, errno.EIO)
        toep.flags |= TP_TERMINAL
        if error == errno.EIO:
            self._engine.ids.lose(toep)
        else:
            toep.flags |= TP_RESOLVING  # provisioned still: it can serve the next active open
        tp = toep.tp
        if tp is not None:
            with self._stack.tcbinfo.lock, tp.t_inpcb.lock:
                if toep.tp is tp:
                    self._drop(toep, tp, error)
        self._calls.let_go(toep, TP_EVENTS_PENDING)

    def _drop(self, toep: toepcb, tp: tcpcb, error: int) -> None:
        """End an active open that came to nothing. P and I are held."""
        tcp_drop(tp, error)
        self._calls.detach(toep)


def _unresolved(ro: route) -> int:
    """The errno of a next hop that does not answer: the host itself is down, or there is no way to it."""
    return errno.EHOSTUNREACH if ro.ro_gateway else errno.EHOSTDOWN
