"""What has been received of a sequence of numbers."""

from __future__ import annotations


class Intervals:
    """Sequence numbers received so far, as disjoint intervals in order."""

    def __init__(self, start: int) -> None:
        self.complete = start
        """Everything before it has been received."""
        self._apart: list[tuple[int, int]] = []

    def add(self, begin: int, end: int) -> None:
        """Note [begin, end)."""
        if end <= self.complete:
            return
        if begin > self.complete:
            self._apart.append((begin, end))
            return
        self.complete = end
        for low, high in sorted(self._apart):
            if low <= self.complete:
                self.complete = max(self.complete, high)
        self._apart = [(low, high) for low, high in self._apart if high > self.complete]

    def touches(self, begin: int, end: int) -> bool:
        """Whether any of [begin, end) is known."""
        return begin < self.complete or any(low < end and begin < high for low, high in self._apart)

    def reach(self, begin: int, end: int) -> int:
        """How far from ``begin`` on all is known, ``end`` at most."""
        at = max(begin, self.complete)
        for low, high in sorted(self._apart):
            if low <= at:
                at = max(at, high)
        return min(at, end) if begin < self.complete or at > begin else begin

    def covers(self, begin: int, end: int, more: list[tuple[int, int]]) -> bool:
        """Whether all of [begin, end) is known, or lies in ``more``."""
        at = max(begin, self.complete)
        for low, high in sorted([*self._apart, *more]):
            if low <= at:
                at = max(at, high)
        return at >= end
