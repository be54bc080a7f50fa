"""Urgent data at the socket, RFC 9293 section 3.8.5, RFC 6093: FreeBSD's so_oobmark, sohasoutofband and tcp_usr_rcvoob.

TCP knows urgent data that ends somewhere. Sockets take the last byte of it, the urgent byte, out of line (recv with MSG_OOB)
unless SO_OOBINLINE is set; a read never goes across the mark in front of it (``so_rcv.oobmark``), and SIOCATMARK tells whether
that has been reached. The byte stays in the ring and is passed over there: nothing is moved. A pointer that advances before
the byte was passed over leaves it in line, as in Linux.
"""

from __future__ import annotations

import errno

from ..hardware.positions import distance
from .socketvar import sorwakeup
from .structures import SO_OOBINLINE, TCPOOB_HADDATA, TCPOOB_HAVEDATA, socket, sototcpcb, tcpcb


def tcp_urgent(tp: tcpcb, so: socket, rcv_up: int, position: int) -> None:
    """RCV.UP has advanced to ``rcv_up``, behind ``position`` of the receive ring: the user hears of it at once, though the data
    may be yet to come (MUST-32). I is held."""
    tp.rcv_up = rcv_up
    with so.lock:
        tp.t_oobflags = 0
        so.so_rcv.oobmark = position
        tcp_pulloutofband(tp, so)
    if so.so_urgcall is not None:
        so.so_urgcall(so)
    sorwakeup(so)


def tcp_pulloutofband(tp: tcpcb, so: socket) -> None:
    """Keep the urgent byte when it has arrived. K is held."""
    sb = so.so_rcv
    if sb.oobmark is None or sb.ring is None or tp.t_oobflags:
        return
    if distance(sb.oobmark, sb.head) < sb.sb_cc:
        tp.t_iobc = sb.ring.read(sb.oobmark, 1)
        tp.t_oobflags = TCPOOB_HAVEDATA


def soreceive_oob(so: socket, peek: bool) -> tuple[int, bytes]:
    """recv with MSG_OOB: errno and the urgent byte. EINVAL: there is none, or it is read, or in line; EWOULDBLOCK: it has not
    arrived yet. It never waits."""
    if so.so_pcb is None or so.so_pcb.inp_ppcb is None:
        return errno.EINVAL, b""
    tp = sototcpcb(so)
    with so.lock:
        if so.so_rcv.oobmark is None or so.so_options & SO_OOBINLINE or tp.t_oobflags & TCPOOB_HADDATA:
            return errno.EINVAL, b""
        if not tp.t_oobflags & TCPOOB_HAVEDATA:
            return errno.EWOULDBLOCK, b""
        if not peek:
            tp.t_oobflags = TCPOOB_HADDATA
        return 0, tp.t_iobc


def sockatmark(so: socket) -> bool:
    """SIOCATMARK: what is read next is the urgent byte, or comes behind it (MUST-33)."""
    return so.so_rcv.oobmark == so.so_rcv.head


def sourgent(so: socket) -> int:
    """How many bytes are left to the end of the urgent data, arrived or not (MUST-33); 0: none is pending."""
    with so.lock:
        sb = so.so_rcv
        return 0 if sb.oobmark is None else distance(sb.oobmark, sb.head) + 1


def soexceptional(so: socket) -> bool:
    """Whether urgent data has arrived and waits to be read (select's exceptional condition, POLLPRI)."""
    if so.so_pcb is None or so.so_pcb.inp_ppcb is None or so.so_rcv.oobmark is None:
        return False
    return bool(sototcpcb(so).t_oobflags & TCPOOB_HAVEDATA)
