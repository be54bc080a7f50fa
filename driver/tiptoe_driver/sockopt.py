"""Socket options, with the standard library's levels and names (FreeBSD's sosetopt and sogetopt)."""

from __future__ import annotations

import errno
import os
import socket as stdlib
import struct
import sys

from .hardware.abi_gen import Congestion
from .netinet.in6_pcb import in6_v6only
from .netinet.offload import tcp_gen_ctloutput, tcp_gen_listen_open, tcp_gen_send
from .netinet.sockbuf import sbreserve
from .netinet.socketvar import sowwakeup
from .netinet.structures import (
    IN6P_IPV6_V6ONLY,
    IP_MTU,
    IP_MTU_DISCOVER,
    IP_PMTUDISC_DO,
    IP_PMTUDISC_PROBE,
    IP_PMTUDISC_WANT,
    IPDEFTTL,
    IPV6_MTU,
    IPV6_MTU_DISCOVER,
    SO_ACCEPTCONN,
    SO_KEEPALIVE,
    SO_LINGER,
    SO_MAX_PACING_RATE,
    SO_NO_OFFLOAD,
    SO_OOBINLINE,
    SO_REUSEADDR,
    TF_MORETOCOME,
    TF_NODELAY,
    TF_NOPUSH,
    TF_TOE,
    socket,
    sotoinpcb,
    sototcpcb,
    tcp_congestion,
)
from .netinet.tcp_errors import TCP_MINMSS, tcp_output_error
from .netinet.tcp_fsm import TCPS_ESTABLISHED, TCPS_LISTEN, TCPS_SYN_SENT
from .netinet.tcp_info import NO_PACING_RATE
from .netinet.tcp_keepalive import tcp_keepalive
from .netinet.tcp_pmtu import ip_tcp_headers, tcp_pmtu_proven
from .netinet.tcp_timer import tcp_user_timer, tcp_user_timer_stop

