"""``python -m tiptoe_verif.synth [BLOCK...]``: area and clock rate of blocks, alone, on ECP5; or area alone on other chips."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Annotated

import typer

from ..console import console
from ..paths import BUILD
from ..sim.toolchain import ToolError
from .blocks import BLOCKS, Block
from .flow import SynthResult, synth_block
from .report import load_baseline, make_table, regressions, save_baseline, save_results
from .targets import TARGETS, Mapped, map_block
from .targets import make_table as targets_table

Task = tuple[str, int | None, int]
"""Block, speed grade (None: area alone, no place and route), placement seed."""


def measure(task: Task) -> SynthResult:
    """Run the tools for one block and one speed grade, or none."""
    name, grade, seed = task
    grades = [] if grade is None else [grade]
    block = next(block for block in BLOCKS if block.name == name)

    def log(step: str) -> None:
        print(f"{name}: {step}", flush=True)

    return synth_block(block.factory, name, by_parts=block.whole, grades=grades, seed=seed, log=log)


def measure_all(tasks: list[Task], jobs: int) -> tuple[list[SynthResult], list[str]]:
    """Results by block, speed grades joined, and what failed."""
    joined: dict[str, SynthResult] = {}
    failed: dict[str, str] = {}
    with ProcessPoolExecutor(jobs) as pool:
        running = {pool.submit(measure, task): task for task in tasks}
        for done, future in enumerate(as_completed(running), 1):
            name, grade, _ = running[future]
            try:
                result = future.result()
            except ToolError as error:
                failed[name] = f"{name}: {error}"
                continue
            except Exception as error:  # a block that does not elaborate must not stop the others
                failed[name] = f"{name}: {type(error).__name__}: {error}"
                continue
            speed = f", speed grade {grade}: {result.fmax_mhz[str(grade)]} MHz" if grade else f": {result.lut} LUT"
            print(f"[{done}/{len(tasks)}] {name}{speed}", flush=True)
            if name in joined:
                joined[name].fmax_mhz |= result.fmax_mhz
                joined[name].critical |= result.critical
                joined[name].loops += [loop for loop in result.loops if loop not in joined[name].loops]
                joined[name].seconds += result.seconds
            else:
                joined[name] = result
    order = [block.name for block in BLOCKS]
    results = sorted(joined.values(), key=lambda result: order.index(result.name))
    return [result for result in results if result.name not in failed], list(failed.values())


def map_for(target: str, blocks: Sequence[Block]) -> int:
    """Synthesise blocks for other chips and print what became of them; the exit status."""
    chosen = list(TARGETS) if target == "all" else [target]
    if chosen[0] not in TARGETS:
        sys.exit(f"error: no target {target!r}: there are all, {', '.join(TARGETS)}")
    rows: dict[tuple[str, str], Mapped] = {}
    for chip in chosen:
        for block in blocks:
            print(f"{block.name}: {TARGETS[chip].title}", flush=True)
            try:
                rows[block.name, chip] = map_block(block.factory, block.name, chip)
            except ToolError as error:
                sys.exit(f"error: {block.name}: {error}")
    console.print(targets_table(rows))
    failed = 0
    for (name, chip), mapped in rows.items():
        for warning, times in mapped.warnings.items():
            print(f"{name} for {chip}: {times} times: {warning}")
        troubles = [f"{mapped.latches} latches"] * bool(mapped.latches) + mapped.problems
        for trouble in troubles:
            print(f"error: {name} for {chip}: {trouble}", file=sys.stderr)
        failed |= bool(troubles)
    return int(failed)


def main(
    blocks: Annotated[
        list[str] | None, typer.Argument(help="Names of blocks; all but the whole engine if none.")
    ] = None,
    grades: Annotated[str, typer.Option(help="Speed grades, comma separated.")] = "6,8",
    seed: Annotated[int, typer.Option(help="Placement seed.")] = 1,
    jobs: Annotated[int, typer.Option(help="Tools running at once.")] = 1,
    whole: Annotated[
        bool, typer.Option("--all", help="Whole engines too: their area, no place and route (8 minutes each).")
    ] = False,
    area: Annotated[bool, typer.Option("--area", help="Area alone, no place and route.")] = False,
    baseline: Annotated[bool, typer.Option("--baseline", help="Fail when worse than the baseline.")] = False,
    update: Annotated[bool, typer.Option("--update", help="Store the figures as the new baseline.")] = False,
    paths: Annotated[bool, typer.Option("--paths", help="Print the slowest path of each block.")] = False,
    target: Annotated[
        str,
        typer.Option(help="Synthesis only, for xcup, xc7, ecp5, gowin, or all of them; the whole engine if no block."),
    ] = "",
    names: Annotated[bool, typer.Option("--list", help="List the blocks.")] = False,
) -> None:
    """Synthesise, place and route blocks one by one; report LUT, FF, block RAM and Fmax."""
    known = {block.name: block for block in BLOCKS}
    if names:
        print("\n".join(f"{block.name}{' (whole engine)' if block.whole else ''}" for block in BLOCKS))
        return
    if unknown := [name for name in blocks or [] if name not in known]:
        sys.exit(f"error: no block {unknown[0]!r}; --list shows them")
    if target:
        raise typer.Exit(map_for(target, [known[name] for name in blocks or ["engine"]]))
    chosen = [known[name] for name in blocks] if blocks else [b for b in BLOCKS if whole or not b.whole]
    # The second speed grade of a block waits for the first one's netlist, so they should not start together.
    wanted = [int(grade) for grade in grades.split(",")]
    mapped = [block for block in chosen if area or (block.whole and not blocks)]
    routed = sorted((block for block in chosen if block not in mapped), key=lambda block: not block.whole)
    tasks: list[Task] = [(block.name, None, seed) for block in mapped]
    tasks += [(block.name, grade, seed) for grade in wanted for block in routed]
    results, failed = measure_all(tasks, jobs)

    for result in results if paths else []:
        for grade, steps in sorted(result.critical.items()):
            print(f"{result.name}, slowest path at grade {grade}:")
            print("\n".join(f"  {step}" for step in steps))
    stored = load_baseline()
    if results:
        console.print(make_table(results, stored))
        save_results(results, BUILD / "synth.json")
        print(f"figures and slowest paths: {BUILD / 'synth.json'}")
    for result in results:
        compared = stored.get(result.name, {}) if baseline else {}
        failed += [f"{result.name}: {trouble}" for trouble in regressions(result, compared)]
    if update and not failed:
        save_baseline(results)
    for line in failed:
        print(f"error: {line}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
