"""The offload interface between the TCP stack and its devices: FreeBSD's tcp_offload.h.

The header names ``inp_fport`` twice; the second is ``inp_faddr``. Its ``snd_isn`` is no field of the tcpcb: the
device tells the initial sequence number when a connection is established (``iss``).
"""

from __future__ import annotations

import errno

from .if_var import IFCAP_TOE, ifnet
from .locks import ToeCall
from .structures import SO_NO_OFFLOAD, TF_TOE, sockaddr_in, socket, sotoinpcb, sototcpcb, tcpcb, toe_usrreqs, toedev

TOE_SC_ENTRY_PRESENT = 1
"""Syncache event: the four-tuple is in the syncache already."""
TOE_SC_DROP = 2
"""Syncache event: the entry was dropped."""


def TOEDEV(ifp: ifnet) -> toedev | None:
    """The offload device of an interface."""
    assert ifp.if_toedev is None or isinstance(ifp.if_toedev, toedev)
    return ifp.if_toedev


def tcp_offload_connect(so: socket, nam: sockaddr_in) -> int:
    """Offload the connection of ``so`` to ``nam`` if its egress interface can: errno 0, and TF_TOE set.

    EHOSTUNREACH: no route. EINVAL: the interface has no offload device or it is switched off. ENETDOWN: link down,
    or the device is stopped. EADDRNOTAVAIL: the socket is bound to another interface's address. EPERM: no room on the
    device, or its policy refuses. ENOBUFS: its command ring is full. EHOSTDOWN, EHOSTUNREACH: the next hop has not
    answered lately. On failure nothing has changed.
    """
    inp = sotoinpcb(so)
    inp.lock.require()
    ro = inp.stack.routes.lookup(nam.sin_addr)
    if ro is None:
        return errno.EHOSTUNREACH
    ifp = ro.ro_ifp
    tod = TOEDEV(ifp)
    if not ifp.if_capabilities & IFCAP_TOE or not ifp.if_capenable & IFCAP_TOE or tod is None:
        return errno.EINVAL
    if nam.sin_addr in ifp.addresses:
        return errno.EINVAL  # stays in the host: the loopback interface has no offload device
    if not ifp.if_up or not ifp.if_running:
        return errno.ENETDOWN
    with ToeCall(inp.lock):
        return tod.tod_connect(so, ro, nam)


def if_setcap(ifp: ifnet, reqcap: int) -> int:
    """SIOCSIFCAP: switch capabilities of an interface on and off; returns an errno, EINVAL for one it does not have.

    Without IFCAP_TOE new connections go to the software stack; those that are offloaded live on.
    """
    if reqcap & ~ifp.if_capabilities:
        return errno.EINVAL
    changed = ifp.if_capenable ^ reqcap
    ifp.if_capenable = reqcap
    tod = TOEDEV(ifp)
    if changed & IFCAP_TOE and tod is not None:
        tod.tod_capability(bool(reqcap & IFCAP_TOE))
    return 0


def tp_offload(tp: tcpcb) -> bool:
    """Whether the connection is offloaded."""
    return bool(tp.t_flags & TF_TOE)


def SO_OFFLOADABLE(so: socket) -> bool:
    """Whether the socket has not been marked "do not offload"."""
    return not so.so_options & SO_NO_OFFLOAD


def tcp_output(tp: tcpcb) -> int:
    """The software stack's way out, for connections that are not offloaded.

    Goes to the software TCP installed as ``stack.software``; EOPNOTSUPP when there is none.
    """
    software = tp.t_inpcb.stack.software
    return errno.EOPNOTSUPP if software is None else software.output(tp)


def tcp_gen_connect(so: socket, nam: sockaddr_in) -> int:
    """Connect: offloaded if possible, else by the software stack. Without a software stack the reason why the
    connection could not be offloaded is returned."""
    tp = sototcpcb(so)
    stack = tp.t_inpcb.stack
    error = errno.EOPNOTSUPP
    if not stack.offload_disabled and SO_OFFLOADABLE(so):
        error = tcp_offload_connect(so, nam)
    if error and stack.software is not None:
        error = tcp_output(tp)
    return error


def _usrreqs(tp: tcpcb) -> toe_usrreqs | None:
    """The device's calls if ``tp`` is offloaded."""
    if tp.t_inpcb.stack.offload_disabled or not tp_offload(tp):
        return None
    return tp.t_tu


def tcp_gen_send(tp: tcpcb) -> int:
    """New data may be in the send buffer."""
    tu = _usrreqs(tp)
    if tu is None:
        return tcp_output(tp)
    with ToeCall(tp.t_inpcb.lock):
        return tu.tu_send(tp)


def tcp_gen_rcvd(tp: tcpcb) -> int:
    """Data may have been consumed from the receive buffer."""
    tu = _usrreqs(tp)
    if tu is None:
        return tcp_output(tp)
    with ToeCall(tp.t_inpcb.lock):
        return tu.tu_rcvd(tp)


def tcp_gen_disconnect(tp: tcpcb) -> int:
    """Send the remaining data, then FIN."""
    tu = _usrreqs(tp)
    if tu is None:
        return tcp_output(tp)
    with ToeCall(tp.t_inpcb.lock):
        return tu.tu_disconnect(tp)


def tcp_gen_reset(tp: tcpcb) -> int:
    """Send a RST and forget the connection."""
    tu = _usrreqs(tp)
    if tu is None:
        return tcp_output(tp)
    with ToeCall(tp.t_inpcb.lock):
        return tu.tu_reset(tp)


def tcp_gen_ctloutput(tp: tcpcb, level: int, name: int) -> None:
    """An option was set: the device of an offloaded connection, or the software's TCP, follows. No wrapper of the
    header's, a sibling of theirs."""
    software = tp.t_inpcb.stack.software
    if tp_offload(tp) and tp.tod is not None:
        with ToeCall(tp.t_inpcb.lock):
            tp.tod.tod_ctloutput(tp, level, name)
    elif software is not None:
        software.ctloutput(tp, level, name)


def tcp_gen_detach(tp: tcpcb) -> None:
    """The socket goes away."""
    tu = _usrreqs(tp)
    if tu is not None:
        with ToeCall(tp.t_inpcb.lock):
            tu.tu_detach(tp)


def tcp_gen_listen_open(tp: tcpcb) -> None:
    """A socket listens, or has from now on another MSS: tell every device, if the socket may be offloaded."""
    stack = tp.t_inpcb.stack
    so = tp.t_inpcb.inp_socket
    if not stack.offload_disabled and so is not None and SO_OFFLOADABLE(so):
        stack.tcp_offload_listen_start.invoke(tp)


def tcp_gen_listen_close(tp: tcpcb) -> None:
    """A socket stops listening: tell every device."""
    stack = tp.t_inpcb.stack
    if not stack.offload_disabled:
        stack.tcp_offload_listen_stop.invoke(tp)
