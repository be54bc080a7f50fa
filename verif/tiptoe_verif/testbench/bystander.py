"""A connection that carries data both ways for as long as a test does its worst to the rest of the engine."""

from __future__ import annotations

import errno

from .peer import Host
from .reference import ReferenceTcp
from .steps import accepted, listen
from .testbench import Bench

CHUNK = 701
PAUSE = 2500
"""Cycles between chunks, so that the test itself has the engine to itself most of the time."""


class Bystander:
    """Carries random bytes both ways whenever the bench polls; every byte is compared as it comes.

    Attributes
    ----------
    to_peer, to_host : int
        Bytes that arrived intact.
    """

    PORT = 9999

    def __init__(self, b: Bench, *, passive: bool = False) -> None:
        self.b = b
        self.rng = b.rng
        self.host = Host(b, "10.0.0.77", "02:00:00:00:00:77")
        if passive:
            listener = listen(b, self.PORT)
            self.peer = ReferenceTcp(self.host, 9000, self.PORT, active=True)
            self.sock = accepted(b, listener)
            listener.close()
        else:
            self.peer = ReferenceTcp(self.host, 9000, self.PORT, active=False)
            self.sock = b.socket()
            self.sock.bind(("", self.PORT))
            assert self.sock.connect_ex((self.host.ip, 9000)) == errno.EINPROGRESS
            b.until(self.sock.writable, "the bystander's connection")
        self.sent = bytearray()
        self.to_peer = self.to_host = 0
        self._next = b.cycle
        self._sending = True
        b.tasks.append(self.turn)

    def turn(self) -> None:
        """Take what came, compare it, send more."""
        got = self.peer.received
        assert got[self.to_peer :] == self.sent[self.to_peer : len(got)], "the bystander's peer got other bytes"
        self.to_peer = len(got)
        while self.sock.readable():
            part = self.sock.recv(5000)
            assert part, "the bystander's connection has ended"
            assert part == self.peer.outgoing[self.to_host : self.to_host + len(part)], "the bystander got other bytes"
            self.to_host += len(part)
        if self.b.cycle >= self._next and self._sending:
            self._next = self.b.cycle + PAUSE
            if self.sock.writable() and len(self.sent) - self.to_peer < 4096:
                data = self.rng.randbytes(CHUNK)
                self.sent += data[: self.sock.send(data)]
            if len(self.peer.outgoing) - self.to_host < 8192:
                self.peer.send(self.rng.randbytes(CHUNK))

    def alive(self, size: int = 2000) -> None:
        """At least ``size`` more bytes pass in each direction, from now on."""
        there, back = self.to_peer + size, self.to_host + size
        self.b.until(
            lambda: self.to_peer >= there and self.to_host >= back,
            f"{size} bytes more of the bystander (now {self.to_peer} there, {self.to_host} back)",
        )

    def close(self) -> None:
        """All that was sent arrives; then the peer closes, and the engine."""
        self.alive()
        self._sending = False
        self.b.until(
            lambda: self.to_peer == len(self.sent) and self.to_host == len(self.peer.outgoing),
            "the bystander's last bytes",
        )
        self.b.tasks.remove(self.turn)
        self.peer.close()
        self.b.until(self.sock.readable, "the end of the bystander's stream")
        assert self.sock.recv(1) == b""
        self.sock.close()
        self.b.until(lambda: self.peer.over, "the bystander's end")
