"""Bytes per cycle with full segments: transmitting, receiving, both at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..native.harness import Frame
from .connection import Connection
from .frames import HEADERS
from .rig import MSS, STEP, Rig, Watch, rotation, until


@dataclass
class Rates:
    """Payload bytes per cycle of each direction (0: not measured), and what the ports did meanwhile."""

    transmit: float = 0.0
    receive: float = 0.0
    frames: int = 0
    rx_stalls: float = 0.0
    """Part of the cycles in which a received word waited for tready."""
    tx_gaps: float = 0.0
    """Part of the cycles without a word inside a transmitted frame."""


class Stretch:
    """Stamps of the frames of one direction that have ``mss`` bytes of payload."""

    def __init__(self, mss: int) -> None:
        self._mss = mss
        self.first_last = self.final_last = 0
        self.frames = -1

    def add(self, frame: Frame) -> None:
        """A frame of this direction; the first one only starts the clock."""
        if len(frame.data) != HEADERS + self._mss:
            return
        self.frames += 1
        if self.frames == 0:
            self.first_last = frame.last
        self.final_last = frame.last

    @property
    def rate(self) -> float:
        """Payload bytes per cycle."""
        return self.frames * self._mss / max(1, self.final_last - self.first_last)


def bulk(
    rig: Rig, connections: Sequence[Connection], *, transmit: bool, receive: bool, frames: int, warm_up: int = 150
) -> Rates:
    """Full segments over ``connections`` in turn; ``frames`` of each measured direction after ``warm_up``."""
    mss = rig.mss
    # Frames waiting at the engine's port: enough for two steps.
    ahead = 2 * STEP * rig.harness.data_bytes // (HEADERS + mss) + 4
    following = rotation(connections)
    # Data waiting in all send buffers together: more than is under way between two looks.
    fill = max(4, 8 * ahead // len(connections)) * mss

    def write() -> None:
        for connection in connections:
            buffer = connection.sock.so.so_snd
            room = min(fill, buffer.sb_hiwat) - buffer.sb_cc
            if room >= mss:
                connection.write(room // mss * mss)  # whole segments: the last one must not be a small one

    def work() -> None:
        if transmit:
            write()
        if receive:
            for connection in connections:
                if connection.consumed != connection.sent:
                    connection.consume()
            tries = 0
            while rig.harness.rx_pending < ahead and tries < len(connections):
                connection = following()
                if connection.sent + mss <= connection.edge:
                    rig.harness.inject(connection.data(mss))
                    tries = 0
                else:
                    tries += 1
        else:
            for connection in connections:
                if connection.unanswered >= 2:
                    connection.unanswered = 0
                    rig.harness.inject(connection.ack())

    measured = {False: Stretch(mss), True: Stretch(mss)}
    goal = {False: transmit, True: receive}
    seen = 0
    start: dict[str, int] = {}

    def done(passed: list[Frame]) -> bool:
        nonlocal seen, start
        for frame in passed:
            if len(frame.data) != HEADERS + mss:
                continue
            seen += 1
            if seen >= warm_up * (transmit + receive):
                if not start:
                    start = rig.harness.counters()
                measured[frame.to_engine].add(frame)
        return all(measured[way].frames >= frames for way, wanted in goal.items() if wanted)

    with Watch(rig, "bulk transfer"):
        until(rig, done, work, lambda: seen)
        end = rig.harness.counters()
        rig.drain()
    cycles = max(1, end["cycles"] - start["cycles"])
    return Rates(
        measured[False].rate if transmit else 0.0, measured[True].rate if receive else 0.0, frames,
        (end["rx_stalls"] - start["rx_stalls"]) / cycles, (end["tx_gaps"] - start["tx_gaps"]) / cycles,
    )  # fmt: skip


def bound(data_bytes: int, mss: int = MSS) -> float:
    """Payload bytes per cycle of full segments that a bus of that width allows."""
    return mss / -(-(HEADERS + mss) // data_bytes)


def line_bound(data_bytes: int, rate: float, mss: int = MSS, gap: int = 24) -> float:
    """The same on a line of ``rate`` bytes per cycle, where ``gap`` bytes follow each frame."""
    return min(bound(data_bytes, mss), mss / ((HEADERS + mss + gap) / rate))