_FLAG_OPTIONS = {
    stdlib.SO_REUSEADDR: SO_REUSEADDR,
    stdlib.SO_KEEPALIVE: SO_KEEPALIVE,
    stdlib.SO_OOBINLINE: SO_OOBINLINE,
    SO_NO_OFFLOAD: SO_NO_OFFLOAD,
}
TCP_NOPUSH: int = getattr(stdlib, "TCP_NOPUSH", stdlib.TCP_CORK)
"""FreeBSD's name of TCP_CORK; the same option where the standard library does not have it."""
_TCP_FLAGS = {stdlib.TCP_NODELAY: TF_NODELAY, stdlib.TCP_CORK: TF_NOPUSH, TCP_NOPUSH: TF_NOPUSH}
_KEEPALIVE = {
    stdlib.TCP_KEEPIDLE: ("t_keepidle", 32767),
    stdlib.TCP_KEEPINTVL: ("t_keepintvl", 32767),
    stdlib.TCP_KEEPCNT: ("t_keepcnt", 127),
}
"""Field of the tcpcb and largest value, Linux's; the smallest is 1."""
ALGORITHMS = {algorithm.name.lower().encode(): algorithm for algorithm in Congestion}
"""What TCP_CONGESTION names."""
SNDBUF_MIN, RCVBUF_MIN, BUF_MAX = 2304, 4096, 212_992
"""What SO_SNDBUF and SO_RCVBUF are cut to, in bytes (Linux's net.core.wmem_max and rmem_max). As on Linux, getsockopt tells twice
as much as was set."""
_IP_HEADER: dict[tuple[int, int, int], int] = {
    (stdlib.AF_INET, stdlib.IPPROTO_IP, stdlib.IP_TOS): stdlib.IP_TOS,
    (stdlib.AF_INET, stdlib.IPPROTO_IP, stdlib.IP_TTL): stdlib.IP_TTL,
    (stdlib.AF_INET6, stdlib.IPPROTO_IPV6, stdlib.IPV6_TCLASS): stdlib.IP_TOS,
    (stdlib.AF_INET6, stdlib.IPPROTO_IPV6, stdlib.IPV6_UNICAST_HOPS): stdlib.IP_TTL,
}
"""Options of IP's header by the socket's family, level and name: the one of IPv4 that has the same place."""
_MTU_DISCOVER = {
    (stdlib.AF_INET, stdlib.IPPROTO_IP, IP_MTU_DISCOVER),
    (stdlib.AF_INET6, stdlib.IPPROTO_IPV6, IPV6_MTU_DISCOVER),
}
_MTU = {(stdlib.AF_INET, stdlib.IPPROTO_IP, IP_MTU), (stdlib.AF_INET6, stdlib.IPPROTO_IPV6, IPV6_MTU)}
"""Likewise: how the path's MTU is found, and what it is."""
_ECN = 0x3
"""The part of the type of service that is the transport's (RFC 3168 section 5)."""


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
    if level == stdlib.IPPROTO_TCP and optname == stdlib.TCP_CONGESTION:
        _set_congestion(so, value)
        return
    if level == stdlib.SOL_SOCKET and optname == SO_MAX_PACING_RATE:
        _set_pacing_rate(so, value)
        return
    number = value if isinstance(value, int) else int.from_bytes(value[:4], "little", signed=True)
    if level == stdlib.SOL_SOCKET and optname in _FLAG_OPTIONS:
        bit = _FLAG_OPTIONS[optname]
        so.so_options = so.so_options | bit if number else so.so_options & ~bit
        if optname == stdlib.SO_KEEPALIVE:
            _keepalive_changed(so, level, optname)
    elif level == stdlib.SOL_SOCKET and optname == stdlib.SO_RCVBUF:
        # The window is the ring's: connect takes one of this size.
        so.so_rcv.sb_wanted = min(max(number, RCVBUF_MIN), BUF_MAX)
    elif level == stdlib.SOL_SOCKET and optname == stdlib.SO_SNDBUF:
        with so.lock:
            sbreserve(so.so_snd, min(max(number, SNDBUF_MIN), BUF_MAX))
        sowwakeup(so)
    elif level == stdlib.IPPROTO_TCP and optname in _TCP_FLAGS:
        _set_tcp_flag(so, optname, bool(number))
    elif level == stdlib.IPPROTO_TCP and optname == stdlib.TCP_MAXSEG:
        _set_maxseg(so, number)
    elif level == stdlib.IPPROTO_TCP and optname == stdlib.TCP_USER_TIMEOUT:
        _set_user_timeout(so, number)
    elif level == stdlib.IPPROTO_TCP and optname in _KEEPALIVE:
        kept, most = _KEEPALIVE[optname]
        if not 1 <= number <= most:
            raise os_error(errno.EINVAL)
        setattr(sototcpcb(so), kept, number)
        _keepalive_changed(so, level, optname)
    elif level == stdlib.IPPROTO_TCP and optname == stdlib.TCP_NOTSENT_LOWAT:
        with so.lock:
            so.so_snd.sb_notsent_lowat = number & 0xFFFF_FFFF if number != -1 else 0
        sowwakeup(so)
    elif (field := _IP_HEADER.get((so.so_domain, level, optname))) is not None:
        _set_ip_header(so, field, number)
    elif (so.so_domain, level, optname) in _MTU_DISCOVER:
        if number not in (IP_PMTUDISC_WANT, IP_PMTUDISC_DO, IP_PMTUDISC_PROBE):
            raise os_error(errno.EINVAL)
        sotoinpcb(so).inp_pmtudisc = number
    elif (level, optname) == (stdlib.IPPROTO_IPV6, stdlib.IPV6_V6ONLY) and so.so_domain == stdlib.AF_INET6:
        _set_v6only(so, bool(number))
    else:
        raise os_error(errno.ENOPROTOOPT)


def _set_tcp_flag(so: socket, optname: int, on: bool) -> None:
    """TCP_NODELAY and TCP_CORK. What was held goes out: by the end of the cork, and past it by TCP_NODELAY, as in Linux."""
    inp, tp = sotoinpcb(so), sototcpcb(so)
    flag = _TCP_FLAGS[optname]
    with inp.lock:
        tp.t_flags = tp.t_flags | flag if on else tp.t_flags & ~flag
        tcp_gen_ctloutput(tp, stdlib.IPPROTO_TCP, optname)
        if on == (flag == TF_NODELAY) and tp.t_state >= TCPS_ESTABLISHED:
            cork = tp.t_flags & TF_NOPUSH
            tp.t_flags &= ~(TF_NOPUSH | TF_MORETOCOME)
            tcp_output_error(tp, tcp_gen_send(tp))
            tp.t_flags |= cork


