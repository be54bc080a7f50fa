"""States of a socket and wakeups (FreeBSD's uipc_sockbuf.c and the soisconnected family of uipc_socket.c)."""

from __future__ import annotations

from ..hardware.positions import distance
from .sockbuf import SBS_CANTRCVMORE, SBS_CANTSENDMORE, sbflush, sbwritable
from .structures import (
    SO_OOBINLINE,
    SS_ISCONNECTED,
    SS_ISCONNECTING,
    SS_ISDISCONNECTED,
    SS_ISDISCONNECTING,
    SS_NOFDREF,
    SS_PROTOREF,
    socket,
)

PRUS_OOB = 0x1
PRUS_EOF = 0x2
PRUS_MORETOCOME = 0x4


def soupcall(so: socket) -> None:
    """The socket may have become ready."""
    if so.so_upcall is not None:
        so.so_upcall(so)


def sorwakeup(so: socket) -> None:
    """Readers may go on."""
    soupcall(so)


def sowwakeup(so: socket) -> None:
    """Writers may go on."""
    soupcall(so)


def soisconnecting(so: socket) -> None:
    """A connection attempt has begun."""
    with so.lock:
        so.so_state &= ~(SS_ISCONNECTED | SS_ISDISCONNECTING)
        so.so_state |= SS_ISCONNECTING


def soisconnected(so: socket) -> None:
    """The connection is established."""
    with so.lock:
        so.so_state &= ~(SS_ISCONNECTING | SS_ISDISCONNECTING)
        so.so_state |= SS_ISCONNECTED
    sorwakeup(so.so_head if so.so_head is not None else so)


def soisdisconnecting(so: socket) -> None:
    """The user has closed; the rest of the connection goes on below."""
    with so.lock:
        so.so_state &= ~SS_ISCONNECTING
        so.so_state |= SS_ISDISCONNECTING
        so.so_rcv.sb_state |= SBS_CANTRCVMORE
        so.so_snd.sb_state |= SBS_CANTSENDMORE
        so.so_timeo += 1
    soupcall(so)


def soisdisconnected(so: socket) -> None:
    """The connection is over: no more data either way, what was not sent is dropped."""
    with so.lock:
        so.so_state &= ~(SS_ISCONNECTING | SS_ISCONNECTED | SS_ISDISCONNECTING)
        so.so_state |= SS_ISDISCONNECTED
        so.so_rcv.sb_state |= SBS_CANTRCVMORE
        so.so_snd.sb_state |= SBS_CANTSENDMORE
        sbflush(so.so_snd)
        so.so_timeo += 1
    soupcall(so)


def socantsendmore(so: socket) -> None:
    """The user closed the send side."""
    with so.lock:
        so.so_snd.sb_state |= SBS_CANTSENDMORE
    sowwakeup(so)


def socantrcvmore(so: socket) -> None:
    """Nothing more will arrive."""
    with so.lock:
        so.so_rcv.sb_state |= SBS_CANTRCVMORE
    sorwakeup(so)


def so_readable_part(so: socket) -> tuple[int, int]:
    """What a read takes of so_rcv: how many bytes it passes over at the front, the urgent one out of line, and how many there
    are from there to the mark, or to the end."""
    sb = so.so_rcv
    if sb.oobmark is None:
        return 0, sb.sb_cc
    ahead = distance(sb.oobmark, sb.head)
    if ahead:
        return 0, min(sb.sb_cc, ahead)
    over = int(sb.sb_cc > 0 and not so.so_options & SO_OOBINLINE)
    return over, sb.sb_cc - over


def soreadable(so: socket) -> bool:
    """Whether accept or receive would return at once."""
    return bool(
        so_readable_part(so)[1] >= so.so_rcv.sb_lowat
        or so.so_rcv.sb_state & SBS_CANTRCVMORE
        or so.so_comp
        or so.so_error
    )


def sowriteable(so: socket) -> bool:
    """Whether send would return at once, or a connection attempt has ended."""
    return bool(
        so.so_snd.sb_state & SBS_CANTSENDMORE
        or so.so_error
        or (so.so_state & SS_ISCONNECTED and sbwritable(so.so_snd) >= so.so_snd.sb_lowat)
    )


def may_free(so: socket) -> bool:
    """Whether nobody holds the socket."""
    return bool(
        so.so_state & SS_NOFDREF and not so.so_state & SS_PROTOREF and so.so_head is None and so.so_pcb is not None
    )
