"""A line that misbehaves, the same way for the same seed: loss, duplication, reordering, bit errors, delay."""

from __future__ import annotations

import random
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
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("loss", "duplicate", "reorder", "corrupt"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, 0 to 1, not {getattr(self, name)}")
        for name in ("delay_us", "jitter_us", "reorder_us"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")

    def __bool__(self) -> bool:
        return any((self.loss, self.duplicate, self.reorder, self.corrupt, self.delay_us, self.jitter_us))


class Channel:
    """One direction of an impaired line.

    Attributes
    ----------
    lost, duplicated, reordered, corrupted, passed : int
        Frames so far; ``passed`` counts what went in.
    """

    def __init__(self, impairment: Impairment, direction: str) -> None:
        self.impairment = impairment
        self._rng = random.Random(f"{impairment.seed}:{direction}")
        self._latest = 0.0
        self.passed = self.lost = self.duplicated = self.reordered = self.corrupted = 0

    def send(self, frame: bytes, time_us: float) -> list[tuple[float, bytes]]:
        """What becomes of a frame that is sent at ``time_us``: arrivals as (time, frame), none if it is lost."""
        rules, rng = self.impairment, self._rng
        self.passed += 1
        # Every decision draws, so that changing one probability leaves the others' fate alone.
        lose, double, late, spoil = (rng.random() for _ in range(4))
        jitter, where = rng.random(), rng.random()
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

    def summary(self) -> str:
        """One line for people."""
        return (
            f"{self.passed} frames: {self.lost} lost, {self.duplicated} duplicated, {self.reordered} reordered, "
            f"{self.corrupted} corrupted"
        )