def _set_maxseg(so: socket, number: int) -> None:
    """TCP_MAXSEG: before connect, and of a listener, the most that is offered and sent, 0: what the interface carries; of a
    connection, segments may only become smaller."""
    inp, tp = sotoinpcb(so), sototcpcb(so)
    with inp.lock:
        if tp.t_state < TCPS_SYN_SENT:
            if number and not 88 <= number <= 65535:
                raise os_error(errno.EINVAL)
            tp.t_maxseg_user = number
            tcp_gen_ctloutput(tp, stdlib.IPPROTO_TCP, stdlib.TCP_MAXSEG)
            if tp.t_state == TCPS_LISTEN:
                tcp_gen_listen_open(tp)
        elif not tp.t_flags & TF_TOE or not TCP_MINMSS <= number <= tp.t_maxseg:
            raise os_error(errno.EINVAL)
        else:
            tp.t_maxseg_most = number  # nor may the path's MTU raise it
            tp.t_maxseg = min(number, tcp_pmtu_proven(tp))
            tcp_output_error(tp, tcp_gen_send(tp))


def _set_user_timeout(so: socket, number: int) -> None:
    """TCP_USER_TIMEOUT in milliseconds; 0: the device's limits alone."""
    inp, tp = sotoinpcb(so), sototcpcb(so)
    with inp.lock:
        if number < 0:
            raise os_error(errno.EINVAL)
        tcp_user_timer_stop(tp)
        tp.t_user_timeout = number
        tcp_user_timer(tp)
        tcp_gen_ctloutput(tp, stdlib.IPPROTO_TCP, stdlib.TCP_USER_TIMEOUT)


def _set_pacing_rate(so: socket, value: int | bytes) -> None:
    """SO_MAX_PACING_RATE in bytes per second, of 4 bytes or 8 as on Linux, all ones for no limit."""
    inp, tp = sotoinpcb(so), sototcpcb(so)
    if isinstance(value, bytes):
        size = 8 if len(value) >= 8 else 4
        if len(value) < 4:
            raise os_error(errno.EINVAL)
        rate = int.from_bytes(value[:size], sys.byteorder)
        if rate == (1 << 8 * size) - 1:
            rate = NO_PACING_RATE
    else:
        rate = NO_PACING_RATE if value == -1 else value & 0xFFFF_FFFF if value < 0 else value
    if rate > NO_PACING_RATE:
        raise os_error(errno.EINVAL)
    with inp.lock:
        tp.t_max_pacing_rate = rate
        tcp_gen_ctloutput(tp, stdlib.SOL_SOCKET, SO_MAX_PACING_RATE)


def _keepalive_changed(so: socket, level: int, optname: int) -> None:
    """SO_KEEPALIVE and its times: on a live connection they count at once."""
    if so.so_pcb is not None:
        with so.so_pcb.lock:
            tcp_keepalive(sototcpcb(so))
            tcp_gen_ctloutput(sototcpcb(so), level, optname)


def _set_ip_header(so: socket, optname: int, number: int) -> None:
    """IP_TOS and IP_TTL, or what IPv6 has in their place; -1 stands for the default time to live."""
    inp = sotoinpcb(so)
    with inp.lock:
        if optname == stdlib.IP_TOS:
            if not 0 <= number <= 255:
                raise os_error(errno.EINVAL)
            inp.inp_ip_tos = number & ~_ECN
        else:
            if not (1 <= number <= 255 or number == -1):
                raise os_error(errno.EINVAL)
            inp.inp_ip_ttl = IPDEFTTL if number == -1 else number
        tcp_gen_ctloutput(sototcpcb(so), stdlib.IPPROTO_IP, optname)


def _set_v6only(so: socket, only: bool) -> None:
    """IPV6_V6ONLY: before the socket has an address."""
    inp = sotoinpcb(so)
    with inp.lock:
        if inp.inp_lport:
            raise os_error(errno.EINVAL)
        in6_v6only(inp, only)


