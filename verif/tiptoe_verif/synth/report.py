"""Table of synthesis results, and the baseline they are compared with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from ..paths import ROOT
from .flow import SynthResult

BASELINE = ROOT / "constraints" / "synth_baseline.json"

TOLERANCE = {"lut": 0.05, "ff": 0.05, "bram": 0.0, "dsp": 0.0, "fmax": 0.10}
"""How much worse than the baseline a figure may be, as a fraction. Placement alone moves Fmax by several percent."""

SLACK = {"lut": 20, "ff": 20}
"""And how much in absolute terms, for small blocks."""

GOAL_MHZ = {"6": 125.0, "8": 156.25}
"""Clock rates of the whole engine aimed at: 64 bits at 1 and 10 Gb/s Ethernet with room."""


def load_baseline(path: Path = BASELINE) -> dict[str, dict[str, Any]]:
    """The stored figures by block name; empty if there are none yet."""
    return json.loads(path.read_text()) if path.exists() else {}


def save_baseline(results: Sequence[SynthResult], path: Path = BASELINE) -> None:
    """Store the figures of ``results``; blocks not among them keep theirs."""
    known = load_baseline(path)
    for result in results:
        old = known.get(result.name, {}).get("fmax_mhz", {})
        known[result.name] = {
            "lut": result.lut,
            "ff": result.ff,
            "bram": result.bram,
            "dsp": result.dsp,
            "fmax_mhz": dict(sorted((old | result.fmax_mhz).items())),
        }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(sorted(known.items())), indent=1) + "\n")


def regressions(result: SynthResult, known: dict[str, Any]) -> list[str]:
    """What is worse than the baseline by more than the tolerance, and combinational loops, as text."""
    found = [f"combinational loop: {loop}" for loop in result.loops]
    for figure in ("lut", "ff", "bram", "dsp"):
        limit = known.get(figure, float("inf"))
        limit += max(limit * TOLERANCE[figure], SLACK.get(figure, 0))
        if (value := getattr(result, figure)) > limit:
            found.append(f"{figure} {value}, baseline {known[figure]}")
    for grade, value in result.fmax_mhz.items():
        before = known.get("fmax_mhz", {}).get(grade, 0.0)
        if value < before * (1 - TOLERANCE["fmax"]):
            found.append(f"Fmax at grade {grade} {value} MHz, baseline {before} MHz")
    return found


def make_table(results: Sequence[SynthResult], baseline: dict[str, dict[str, Any]]) -> Table:
    """Block, area, Fmax, each with its change against the baseline."""
    grades = sorted({grade for result in results for grade in result.fmax_mhz})
    table = Table(title="LFE5U-85F, every port registered, placed and routed alone")
    table.add_column("block")
    for head in ("LUT4", "FF", "block RAM", "DSP", *(f"Fmax g{grade} MHz" for grade in grades), "s"):
        table.add_column(head, justify="right")
    for result in results:
        known = baseline.get(result.name, {})
        row = [result.name]
        for figure in ("lut", "ff", "bram", "dsp"):
            row.append(_with_change(getattr(result, figure), known.get(figure), worse_up=True))
        for grade in grades:
            value = result.fmax_mhz.get(grade)
            text = "" if value is None else _with_change(value, known.get("fmax_mhz", {}).get(grade), worse_up=False)
            low = value is not None and value < GOAL_MHZ.get(grade, 0)
            row.append(f"[red]{text}[/red]" if low else text)
        table.add_row(*row, f"{result.seconds:.0f}")
    return table


def save_results(results: Sequence[SynthResult], path: Path) -> None:
    """All figures as JSON, slowest paths included; blocks measured earlier stay in the file."""
    known = json.loads(path.read_text()) if path.exists() else {}
    known.update({result.name: asdict(result) for result in results})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(known, indent=1) + "\n")


def _with_change(value: float, before: float | None, *, worse_up: bool) -> str:
    if before is None or value == before:
        return f"{value}"
    change = value - before
    colour = "yellow" if (change > 0) == worse_up else "green"
    number = f"{change:+.1f}" if isinstance(value, float) else f"{change:+d}"
    return f"{value} [{colour}]({number})[/{colour}]"
