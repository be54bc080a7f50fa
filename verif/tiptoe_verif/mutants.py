"""Does a test fail when the behaviour is broken? Mutations of the driver, one or more for each row of the contract.

``python -m tiptoe_verif.mutants`` applies each mutation of tests/mutants.toml to a copy of the driver, runs the tests of its
row against the copy, and expects one to fail. Exit status 1 when a mutation survives, or could not be tried.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from .console import console, errors
from .paths import ROOT

DRIVER = Path("driver") / "tiptoe_driver"
TEST_S, ALL_S = 60, 600
"""Seconds for one test, which fails behind that, and for all tests of a mutation."""
_SIMULATED = "driver/on_engine/"
"""Folder of the tests that need the simulated engine: not run by default."""


@dataclass(frozen=True)
class Mutant:
    """One broken behaviour.

    Attributes
    ----------
    row : str
        Contract row.
    breaks : str
        What is broken.
    file : str
        Below the driver's folder.
    old, new : str
        The text, which stands in the file exactly once, and what takes its place.
    tests : tuple of str
        Below tests/, in pytest's notation.
    """

    row: str
    breaks: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def places(self, root: Path = ROOT) -> int:
        """How often the old text stands in its file: 1 when the mutation still fits."""
        return (root / DRIVER / self.file).read_text().count(self.old)

    def apply(self, folder: Path) -> None:
        """Break the copy of the driver in ``folder``; SyntaxError when the new text is no Python."""
        path = folder / self.file
        text = path.read_text().replace(self.old, self.new)
        compile(text, str(path), "exec")
        path.write_text(text)


def quick_tests(plan: dict[str, Any], row: str) -> list[str]:
    """The row's tests that need only the driver."""
    tests = plan["contract"].get(row, {}).get("tests", [])
    return [test for test in tests if test.startswith("driver/") and not test.startswith(_SIMULATED)]


def load(root: Path = ROOT) -> list[Mutant]:
    """The mutations of tests/mutants.toml, with the tests of their rows; KeyError for an entry that lacks something."""
    plan = tomllib.loads((root / "tests" / "testplan.toml").read_text())
    entries = tomllib.loads((root / "tests" / "mutants.toml").read_text())["mutant"]
    return [Mutant(e["row"], e["breaks"], e["file"], e["old"], e["new"],
                   tuple(e.get("tests") or quick_tests(plan, e["row"])))
            for e in entries]  # fmt: skip


def run_tests(folder: Path, tests: tuple[str, ...], root: Path = ROOT) -> tuple[int, str]:
    """Run tests with the driver that lies in ``folder``/tiptoe_driver until one fails; pytest's exit status and what it
    said, or -1 after ALL_S."""
    search = [str(folder), *(str(root / part) for part in ("hdl", "driver", "verif"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(search), "PYTHONDONTWRITEBYTECODE": "1"}
    options = ["-q", "-x", "-p", "no:cacheprovider", "-o", "addopts=", "--import-mode=importlib", "--tb=no", "-rf",
               f"--timeout={TEST_S}"]  # fmt: skip
    command = [sys.executable, "-m", "pytest", *options, *(f"tests/{test}" for test in tests)]
    try:
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=ALL_S)
    except subprocess.TimeoutExpired:
        return -1, "no end"
    return done.returncode, done.stdout + done.stderr


def try_mutant(mutant: Mutant, root: Path = ROOT) -> tuple[bool, str]:
    """Whether a test failed, and which; or why none could."""
    if (places := mutant.places(root)) != 1:
        return False, f"its old text stands {places} times in {mutant.file}: bring tests/mutants.toml up to date"
    if not mutant.tests:
        return False, f"row {mutant.row} has no tests in tests/driver"
    with tempfile.TemporaryDirectory(prefix="tiptoe-mutant-") as folder:
        copy = Path(folder) / "tiptoe_driver"
        shutil.copytree(root / DRIVER, copy, ignore=shutil.ignore_patterns("__pycache__"))
        mutant.apply(copy)
        status, said = run_tests(Path(folder), mutant.tests, root)
    failed = [
        line.removeprefix("FAILED ").partition(" - ")[0] for line in said.splitlines() if line.startswith("FAILED ")
    ]
    if status == 1 and failed:
        return True, failed[0].partition("::")[2]
    if status == 0:
        return False, "no test failed"
    return False, f"the tests did not run (pytest's status {status}): {said.strip()[-400:]}"


def main(rows: Annotated[list[str] | None, typer.Argument(help="Contract rows; all if none.")] = None) -> None:
    """Break the driver row by row, and see that a test notices."""
    mutants = load()
    if unknown := set(rows or ()) - {mutant.row for mutant in mutants}:
        errors.print(f"error: no mutation of {', '.join(sorted(unknown))} in tests/mutants.toml")
        raise typer.Exit(2)
    bad = 0
    for mutant in mutants:
        if rows and mutant.row not in rows:
            continue
        killed, what = try_mutant(mutant)
        bad += not killed
        verdict = "[green]found by[/green]" if killed else "[red]SURVIVES:[/red]"
        console.print(f"{mutant.row:<9} {escape(mutant.breaks)}\n          {verdict} {escape(what)}")
    console.print(f"{bad} of the mutations survive" if bad else "every mutation is found")
    raise typer.Exit(bool(bad))


if __name__ == "__main__":
    typer.run(main)
