"""Runs yosys' SAT solver over a component with ``Assert`` and ``Assume`` statements: k-induction, or a search from reset."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from amaranth.back import rtlil

from ..paths import BUILD
from ..sim.toolchain import ToolError


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    ``verdict``: "proved" (for ever, from reset), "refuted" (a run from reset breaks an assertion; ``trace`` shows it) or
    "open" (neither within the steps allowed). ``steps``: cycles looked at.
    """

    verdict: Literal["proved", "refuted", "open"]
    steps: int
    trace: Path | None = None


def prove(component: Any, name: str, *, steps: int, search: int = 0) -> Outcome:
    """Prove every assertion of ``component`` by k-induction with k up to ``steps``.

    With ``search``, look instead for the shortest run from reset that breaks one, of at most so many cycles: "open" is
    then no proof. Its ``rst`` is kept low, and flip-flops begin with their initial values.
    """
    folder = BUILD / "formal" / name
    folder.mkdir(parents=True, exist_ok=True)
    trace = folder / "counterexample.vcd"
    trace.unlink(missing_ok=True)
    (folder / "top.il").write_text(rtlil.convert(component, name="top", emit_src=False))
    how = f"-tempinduct-baseonly -maxsteps {search}" if search else f"-tempinduct -maxsteps {steps}"
    commands = [
        "read_rtlil top.il",
        "hierarchy -top top",
        "proc",
        "flatten",
        "memory",
        "chformal -lower",
        "async2sync",
        "dffunmap",
        "opt -fast",
        f"sat {how} -prove-asserts -set-assumes -set rst 0 -show-regs -show-inputs -dump_vcd {trace.name}",
    ]
    script = "from pyosys import libyosys as ys\nd = ys.Design()\n"
    script += "".join(f"ys.run_pass({command!r}, d)\n" for command in commands)
    process = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    log = process.stdout
    (folder / "yosys.log").write_text(log)
    if process.returncode != 0:
        raise ToolError(f"yosys failed ({folder / 'yosys.log'}):\n" + "\n".join(log.splitlines()[-8:]))
    looked_at = max((int(step) for step in re.findall(r"\[(?:base case|induction step) (\d+)\]", log)), default=0)
    if "model found for base case: FAIL!" in log:
        return Outcome("refuted", looked_at, trace)
    if "Induction step proven: SUCCESS!" in log:
        return Outcome("proved", looked_at)
    return Outcome("open", looked_at)
