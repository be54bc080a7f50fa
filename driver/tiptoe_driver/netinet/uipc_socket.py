"""The socket layer's calls (FreeBSD's uipc_socket.c): create, send, receive, accept, shut down, close.

Nothing here sleeps: what would block returns EAGAIN, and sockets.py lets time pass and tries again.
"""

from __future__ import annotations

import errno
from socket import AF_INET

from . import tcp_usrreq
from .locks import Lock, Rank
from .sockbuf import SBS_CANTRCVMORE, SBS_CANTSENDMORE, sbcopy, sbdrop, sbflush, sbread, sbwritable, sockbuf
from .socketvar import PRUS_EOF, PRUS_OOB, may_free, so_readable_part, sorwakeup
from .structures import (
    SO_ACCEPTCONN,
    SO_LINGER,
    SS_ISCONNECTED,
    SS_ISCONNECTING,
    SS_ISDISCONNECTING,
    SS_NBIO,
    SS_NOFDREF,
    socket,
    vnet,
)

SEND_LOWAT = 2048
"""Room in bytes that makes a socket writable."""
MSG_PEEK = 0x2


def socreate(stack: vnet, domain: int = AF_INET) -> socket:
    """A new, unconnected socket of AF_INET or AF_INET6."""
    so = _soalloc(stack, domain)
    tcp_usrreq.tcp_usr_attach(stack, so)
    return so


def _soalloc(stack: vnet, domain: int) -> socket:
    return socket(
        Lock(stack.locks, Rank.K),
        sockbuf(stack.sendspace, min(SEND_LOWAT, stack.sendspace)),
        sockbuf(stack.recvspace, 1),
        domain,
    )


def sonewconn(head: socket, stack: vnet) -> socket | None:
    """A connected socket for the listening one's queue; None when the queue is full."""
    if len(head.so_comp) > 3 * head.so_qlimit // 2:
        return None
    so = _soalloc(stack, head.so_domain)
    so.so_options = head.so_options & ~SO_ACCEPTCONN
    so.so_linger = head.so_linger
    so.so_snd.sb_wanted = head.so_snd.sb_wanted
    so.so_snd.sb_notsent_lowat = head.so_snd.sb_notsent_lowat
    so.so_state = SS_NOFDREF | SS_ISCONNECTED
    so.so_head = head
    tcp_usrreq.tcp_usr_attach(stack, so)
    head.so_comp.append(so)
    return so


def sosend(so: socket, data: memoryview, flags: int = 0) -> tuple[int, int]:
    """Put what there is room for into the send buffer; returns errno and the number of bytes taken.

    ``flags``: PRUS_EOF closes the send side after the data, PRUS_OOB says that its last byte is urgent, when all of it was
    taken.
    """
    with so.lock:
        error = send_error(so)
        if error:
            return error, 0
        count = min(len(data), sbwritable(so.so_snd))
        if not count and len(data):
            return errno.EAGAIN, 0
    if count < len(data):
        flags &= ~(PRUS_EOF | PRUS_OOB)
    error = tcp_usrreq.tcp_usr_send(so, flags, data[:count])
    return error, 0 if error else count


def send_error(so: socket) -> int:
    """Why nothing can be sent, whatever the room; 0 when it can. so_error is cleared."""
    if so.so_error:
        error, so.so_error = so.so_error, 0
        return error
    if so.so_snd.sb_state & SBS_CANTSENDMORE:
        return errno.EPIPE
    if not so.so_state & (SS_ISCONNECTED | SS_ISCONNECTING):
        return errno.ENOTCONN
    return 0


def soreceive(so: socket, buffer: memoryview, flags: int = 0) -> tuple[int, int]:
    """Take what has arrived, as much as fits, up to a mark; returns errno and the number of bytes, 0 at the end of the stream."""
    with so.lock:
        over, limit = so_readable_part(so)
        count = sbcopy(so.so_rcv, buffer[:limit], over)
        if not count and len(buffer):
            return receive_error(so, flags), 0
    if not flags & MSG_PEEK and count:
        soconsume(so, over + count)
    return 0, count


