"""Socket options, with the standard library's levels and names (FreeBSD's sosetopt and sogetopt)."""

from __future__ import annotations

import errno
import os
import socket as stdlib
import struct

from .structures import (
    SO_ACCEPTCONN,
    SO_KEEPALIVE,
    SO_LINGER,
    SO_NO_OFFLOAD,
    SO_OOBINLINE,
    SO_REUSEADDR,
    TCPS_SYN_SENT,
    TF_NODELAY,
    socket,
    sototcpcb,
)

_FLAG_OPTIONS = {
    stdlib.SO_REUSEADDR: SO_REUSEADDR,
    stdlib.SO_KEEPALIVE: SO_KEEPALIVE,
    stdlib.SO_OOBINLINE: SO_OOBINLINE,
    SO_NO_OFFLOAD: SO_NO_OFFLOAD,
}


def os_error(error: int) -> OSError:
    """The OSError of an errno; Python picks the subclass."""
    return OSError(error, os.strerror(error))


def take_error(so: socket) -> int:
    """so_error, which is cleared."""
    with so.lock:
        error, so.so_error = so.so_error, 0
    return error


def sosetopt(so: socket, level: int, optname: int, value: int | bytes) -> None:
    """Set an option; OSError when it is unknown or the value is wrong."""
    if level == stdlib.SOL_SOCKET and optname == stdlib.SO_LINGER:
        if not isinstance(value, bytes) or len(value) < 8:
            raise os_error(errno.EINVAL)
        on, seconds = struct.unpack_from("@ii", value)
        so.so_options = so.so_options | SO_LINGER if on else so.so_options & ~SO_LINGER
        so.so_linger = max(0, seconds)
        return
    number = value if isinstance(value, int) else int.from_bytes(value[:4], "little", signed=True)
    if level == stdlib.SOL_SOCKET and optname in _FLAG_OPTIONS:
        bit = _FLAG_OPTIONS[optname]
        so.so_options = so.so_options | bit if number else so.so_options & ~bit
    elif level == stdlib.IPPROTO_TCP and optname == stdlib.TCP_NODELAY:
        tp = sototcpcb(so)
        tp.t_flags = tp.t_flags | TF_NODELAY if number else tp.t_flags & ~TF_NODELAY
    elif level == stdlib.IPPROTO_TCP and optname == stdlib.TCP_MAXSEG:
        if not 88 <= number <= 65535 or sototcpcb(so).t_state >= TCPS_SYN_SENT:
            raise os_error(errno.EINVAL)
        sototcpcb(so).t_maxseg_user = number
    else:
        raise os_error(errno.ENOPROTOOPT)


def sogetopt(so: socket, level: int, optname: int, buflen: int = 0) -> int | bytes:
    """Get an option, as bytes when ``buflen`` is not 0."""
    if level == stdlib.SOL_SOCKET and optname == stdlib.SO_LINGER:
        packed = struct.pack("@ii", int(bool(so.so_options & SO_LINGER)), so.so_linger)
        return packed[:buflen] if buflen else struct.unpack_from("@i", packed)[0]
    number = _option(so, level, optname)
    return struct.pack("@i", number)[:buflen] if buflen else number


def _option(so: socket, level: int, optname: int) -> int:
    if level == stdlib.SOL_SOCKET:
        if optname in _FLAG_OPTIONS:
            return int(bool(so.so_options & _FLAG_OPTIONS[optname]))
        if optname == stdlib.SO_ERROR:
            return take_error(so)
        if optname == stdlib.SO_SNDBUF:
            return so.so_snd.sb_hiwat
        if optname == stdlib.SO_RCVBUF:
            return so.so_rcv.sb_hiwat
        if optname == stdlib.SO_ACCEPTCONN:
            return int(bool(so.so_options & SO_ACCEPTCONN))
        if optname == stdlib.SO_TYPE:
            return stdlib.SOCK_STREAM
    if level == stdlib.IPPROTO_TCP:
        tp = sototcpcb(so)
        if optname == stdlib.TCP_NODELAY:
            return int(bool(tp.t_flags & TF_NODELAY))
        if optname == stdlib.TCP_MAXSEG:
            return tp.t_maxseg
    raise os_error(errno.ENOPROTOOPT)
