"""Figures as a table, as JSON, and against the baseline."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from ..paths import BUILD, ROOT

RESULTS = BUILD / "bench.json"
BASELINE = ROOT / "constraints" / "bench_baseline.json"

TOLERANCE = 0.005
"""How much worse than the baseline a figure may be, as a fraction. Cycles are exact: the same engine gives the same."""

RATE, CYCLES, COUNT = "bytes/cycle", "cycles", "cycles/segment"
"""Units. Of the first more is better, of the others less."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured value.

    Attributes
    ----------
    engine : str
        Configuration and width of the engine.
    group : str
        Which table it stands in.
    name : str
        What was measured; one row of the table.
    connections : int
        How many took part; one column.
    unit : str
    value, bound : float
        The bound is what nobody could do better; 0: there is none.
    conditions : str
        Memory latency, line.
    note : str
        What the ports did meanwhile, for the JSON.
    tolerance : float
        How much worse than the baseline it may be, as a fraction.
    """

    engine: str
    group: str
    name: str
    connections: int
    unit: str
    value: float
    bound: float
    conditions: str
    note: str = ""
    tolerance: float = TOLERANCE

    @property
    def key(self) -> str:
        """Its name in the baseline."""
        return f"{self.engine} / {self.group} / {self.name} / {self.conditions} / {self.connections}"

    @property
    def of_bound(self) -> float:
        """Part of the bound that was reached, at most 1."""
        if not self.bound or not self.value:
            return 0.0
        return self.value / self.bound if self.unit == RATE else self.bound / self.value

    def worse_than(self, before: float) -> bool:
        """Whether it has become worse by more than its tolerance."""
        if self.unit == RATE:
            return self.value < before * (1 - self.tolerance)
        return self.value > before * (1 + self.tolerance)


def save(figures: Sequence[Figure], about: dict[str, Any], path: Path = RESULTS) -> None:
    """Write the figures as JSON."""
    rows = [
        {
            "engine": f.engine, "group": f.group, "name": f.name, "conditions": f.conditions,
            "connections": f.connections, "unit": f.unit,
            "value": round(f.value, 4), "bound": round(f.bound, 4), "of_bound": round(f.of_bound, 4), "note": f.note,
        }
        for f in figures
    ]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(about | {"figures": rows}, indent=1) + "\n")


def load_baseline(path: Path = BASELINE) -> dict[str, float]:
    """Stored values by key; empty if there are none yet."""
    return json.loads(path.read_text()) if path.exists() else {}


def save_baseline(figures: Iterable[Figure], path: Path = BASELINE) -> None:
    """Store the values; figures not among them keep theirs."""
    known = load_baseline(path) | {figure.key: round(figure.value, 4) for figure in figures}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")


def regressions(figures: Iterable[Figure], baseline: dict[str, float]) -> list[str]:
    """What has become worse than the baseline, as text."""
    return [
        f"{figure.key}: {figure.value:.3f} {figure.unit}, baseline {baseline[figure.key]:.3f}"
        for figure in figures
        if figure.key in baseline and figure.worse_than(baseline[figure.key])
    ]


def tables(figures: Sequence[Figure], baseline: dict[str, float]) -> list[Table]:
    """One table a group: a row for each name and its conditions, a column for each number of connections."""
    return [
        _table(group, [f for f in figures if f.group == group], baseline)
        for group in dict.fromkeys(f.group for f in figures)
    ]


def _table(group: str, figures: list[Figure], baseline: dict[str, float]) -> Table:
    counts = sorted({f.connections for f in figures})
    unit = figures[0].unit
    table = Table(title=f"{group}: {unit}, by number of connections", title_justify="left", box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("bound", justify="right")
    for count in counts:
        table.add_column(f"{count:,}", justify="right")
    table.add_column("above bound" if unit == CYCLES else "of bound", justify="right")
    rows: dict[str, dict[str, list[Figure]]] = {}
    for figure in figures:
        rows.setdefault(figure.conditions, {}).setdefault(figure.name, []).append(figure)
    for conditions, names in rows.items():
        table.add_row(f"[dim]{conditions}[/]")
        for name, row in names.items():
            cells = {f.connections: _cell(f, baseline.get(f.key)) for f in row}
            worst = min(f.of_bound for f in row)
            last = f"{row[0].value - row[0].bound:.0f}" if unit == CYCLES else f"{100 * worst:.1f} %"
            bound = _number(row[0].bound, unit)
            table.add_row(f"  {name}", bound, *(cells.get(count, "") for count in counts), last)
    return table


def _number(value: float, unit: str) -> str:
    return f"{value:.0f}" if unit == CYCLES else f"{value:.2f}"


def _cell(figure: Figure, before: float | None) -> str:
    text = _number(figure.value, figure.unit)
    if before is None or abs(figure.value - before) <= TOLERANCE * before:
        return text
    colour = "bold red" if figure.worse_than(before) else "green"
    return f"{text} [{colour}]({_number(before, figure.unit)})[/]"