def soreceive_bytes(so: socket, limit: int, flags: int = 0) -> tuple[int, bytes]:
    """Like soreceive, up to ``limit`` bytes in an object of their own: copied once, whatever has arrived."""
    with so.lock:
        over, there = so_readable_part(so)
        data = sbread(so.so_rcv, min(limit, there), over)
        if not data and limit:
            return receive_error(so, flags), b""
    if not flags & MSG_PEEK and data:
        soconsume(so, over + len(data))
    return 0, data


def receive_error(so: socket, flags: int = 0) -> int:
    """Why nothing is there to receive; 0 at the end of the stream. so_error is cleared unless MSG_PEEK."""
    if so.so_error:
        error = so.so_error
        if not flags & MSG_PEEK:
            so.so_error = 0
        return error
    if so.so_rcv.sb_state & SBS_CANTRCVMORE:
        return 0
    if not so.so_state & (SS_ISCONNECTED | SS_ISCONNECTING):
        return errno.ENOTCONN
    return errno.EAGAIN


def soconsume(so: socket, count: int) -> None:
    """The user is done with ``count`` bytes: they leave so_rcv, the device gets their credits."""
    if count:
        with so.lock:
            sbdrop(so.so_rcv, count)
        tcp_usrreq.tcp_usr_rcvd(so)


def sodisconnect(so: socket) -> int:
    """Close both directions."""
    if not so.so_state & SS_ISCONNECTED:
        return errno.ENOTCONN
    if so.so_state & SS_ISDISCONNECTING:
        return errno.EALREADY
    return tcp_usrreq.tcp_usr_disconnect(so)


def soaccept(head: socket) -> socket:
    """The oldest connection of a listening socket's queue, which must not be empty."""
    so = head.so_comp.popleft()
    so.so_head = None
    so.so_state &= ~SS_NOFDREF
    return so


def soshutdown(so: socket, read: bool, write: bool) -> int:
    """Close one or both directions."""
    if not so.so_state & (SS_ISCONNECTED | SS_ISCONNECTING | SS_ISDISCONNECTING):
        return errno.ENOTCONN
    if read:
        with so.lock:
            so.so_rcv.sb_state |= SBS_CANTRCVMORE
            sbflush(so.so_rcv)
        sorwakeup(so)
        tcp_usrreq.tcp_usr_rcvd(so)  # what was thrown away is room for the peer
    if write:
        return tcp_usrreq.tcp_usr_shutdown(so)
    return 0


def soclose(so: socket, stack: vnet) -> int:
    """Close; the user's reference ends here. With SO_LINGER and a time, waits for the end of the connection that
    long: EWOULDBLOCK when it did not come."""
    error = 0
    if so.so_state & SS_ISCONNECTED:
        if not so.so_state & SS_ISDISCONNECTING:
            error = sodisconnect(so)
            if error == errno.ENOTCONN:
                error = 0
        if so.so_options & SO_LINGER and not (so.so_state & SS_ISDISCONNECTING and so.so_state & SS_NBIO):
            ended = stack.sleep(lambda: not so.so_state & SS_ISCONNECTED, so.so_linger * 1_000_000)
            if not ended:
                error = errno.EWOULDBLOCK
    tcp_usrreq.tcp_usr_close(so)
    if so.so_options & SO_ACCEPTCONN:
        while so.so_comp:
            child = so.so_comp.popleft()
            child.so_head = None
            soabort(child)
    so.so_state |= SS_NOFDREF
    sofree(so)
    return error


def soabort(so: socket) -> None:
    """End a connection of an accept queue with a RST."""
    tcp_usrreq.tcp_usr_abort(so)
    sofree(so)


def sofree(so: socket) -> None:
    """Free the socket if neither user, protocol nor an accept queue holds it."""
    if may_free(so):
        tcp_usrreq.tcp_usr_detach(so)
