"""The rows and columns of the table: situations that a connection gets into, and segments that then may arrive.

A situation is reached by steps, which the oracle takes too: each of them is checked on the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from tests.states.oracle import Connection, Segment

WINDOW = 4096
"""Our receive window: the ring's size."""
OFFERED, LATER = 8192, 9000
"""The peer's window on the way to the situation, and in the segment that is tried."""

SYN = Segment("S", 0, 0, OFFERED)
SYN_ACK = Segment("SA", 0, 1, OFFERED)
FULL = tuple(Segment("A", 1 + at, 1, OFFERED, n) for at, n in ((0, 1460), (1460, 1460), (2920, 1176)))


@dataclass(frozen=True)
class Situation:
    """``steps``: "open", "send" (1000 bytes), "close", or the peer's segment; ``state``: where they lead."""

    name: str
    state: str
    steps: tuple[str | Segment, ...]


def _fin(ack: int, seq: int = 1) -> Segment:
    return Segment("FA", seq, ack, OFFERED)


def _ack(ack: int, seq: int = 1) -> Segment:
    return Segment("A", seq, ack, OFFERED)


_OPENED = ("open", SYN_ACK)
SITUATIONS = (
    Situation("SYN_SENT", "SYN_SENT", ("open",)),
    Situation("SYN_RECEIVED, both have opened", "SYN_RECEIVED", ("open", SYN)),
    Situation("ESTABLISHED", "ESTABLISHED", _OPENED),
    Situation("ESTABLISHED, data under way", "ESTABLISHED", (*_OPENED, "send")),
    Situation("ESTABLISHED, own window closed", "ESTABLISHED", (*_OPENED, *FULL)),
    Situation("ESTABLISHED, an acknowledgement waits", "ESTABLISHED", (*_OPENED, Segment("A", 1, 1, OFFERED, 7))),
    Situation("ESTABLISHED, data ahead of a gap", "ESTABLISHED", (*_OPENED, Segment("A", 6, 1, OFFERED, 20))),
    Situation("ESTABLISHED, a FIN ahead of its data", "ESTABLISHED", (*_OPENED, Segment("FA", 11, 1, OFFERED))),
    Situation("CLOSE_WAIT", "CLOSE_WAIT", (*_OPENED, _fin(1))),
    Situation("CLOSE_WAIT, data under way", "CLOSE_WAIT", (*_OPENED, _fin(1), "send")),
    Situation("FIN_WAIT_1", "FIN_WAIT_1", (*_OPENED, "close")),
    Situation("FIN_WAIT_1, data under way", "FIN_WAIT_1", (*_OPENED, "send", "close")),
    Situation("FIN_WAIT_1, own window closed", "FIN_WAIT_1", (*_OPENED, *FULL, "close")),
    Situation("FIN_WAIT_2", "FIN_WAIT_2", (*_OPENED, "close", _ack(2))),
    Situation("FIN_WAIT_2, own window closed", "FIN_WAIT_2", (*_OPENED, *FULL, "close", _ack(2, 4097))),
    Situation("CLOSING", "CLOSING", (*_OPENED, "close", _fin(1))),
    Situation("CLOSING, data under way", "CLOSING", (*_OPENED, "send", "close", _fin(1))),
    Situation("LAST_ACK", "LAST_ACK", (*_OPENED, _fin(1), "close")),
    Situation("LAST_ACK, data under way", "LAST_ACK", (*_OPENED, _fin(1), "send", "close")),
    Situation("TIME_WAIT", "TIME_WAIT", (*_OPENED, "close", _fin(2))),
)

FLAGS = tuple("".join(letters) for n in range(5) for letters in combinations("SARF", n))
"""Every combination; PSH, which changes nothing, and URG, which changes RCV.UP alone, go along in turn."""
BESIDE = ("", "P", "U", "PU")


def sequence_numbers(c: Connection) -> dict[str, int]:
    """SEG.SEQ by where it stands; of two names for one number the first stays."""
    nxt, edge = c.rcv_nxt, c.edge
    places = {
        "at RCV.NXT": nxt,
        "one left": nxt - 1,
        "overlapping": nxt - 5,
        "left": nxt - 1000,
        "64 KiB left": nxt - 65536,
        "64 KiB and one left": nxt - 65537,
        "a quarter left": nxt - (1 << 30),
        "one right": nxt + 1,
        "in the window": nxt + 100,
        "cut by the edge": edge - 5,
        "last in the window": edge - 1,
        "at the edge": edge,
        "one beyond the edge": edge + 1,
        "two beyond the edge": edge + 2,
        "a quarter right": edge + (1 << 30),
    }
    if c.state in ("CLOSED", "LISTEN", "SYN_SENT"):  # there is no window yet: the peer may begin anywhere
        places = {"any": 0}
    return _distinct(places)


def acknowledgements(c: Connection) -> dict[str, int]:
    """SEG.ACK by what it acknowledges."""
    return _distinct(
        {
            "SND.UNA": c.snd_una,
            "SND.NXT": c.snd_nxt,
            "part": c.snd_una + 1,
            "before the FIN": c.snd_nxt - 1,
            "older": c.snd_una - 1,
            "oldest": c.snd_una - c.max_wnd,
            "too old": c.snd_una - c.max_wnd - 1,
            "a quarter old": c.snd_una - (1 << 30),
            "one too new": c.snd_nxt + 1,
            "a quarter new": c.snd_nxt + (1 << 30),
        }
    )


def _distinct(places: dict[str, int]) -> dict[str, int]:
    seen: dict[int, str] = {}
    for name, number in places.items():
        seen.setdefault(number, name)
    return {name: number for number, name in seen.items()}


def segments(c: Connection, flags: str, *, whole: bool) -> Iterator[tuple[str, Segment]]:
    """Segments with these flags, by name: with text and without, each SEG.SEQ with SEG.ACK = SND.UNA, each SEG.ACK with
    SEG.SEQ in the window, left of it and one beyond its edge; ``whole``: every one with every other, each with and without
    PSH and URG."""
    numbers, acks = sequence_numbers(c), acknowledgements(c)
    crossed = {next(iter(numbers)), "left", "one beyond the edge"}
    if "A" not in flags:
        acks = {"no ACK": c.snd_una - 77}
    turn = 0
    for length in (0, 10):
        for seq in numbers:
            for k, ack in enumerate(acks):
                if not whole and seq not in crossed and k:
                    continue
                turn += 1
                for beside in BESIDE if whole else (BESIDE[turn % 4],):
                    name = f"[{flags}{beside}] seq {seq}, {length} bytes, ack {ack}"
                    yield name, Segment(flags + beside, numbers[seq], acks[ack], LATER, length)


BASES = (
    (0xFFFFFF00, 0xFFFFFFF0),  # both wrap within the first transfers
    (0xFFFFFFFF, 0xFFFFFFFF),  # SYN last, data from 0
    (0xFFFFFFFE, 0xFFFFFFFD),
    (0xFFFFFC17, 0xFFFFF000),  # our FIN behind 1000 bytes is 0, the edge 1
    (0x7FFFFFFF, 0x7FFFFFFE),
    (0, 0),
)
"""Initial sequence numbers, ours and the peer's."""
