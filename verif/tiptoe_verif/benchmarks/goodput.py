"""Goodput over a line that loses: the engine and Linux beside Linux and Linux, through the same seeded line.

The line takes RATE bytes a second, delays by half the round trip each way and has a queue of QUEUE frames that drops its tail;
data is lost at random, acknowledgements are not. Goodput is all bytes over the time from the first that is offered to the last
that the receiving program has taken. The peer of the engine, and both ends of the comparison, are this machine's kernel.

Time is the wall's: where the simulation does not get the processor it needs, it is the simulation that is measured. So the line
is slow, and what a line without loss gives tells whether it was the limit.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import sqrt

from ..wire.impairment import Impairment
from .goodput_paths import Buffers, Pair, Path

RATE = 500_000
"""Bytes of frames a second."""
QUEUE = 64
MSS = 1460
LOSSES = (0.0, 0.001, 0.01, 0.05)
ROUND_TRIPS_MS = (1, 20, 100)
CONNECTIONS = (1, 8)
SEEDS = (1, 2)
SMALL = 4 * MSS
"""A small buffer, in bytes."""
SECONDS, SHORT = 3.0, 2.0
"""Of a measurement, and of one of ``--quick``."""
PATIENCE_S = 60.0
_LEAST = 100_000
_PIECE = 65536


@dataclass(frozen=True, kw_only=True)
class Point:
    """Conditions of a row.

    Attributes
    ----------
    loss : float
        Part of the frames with data.
    rtt_ms : float
        Of the line, without its queue.
    connections : int
    buffers : Buffers
        At both ends of both pairs.
    seconds : float
        About so long does a measurement take where TCP does what the line allows.
    """

    loss: float
    rtt_ms: float
    connections: int = 1
    buffers: Buffers = field(default_factory=Buffers)
    seconds: float = SECONDS

    @property
    def name(self) -> str:
        """For the JSON and the baseline."""
        small = "".join(f", {side} buffer {size}" for side, size in asdict(self.buffers).items() if size)
        return f"loss {self.loss:.1%}, {self.rtt_ms:g} ms, {self.connections}{small}"

    @property
    def total(self) -> int:
        """Bytes of all connections together: ``seconds`` at what the line's rate, a small buffer or the loss allow
        (Mathis et al., 1997: MSS / RTT * sqrt(3/2) / sqrt(p) for each connection), whole segments."""
        rate, rtt_s = float(RATE), self.rtt_ms / 1000
        for size in asdict(self.buffers).values():
            rate = min(rate, self.connections * size / rtt_s) if size else rate
        if self.loss:
            rate = min(rate, self.connections * MSS / rtt_s * sqrt(1.5 / self.loss))
        total = max(round(rate * self.seconds), _LEAST)
        return total // (MSS * self.connections) * MSS * self.connections

    def line(self, seed: int) -> Impairment:
        """The line, without its loss."""
        return Impairment(delay_us=self.rtt_ms * 500, rate_bytes_s=RATE, queue_frames=QUEUE, seed=seed)


@dataclass
class Run:
    """What one pair did at one point, over all seeds.

    Attributes
    ----------
    total, seconds : bytes, and the time they took
    retransmits : segments that were sent again
    timeouts : the sender's retransmission time-outs; -1: not known
    lost, dropped : frames of data lost on the line, and dropped by its queue
    gap_ms : the longest time between two looks at the line
    cycles : of the simulated engine
    fault : why there is no figure; empty: there is one
    """

    total: int = 0
    seconds: float = 0.0
    retransmits: int = 0
    timeouts: int = -1
    lost: int = 0
    dropped: int = 0
    gap_ms: float = 0.0
    cycles: int = 0
    fault: str = ""

    @property
    def goodput(self) -> float:
        """Bytes a second; 0 with a fault."""
        return self.total / self.seconds if self.seconds and not self.fault else 0.0


def points(*, quick: bool = False) -> list[Point]:
    """The rows: all of loss, round trip and number of connections, then small buffers; ``quick``: a corner."""
    if quick:
        return [Point(loss=loss, rtt_ms=20, seconds=SHORT) for loss in (0.0, 0.05)]
    found = [
        Point(loss=loss, rtt_ms=rtt, connections=count)
        for count in CONNECTIONS for rtt in ROUND_TRIPS_MS for loss in LOSSES
    ]  # fmt: skip
    for buffers in (Buffers(receive=SMALL), Buffers(send=SMALL)):
        found += [Point(loss=loss, rtt_ms=20, buffers=buffers) for loss in (0.0, 0.01)]
    return found


def measure(path: Path, point: Point, seeds: Sequence[int]) -> Run:
    """All seeds at one point; without loss the first is enough. Raises AssertionError for wrong data; what does not arrive is
    the run's fault, and its end: the path is of no use any more."""
    run = Run()
    for seed in seeds if point.loss else seeds[:1]:
        try:
            _measure(path, point, seed, run)
        except (TimeoutError, OSError) as error:
            run.fault = f"seed {seed}: {error}"
            break
    return run


def _measure(path: Path, point: Point, seed: int, run: Run) -> None:
    pairs = path.open(point.connections, point.buffers, point.line(seed))
    again, late = path.retransmits(pairs), path.timeouts()
    path.set_line(point.line(seed), point.loss)
    data, cycles = path.data, path.cycles()
    run.seconds += _carry(path, pairs, point.total, seed, run)
    run.cycles += path.cycles() - cycles
    run.total += point.total
    run.retransmits += path.retransmits(pairs) - again
    if late >= 0:
        run.timeouts = max(run.timeouts, 0) + path.timeouts() - late
    run.lost += data.lost
    run.dropped += data.dropped
    path.close_pairs(pairs)


def _carry(path: Path, pairs: Sequence[Pair], total: int, seed: int, run: Run) -> float:
    """As many bytes on each connection, ``total`` together; returns the seconds that it took."""
    each = total // len(pairs)
    content = random.Random(seed).randbytes(each)
    left, missing = [memoryview(content) for _ in pairs], [each for _ in pairs]
    seen = [hashlib.sha256() for _ in pairs]
    looked = begin = time.monotonic()

    def step() -> bool:
        nonlocal looked
        now = time.monotonic()
        run.gap_ms, looked = max(run.gap_ms, 1000 * (now - looked)), now
        for k, pair in enumerate(pairs):
            left[k] = left[k][_send(pair, left[k]) :]
            data = _receive(pair, missing[k])
            seen[k].update(data)
            missing[k] -= len(data)
        return not any(missing)

    try:
        path.until(step, f"{total} bytes", PATIENCE_S)
    except TimeoutError as error:
        raise TimeoutError(f"{error}: {sum(missing)} missing") from None
    seconds = time.monotonic() - begin
    expected = hashlib.sha256(content).digest()
    assert all(one.digest() == expected for one in seen), "what arrived is not what was sent"
    return seconds


def _send(pair: Pair, data: memoryview) -> int:
    """Offer data; returns how many bytes were taken."""
    try:
        return int(pair.source.send(data[:_PIECE])) if data else 0
    except BlockingIOError:
        return 0


def _receive(pair: Pair, most: int) -> bytes:
    """What has arrived; ConnectionError at the end of the stream."""
    try:
        data = bytes(pair.target.recv(min(most, _PIECE))) if most else b""
    except BlockingIOError:
        return b""
    if most and not data:
        raise ConnectionError(f"a connection ended with {most} bytes missing")
    return data
