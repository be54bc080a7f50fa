"""Local and foreign addresses of protocol control blocks (FreeBSD's in_pcb.c); P is held."""

from __future__ import annotations

import errno

from ..hardware.alias import on_v6
from .offload import TOEDEV
from .pcbinfo import FourTuple
from .structures import INP_IPV4, INP_IPV6, INP_TIMEWAIT, SO_REUSEADDR, inpcb, intotcpcb
from .tcp_fsm import TCPS_LISTEN


def in_pcbbind(inp: inpcb, laddr: int, lport: int) -> int:
    """Give ``inp`` a local address (0: any) and port (0: an ephemeral one)."""
    tcbinfo = inp.stack.tcbinfo
    tcbinfo.lock.require()
    if inp.inp_lport:
        return errno.EINVAL
    v6 = inp.inp_vflag == INP_IPV6
    if laddr and laddr not in (ifp.if_addr6 if v6 else ifp.if_addr for ifp in inp.stack.interfaces):
        return errno.EADDRNOTAVAIL
    if lport:
        if any(_conflict(inp, laddr, other) for other in tcbinfo.at_port(lport)):
            return errno.EADDRINUSE
    else:
        for lport in tcbinfo.ephemeral():
            if not tcbinfo.at_port(lport):
                break
        else:
            return errno.EADDRINUSE
    inp.inp_laddr = laddr
    tcbinfo.add_port(inp, lport)
    return 0


def in_pcblisten(inp: inpcb) -> int:
    """EADDRINUSE when another socket listens where ``inp`` is bound: SO_REUSEADDR lets both be bound there, and one of them
    listen."""
    busy = any(
        other.inp_ppcb is not None and other.inp_ppcb.t_state == TCPS_LISTEN and _overlap(inp, inp.inp_laddr, other)
        for other in inp.stack.tcbinfo.at_port(inp.inp_lport)
    )
    return errno.EADDRINUSE if busy else 0


def in_pcbaccept(inp: inpcb, four_tuple: FourTuple) -> None:
    """Give the inpcb of a connection that a peer has opened its addresses and ports, and the version they have."""
    inp.inp_laddr, lport, faddr, fport = four_tuple
    inp.inp_vflag = INP_IPV6 if on_v6(faddr) else INP_IPV4
    inp.stack.tcbinfo.add_port(inp, lport)
    inp.stack.tcbinfo.set_foreign(inp, faddr, fport)


def in_pcbconnect(inp: inpcb, faddr: int, fport: int) -> int:
    """Give ``inp`` a foreign address and port; the local side too where it has none."""
    tcbinfo = inp.stack.tcbinfo
    tcbinfo.lock.require()
    laddr = inp.inp_laddr
    if not laddr:
        ro = inp.stack.routes.lookup(faddr)
        if ro is not None:
            ifp = ro.ro_ifp
        elif inp.stack.software is not None and inp.stack.interfaces:
            ifp = inp.stack.interfaces[0]  # the software stack has routes of its own
        else:
            return errno.ENETUNREACH
        laddr = ifp.if_addr6 if on_v6(faddr) else ifp.if_addr
        if not laddr:
            return errno.ENETUNREACH
    if inp.inp_lport:
        if _busy(inp, (laddr, inp.inp_lport, faddr, fport)):
            return errno.EADDRINUSE
    else:
        for lport in tcbinfo.ephemeral():
            if not _busy(inp, (laddr, lport, faddr, fport)) and all(
                other.inp_fport for other in tcbinfo.at_port(lport)
            ):
                break
        else:
            return errno.EADDRNOTAVAIL
        tcbinfo.add_port(inp, lport)
    inp.inp_laddr = laddr
    tcbinfo.set_foreign(inp, faddr, fport)
    return 0


def _busy(inp: inpcb, four_tuple: FourTuple) -> bool:
    """Whether a connection, or the remains of one in TIME_WAIT or on a device, has this four-tuple."""
    return (
        inp.stack.tcbinfo.connected(four_tuple) is not None
        or inp.stack.time_wait.find(four_tuple) is not None
        or any(tod is not None and tod.tod_four_tuple_busy(four_tuple) for tod in map(TOEDEV, inp.stack.interfaces))
    )


def _overlap(inp: inpcb, laddr: int, other: inpcb) -> bool:
    """Whether ``inp``, bound at ``laddr``, and ``other`` have an address of the same version in common."""
    return bool(inp.inp_vflag & other.inp_vflag) and (not laddr or not other.inp_laddr or laddr == other.inp_laddr)


def _conflict(inp: inpcb, laddr: int, other: inpcb) -> bool:
    """Whether ``other`` keeps ``inp`` from binding its port at ``laddr``: SO_REUSEADDR on both lets them share it
    unless one listens; on ours alone, with the remains of a connection in TIME_WAIT."""
    if not _overlap(inp, laddr, other):
        return False
    ours, theirs = inp.inp_socket, other.inp_socket
    if ours is None or not ours.so_options & SO_REUSEADDR:
        return True
    if other.inp_flags & INP_TIMEWAIT:
        return False
    shared = theirs is not None and theirs.so_options & SO_REUSEADDR
    return not shared or intotcpcb(other).t_state == TCPS_LISTEN
