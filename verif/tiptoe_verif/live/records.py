"""What the summary of a run says of its connections: all of them counted, the latest kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass
class Record:
    """What the summary says about one connection."""

    peer: tuple[str, int]
    local_port: int
    target: str
    opened_us: int
    closed_us: int | None = None
    sent: int = 0
    received: int = 0
    ending: str = ""


class Records:
    """One a connection, oldest first. Iterating gives those that are kept, all that are open among them.

    Parameters
    ----------
    kept : int
        Records kept of connections that are over.
    """

    def __init__(self, kept: int = 1000) -> None:
        self._kept = kept
        self._records: deque[Record] = deque()
        self._dropped = self._sent = self._received = 0

    def append(self, record: Record) -> None:
        """A connection begins."""
        self._records.append(record)
        if len(self._records) > self._kept:
            over = next((n for n, each in enumerate(self._records) if each.closed_us is not None), None)
            if over is not None:
                oldest = self._records[over]
                del self._records[over]
                self._dropped += 1
                self._sent += oldest.sent
                self._received += oldest.received

    def __len__(self) -> int:
        """Connections so far."""
        return self._dropped + len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    @property
    def sent(self) -> int:
        """Bytes sent on all connections so far."""
        return self._sent + sum(record.sent for record in self._records)

    @property
    def received(self) -> int:
        """Bytes received on all connections so far."""
        return self._received + sum(record.received for record in self._records)
