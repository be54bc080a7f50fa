"""The traffic on which simulators are compared: a client sends a document to an echo service of the engine.

Client and service know nothing of the simulator around them: frames in, frames out; and ``work`` on sockets.
"""

from __future__ import annotations

import socket
from typing import Any

from ..wire.segment import ACK, FIN, SYN
from .connection import stretch
from .frames import M32, Seen, Template, read
from .rig import MSS

SERVICE = 7
_ISS = 0xFFFF_FF00
_WINDOW = 16 * 1024


class Client:
    """A peer that opens a connection, sends ``total`` bytes, and expects them back.

    Attributes
    ----------
    returned : int
        Bytes that have come back, all of them right.
    """

    def __init__(self, mac: int, ip: int, peer_mac: int, peer_ip: int, total: int) -> None:
        self._template = Template(mac.to_bytes(6, "big"), peer_mac.to_bytes(6, "big"), ip, peer_ip, SERVICE, 40_000)
        self._total = total
        self._irs = self._sent = self._acked = 0
        self.returned = 0
        self._told = 0

    def begin(self) -> bytes:
        """The SYN."""
        options = b"\x02\x04" + MSS.to_bytes(2, "big")
        return self._template.frame(_ISS, 0, flags=SYN, options=options)

    def input(self, frame: bytes) -> list[bytes]:
        """What it answers to a frame of the engine."""
        segment = read(frame)
        if segment is None or segment.sport != SERVICE:
            return []
        if segment.flags & SYN:
            self._irs = segment.seq
        else:
            self._take(segment)
        answer = []
        self._acked += segment.ack - (_ISS + 1 + self._acked) & M32
        limit = min(self._total, self._acked + min(segment.wnd, _WINDOW))
        while self._sent < limit:
            length = min(MSS, limit - self._sent)
            answer.append(self._segment(stretch(self._sent, length)))
            self._sent += length
        if not answer and (segment.flags & SYN or self.returned - self._told >= 2 * MSS or self.done):
            answer.append(self._segment(b"", ACK))
        return answer

    def _take(self, segment: Seen) -> None:
        position = segment.seq - (self._irs + 1) & M32
        if not segment.payload or position != self.returned or segment.flags & FIN:
            return
        if segment.payload != stretch(position, len(segment.payload)):
            raise AssertionError(f"the echo is wrong at {position}")
        self.returned += len(segment.payload)

    def _segment(self, payload: bytes, flags: int = ACK) -> bytes:
        self._told = self.returned
        return self._template.frame(_ISS + 1 + self._sent, self._irs + 1 + self.returned, payload, flags, wnd=0xFFFF)

    @property
    def done(self) -> bool:
        """Everything has come back."""
        return self.returned == self._total


class Service:
    """Sends back what it receives, on offloaded sockets."""

    def __init__(self, listener: Any) -> None:
        self._listener = listener
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # the client acknowledges with what it sends
        listener.bind(("", SERVICE))
        listener.listen()
        self._sock: Any = None
        self._waiting = b""

    def work(self) -> None:
        """Do what can be done without waiting."""
        try:
            if self._sock is None:
                self._sock, _ = self._listener.accept()
                self._sock.setblocking(False)
            while True:
                if not self._waiting:
                    self._waiting = self._sock.recv(1 << 16)
                    if not self._waiting:
                        return
                self._waiting = self._waiting[self._sock.send(self._waiting) :]
        except BlockingIOError:
            pass
