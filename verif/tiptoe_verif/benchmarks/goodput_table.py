"""`tiptoe bench --only goodput`: the engine's goodput beside Linux's, as a table, as JSON, and beside what it was.

Seconds of the wall's clock are no regression: nothing here is compared with a threshold. What fails is data that does not arrive.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from tiptoe_hdl.config import TINY, EngineConfig

from ..console import build_progress, console
from ..live.namespace import why_no_tap
from ..paths import ROOT
from . import goodput
from .goodput import QUEUE, RATE, SEEDS, Point, Run
from .goodput_paths import EnginePath, LinuxPath

BASELINE = ROOT / "constraints" / "goodput_baseline.json"
WAYS = {"engine receives": True, "engine sends": False}
"""And whether data goes to the engine."""
ENOUGH = 2 * RATE / (1514 / 190)
"""Cycles a second: full segments at twice the line's rate (190 words of 64 bits each). Below, the simulation may be the limit."""
NOTABLE = 0.25
"""A ratio that differs by more from the baseline's stands out."""


@dataclass(frozen=True)
class Row:
    """One point, one way: our run, and that of Linux with itself."""

    way: str
    point: Point
    ours: Run
    linux: Run

    @property
    def key(self) -> str:
        """Its name in the baseline."""
        return f"{self.way} / {self.point.name}"

    @property
    def ratio(self) -> float:
        """Ours to Linux's; 0: there is none."""
        return self.ours.goodput / self.linux.goodput if self.linux.goodput else 0.0


def small(config: EngineConfig) -> EngineConfig:
    """The engine that is measured: TCP and width of ``config``, tables as small as eight connections allow. A tick looks at every
    connection, so large ones take the simulation's time."""
    tcp = ("data_width", "ooo_intervals", "congestion", "timestamps", "pacing")
    return TINY.with_(**{name: getattr(config, name) for name in tcp})


def measure(config: EngineConfig, *, quick: bool = False) -> list[Row]:
    """All rows; none, and a line that says why, where there is no TAP interface."""
    reason = why_no_tap()
    if reason is not None:
        console.print(f"no goodput: {reason}", "")
        return []
    with build_progress() as progress:
        EnginePath(small(config), progress).close()
    with console.status("") as status:
        return rows(small(config), goodput.points(quick=quick), SEEDS[:1] if quick else SEEDS, status.update)


def rows(
    config: EngineConfig, wanted: Iterable[Point], seeds: Sequence[int], report: Callable[[str], None]
) -> list[Row]:
    """The pairs take turns at each point, so that all see the same load of the machine."""
    found: list[Row] = []
    with ExitStack() as stack:
        linux = stack.enter_context(LinuxPath())
        engine: EnginePath | None = None
        for point in wanted:
            report(f"goodput: Linux: {point.name}")
            theirs = goodput.measure(linux, point, seeds)
            if theirs.fault:
                linux.close()
                linux = stack.enter_context(LinuxPath())
            for way, to_engine in WAYS.items():
                report(f"goodput: {way}: {point.name}")
                if engine is None:
                    engine = stack.enter_context(EnginePath(config))
                engine.to_engine = to_engine
                found.append(Row(way, point, goodput.measure(engine, point, seeds), theirs))
                if found[-1].ours.fault:  # a new engine for the next point
                    engine.close()
                    engine = None
    return sorted(found, key=lambda row: list(WAYS).index(row.way))


def table(found: Sequence[Row], before: dict[str, dict[str, float]]) -> Table:
    """For people, beside the baseline ``before``."""
    title = f"goodput in kB/s, line of {RATE // 1000} kB/s with a queue of {QUEUE} frames"
    made = Table(title=title, title_justify="left", box=None, pad_edge=False)
    made.add_column("", no_wrap=True)
    for heading in ("ours", "Linux", "ratio", "was", "sent again", "Linux's", "time-outs", "cycles/s"):
        made.add_column(heading, justify="right", no_wrap=True)
    way = ""
    for row in found:
        if row.way != way:
            way = row.way
            made.add_row(f"[dim]{way}[/]")
        was = before.get(row.key, {}).get("ratio")
        made.add_row(
            f"  {row.point.name}", _goodput(row.ours), _goodput(row.linux), _ratio(row.ratio, was),
            "" if was is None else f"{was:.2f}", f"{row.ours.retransmits}", f"{row.linux.retransmits}",
            "" if row.ours.timeouts < 0 else f"{row.ours.timeouts}", _speed(row.ours),
        )  # fmt: skip
    return made


def _goodput(run: Run) -> str:
    return f"[bold red]none[/] ({run.lost} lost)" if run.fault else f"{run.goodput / 1000:.0f}"


def _speed(run: Run) -> str:
    """Cycles a second of the wall's clock; red where the simulation may have been the limit."""
    speed = run.cycles / run.seconds if run.seconds else 0.0
    return f"{speed:,.0f}" if speed >= ENOUGH else f"[bold red]{speed:,.0f}[/]"


def _ratio(ratio: float, was: float | None) -> str:
    text = f"{ratio:.2f}"
    if was is None or abs(ratio - was) <= NOTABLE * was:
        return text
    return f"[{'green' if ratio > was else 'yellow'}]{text}[/]"


def faults(found: Iterable[Row]) -> list[str]:
    """What did not arrive."""
    return [f"goodput, {row.key}: {row.ours.fault}" for row in found if row.ours.fault]


def as_json(found: Iterable[Row]) -> list[dict[str, Any]]:
    """For build/bench.json."""
    return [
        {
            "way": row.way, "point": row.point.name, "bytes": row.point.total, "ratio": round(row.ratio, 3),
            "ours": _json(row.ours), "linux": _json(row.linux),
        }
        for row in found
    ]  # fmt: skip


def _json(run: Run) -> dict[str, Any]:
    rounded = {"seconds": round(run.seconds, 3), "gap_ms": round(run.gap_ms, 1)}
    return asdict(run) | rounded | {"goodput": round(run.goodput)}


def load_baseline(path: Path = BASELINE) -> dict[str, dict[str, float]]:
    """Stored figures by row; empty if there are none yet."""
    return json.loads(path.read_text()) if path.exists() else {}


def save_baseline(found: Iterable[Row], path: Path = BASELINE) -> None:
    """Store goodput in bytes a second and ratios; rows not among them, and rows with a fault, keep theirs."""
    known = load_baseline(path)
    for row in found:
        if not row.ours.fault and not row.linux.fault:
            figures = {"ours": round(row.ours.goodput), "linux": round(row.linux.goodput), "ratio": round(row.ratio, 2)}
            known[row.key] = figures
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")
