"""TCP's user requests (FreeBSD's tcp_usrreq.c): what a socket call means to a connection."""

from __future__ import annotations

import errno
from collections.abc import Callable
from socket import AF_INET6

from ..hardware.alias import on_v6
from ..hardware.positions import advance
from .in6 import link_local, usable
from .in6_pcb import in6_narrowed, in6_v6only
from .in_pcb import in_pcbbind, in_pcbconnect, in_pcblisten
from .offload import (
    tcp_gen_connect,
    tcp_gen_disconnect,
    tcp_gen_listen_close,
    tcp_gen_listen_open,
    tcp_gen_rcvd,
    tcp_gen_send,
    tp_offload,
)
from .pcbinfo import INP_DROPPED
from .sockbuf import SBS_CANTRCVMORE, sbappend, sbflush
from .socketvar import (
    PRUS_EOF,
    PRUS_MORETOCOME,
    PRUS_OOB,
    so_readable_part,
    socantsendmore,
    soisconnecting,
    soisdisconnected,
    soisdisconnecting,
)
from .structures import (
    INP_IPV4,
    INP_IPV6,
    INP_SOCKREF,
    INP_TIMEWAIT,
    SO_ACCEPTCONN,
    SO_LINGER,
    SS_ISCONNECTING,
    SS_PROTOREF,
    TF_MORETOCOME,
    TF_NEEDFIN,
    new_inpcb,
    sockaddr_in,
    socket,
    sotoinpcb,
    sototcpcb,
    tcpcb,
    vnet,
)
from .tcp_errors import tcp_output_error
from .tcp_fsm import (
    TCPS_CLOSE_WAIT,
    TCPS_CLOSED,
    TCPS_ESTABLISHED,
    TCPS_FIN_WAIT_1,
    TCPS_FIN_WAIT_2,
    TCPS_LAST_ACK,
    TCPS_LISTEN,
    TCPS_SYN_RECEIVED,
    TCPS_SYN_SENT,
    TCPS_TIME_WAIT,
)
from .tcp_subr import tcp_close, tcp_detach, tcp_drop
from .tcp_timer import tcp_user_timer

SOMAXCONN = 4096
"""Longest accept queue."""
_OVER = INP_TIMEWAIT | INP_DROPPED


def tcp_usr_attach(stack: vnet, so: socket) -> None:
    """A protocol control block for a new socket. One of AF_INET6 has that version alone until it is told otherwise."""
    inp = new_inpcb(stack, so)
    if so.so_domain == AF_INET6:
        in6_v6only(inp, True)


def tcp_usr_detach(so: socket) -> None:
    """The socket goes away."""
    inp = sotoinpcb(so)
    with inp.stack.tcbinfo.lock, inp.lock:
        tcp_detach(so, inp)


def tcp_usr_bind(so: socket, nam: sockaddr_in) -> int:
    """Local address and port."""
    inp = sotoinpcb(so)
    with inp.stack.tcbinfo.lock, inp.lock:
        if inp.inp_flags & _OVER:
            return errno.EINVAL
        before = inp.inp_vflag
        inp.inp_vflag, address = in6_narrowed(inp, nam.sin_addr)
        error = in_pcbbind(inp, address, nam.sin_port)
        if error:
            inp.inp_vflag = before
        return error


def tcp_usr_listen(so: socket, backlog: int) -> int:
    """Accept connections; every offload device is told. Called again, changes the backlog only."""
    inp = sotoinpcb(so)
    tp = sototcpcb(so)
    with inp.stack.tcbinfo.lock, inp.lock:
        if inp.inp_flags & _OVER:
            return errno.EINVAL
        if tp.t_state not in (TCPS_CLOSED, TCPS_LISTEN):
            return errno.EINVAL
        if not inp.inp_lport:
            error = in_pcbbind(inp, inp.inp_laddr, 0)
            if error:
                return error
        if tp.t_state == TCPS_CLOSED and (error := in_pcblisten(inp)):
            return error
        so.so_qlimit = min(max(backlog, 0), SOMAXCONN)
        if inp.stack.software is not None:
            error = inp.stack.software.listen(tp)
            if error:
                return error
        if tp.t_state == TCPS_LISTEN:
            return 0
        so.so_options |= SO_ACCEPTCONN
        tp.t_state = TCPS_LISTEN
        tcp_gen_listen_open(tp)
    return 0