def _set_congestion(so: socket, value: int | bytes) -> None:
    """TCP_CONGESTION: an algorithm by its name, ENOENT when there is none of this name, or the device does not have it."""
    if not isinstance(value, bytes):
        raise os_error(errno.EINVAL)
    algorithm = ALGORITHMS.get(value.rstrip(b"\0"))
    inp, tp = sotoinpcb(so), sototcpcb(so)
    with inp.lock:
        if algorithm is None or (tp.tod is not None and not tp.tod.tod_congestion(algorithm)):
            raise os_error(errno.ENOENT)
        tp.t_cc = algorithm
        tcp_gen_ctloutput(tp, stdlib.IPPROTO_TCP, stdlib.TCP_CONGESTION)


def sogetopt(so: socket, level: int, optname: int, buflen: int = 0) -> int | bytes:
    """Get an option, as bytes when ``buflen`` is not 0."""
    if level == stdlib.SOL_SOCKET and optname == stdlib.SO_LINGER:
        packed = struct.pack("@ii", int(bool(so.so_options & SO_LINGER)), so.so_linger)
        return packed[:buflen] if buflen else struct.unpack_from("@i", packed)[0]
    if level == stdlib.IPPROTO_TCP and optname == stdlib.TCP_CONGESTION:
        return tcp_congestion(sototcpcb(so)).name.lower().encode().ljust(16, b"\0")[: buflen or 16]
    if level == stdlib.SOL_SOCKET and optname == SO_MAX_PACING_RATE:
        rate = sototcpcb(so).t_max_pacing_rate
        if buflen >= 8:
            return struct.pack("@Q", rate)
        short = struct.pack("@I", min(rate, 0xFFFF_FFFF))
        return short[:buflen] if buflen else int(struct.unpack("@i", short)[0])
    number = _option(so, level, optname)
    return struct.pack("@i", number)[:buflen] if buflen else number


def _option(so: socket, level: int, optname: int) -> int:
    if level == stdlib.SOL_SOCKET:
        if optname in _FLAG_OPTIONS:
            return int(bool(so.so_options & _FLAG_OPTIONS[optname]))
        if optname == stdlib.SO_ERROR:
            return take_error(so)
        if optname == stdlib.SO_SNDBUF:
            wanted = so.so_snd.sb_wanted
            limit = BUF_MAX if so.so_snd.ring is None else so.so_snd.ring.size
            return 2 * min(wanted, limit) if wanted else so.so_snd.sb_hiwat
        if optname == stdlib.SO_RCVBUF:
            wanted, hiwat = so.so_rcv.sb_wanted, so.so_rcv.sb_hiwat
            return 2 * wanted if wanted and (so.so_rcv.ring is None or wanted <= hiwat < 2 * wanted) else hiwat
        if optname == stdlib.SO_ACCEPTCONN:
            return int(bool(so.so_options & SO_ACCEPTCONN))
        if optname == stdlib.SO_TYPE:
            return stdlib.SOCK_STREAM
    if level == stdlib.IPPROTO_TCP:
        tp = sototcpcb(so)
        if optname in _TCP_FLAGS:
            return int(bool(tp.t_flags & _TCP_FLAGS[optname]))
        if optname == stdlib.TCP_NOTSENT_LOWAT:
            return so.so_snd.sb_notsent_lowat or -1
        if optname == stdlib.TCP_USER_TIMEOUT:
            return tp.t_user_timeout
        if optname in _KEEPALIVE:
            return int(getattr(tp, _KEEPALIVE[optname][0]))
        if optname == stdlib.TCP_MAXSEG:
            return tp.t_maxseg_user if tp.t_maxseg_user and tp.t_state < TCPS_SYN_SENT else tp.t_maxseg
    inp = sotoinpcb(so)
    field = _IP_HEADER.get((so.so_domain, level, optname))
    if field is not None:
        return inp.inp_ip_tos if field == stdlib.IP_TOS else inp.inp_ip_ttl
    if (so.so_domain, level, optname) in _MTU_DISCOVER:
        return inp.inp_pmtudisc
    if (so.so_domain, level, optname) in _MTU:
        tp = sototcpcb(so)
        if not TCPS_ESTABLISHED <= tp.t_state:
            raise os_error(errno.ENOTCONN)
        return tp.t_maxseg + ip_tcp_headers(inp)
    if (level, optname) == (stdlib.IPPROTO_IPV6, stdlib.IPV6_V6ONLY) and so.so_domain == stdlib.AF_INET6:
        return int(bool(inp.inp_flags & IN6P_IPV6_V6ONLY))
    raise os_error(errno.ENOPROTOOPT)
