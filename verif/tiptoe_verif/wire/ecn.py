"""What the engine may say of congestion: RFC 3168 section 6.1, with RFC 8257's exceptions where ``accurate``.

As everywhere in the monitor, by the most generous reading: the engine may have seen what it was given, or not yet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .segment import ACK, CWR, ECE, RST, SYN, Segment

NOT_ECT, ECT_1, ECT_0, CE = range(4)
"""Codepoints of the IP header (section 5)."""


@dataclass(slots=True)
class Ecn:
    """Explicit congestion notification of one connection.

    Attributes
    ----------
    ours, peers : bool
        Whether a SYN or SYN,ACK of each side has offered it, or agreed.
    certain : bool
        No SYN of the peer that may have been taken says otherwise.
    ect, ece, cwr : int
        Segments of the engine that carried these, SYNs aside.
    ce : int
        Segments with text given to it that were marked.
    """

    ours: bool = False
    peers: bool = False
    certain: bool = False
    ect: int = 0
    ece: int = 0
    cwr: int = 0
    ce: int = 0
    told: int | None = None
    """Where a marked segment ends that filled the window's beginning: who acknowledges it has seen it, and has to say ECE."""
    cwr_at: int | None = None
    """Where the last segment with CWR stood, until something goes again."""

    def given(self, segment: Segment, begin: int, complete: int, edge: int) -> None:
        """The engine is given text or a FIN at ``begin``; it had all up to ``complete``, and takes what lies before ``edge``."""
        end = begin + len(segment.payload)
        if segment.flags & CWR or (self.told is not None and begin < self.told):
            self.told = None  # CWR ends it; and of what comes again nobody knows which copy was taken
        if segment.ecn == CE and segment.payload:
            self.ce += 1
            if begin == complete and end <= edge and not segment.flags & CWR:
                self.told = end

    def learn(self, given: Iterable[Segment]) -> None:
        """SYNs and SYN,ACKs that the engine was given."""
        offers = [agrees(syn) for syn in given]
        self.peers |= any(offers)
        self.certain = self.ours and self.peers and all(offers)

    def sent(self, segment: Segment, seq: int, snd_max: int, una: int, ack: int, accurate: bool) -> str:
        """What is wrong with a segment of the engine's, neither SYN nor RST, or "". ``una``: what the peer has
        acknowledged."""
        flags, again = segment.flags, seq < snd_max
        if (segment.ecn or flags & (ECE | CWR)) and not (self.ours and self.peers):
            return "ECT, ECE or CWR, but not both ends know ECN (RFC 3168 section 6.1.1)"
        if segment.ecn and not accurate and (again or not segment.payload):
            return "ECT on what is no new data (RFC 3168 sections 6.1.4 to 6.1.6)"
        if flags & CWR and (again or not segment.payload):
            return "CWR on what is no new data (RFC 3168 section 6.1.2)"
        if flags & CWR and self.cwr_at is not None and una < self.cwr_at:
            return "CWR twice for one window (RFC 3168 section 6.1.2)"
        if flags & ECE and not self.ce:
            return "ECE, but nothing was marked"
        if self.certain and not (flags & ECE or accurate) and self.told is not None and ack >= self.told:
            return "no ECE, though what it acknowledges was marked and no CWR has come (RFC 3168 section 6.1.3)"
        self.ect += segment.ecn == ECT_0
        self.ece += bool(flags & ECE)
        self.cwr += bool(flags & CWR)
        if again and segment.payload:
            self.cwr_at = None  # a time-out, or a loss in the same window, is another reason
        if flags & CWR:
            self.cwr_at = seq
        return ""

    def sent_syn(self, segment: Segment, given: Iterable[Segment], mixed: bool = False) -> str:
        """What is wrong with a SYN or SYN,ACK of the engine's, which was given these SYNs; or "". ``mixed``: they do not tell
        what was agreed."""
        said = segment.flags & (ECE | CWR)
        if not segment.flags & ACK:
            if said not in (0, ECE | CWR):
                return "a SYN with one of ECE and CWR alone"
        elif said & CWR or (said and not mixed and not any(agrees(syn) for syn in given)):
            return "a SYN,ACK agrees to an ECN that nobody offered, or not by ECE alone (RFC 3168 section 6.1.1)"
        self.ours |= bool(said)
        return ""


def agrees(segment: Segment) -> bool:
    """Whether a SYN offers ECN, or a SYN,ACK takes it."""
    said = segment.flags & (ECE | CWR)
    return said == ECE if segment.flags & ACK else said == ECE | CWR


def misplaced(segment: Segment) -> str:
    """What is wrong with the codepoint, whatever the connection; or ""."""
    if segment.ecn not in (NOT_ECT, ECT_0):
        return "a sender's codepoint is ECT(0) or none"
    if segment.ecn and segment.flags & (SYN | RST):
        return "ECT on a SYN or RST"
    if segment.flags & RST and segment.flags & (ECE | CWR):
        return "a RST with ECE or CWR"
    return ""
