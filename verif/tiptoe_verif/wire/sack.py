"""What the SACK options of the engine may say: RFC 2018 sections 2 to 4, RFC 2883 section 4 (D-SACK).

As everywhere in the monitor, by the most generous reading: the engine may have seen what it was given, or not yet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from .intervals import Intervals
from .numbers import signed
from .segment import RST, SYN, Segment
from .timestamps import OPTION as STAMPS

Range = tuple[int, int]

_REPEATED = 1024
"""Segments that came again and that the engine may still tell of."""
_REMEMBERED = 64
"""Segments ahead of a gap that may be the newest one the engine knows."""
OPTION, BLOCK = 4, 8
"""Bytes of a SACK option with its two NOPs, and of each of its blocks."""


class Arrival(NamedTuple):
    """Text of a segment ahead of a gap. ``fresh``: none of it had been given before: whoever knows it has seen this segment."""

    begin: int
    end: int
    fresh: bool


class Repeated(NamedTuple):
    """Text of a segment that begins with what had been given before, up to ``reach``, if not all ``end``."""

    begin: int
    reach: int
    end: int


@dataclass(slots=True)
class Sack:
    """Selective acknowledgements of one connection.

    Attributes
    ----------
    ours, peers : bool
        Whether a SYN of each side has permitted them.
    blocks : int
        Blocks that the engine has told.
    ahead : list of Arrival
        What came ahead of a gap since the last segment that may have been in order, newest last.
    again : list of Repeated
        What came again and has not been told of, newest last.
    duplicates : int
        Blocks that told of it.
    """

    ours: bool = False
    peers: bool = False
    blocks: int = 0
    duplicates: int = 0
    ahead: list[Arrival] = field(default_factory=list)
    again: list[Repeated] = field(default_factory=list)

    def arrived(self, begin: int, end: int, flow: Received) -> None:
        """Text [begin, end) is given to the engine; ``flow`` does not know it yet."""
        received = flow.received
        if end > begin and received is not None:
            reach = end if flow.beyond else received.reach(begin, end)
            if reach > begin:
                self.again.append(Repeated(begin, reach, end))
                del self.again[:-_REPEATED]
        if end <= begin or received is None or flow.acked is None or flow.our_edge is None:
            return
        if flow.beyond or end > flow.our_edge:
            # A window under way may take it, so what is in order is not known.
            self.ahead.clear()
        elif begin > received.complete:
            self.ahead.append(Arrival(begin, end, not received.touches(begin, end)))
            del self.ahead[:-_REMEMBERED]
        elif end > flow.acked:
            self.ahead.clear()

    def complaint(self, segment: Segment, ack: int, flow: Received) -> str:
        """What is wrong with the options of a segment of the engine's that acknowledges ``ack``, or ""."""
        if not segment.sacks:
            return ""
        if not (self.ours and self.peers):
            return "SACK blocks, but not both ends have permitted them (RFC 2018 section 2)"
        assert flow.received is not None
        told, ranges = self._without_duplicate(segment.sacks, ack), list[Range]()
        if told is None:
            return f"D-SACK block {segment.sacks[0]} tells of what has not come twice (RFC 2883 section 4)"
        for left, right in told:
            begin = ack + (left - ack & 0xFFFFFFFF)
            end = begin + (right - left & 0xFFFFFFFF)
            if not ack < begin < end < ack + (1 << 31):
                return f"SACK block {left}-{right} does not lie above the acknowledgement"
            if not flow.received.covers(begin, end, [(low, high + fin) for low, high, fin in flow.beyond]):
                return f"SACK block {left}-{right} tells of bytes the engine was never given"
            ranges.append((begin, end))
        in_order = sorted(ranges)
        if any(before[1] >= after[0] for before, after in zip(in_order, in_order[1:], strict=False)):
            return "SACK blocks that overlap or touch (RFC 2018 section 3)"
        around_a_duplicate = len(told) < len(segment.sacks) and signed(segment.sacks[0][0] - ack) >= 0
        if not around_a_duplicate and not self._newest_first(ranges):
            return "the first SACK block is not the newest (RFC 2018 section 4)"
        self.blocks += len(ranges)
        return ""

    def _without_duplicate(self, blocks: tuple[Range, ...], ack: int) -> tuple[Range, ...] | None:
        """The blocks but for the first one, if that lies below the acknowledgement or in the second one: it tells of what came
        twice, each time once. None: that did not."""
        begin, end, *second = (ack + signed(edge - ack) for block in blocks[:2] for edge in block)
        if begin >= ack and not (second and second[0] <= begin < end <= second[1]):
            return blocks
        for one in reversed(self.again):
            # Of what is new in part only what lies below the acknowledgement is told.
            if begin == one.begin and begin < end <= one.reach and (end == one.end or end <= ack):
                self.again.remove(one)
                self.duplicates += 1
                return blocks[1:]
        return None

    def _newest_first(self, ranges: list[Range]) -> bool:
        """Of the segments ahead of a gap that it certainly has seen, the last one or a later one is in the first block."""
        known = [
            number for number, (begin, end, fresh) in enumerate(self.ahead)
            if fresh and any(low <= begin and end <= high for low, high in ranges)
        ]  # fmt: skip
        if not known or not ranges:
            return True
        low, high = ranges[0]
        return any(begin < high and low < end for begin, end, _ in self.ahead[known[-1] :])


class Received(Protocol):
    """What is known of the peer's direction."""

    received: Intervals | None
    acked: int | None
    our_edge: int | None
    beyond: list[tuple[int, int, bool]]


def misplaced(segment: Segment) -> str:
    """What is wrong with the presence of either option, whatever the connection; or ""."""
    if segment.sack_ok and not segment.flags & SYN:
        return "SACK-permitted outside of a SYN (RFC 2018 section 2)"
    if segment.sacks and segment.flags & (SYN | RST):
        return "SACK blocks in a SYN or RST"
    return ""


def room_taken(segment: Segment) -> int:
    """Bytes that its SACK option and timestamps take from the payload (RFC 6691)."""
    stamps = STAMPS if segment.stamps is not None else 0
    return stamps + (OPTION + BLOCK * len(segment.sacks) if segment.sacks else 0)
