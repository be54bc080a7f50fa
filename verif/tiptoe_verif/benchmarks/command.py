"""What `tiptoe bench` does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from tiptoe_hdl.config import CONFIGS, EngineConfig

from ..console import build_progress, console, errors
from ..live.namespace import why_no_tap
from ..live.summary import short_path
from ..native.harness import build_engine
from . import flood_table, goodput_table, report, speed
from .run import GROUPS, Plan, figures

SPEED, FLOODS, GOODPUT = "speed", "floods", "goodput"
USUAL = (*GROUPS, FLOODS, SPEED)
"""What is measured where nothing is asked for."""
ALL = (*USUAL, GOODPUT)
"""Everything that can be asked for. Goodput takes a quarter of an hour of the wall's clock."""

_SPEED_BYTES = 1 << 18


def bench(config: EngineConfig, groups: Sequence[str] = USUAL, *, quick: bool = False, update: bool = False) -> int:
    """Measure, print, write build/bench.json, compare with the baseline; returns the exit status.

    Parameters
    ----------
    groups
        Of ALL.
    quick
        Fewer frames and connections; not compared with the baseline.
    update
        Make what was measured the new baseline.
    """
    wanted = tuple(group for group in GROUPS if group in groups)
    plan = Plan(config=config, groups=wanted)
    if quick:
        plan = Plan(config=config, groups=wanted, frames=100, small=400, samples=3, counts=(1, config.connections))
    found: list[report.Figure] = []
    about: dict[str, Any] = {"engine": plan.engine, "quick": quick}
    if wanted:
        with build_progress() as progress:
            library = build_engine(config, progress=progress)
        with console.status("") as status:
            found = figures(plan, status.update, library=library)
    if SPEED in groups:
        about["simulation"] = _speed(config, _SPEED_BYTES // 8 if quick else _SPEED_BYTES)
    floods = flood_table.measure(config, quick=quick) if FLOODS in groups else []
    if floods:
        about["floods"] = [rigged.as_json() for rigged in floods]
    lines = goodput_table.measure(config, quick=quick) if GOODPUT in groups else None
    if lines:
        about["goodput"] = goodput_table.as_json(lines)
    baseline = {} if quick else report.load_baseline()
    for table in report.tables(found, baseline):
        console.print(table, "")
    if SPEED in groups:
        console.print(_speed_table(about["simulation"]), "")
    for table in flood_table.tables(floods):
        console.print(table, "")
    if lines:
        console.print(goodput_table.table(lines, goodput_table.load_baseline()), "")
    report.save(found, about)
    console.print(f"written to {short_path(report.RESULTS)}")
    if update:
        report.save_baseline(found)
        console.print(f"baseline written to {short_path(report.BASELINE)}")
        if lines:
            goodput_table.save_baseline(lines)
            console.print(f"baseline written to {short_path(goodput_table.BASELINE)}")
        return 0
    worse = report.regressions(found, baseline) + flood_table.faults(floods)
    worse += goodput_table.faults(lines or [])
    for line in worse:
        errors.print(f"[bold red]worse:[/] {line}")
    if worse:
        errors.print("where that is meant: tiptoe bench --update-baseline")
    return 1 if worse else 0


def _speed(config: EngineConfig, total: int) -> dict[str, Any]:
    """Simulation speeds, for the JSON."""
    with build_progress() as progress:
        native = speed.native(config, total, progress=progress)
        cocotb = speed.under_cocotb(config, total, progress=progress)
    found = {
        "traffic": f"{total // 1024} KiB to an echo service and back, captured and checked",
        "native": native.as_json(), "cocotb": cocotb.as_json(), "ratio": round(native.rate / cocotb.rate, 1),
        "idle": speed.idle(config, total).as_json(),
    }  # fmt: skip
    # A live session knows its engine by name.
    name = next((name for name, known in CONFIGS.items() if known == config), None)
    reason = why_no_tap() if name else "the configuration has no name"
    if name and reason is None:
        found["live"] = speed.live(name, 16 * total).as_json()
    else:
        found["no_live"] = reason
    return found


def _speed_table(simulation: dict[str, Any]) -> Table:
    table = Table(title="simulation: " + simulation["traffic"], title_justify="left", box=None, pad_edge=False)
    for heading in ("", "engine cycles", "CPU seconds", "cycles per CPU second"):
        table.add_column(heading, justify="right" if heading else "left")
    names = {"native": "native", "cocotb": "cocotb", "idle": "native, idle", "live": "live, the kernel downloads"}
    for key, name in names.items():
        if key in simulation:
            row = simulation[key]
            table.add_row(name, f"{row['cycles']:,}", f"{row['cpu_s']:.2f}", f"{row['cycles_per_s']:,}")
    if "no_live" in simulation:
        table.add_row(f"no live session ({simulation['no_live']})")
    table.add_row("native to cocotb", "", "", f"{simulation['ratio']}")
    return table
