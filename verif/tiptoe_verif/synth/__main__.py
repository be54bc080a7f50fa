"""``python -m tiptoe_verif.synth [BLOCK...]``: area and clock rate of blocks, alone, on ECP5."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from ..paths import BUILD
from ..sim.toolchain import ToolError
from .blocks import BLOCKS
from .flow import SynthResult, synth_block
from .report import load_baseline, make_table, regressions, save_baseline, save_results


def main(
    blocks: Annotated[
        list[str] | None, typer.Argument(help="Names of blocks; all but the whole engine if none.")
    ] = None,
    grades: Annotated[str, typer.Option(help="Speed grades, comma separated.")] = "6,8",
    seed: Annotated[int, typer.Option(help="Placement seed.")] = 1,
    whole: Annotated[bool, typer.Option("--all", help="The whole engine too (many minutes).")] = False,
    baseline: Annotated[bool, typer.Option("--baseline", help="Fail when worse than the baseline.")] = False,
    update: Annotated[bool, typer.Option("--update", help="Store the figures as the new baseline.")] = False,
    paths: Annotated[bool, typer.Option("--paths", help="Print the slowest path of each block.")] = False,
    names: Annotated[bool, typer.Option("--list", help="List the blocks.")] = False,
) -> None:
    """Synthesise, place and route blocks one by one; report LUT, FF, block RAM and Fmax."""
    known = {block.name: block for block in BLOCKS}
    if names:
        print("\n".join(f"{block.name}{' (whole engine)' if block.whole else ''}" for block in BLOCKS))
        return
    if unknown := [name for name in blocks or [] if name not in known]:
        sys.exit(f"error: no block {unknown[0]!r}; --list shows them")
    chosen = [known[name] for name in blocks] if blocks else [b for b in BLOCKS if whole or not b.whole]

    console = Console()
    results: list[SynthResult] = []
    failed: list[str] = []
    for number, block in enumerate(chosen, 1):

        def log(step: str, where: str = f"[{number}/{len(chosen)}] {block.name}") -> None:
            print(f"{where}: {step}", flush=True)

        try:
            result = synth_block(
                block.factory, block.name, no_collision=block.no_collision,
                grades=[int(grade) for grade in grades.split(",")], seed=seed, log=log,
            )  # fmt: skip
        except ToolError as error:
            failed.append(f"{block.name}: {error}")
            continue
        results.append(result)
        if paths:
            for grade, steps in result.critical.items():
                print(f"{block.name}, slowest path at grade {grade}:")
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
