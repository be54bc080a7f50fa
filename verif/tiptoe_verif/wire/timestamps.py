"""What the timestamps of the engine may say: RFC 7323 sections 3.2 and 4.3.

As everywhere in the monitor, by the most generous reading: which of several SYNs alike the engine has taken is open, and so is
what of the rest it has seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .segment import ACK, RST, SYN, Segment

OPTION = 12
"""Bytes of the option with its two NOPs."""
_REMEMBERED = 1 << 16
"""Values of the peer's that may be echoed."""


@dataclass(slots=True)
class Timestamps:
    """Timestamps of one connection.

    Attributes
    ----------
    ours : bool
        A SYN of ours had them.
    agreed : bool or None
        Both ends' SYNs had them; None: not known yet.
    sent : int
        Segments of ours with them.
    given : dict
        What the peer has sent as TSval, oldest first.
    offered : set
        TSvals of our SYN,ACKs.
    """

    ours: bool = False
    agreed: bool | None = None
    sent: int = 0
    last: int | None = None
    given: dict[int, None] = field(default_factory=dict)
    offered: set[int] = field(default_factory=set)

    def begin_anew(self) -> None:
        """The next SYN,ACK says what is agreed, and where TSval begins, whatever the peer's SYN was."""
        self.agreed = self.last = None

    def arrived(self, segment: Segment) -> None:
        """The engine is given a segment."""
        if segment.stamps is not None:
            self.given.pop(segment.stamps[0], None)
            self.given[segment.stamps[0]] = None
            if len(self.given) > _REMEMBERED:
                del self.given[next(iter(self.given))]

    def complaint(self, segment: Segment, peers: list[Segment], mixed: bool = False) -> str:
        """What is wrong with a segment of the engine's, but a reset that belongs to no connection, or "". ``peers``: SYNs of the
        peer that it may have taken. ``mixed``: they do not tell what was agreed."""
        stamps, flags = segment.stamps, segment.flags
        if flags & SYN:
            self.ours = stamps is not None
            if flags & ACK:
                if stamps and not mixed and not any(syn.stamps for syn in peers):
                    return "timestamps in the SYN,ACK to a SYN without (RFC 7323 section 3.2)"
                self.agreed = self.ours
                if stamps:
                    self.offered.add(stamps[0])
        elif self.agreed is None and peers:
            peers_have = {syn.stamps is not None for syn in peers}
            self.agreed = self.ours and (stamps is not None if len(peers_have) > 1 else peers_have.pop())
        if not flags & (SYN | RST) and (stamps is not None) != bool(self.agreed):
            if self.agreed:
                return "no timestamps, which both SYNs have agreed upon (RFC 7323 section 3.2)"
            return "timestamps, but not both SYNs had them (RFC 7323 section 3.2)"
        if stamps is None:
            return ""
        tsval, tsecr = stamps
        if flags & RST and not self.agreed:
            return "timestamps in a reset, but not in both SYNs (RFC 7323 section 3.2)"
        if self.last is not None and tsval - self.last & 0x80000000:
            return f"TSval {tsval} is behind {self.last} (RFC 7323 section 5.4)"
        if not flags & ACK and tsecr:
            return "TSecr without an ACK (RFC 7323 section 3.2)"
        if flags & ACK and tsecr not in self.given and not any(syn.stamps and syn.stamps[0] == tsecr for syn in peers):
            return f"echoes {tsecr}, which the engine was never given (RFC 7323 section 4.3)"
        self.last = tsval
        self.sent += 1
        return ""
