"""A line that misbehaves, the same way for the same seed: loss, duplication, reordering, bit errors, delay, a rate, a queue
that marks."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass

from .segment import HEADER


@dataclass(frozen=True, kw_only=True)
class Impairment:
    """How a line misbehaves, in each direction.

    Attributes
    ----------
    loss, duplicate, reorder, corrupt : float
        Probabilities per frame. A reordered frame arrives ``reorder_us`` late, so that others overtake it. A
        corrupt one has one bit inverted, in the IP packet: what the line's FCS would catch never gets here.
    delay_us, jitter_us : float
        Every frame's delay, and up to so much more at random (jitter alone never reorders).
    rate_bytes_s : float
        The line takes so many bytes of frames a second, before the delay; 0: any number at once.
    queue_frames : int
        With a rate: a frame that finds so many before it on the line or waiting for it is dropped (the tail's). A frame
        that is lost has had its time on the line.
    mark_frames : int
        With a rate: an IPv4 packet with ECT that finds so many frames before it is marked (CE, RFC 3168 section 5), as a
        switch for DCTCP does it (RFC 8257 section 3.1); others are not. 0: never.
    longest_packet : int
        IP packets of more bytes are lost, every one, and nobody is told: a black hole (RFC 2923 section 2.1). 0: none are.
    seed : int
        Of all chance; each direction has its own sequence.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    delay_us: float = 0.0
    jitter_us: float = 0.0
    reorder_us: float = 1000.0
    rate_bytes_s: float = 0.0
    queue_frames: int = 64
    mark_frames: int = 0
    longest_packet: int = 0
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("loss", "duplicate", "reorder", "corrupt"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, 0 to 1, not {getattr(self, name)}")
        for name in ("delay_us", "jitter_us", "reorder_us", "rate_bytes_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        if self.queue_frames < 1:
            raise ValueError(f"queue_frames must be 1 at least, not {self.queue_frames}")
        if self.mark_frames < 0 or self.longest_packet < 0:
            raise ValueError(
                f"mark_frames and longest_packet must not be negative, not {self.mark_frames}, {self.longest_packet}"
            )

    def __bool__(self) -> bool:
        chances = (self.loss, self.duplicate, self.reorder, self.corrupt)
        return any((*chances, self.delay_us, self.jitter_us, self.rate_bytes_s, self.longest_packet))


class Channel:
    """One direction of an impaired line.

    Attributes
    ----------
    lost, duplicated, reordered, corrupted, dropped, marked, passed : int
        Frames so far; ``dropped`` those that the full queue did not take, ``passed`` counts what went in.
    longest : int
        The most frames that one has found before it.
    swallowed : int
        Frames that were too long; not among ``lost``.
    """

    def __init__(self, impairment: Impairment, direction: str) -> None:
        self.impairment = impairment
        self._rng = random.Random(f"{impairment.seed}:{direction}")
        self._latest = 0.0
        self._leaving: deque[float] = deque()
        self.passed = self.lost = self.duplicated = self.reordered = self.corrupted = self.dropped = 0
        self.marked = self.longest = self.swallowed = 0

    def send(self, frame: bytes, time_us: float) -> list[tuple[float, bytes]]:
        """What becomes of a frame that is sent at ``time_us``: arrivals as (time, frame), none if it is lost."""
        rules, rng = self.impairment, self._rng
        self.passed += 1
        # Every decision draws, so that changing one probability leaves the others' fate alone.
        lose, double, late, spoil = (rng.random() for _ in range(4))
        jitter, where = rng.random(), rng.random()
        if rules.rate_bytes_s:
            leaves = self._leaves(len(frame), time_us)
            if leaves is None:
                self.dropped += 1
                return []
            time_us = leaves
            # The frame itself is in the queue by now.
            if rules.mark_frames and len(self._leaving) > rules.mark_frames and _ect(frame):
                self.marked += 1
                frame = _marked(frame)
        if rules.longest_packet and len(frame) - HEADER > rules.longest_packet:
            self.swallowed += 1
            return []
        if lose < rules.loss:
            self.lost += 1
            return []
        if spoil < rules.corrupt and len(frame) > HEADER and frame[12:14] == b"\x08\x00":
            self.corrupted += 1
            bit = HEADER * 8 + int(where * (len(frame) - HEADER) * 8)
            spoiled = bytearray(frame)
            spoiled[bit // 8] ^= 1 << bit % 8
            frame = bytes(spoiled)
        arrival = max(time_us + rules.delay_us + jitter * rules.jitter_us, self._latest)
        if late < rules.reorder:
            self.reordered += 1
            arrival += rules.reorder_us
        else:
            self._latest = arrival
        arrivals = [(arrival, frame)]
        if double < rules.duplicate:
            self.duplicated += 1
            arrivals.append((arrival, frame))
        return arrivals

    def _leaves(self, length: int, time_us: float) -> float | None:
        """When the last byte of a frame that is sent at ``time_us`` leaves the queue; None: it finds the queue full."""
        leaving = self._leaving
        while leaving and leaving[0] <= time_us:
            leaving.popleft()
        self.longest = max(self.longest, len(leaving))
        if len(leaving) >= self.impairment.queue_frames:
            return None
        begins = leaving[-1] if leaving else time_us
        leaving.append(begins + 1e6 * length / self.impairment.rate_bytes_s)
        return leaving[-1]

    def summary(self) -> str:
        """One line for people."""
        dropped = f", {self.dropped} dropped" if self.impairment.rate_bytes_s else ""
        dropped += f", {self.marked} marked" if self.impairment.mark_frames else ""
        return (
            f"{self.passed} frames: {self.lost} lost, {self.duplicated} duplicated, {self.reordered} reordered, "
            f"{self.corrupted} corrupted{dropped}"
        )


def _ect(frame: bytes) -> bool:
    """Whether its sender knows ECN: an IPv4 packet with either codepoint, or marked already."""
    return frame[12:14] == b"\x08\x00" and len(frame) >= HEADER + 20 and bool(frame[HEADER + 1] & 3)


def _marked(frame: bytes) -> bytes:
    """With CE, and the header's checksum right again if it was (RFC 1624: only a difference goes into it)."""
    word = int.from_bytes(frame[HEADER : HEADER + 2], "big")
    checksum = int.from_bytes(frame[HEADER + 10 : HEADER + 12], "big")
    total = (~checksum & 0xFFFF) + (~word & 0xFFFF) + (word | 3)
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    new = bytearray(frame)
    new[HEADER + 1] |= 3
    new[HEADER + 10 : HEADER + 12] = (~total & 0xFFFF).to_bytes(2, "big")
    return bytes(new)
