"""Errors from the network and from below, and what they mean to a connection (FreeBSD's tcp_ctlinput, tcp_notify and
tcp_mtudisc, and the end of its tcp_output).

RFC 1122 section 4.2.3.9, RFC 1191, RFC 5927: an ICMP message ends no connection but one that is still being opened.
"""

from __future__ import annotations

import errno
from collections import Counter
from enum import Enum

from ..hardware.positions import distance
from .offload import tcp_gen_detach, tcp_gen_send, tp_offload
from .structures import IP_PMTUDISC_PROBE, TF_SENTFIN, intotcpcb, tcpcb, vnet
from .tcp_fsm import TCPS_CLOSING, TCPS_FIN_WAIT_1, TCPS_LAST_ACK, TCPS_SYN_RECEIVED, TCPS_SYN_SENT
from .tcp_info import tcp_info
from .tcp_pmtu import ip_tcp_headers, tcp_pmtu_fell
from .tcp_subr import tcp_drop

TCP_MINMSS = 216
"""Smallest segment in bytes that the network may talk us into (net.inet.tcp.minmss)."""


class Ctl(Enum):
    """What became of an ICMP error."""

    NOT_OURS = 1  # no offloaded connection of this four-tuple
    BAD_SEQUENCE = 2  # about nothing that is under way: RFC 5927 section 4.1
    TAKEN = 3


def tcp_ctlinput(stack: vnet, four_tuple: tuple[int, int, int, int], seq: int, error: int, mtu: int = 0) -> Ctl:
    """An ICMP error about a segment of ours that began at ``seq``.

    ECONNREFUSED ends an attempt to connect, and is ignored later; EMSGSIZE lowers the segment size to what ``mtu``
    carries; anything else is kept in t_softerror, and told should the connection time out. Takes P and I.
    """
    with stack.tcbinfo.lock:
        inp = stack.tcbinfo.connected(four_tuple)
        if inp is None or not tp_offload(tp := intotcpcb(inp)):
            return Ctl.NOT_OURS
        with inp.lock:
            if tp.t_state <= TCPS_SYN_RECEIVED:
                # Our SYN's number is the device's until it is answered. A device that cannot tell now lets the next error decide.
                if tp.tod is not None:
                    tp.tod.tod_tcp_info(tp, lambda info: _of_syn(tp, info, seq, error, mtu))
                return Ctl.TAKEN
            if not _under_way(tp, seq):
                return Ctl.BAD_SEQUENCE
            _notify(tp, error, mtu)
    return Ctl.TAKEN


def tcp_icmp_error(
    stack: vnet, counters: Counter[str], addresses: tuple[int, int], tcp: memoryview, error: int, mtu: int
) -> bool:
    """An ICMP error, of either version of IP, quotes a segment between ``addresses`` (source, destination) whose first 8 bytes
    are ``tcp``: tell its connection and count (``icmp_errors``, ``icmp_bad_sequence``); False when it is of none of ours."""
    four_tuple = addresses[0], int.from_bytes(tcp[0:2]), addresses[1], int.from_bytes(tcp[2:4])
    result = tcp_ctlinput(stack, four_tuple, int.from_bytes(tcp[4:8]), error, mtu)
    if result is Ctl.NOT_OURS:
        return False
    counters["icmp_errors" if result is Ctl.TAKEN else "icmp_bad_sequence"] += 1
    return True


def _of_syn(tp: tcpcb, info: tcp_info | None, seq: int, error: int, mtu: int) -> None:
    """The device has told the number of our SYN: whether the error is about it. Takes P and I."""
    inp = tp.t_inpcb
    with inp.stack.tcbinfo.lock, inp.lock:
        if info is not None and info.tcpi_snd_una == seq and tp.t_state <= TCPS_SYN_RECEIVED and tp_offload(tp):
            _notify(tp, error, mtu)


def _notify(tp: tcpcb, error: int, mtu: int) -> None:
    """An error about something that is under way. P and I are held."""
    if error == errno.EMSGSIZE:
        if tp.t_inpcb.inp_pmtudisc != IP_PMTUDISC_PROBE:
            tcp_mtudisc(tp, mtu)
    elif error != errno.ECONNREFUSED:
        tp.t_softerror = error
    elif tp.t_state == TCPS_SYN_SENT:
        tcp_drop(tp, error)
        tcp_gen_detach(tp)  # the user closes later: until then the device would go on sending SYNs


def _under_way(tp: tcpcb, seq: int) -> bool:
    """Whether ``seq`` is sent and not acknowledged; a FIN counts while it is."""
    fin = bool(tp.t_flags & TF_SENTFIN) and tp.t_state in (TCPS_FIN_WAIT_1, TCPS_CLOSING, TCPS_LAST_ACK)
    return distance(seq, tp.snd_una) < distance(tp.snd_max, tp.snd_una) + fin


def tcp_mtudisc(tp: tcpcb, mtu: int) -> int:
    """Send packets of at most ``mtu`` bytes from now on, and what is not acknowledged once more. I is held.

    Returns the errno of sending; nothing happens when segments are as small already.
    """
    mss = max(mtu - ip_tcp_headers(tp.t_inpcb), TCP_MINMSS)
    if mss >= tp.t_maxseg:
        return 0
    tcp_pmtu_fell(tp, mss)
    tp.snd_nxt = tp.snd_una
    return tcp_gen_send(tp)


def tcp_output_error(tp: tcpcb, error: int) -> int:
    """What the user is told of the errno of tcp_gen_send or tcp_gen_disconnect. I is held.

    The data is in so_snd and stays there, so a connection that the peer knows of only notes that it cannot be sent now:
    an error would have the user send it twice. After EMSGSIZE it is sent in smaller segments.
    """
    if error == errno.EMSGSIZE:
        inp = tp.t_inpcb
        # Not the route's: that may have changed since, while the device keeps its connections.
        mtus = (ifp.if_mtu for ifp in inp.stack.interfaces if inp.inp_laddr in ifp.addresses)
        error = tcp_mtudisc(tp, min(mtus, default=0))
    if error in (errno.ENETDOWN, errno.EHOSTDOWN, errno.EHOSTUNREACH) and tp.t_state >= TCPS_SYN_RECEIVED:
        tp.t_softerror = error
        return 0
    return error
