"""What the wire shows of urgent data that the engine sends: RFC 9293 section 3.8.5, RFC 6093 (a pointer names the octet behind
it)."""

from __future__ import annotations

from .segment import RST, SYN, URG, Segment

GREATEST = 0xFFFF
"""The pointer of a segment that SND.UP lies further ahead of, or just so far."""
NEAR = 0x8000
"""So much may have been sent behind a segment whose pointer is cut off, at least."""


def misplaced_urgent(segment: Segment) -> str:
    """What is wrong with the pointer of a segment of whatever connection; empty if nothing."""
    if not segment.flags & URG:
        return ""
    if segment.flags & (SYN | RST):
        return "URG on a SYN or RST"
    return "" if segment.urgent else "URG, and nothing urgent behind SEG.SEQ"


def next_up(snd_up: int | None, segment: Segment, seq: int, snd_max: int) -> tuple[int | None, str]:
    """SND.UP as far as segments have told it, and what is wrong with this one, at ``seq``. All numbers are unwrapped;
    ``snd_max`` is behind what was sent before.

    A pointer that is cut off names no octet that was sent: the peer would take that one for urgent. Where it would, there may be
    none.
    """
    if not segment.flags & URG:
        near = seq == snd_max or (segment.payload and snd_max - seq < NEAR)
        if near and snd_up is not None and 0 < snd_up - seq <= GREATEST:
            return snd_up, f"no URG, {snd_up - seq} bytes before SND.UP"
        return snd_up, ""
    up = seq + segment.urgent
    if segment.urgent == GREATEST and up > snd_max:
        return None, ""
    if snd_up is not None and up < snd_up:
        return snd_up, f"the urgent pointer goes back by {snd_up - up}"
    return up, ""
