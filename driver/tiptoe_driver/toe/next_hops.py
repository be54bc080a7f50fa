"""The engine's next-hop table: MAC addresses that connections share, and doubts about neighbours that do not answer (RFC 1122
section 2.3.2.1)."""

from __future__ import annotations

from collections.abc import Callable

from ..hardware import abi_gen as abi
from ..hardware.engine import Engine
from ..hardware.toepcb import TP_EVENTS_PENDING, TP_TERMINAL, toepcb
from ..netinet.clock import Callout, Clock


class NextHops:
    """Which neighbours connections of one engine use.

    Parameters
    ----------
    doubt : callable
        Told of a neighbour behind which nothing was acknowledged for a while.
    """

    WATCH_US = 3_000_000
    """How long nothing is acknowledged before a neighbour is doubted: a few time-outs of TCP."""

    def __init__(self, stack: Clock, engine: Engine, doubt: Callable[[int], None]) -> None:
        self._stack = stack
        self._engine = engine
        self._doubt = doubt
        self._table: dict[int, tuple[int, int]] = {}  # index and MAC address by IPv4 address
        self._acked: dict[
            toepcb, int
        ] = {}  # connections that waited for an acknowledgement at the last look, and of what
        self._watch: Callout | None = None

    def reset(self) -> None:
        """The engine was reset: its table is empty."""
        self._table.clear()
        self._acked.clear()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def take(self, toep: toepcb, ip: int, mac: int) -> int | None:
        """A connection uses a neighbour: the entry's index, None when the table is full."""
        toep.next_hop = ip
        if self._watch is None:
            self._watch = self._stack.callout(self.WATCH_US, self._look)
        if ip not in self._table and len(self._table) >= min(self._engine.capabilities.next_hops, 256):
            return None
        self.changed(ip, mac, new=True)
        return self._table[ip][0]

    def changed(self, ip: int, mac: int, *, new: bool = False) -> None:
        """A neighbour has this MAC address now: its connections follow. ``new``: it gets an entry if it has none."""
        index, told = self._table.get(ip, (len(self._table), None))
        if told != mac and (new or told is not None):
            self._table[ip] = index, mac
            self._engine.commands.post_control(abi.pack_next_hop(0, index=index, dmac=mac))

    def used(self, ip: int) -> bool:
        """Whether a connection uses the neighbour."""
        return any(toep.next_hop == ip for toep in self._live())

    def _live(self) -> list[toepcb]:
        return [
            toep
            for toep in self._engine.ids.toepcbs
            if toep is not None
            and toep.next_hop
            and toep.flags & (TP_EVENTS_PENDING | TP_TERMINAL) == TP_EVENTS_PENDING
        ]

    def _look(self) -> None:
        """The callout, for as long as there are connections."""
        live = self._live()
        waits = {toep: toep.snd_una for toep in live if toep.waits}
        for ip in {toep.next_hop for toep, acked in waits.items() if self._acked.get(toep) == acked}:
            self._doubt(ip)
        self._acked = waits
        self._watch = self._stack.callout(self.WATCH_US, self._look) if live else None
