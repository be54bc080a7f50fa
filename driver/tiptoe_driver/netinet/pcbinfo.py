"""The table of protocol control blocks by address and port (FreeBSD's struct inpcbinfo, in in_pcb.h)."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from .locks import Lock, LockModel, Rank

FourTuple = tuple[int, int, int, int]
"""Local address and port, foreign address and port."""

EPHEMERAL_FIRST = 49152
EPHEMERAL_LAST = 65535
INP_DROPPED = 0x04000000
"""inp_flags: nobody finds the inpcb any more."""


class Pcb(Protocol):
    """What the table knows of a control block."""

    inp_lport: int
    inp_faddr: int
    inp_fport: int
    inp_flags: int

    @property
    def four_tuple(self) -> FourTuple:
        """Local address and port, foreign address and port."""


P = TypeVar("P", bound=Pcb)


class inpcbinfo(Generic[P]):
    """All control blocks of a protocol, behind the pcbinfo lock P.

    Parameters
    ----------
    seed : int or None
        Where the search for ephemeral ports begins; None: anywhere.
    """

    def __init__(self, locks: LockModel, seed: int | None = None) -> None:
        self.lock = Lock(locks, Rank.P)
        self._by_port: dict[int, list[P]] = {}
        self._by_tuple: dict[FourTuple, P] = {}
        rng = random.SystemRandom() if seed is None else random.Random(seed)
        self._next_ephemeral = rng.randrange(EPHEMERAL_FIRST, EPHEMERAL_LAST + 1)

    def __iter__(self) -> Iterator[P]:
        """Every inpcb that has a port."""
        return (inp for inps in list(self._by_port.values()) for inp in list(inps))

    def connected(self, four_tuple: FourTuple) -> P | None:
        """The inpcb of a four-tuple."""
        return self._by_tuple.get(four_tuple)

    def at_port(self, lport: int) -> Sequence[P]:
        """The control blocks with this local port."""
        return self._by_port.get(lport, ())

    def add_port(self, inp: P, lport: int) -> None:
        """Enter ``inp`` under its local port."""
        inp.inp_lport = lport
        self._by_port.setdefault(lport, []).append(inp)

    def set_foreign(self, inp: P, faddr: int, fport: int) -> None:
        """Enter ``inp`` under its four-tuple."""
        inp.inp_faddr, inp.inp_fport = faddr, fport
        self._by_tuple[inp.four_tuple] = inp

    def disconnect(self, inp: P) -> None:
        """Forget the foreign side; address and port stay bound."""
        if self._by_tuple.get(inp.four_tuple) is inp:
            del self._by_tuple[inp.four_tuple]
        inp.inp_faddr = inp.inp_fport = 0

    def drop(self, inp: P) -> None:
        """The connection is over: nobody finds the inpcb any more (in_pcbdrop)."""
        inp.inp_flags |= INP_DROPPED
        if self._by_tuple.get(inp.four_tuple) is inp:
            del self._by_tuple[inp.four_tuple]
        self._leave_port(inp)

    def forget_port(self, inp: P) -> None:
        """Give back a local port that a failed connect had chosen."""
        self._leave_port(inp)
        inp.inp_lport = 0

    def _leave_port(self, inp: P) -> None:
        inps = self._by_port.get(inp.inp_lport)
        if inps and inp in inps:
            inps.remove(inp)
            if not inps:
                del self._by_port[inp.inp_lport]

    def ephemeral(self) -> Iterator[int]:
        """Every ephemeral port once, going on where the last search ended."""
        for _ in range(EPHEMERAL_LAST - EPHEMERAL_FIRST + 1):
            port = self._next_ephemeral
            self._next_ephemeral = EPHEMERAL_FIRST if port == EPHEMERAL_LAST else port + 1
            yield port
