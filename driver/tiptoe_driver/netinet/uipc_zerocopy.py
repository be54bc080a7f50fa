"""soreceive and sosend without their copy (contract: ZC-1): the user reads and fills the socket buffers in place.

The user buffers need not be faulted in and pinned, as tcp_offload.h says: the rings are shared with the device already.
"""

from __future__ import annotations

import errno

from ..hardware.memory import RingPair
from . import tcp_usrreq
from .sockbuf import sbcommit, sbdata, sbroom, sbspace, sbwritable
from .socketvar import so_readable_part
from .structures import SO_ACCEPTCONN, SS_ISCONNECTED, SS_ISCONNECTING, SS_ISDISCONNECTED, socket
from .uipc_socket import receive_error, send_error, soconsume

Views = tuple[memoryview, ...]


def solend(so: socket, pair: RingPair | None) -> int:
    """The next active open of ``so`` has these rings (whose user it becomes); None: the driver's. Returns errno."""
    if so.so_options & SO_ACCEPTCONN:
        return errno.EOPNOTSUPP
    if so.so_rings is not None or so.so_state & (SS_ISCONNECTED | SS_ISCONNECTING | SS_ISDISCONNECTED):
        return errno.EISCONN
    if so.so_lent is not None:
        so.so_lent.drop()
    so.so_lent = pair
    return 0


def soreceive_view(so: socket) -> tuple[int, Views]:
    """What has arrived, where it lies, up to a mark; returns errno and one or two views, none at the end of the stream. An
    urgent byte that is not in line is given back on the way."""
    over, _ = so_readable_part(so)
    soconsume(so, over)
    with so.lock:
        views = sbdata(so.so_rcv, so_readable_part(so)[1])
        return (0 if views else receive_error(so)), tuple(view.toreadonly() for view in views)


def soreceive_done(so: socket, count: int) -> None:
    """The user has done with the first ``count`` bytes that have arrived. ValueError when there are not as many."""
    if not 0 <= count <= so.so_rcv.sb_cc:
        raise ValueError(f"cannot consume {count} bytes: {so.so_rcv.sb_cc} have arrived")
    soconsume(so, count)


def sosend_view(so: socket) -> tuple[int, Views]:
    """Where the next bytes to be sent go; returns errno and one or two views."""
    with so.lock:
        error = send_error(so)
        if error:
            return error, ()
        views = sbroom(so.so_snd) if sbwritable(so.so_snd) else ()
        return (0 if views else errno.EAGAIN), views


def sosend_done(so: socket, count: int) -> int:
    """The user has filled the first ``count`` bytes of the room: send them. Returns errno; ValueError when there is
    less room."""
    with so.lock:
        error = send_error(so)
        if error:
            return error
        room = sbspace(so.so_snd)
        if not 0 <= count <= room:
            raise ValueError(f"cannot commit {count} bytes: there is room for {room}")
        sbcommit(so.so_snd, count)
    return tcp_usrreq.tcp_usr_send(so, 0, memoryview(b""))