def tcp_usr_connect(so: socket, nam: sockaddr_in) -> int:
    """Begin an active open. Returns before it is established; on failure the socket is as it was."""
    inp = sotoinpcb(so)
    tp = sototcpcb(so)
    tcbinfo = inp.stack.tcbinfo
    with tcbinfo.lock, inp.lock:
        if inp.inp_flags & _OVER:
            return errno.EINVAL
        if so.so_options & SO_ACCEPTCONN:
            return errno.EOPNOTSUPP
        if tp.t_state != TCPS_CLOSED:
            return errno.EISCONN
        vflag, address = in6_narrowed(inp, nam.sin_addr)
        if not address or not nam.sin_port:
            return errno.EADDRNOTAVAIL
        if vflag == INP_IPV6 and (not usable(address) or link_local(address)):
            return errno.EADDRNOTAVAIL  # with those of a link only its own addresses speak
        if vflag == INP_IPV4 and on_v6(address):
            return errno.EAFNOSUPPORT  # bound to an address of IPv4
        if address >> 28 == 0xE or address == 0xFFFF_FFFF:
            return errno.EADDRNOTAVAIL
        if any(ifp.broadcast(address) for ifp in inp.stack.interfaces):
            return errno.EADDRNOTAVAIL
        bound = (inp.inp_laddr, inp.inp_lport, inp.inp_vflag)
        error = in_pcbconnect(inp, address, nam.sin_port)
        if error:
            return error
        inp.inp_vflag = vflag
        soisconnecting(so)
        tp.t_state = TCPS_SYN_SENT
        error = tcp_gen_connect(so, nam)
        if error:
            tp.t_state = TCPS_CLOSED
            with so.lock:
                so.so_state &= ~SS_ISCONNECTING
            tcbinfo.disconnect(inp)
            if not bound[1]:
                tcbinfo.forget_port(inp)
            inp.inp_laddr, inp.inp_vflag = bound[0], bound[2]
        else:
            tcp_user_timer(tp)
        return error


def tcp_usr_send(so: socket, flags: int, data: memoryview) -> int:
    """Append ``data``, which has room in the send buffer. PRUS_EOF: and then close the send side. PRUS_MORETOCOME: a
    segment that it does not fill may wait for the next call. PRUS_OOB: urgent data ends with it; EOPNOTSUPP on a connection that
    is not offloaded."""
    inp = sotoinpcb(so)
    tp = sototcpcb(so)
    eof = flags & PRUS_EOF
    if eof:
        inp.stack.tcbinfo.lock.acquire()
    try:
        with inp.lock:
            if inp.inp_flags & _OVER:
                return errno.EPIPE
            if flags & PRUS_OOB and not tp_offload(tp):
                return errno.EOPNOTSUPP
            with so.lock:
                sbappend(so.so_snd, data)
                if flags & PRUS_OOB and so.so_snd.sb_cc:
                    so.so_snd.oobmark = advance(so.so_snd.tail, -1)
            tcp_user_timer(tp)
            if eof:
                socantsendmore(so)
                tcp_usrclosed(tp)
            if inp.inp_flags & INP_DROPPED:
                return 0
            tp.t_flags = tp.t_flags | TF_MORETOCOME if flags & PRUS_MORETOCOME else tp.t_flags & ~TF_MORETOCOME
            return tcp_output_error(tp, tcp_gen_send(tp))
    finally:
        if eof:
            inp.stack.tcbinfo.lock.release()


