"""One connection of a measurement: its peer's side, its socket, and the bytes that both sides send and compare."""

from __future__ import annotations

from typing import Any

from ..wire.segment import ACK, RST, SYN
from .frames import M32, Seen, Template

PATTERN = bytes((n * n + 7 * n >> 3) & 0xFF for n in range(65521)) * 2
"""What both sides send: the byte at position p is ``PATTERN[p % 65521]``."""


class Spoiled(RuntimeError):
    """A measurement did not go as it should: its figure would mean something else."""


def stretch(position: int, length: int) -> bytes:
    """The data at a position."""
    begin = position % 65521
    return PATTERN[begin : begin + length]


class Connection:
    """One connection, its peer's side and its socket.

    Attributes
    ----------
    sent, acked : int
        Positions: what the peer has sent, and what of it the engine has acknowledged.
    received, told : int
        Positions: what the peer got in order, and what of it the peer has acknowledged.
    edge : int
        Position up to which the engine's window lets the peer send.
    written, consumed : int
        Positions: what the application has put into the socket, and taken out of it.
    """

    def __init__(self, template: Template, port: int, iss: int) -> None:
        self.template, self.port = template, port
        self.iss, self.irs = iss, 0
        self.sent = self.acked = self.received = self.told = self.edge = self.written = self.consumed = 0
        self.scale = 0
        self.established = False
        self.sock: Any = None
        self.unanswered = 0

    def data(self, length: int) -> bytes:
        """The next ``length`` bytes of the peer as a frame, acknowledging what came so far."""
        frame = self.at(self.sent, length)
        self.sent += length
        self.told = self.received
        return frame

    def at(self, position: int, length: int) -> bytes:
        """``length`` bytes from a position of the peer's data as a frame."""
        return self.template.frame(self.iss + 1 + position, self.irs + 1 + self.received, stretch(position, length))

    def ack(self, position: int | None = None) -> bytes:
        """An acknowledgement of all that came, or up to ``position``, as a frame."""
        self.told = self.received if position is None else position
        return self.template.frame(self.iss + 1 + self.sent, self.irs + 1 + self.told, flags=ACK)

    def input(self, segment: Seen) -> None:
        """A segment of the engine."""
        if segment.flags & RST:
            raise Spoiled("the engine reset a connection")
        if segment.flags & SYN:
            return
        position = segment.seq - (self.irs + 1) & M32
        if segment.payload:
            if position != self.received & M32:
                raise Spoiled(f"the engine sent position {position} instead of {self.received & M32}")
            if segment.payload != stretch(self.received, len(segment.payload)):
                raise Spoiled(f"wrong bytes from the engine at position {self.received}")
            self.received += len(segment.payload)
            self.unanswered += 1
        ack = self.acked + (segment.ack - (self.iss + 1 + self.acked) & M32)
        if ack <= self.sent:
            self.acked = ack
        self.edge = max(self.edge, self.acked + (segment.wnd << self.scale))

    @property
    def busy(self) -> bool:
        """Something is under way, or has not been acknowledged by the peer."""
        return (
            self.consumed != self.sent or self.received != self.written or self.told != self.received
            or self.sock.so.so_snd.sb_cc != 0
        )  # fmt: skip

    # --- the application

    def write(self, length: int) -> int:
        """Put up to ``length`` bytes into the socket; returns how many."""
        try:
            count = int(self.sock.send(stretch(self.written, min(length, 65521))))
        except BlockingIOError:
            return 0
        self.written += count
        return count

    def consume(self) -> int:
        """Take what has arrived out of the socket, compare it, and return how much it was."""
        total = 0
        while True:
            try:
                data = self.sock.recv(65536)
            except BlockingIOError:
                return total
            if data != stretch(self.consumed, len(data)):
                raise Spoiled(f"wrong bytes in host memory at position {self.consumed}")
            self.consumed += len(data)
            total += len(data)
