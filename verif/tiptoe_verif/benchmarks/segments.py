"""Cycles per minimum-size segment: small data, acknowledgements, one-byte sends, and both ways at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..native.harness import Frame
from .connection import Connection
from .frames import ETHERNET_MIN
from .rig import STEP, Rig, Watch, rotation, until

_BATCH = 8
"""Doorbells rung at a time when their pace is set."""


@dataclass
class Costs:
    """Cycles per frame of each direction (0: fewer than two frames), and how many there were."""

    receive: float = 0.0
    transmit: float = 0.0
    received: int = 0
    transmitted: int = 0


class _Spacing:
    """Mean distance of frames, by their last words; those at the begin and at the end do not count."""

    def __init__(self) -> None:
        self._stamps: list[int] = []

    def add(self, frame: Frame) -> None:
        if len(frame.data) == ETHERNET_MIN:
            self._stamps.append(frame.last)

    @property
    def count(self) -> int:
        return len(self._stamps)

    @property
    def mean(self) -> float:
        skip = len(self._stamps) // 16
        stamps = self._stamps[skip : len(self._stamps) - skip]
        return (stamps[-1] - stamps[0]) / (len(stamps) - 1) if len(stamps) > 1 else 0.0


def _measure(
    rig: Rig,
    what: str,
    work: Callable[[], None],
    finished: Callable[[_Spacing, _Spacing], bool],
    step: int = STEP,
) -> Costs:
    rx, tx = _Spacing(), _Spacing()

    def done(passed: list[Frame]) -> bool:
        for frame in passed:
            (rx if frame.to_engine else tx).add(frame)
        return finished(rx, tx)

    with Watch(rig, what):
        until(rig, done, work, lambda: rx.count + tx.count, step)
        rig.drain()
    return Costs(rx.mean, tx.mean, rx.count, tx.count)


class _Doorbells:
    """Sends of one byte each over the connections in turn, one every ``pace`` cycles from now on."""

    def __init__(
        self, rig: Rig, connections: Sequence[Connection], frames: int, pace: float, begin_at: int = 0
    ) -> None:
        self.harness, self.frames, self.pace = rig.harness, frames, pace
        self.following = rotation(connections, begin_at)
        self.begin = rig.harness.cycle
        self.sends = 0

    def ring(self) -> None:
        """Those that are due, a batch ahead."""
        while self.sends < min(self.frames, (self.harness.cycle - self.begin) / self.pace + _BATCH):
            self.following().write(1)
            self.sends += 1


def receive_data(rig: Rig, connections: Sequence[Connection], frames: int) -> Costs:
    """Segments of one byte in order; the engine acknowledges every second one."""
    following = rotation(connections)
    for _ in range(frames):
        rig.harness.inject(following().data(1))
    return _measure(
        rig, "small data", lambda: _consume(connections), lambda rx, tx: rx.count >= frames
    )  # fmt: skip


def receive_acks(rig: Rig, connections: Sequence[Connection], frames: int) -> Costs:
    """Acknowledgements, each of one more byte."""
    each = -(-frames // len(connections))
    for connection in connections:
        connection.write(each)
    until(rig, lambda _: all(c.received == c.written for c in connections), lambda: None, lambda: rig.harness.cycle)
    for number in range(each):
        for connection in connections:
            rig.harness.inject(connection.ack(connection.written - each + number + 1))
    total = each * len(connections)
    return _measure(rig, "acknowledgements", lambda: None, lambda rx, tx: rx.count >= total)


def transmit_data(rig: Rig, connections: Sequence[Connection], frames: int, pace: float) -> Costs:
    """Sends of one byte, a doorbell every ``pace`` cycles; nobody acknowledges meanwhile.

    Where doorbells of a connection come faster than it may send, several bytes leave as one segment, so the segments and
    not the bytes are counted; all of them have 60 bytes unless more than six bytes have to wait.
    """
    doorbells = _Doorbells(rig, connections, frames, pace)
    return _measure(
        rig, "one-byte sends", doorbells.ring,
        lambda rx, tx: doorbells.sends == frames and all(c.received >= c.written for c in connections),
        round(_BATCH * pace),
    )  # fmt: skip


def transmit_acks(rig: Rig, connections: Sequence[Connection], frames: int) -> Costs:
    """Segments of one byte beyond a hole: the engine places each and acknowledges each at once (RFC 5681 section 4.2)."""
    following = rotation(connections)
    for _ in range(frames):
        connection = following()
        connection.sent = max(connection.sent, connection.acked + 1)
        rig.harness.inject(connection.at(connection.sent, 1))
        connection.sent += 1

    def fill(rx: _Spacing, tx: _Spacing) -> bool:
        if tx.count < frames:
            return False
        for connection in connections:
            if connection.acked < connection.sent:
                rig.harness.inject(connection.at(connection.acked, 1))
        return True

    return _measure(rig, "acknowledgements of data beyond a hole", lambda: None, fill)


def both(rig: Rig, connections: Sequence[Connection], frames: int, pace: float) -> Costs:
    """Segments of one byte in order towards the engine and one-byte sends from it, at once.

    Frames come as fast as they can, doorbells one every ``pace`` cycles. Both go round the connections, half a round
    apart: in step, the segment and the doorbell of one connection would always meet, and the later one would wait for the
    earlier one's pass.
    """
    receiving = rotation(connections)
    for _ in range(frames):
        rig.harness.inject(receiving().data(1))
    doorbells = _Doorbells(rig, connections, frames, pace, len(connections) // 2)

    def work() -> None:
        doorbells.ring()
        if doorbells.sends % (16 * _BATCH) == 0:
            _consume(connections)

    def finished(rx: _Spacing, tx: _Spacing) -> bool:
        # What is sent after the last frame came in is not at once any more.
        return rx.count >= frames

    return _measure(rig, "small data both ways", work, finished, round(_BATCH * pace))


def bound(data_bytes: int) -> float:
    """Cycles of the shortest frame on the bus."""
    return float(-(-ETHERNET_MIN // data_bytes))


def line_bound(data_bytes: int, rate: float, gap: int = 24) -> float:
    """The same on a line of ``rate`` bytes per cycle."""
    return max(bound(data_bytes), (ETHERNET_MIN + gap) / rate)


def _consume(connections: Sequence[Connection]) -> None:
    for connection in connections:
        if connection.consumed != connection.sent:
            connection.consume()
