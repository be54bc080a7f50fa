"""Protocol control blocks by address and port (FreeBSD's in_pcb.c and the pcbinfo tcbinfo)."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator

from .locks import Lock, LockModel, Rank
from .structures import (
    INP_DROPPED,
    INP_TIMEWAIT,
    SO_REUSEADDR,
    TCPS_LISTEN,
    inpcb,
    intotcpcb,
)

EPHEMERAL_FIRST = 49152
EPHEMERAL_LAST = 65535


class inpcbinfo:
    """All inpcbs of the stack, behind the pcbinfo lock P."""

    def __init__(self, locks: LockModel, seed: int | None = None) -> None:
        self.lock = Lock(locks, Rank.P)
        self._by_port: dict[int, list[inpcb]] = {}
        self._by_tuple: dict[tuple[int, int, int, int], inpcb] = {}
        rng = random.SystemRandom() if seed is None else random.Random(seed)
        self._next_ephemeral = rng.randrange(EPHEMERAL_FIRST, EPHEMERAL_LAST + 1)

    def __iter__(self) -> Iterator[inpcb]:
        """Every inpcb that has a port."""
        return (inp for inps in list(self._by_port.values()) for inp in list(inps))

    def connected(self, four_tuple: tuple[int, int, int, int]) -> inpcb | None:
        """The inpcb of a four-tuple."""
        return self._by_tuple.get(four_tuple)

    def bind(self, inp: inpcb, laddr: int, lport: int) -> int:
        """Give ``inp`` a local address (0: any) and port (0: an ephemeral one)."""
        self.lock.require()
        if inp.inp_lport:
            return errno.EINVAL
        if laddr and laddr not in (ifp.if_addr for ifp in inp.stack.interfaces):
            return errno.EADDRNOTAVAIL
        if lport:
            if any(_conflict(inp, laddr, other) for other in self._by_port.get(lport, ())):
                return errno.EADDRINUSE
        else:
            for lport in self._ephemeral():
                if lport not in self._by_port:
                    break
            else:
                return errno.EADDRINUSE
        inp.inp_laddr = laddr
        self.add_port(inp, lport)
        return 0

    def connect(self, inp: inpcb, faddr: int, fport: int) -> int:
        """Give ``inp`` a foreign address and port; the local side too where it has none."""
        self.lock.require()
        laddr = inp.inp_laddr
        if not laddr:
            ro = inp.stack.routes.lookup(faddr)
            if ro is not None:
                laddr = ro.ro_ifp.if_addr
            elif inp.stack.software is not None and inp.stack.interfaces:
                laddr = inp.stack.interfaces[0].if_addr  # the software stack has routes of its own
            else:
                return errno.ENETUNREACH
        if inp.inp_lport:
            if self._busy(inp, (laddr, inp.inp_lport, faddr, fport)):
                return errno.EADDRINUSE
        else:
            for lport in self._ephemeral():
                if not self._busy(inp, (laddr, lport, faddr, fport)) and all(
                    other.inp_fport for other in self._by_port.get(lport, ())
                ):
                    break
            else:
                return errno.EADDRNOTAVAIL
            self.add_port(inp, lport)
        inp.inp_laddr = laddr
        self.set_foreign(inp, faddr, fport)
        return 0

    def disconnect(self, inp: inpcb) -> None:
        """Forget the foreign side; address and port stay bound."""
        if self._by_tuple.get(inp.four_tuple) is inp:
            del self._by_tuple[inp.four_tuple]
        inp.inp_faddr = inp.inp_fport = 0

    def drop(self, inp: inpcb) -> None:
        """The connection is over: nobody finds the inpcb any more (in_pcbdrop)."""
        inp.inp_flags |= INP_DROPPED
        if self._by_tuple.get(inp.four_tuple) is inp:
            del self._by_tuple[inp.four_tuple]
        self._leave_port(inp)

    def forget_port(self, inp: inpcb) -> None:
        """Give back a local port that a failed connect had chosen."""
        self._leave_port(inp)
        inp.inp_lport = 0

    def _leave_port(self, inp: inpcb) -> None:
        inps = self._by_port.get(inp.inp_lport)
        if inps and inp in inps:
            inps.remove(inp)
            if not inps:
                del self._by_port[inp.inp_lport]

    def add_port(self, inp: inpcb, lport: int) -> None:
        """Enter ``inp`` under its local port."""
        inp.inp_lport = lport
        self._by_port.setdefault(lport, []).append(inp)

    def set_foreign(self, inp: inpcb, faddr: int, fport: int) -> None:
        """Enter ``inp`` under its four-tuple."""
        inp.inp_faddr, inp.inp_fport = faddr, fport
        self._by_tuple[inp.four_tuple] = inp

    def _busy(self, inp: inpcb, four_tuple: tuple[int, int, int, int]) -> bool:
        """Whether a connection, or the remains of one in TIME_WAIT or on a device, has this four-tuple."""
        return (
            four_tuple in self._by_tuple
            or inp.stack.time_wait.find(four_tuple) is not None
            or any(
                ifp.if_toedev is not None and ifp.if_toedev.tod_four_tuple_busy(four_tuple)
                for ifp in inp.stack.interfaces
            )
        )

    def _ephemeral(self) -> Iterator[int]:
        """Every ephemeral port once, going on where the last search ended."""
        for _ in range(EPHEMERAL_LAST - EPHEMERAL_FIRST + 1):
            port = self._next_ephemeral
            self._next_ephemeral = EPHEMERAL_FIRST if port == EPHEMERAL_LAST else port + 1
            yield port


def _conflict(inp: inpcb, laddr: int, other: inpcb) -> bool:
    """Whether ``other`` keeps ``inp`` from binding its port at ``laddr``: SO_REUSEADDR on both lets them share it
    unless one listens; on ours alone, with the remains of a connection in TIME_WAIT."""
    if laddr and other.inp_laddr and laddr != other.inp_laddr:
        return False
    ours, theirs = inp.inp_socket, other.inp_socket
    if ours is None or not ours.so_options & SO_REUSEADDR:
        return True
    if other.inp_flags & INP_TIMEWAIT:
        return False
    shared = theirs is not None and theirs.so_options & SO_REUSEADDR
    return not shared or intotcpcb(other).t_state == TCPS_LISTEN
