"""Frames that the host sends through the engine as an ordinary network card: on the wire they look like the engine's own."""

from __future__ import annotations

from collections import Counter, deque

_MIN_FRAME = 60


class HostFrames:
    """Knows the host's frames again when they leave the engine, which may drop some but changes none.

    Parameters
    ----------
    limit : int
        Frames remembered; older ones that have not left by then are lost.
    """

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit
        self._given: deque[bytes] = deque()  # those that have left among them
        self._waiting: Counter[bytes] = Counter()

    def give(self, frame: bytes) -> None:
        """The host hands a frame to the engine, which pads it to 60 bytes."""
        frame = frame.ljust(_MIN_FRAME, b"\0")
        self._given.append(frame)
        self._waiting[frame] += 1
        if len(self._given) > self._limit:
            oldest = self._given.popleft()
            # Equal frames leave in order: this one is lost if more wait than were given after it.
            if oldest in self._waiting and self._waiting[oldest] > self._given.count(oldest):
                self._take(oldest)

    def take(self, frame: bytes) -> bool:
        """Whether a frame that leaves the engine is one of them; each does once."""
        if frame not in self._waiting:
            return False
        self._take(frame)
        return True

    def _take(self, frame: bytes) -> None:
        self._waiting[frame] -= 1
        if not self._waiting[frame]:
            del self._waiting[frame]
