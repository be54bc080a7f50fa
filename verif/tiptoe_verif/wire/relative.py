"""Segments of a capture by connection, with sequence numbers counted from the first byte of data of each direction."""

from __future__ import annotations

from dataclasses import dataclass, field

from .numbers import unwrap
from .segment import ACK, SYN, Segment

End = tuple[int, int]


@dataclass
class _Direction:
    first: int | None = None
    """Sequence number of the first byte of data; of a connection that was there before, the first seen."""
    shift: int | None = None
    """Window scale it has offered."""
    highest: int = 0
    """End of its data so far."""
    sent: int = -1
    """The same with SYN and FIN."""


@dataclass
class Connection:
    """A connection of the capture: ``source`` is who sent its first segment. ``opened``: the SYN is in the capture."""

    number: int
    source: End
    target: End
    opened: bool
    directions: dict[End, _Direction] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a segment belongs.

    Attributes
    ----------
    connection : int
        Number, in order of appearance.
    opened, forward : bool
        The connection's SYN was seen; the segment is from who sent the first one.
    start, end : int
        Its data. A SYN is -1, a FIN counts behind the data.
    again : bool
        It begins with something that was sent before: data, SYN or FIN.
    ack, edge : int or None
        What it acknowledges of the other direction, and how far its window reaches there; None without ACK.
    """

    connection: int
    opened: bool
    forward: bool
    start: int
    end: int
    again: bool
    ack: int | None
    edge: int


class Relative:
    """Places segments, in the capture's order. A SYN with another sequence number begins a connection anew."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self._now: dict[tuple[End, End], Connection] = {}

    def place(self, segment: Segment) -> Placed:
        """The next segment."""
        source, target = (segment.src, segment.sport), (segment.dst, segment.dport)
        key = (source, target) if source < target else (target, source)
        syn, ack = bool(segment.flags & SYN), bool(segment.flags & ACK)
        first = (segment.seq + syn) & 0xFFFFFFFF
        connection = self._now.get(key)
        if connection is None or (syn and connection.directions[source].first not in (None, first)):
            connection = Connection(
                len(self.connections), source, target, syn, {source: _Direction(), target: _Direction()}
            )
            self.connections.append(connection)
            self._now[key] = connection
        own, other = connection.directions[source], connection.directions[target]
        if own.first is None:
            own.first = first
        if syn:
            own.shift = segment.ws
        start = unwrap((segment.seq - own.first) & 0xFFFFFFFF, own.highest)
        end = start + syn + len(segment.payload)
        again = segment.length > 0 and start < own.sent
        own.highest, own.sent = max(own.highest, end), max(own.sent, start + segment.length)
        acked: int | None = None
        edge = 0
        if ack:
            if other.first is None:
                other.first = segment.ack
            acked = unwrap((segment.ack - other.first) & 0xFFFFFFFF, other.highest)
            scaled = not syn and None not in (own.shift, other.shift)
            edge = acked + (segment.wnd << (own.shift or 0) if scaled else segment.wnd)
        return Placed(
            connection.number, connection.opened, source == connection.source, start, end, again, acked, edge,
        )  # fmt: skip
