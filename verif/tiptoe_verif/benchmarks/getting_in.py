"""Clients that want a connection while SYNs of random sources fill the line: who gets in, with how many SYNs (RFC 4987)."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ..wire.segment import RST, SYN
from .connection import Connection, Spoiled
from .floods import strangers
from .frames import read
from .rig import CYCLES_PER_US, PORT, STEP, Rig

MOST = 2
"""SYNs that a client may need."""
RTO_TICKS = 1000
_ACK_AGAIN_TICKS = 200
_AHEAD = 150
"""Frames of the flood that wait at the engine's port."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Clients under a flood.

    Attributes
    ----------
    clients, inside : int
        How many there were, how many got in with MOST SYNs.
    first : int
        With the first one.
    lost : int
        Ids that did not come back.
    """

    clients: int
    inside: int
    first: int
    lost: int

    def as_json(self) -> dict[str, Any]:
        """For the JSON."""
        return asdict(self)


@dataclass
class _Client:
    peer: Connection
    begins: int
    """Tick."""
    syns: int = 0
    said: int = 0
    """Tick of what it has said last."""


class GettingIn:
    """A measurement on ``rig``, whose clock runs fast: a second, in which a SYN is repeated, takes RTO_TICKS ticks."""

    def __init__(self, rig: Rig, clients: int) -> None:
        self.rig = rig
        self.tick = rig.sim.tick_us * CYCLES_PER_US
        now = self.now
        self.waiting = {
            60_000 + number: _Client(rig.peer(60_000 + number, 977 * number), now + 1 + 10 * number)
            for number in range(clients)
        }
        self.clients = clients
        self.inside: list[_Client] = []
        self.sockets: list[Any] = []

    @property
    def now(self) -> int:
        """Ticks."""
        return self.rig.harness.cycle // self.tick

    def run(self, report: Callable[[str], None]) -> Entry:
        """The flood, until all are in or have waited for the answer to their last SYN; then all ids come back."""
        rig = self.rig
        report(f"{self.clients} clients under a flood of SYNs")
        ids = rig.sim.toe.engine.ids
        free = ids.available + ids.stocked
        source = strangers(rig, random.Random(2), PORT, SYN)
        rig.set_line(rig.harness.data_bytes)
        end = self.now + 10 * self.clients + (MOST + 1) * RTO_TICKS
        while self.waiting and self.now < end:
            for client in self.waiting.values():
                self._turn(client)
            while rig.harness.rx_pending < _AHEAD:
                rig.harness.inject(source())
            self._step()
        inside = len(self.inside)
        rig.set_line(0)
        for client in self.inside:
            peer = client.peer
            rig.harness.inject(peer.template.frame(peer.iss + 1, 0, flags=RST))
        for sock in self.sockets:
            sock.close()
        for _ in range(40 * RTO_TICKS * self.tick // STEP):
            self._step()
            if ids.available + ids.stocked == free:
                break
        return Entry(
            clients=self.clients, inside=inside, first=sum(client.syns == 1 for client in self.inside),
            lost=free - ids.available - ids.stocked,
        )  # fmt: skip

    def _turn(self, client: _Client) -> None:
        """Its first SYN when its time has come, and the next one when there was no answer."""
        peer, now = client.peer, self.now
        if client.begins > now:
            return
        if not peer.irs and client.syns < MOST and (not client.syns or now - client.said >= RTO_TICKS):
            client.syns += 1
            client.said = now
            self.rig.harness.inject(self.rig.syn(peer))
        elif peer.irs and now - client.said >= _ACK_AGAIN_TICKS:
            client.said = now
            self.rig.harness.inject(peer.ack())

    def _step(self) -> None:
        rig = self.rig
        rig.harness.run(STEP)
        for frame in rig.harness.take_frames(log=True):
            segment = None if frame.to_engine else read(frame.data)
            if segment is None or not segment.flags & SYN or segment.dport not in self.waiting:
                continue
            client = self.waiting[segment.dport]
            if segment.ack != client.peer.iss + 1:
                raise Spoiled("a SYN,ACK of something else")
            client.peer.irs, client.said = segment.seq, self.now
            rig.harness.inject(client.peer.ack())
        rig.host()
        while (made := rig.accept()) is not None:
            sock, port = made
            self.sockets.append(sock)
            if port in self.waiting:
                self.inside.append(self.waiting.pop(port))
