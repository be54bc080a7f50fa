"""The plan of `tiptoe bench`: which figures, under which conditions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tiptoe_hdl.config import EngineConfig

from ..sim.toolchain import Progress
from . import latency, segments, throughput
from .connection import Connection
from .report import COUNT, CYCLES, RATE, TOLERANCE, Figure
from .rig import Rig

NEAR, FAR = 20, 125
"""Memory latencies in cycles; the second one is a microsecond at 125 MHz."""

ALIGNED, ODD = (64, 0), (64, 3)
"""Ring positions, modulo 64, at which a measurement of full segments begins."""

GROUPS = ("throughput", "segments", "latency")
"""What can be measured."""

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured.

    Attributes
    ----------
    config : EngineConfig
    frames : int
        Full segments of each direction in a figure.
    small : int
        Minimum-size segments in a figure.
    samples : int
        Of each latency.
    counts : tuple of int
        Numbers of connections; empty: 1, 16, 64 and all.
    groups : tuple of str
        Of GROUPS.
    """

    config: EngineConfig
    frames: int = 400
    small: int = 2000
    samples: int = 9
    counts: tuple[int, ...] = ()
    groups: tuple[str, ...] = GROUPS

    def __post_init__(self) -> None:
        if unknown := set(self.groups) - set(GROUPS):
            raise ValueError(f"no group of figures {sorted(unknown)}: there are {', '.join(GROUPS)}")
        every = self.config.connections
        if not self.counts:
            object.__setattr__(self, "counts", (*(n for n in (1, 16, 64) if n < every), every))

    @property
    def engine(self) -> str:
        """What is measured."""
        return f"{self.config.name}, {self.config.data_width} bits"


def figures(
    plan: Plan, report: Report, *, library: Path | None = None, progress: Progress | None = None
) -> list[Figure]:
    """All figures of a plan; ``report`` is told what is measured next."""
    found: list[Figure] = []
    many = [
        measure for group, measure in (("throughput", _throughput), ("segments", _segments)) if group in plan.groups
    ]
    if many:
        report("opening connections")
        with Rig(plan.config, max(plan.counts), library=library, progress=progress) as rig:
            for measure in many:
                found += list(measure(plan, rig, report))
    if "latency" in plan.groups:
        with Rig(plan.config, 1, spare=4, library=library, progress=progress) as rig:
            found += list(_latency(plan, rig, report))
    return found


def _conditions(rig: Rig, memory: int, line: float = 0) -> str:
    """Sets latency and line (a line as fast as the bus still has preamble, FCS and gap), and names them."""
    rig.set_memory(memory)
    rig.set_line(line)
    return f"memory {memory}" + (f", line {line:g} B/cycle" if line else "")


def _throughput(plan: Plan, rig: Rig, report: Report) -> Iterator[Figure]:
    width = rig.harness.data_bytes
    group = f"full segments ({rig.mss} bytes)"
    for memory, line, places in (
        (NEAR, 0, (ALIGNED, ODD)), (FAR, 0, (ALIGNED, ODD)), (NEAR, width, (ODD,)),
    ):  # fmt: skip
        conditions = _conditions(rig, memory, line)
        bound = throughput.line_bound(width, line, rig.mss) if line else throughput.bound(width, rig.mss)
        for place in places:
            position = "aligned" if place is ALIGNED else "odd"
            for count in plan.counts:
                report(f"full segments, {position}, {conditions}, {count} connections")
                chosen = rig.connections[:count]
                rig.align(chosen, *place)
                for name, transmit, receive in (("transmit", 1, 0), ("receive", 0, 1), ("both", 1, 1)):
                    rates = throughput.bulk(
                        rig, chosen, transmit=bool(transmit), receive=bool(receive), frames=plan.frames
                    )
                    note = f"rx stalls {rates.rx_stalls:.2%}, tx gaps {rates.tx_gaps:.2%}"
                    for way, value in (("transmit", rates.transmit), ("receive", rates.receive)):
                        if value:
                            label = name if name != "both" else f"both at once: {way}"
                            yield Figure(
                                engine=plan.engine, group=group, name=f"{label}, {position}", connections=count,
                                unit=RATE, value=value, bound=bound, conditions=conditions, note=note,
                            )  # fmt: skip


_Measure = tuple[str, Callable[[Rig, Sequence[Connection], int], segments.Costs], tuple[str, ...]]

_SEGMENTS: tuple[_Measure, ...] = (
    ("receive: 1 byte of data", segments.receive_data, ("receive",)),
    ("receive: pure ACK", segments.receive_acks, ("receive",)),
    ("receive data, transmit its ACK", segments.transmit_acks, ("receive", "transmit")),
)


_BOTH_WAYS, _CRITICAL = "1 byte both ways at once", 0.2
"""A row, and its tolerance: both streams run at exactly the bound's pace. A segment and a doorbell of one connection that meet
cost it a pass, and whether that wears off depends on the phase, so that a change anywhere moves such a figure between 8 and
9.3 cycles."""


def _segments(plan: Plan, rig: Rig, report: Report) -> Iterator[Figure]:
    width = rig.harness.data_bytes
    for memory, line in ((NEAR, 0), (FAR, 0), (NEAR, width)):
        conditions = _conditions(rig, memory, line)
        bound = segments.line_bound(width, line) if line else segments.bound(width)
        paced: tuple[_Measure, ...] = (
            ("transmit: 1 byte by doorbell", partial(segments.transmit_data, pace=bound), ("transmit",)),
            (_BOTH_WAYS, partial(segments.both, pace=bound), ("receive", "transmit")),
        )
        for count in plan.counts:
            for name, measure, ways in (*_SEGMENTS, *paced):
                report(f"minimum segments, {name}, {conditions}, {count} connections")
                costs = measure(rig, rig.connections[:count], plan.small)
                for way in ways:
                    value = costs.receive if way == "receive" else costs.transmit
                    yield Figure(
                        engine=plan.engine, group="minimum-size segments (60 bytes)",
                        name=name if len(ways) == 1 else f"{name}: {way}", connections=count, unit=COUNT,
                        value=value, bound=bound, conditions=conditions,
                        note=f"{costs.received} frames in, {costs.transmitted} out",
                        tolerance=_CRITICAL if name == _BOTH_WAYS and not line else TOLERANCE,
                    )  # fmt: skip


def _latency(plan: Plan, rig: Rig, report: Report) -> Iterator[Figure]:
    width = rig.harness.data_bytes
    connection = rig.connections[0]
    for memory in (1, NEAR, FAR):
        conditions = _conditions(rig, memory)
        report(f"latencies, {conditions}")
        rig.align([connection], *ALIGNED)
        measured: list[tuple[str, float, float]] = [
            ("last word of SYN → first word of SYN,ACK", latency.syn(rig, plan.samples), 1)
        ]
        for length in (1, rig.mss):
            rig.align([connection], *ALIGNED)
            what = f"last word of {length} bytes of data → first word of its ACK"
            measured.append((what, latency.data(rig, connection, length, plan.samples), 1))
        for length in (1, rig.mss):
            rig.align([connection], *ALIGNED)
            what = f"doorbell → first word of a frame with {length} bytes"
            bound = latency.read_bound(memory, width, length)
            measured.append((what, latency.doorbell(rig, connection, length, plan.samples), bound))
        for name, value, limit in measured:
            yield Figure(
                engine=plan.engine, group="latency", name=name, connections=1, unit=CYCLES, value=value, bound=limit,
                conditions=conditions,
            )  # fmt: skip