def tcp_usr_rcvd(so: socket) -> int:
    """The user has taken data."""
    inp = sotoinpcb(so)
    with inp.lock:
        if inp.inp_flags & _OVER:
            return errno.ECONNRESET
        return tcp_gen_rcvd(sototcpcb(so))


def tcp_usr_shutdown(so: socket) -> int:
    """Close the send side: the data that waits, then FIN."""
    inp = sotoinpcb(so)
    with inp.stack.tcbinfo.lock, inp.lock:
        if inp.inp_flags & _OVER:
            return errno.ECONNRESET
        tp = sototcpcb(so)
        socantsendmore(so)
        tcp_usrclosed(tp)
        return 0 if inp.inp_flags & INP_DROPPED else tcp_output_error(tp, tcp_gen_disconnect(tp))


def tcp_usr_disconnect(so: socket) -> int:
    """Close both directions."""
    inp = sotoinpcb(so)
    with inp.stack.tcbinfo.lock, inp.lock:
        if inp.inp_flags & _OVER:
            return errno.ECONNRESET
        tcp_disconnect(sototcpcb(so))
    return 0


def tcp_usr_close(so: socket) -> None:
    """The user's last reference goes. What the connection still has to do keeps the socket until then."""
    _end(so, tcp_disconnect)


def tcp_usr_abort(so: socket) -> None:
    """RST, and the connection is over."""
    _end(so, lambda tp: tcp_drop(tp, errno.ECONNABORTED))


def _end(so: socket, how: Callable[[tcpcb], None]) -> None:
    inp = sotoinpcb(so)
    with inp.stack.tcbinfo.lock, inp.lock:
        if not inp.inp_flags & _OVER:
            how(sototcpcb(so))
        if not inp.inp_flags & INP_DROPPED and inp.inp_tw is None:
            so.so_state |= SS_PROTOREF
            inp.inp_flags |= INP_SOCKREF


def tcp_disconnect(tp: tcpcb) -> None:
    """Close by the state: nothing to tell the peer yet, RST if the user lingers for no time or leaves data unread, FIN
    otherwise.

    A FIN would have the peer believe that the user has seen all it sent (RFC 9293 section 3.6.1, RFC 2525 section 2.17).
    """
    so = tp.t_inpcb.inp_socket
    if so is None:
        return
    unread = (
        bool(so_readable_part(so)[1]) and tp.t_state != TCPS_TIME_WAIT
    )  # there the peer has closed, and a RST tells nobody
    if tp.t_state < TCPS_ESTABLISHED:
        tcp_close(tp)
    elif unread or so.so_options & SO_LINGER and so.so_linger == 0:
        tcp_drop(tp, 0)
    else:
        soisdisconnecting(so)
        with so.lock:
            sbflush(so.so_rcv)
        tcp_usrclosed(tp)
        if not tp.t_inpcb.inp_flags & INP_DROPPED:
            tcp_output_error(tp, tcp_gen_disconnect(tp))


def tcp_usrclosed(tp: tcpcb) -> None:
    """The user has closed the send side: move ``t_state``. P and I are held."""
    if tp.t_state == TCPS_LISTEN:
        tcp_gen_listen_close(tp)
        tp.t_state = TCPS_CLOSED
        tcp_close(tp)
    elif tp.t_state == TCPS_CLOSED:
        tcp_close(tp)
    elif tp.t_state in (TCPS_SYN_SENT, TCPS_SYN_RECEIVED):
        tp.t_flags |= TF_NEEDFIN
    elif tp.t_state == TCPS_ESTABLISHED:
        tp.t_state = TCPS_FIN_WAIT_1
    elif tp.t_state == TCPS_CLOSE_WAIT:
        tp.t_state = TCPS_LAST_ACK
    tcp_user_timer(tp)
    so = tp.t_inpcb.inp_socket
    if tp.t_state >= TCPS_FIN_WAIT_2 and so is not None and so.so_rcv.sb_state & SBS_CANTRCVMORE:
        soisdisconnected(so)  # FreeBSD does so for a second shutdown too, and loses what is yet to be read
