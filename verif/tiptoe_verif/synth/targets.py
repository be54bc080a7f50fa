"""Synthesis only, for other chips: what yosys makes of a block, without place and route (``--target``).

Comparable from chip to chip with care: a lookup table of Xilinx has six inputs, those of ECP5 and Gowin four.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from ..sim.toolchain import cached_dir, digest
from .flow import run_yosys, without_bypass

_TOP = "tiptoe"
_XILINX_LUTRAM = {
    "RAM32M": 4, "RAM64M": 4, "RAM32M16": 8, "RAM64M8": 8, "RAM32X1D": 2, "RAM64X1D": 2, "RAM128X1D": 4,
    "SRL16E": 1, "SRLC32E": 1,
}  # fmt: skip
"""Lookup tables of a slice that one takes (UG474 and UG574, chapter 2)."""
_XILINX = {
    "LUT": {f"LUT{inputs}": 1 for inputs in range(1, 7)} | {"INV": 1},
    "LUT as memory": _XILINX_LUTRAM,
    "FF": {"FDRE": 1, "FDSE": 1, "FDCE": 1, "FDPE": 1},
    "block RAM, kbit": {"RAMB18E1": 18, "RAMB18E2": 18, "RAMB36E1": 36, "RAMB36E2": 36},
    "multipliers": {"DSP48E1": 1, "DSP48E2": 1},
}


@dataclass(frozen=True)
class Target:
    """A family of chips.

    Attributes
    ----------
    title : str
    command : str
        yosys' synthesis command but for the top.
    cells : mapping
        Column of the table to how much of it each cell takes.
    """

    title: str
    command: str
    cells: Mapping[str, Mapping[str, int]]


TARGETS = {
    "xcup": Target("UltraScale+", "synth_xilinx -family xcup -flatten -abc9", _XILINX),
    "xc7": Target("7-series", "synth_xilinx -family xc7 -flatten -abc9", _XILINX),
    "ecp5": Target(
        "ECP5", "synth_ecp5 -abc9",
        {
            "LUT": {"LUT4": 1, "CCU2C": 2},
            "LUT as memory": {"TRELLIS_DPR16X4": 6},
            "FF": {"TRELLIS_FF": 1},
            "block RAM, kbit": {"DP16KD": 18, "PDPW16KD": 18},
            "multipliers": {"MULT18X18D": 1},
        },
    ),
    "gowin": Target(
        "Gowin GW1N, GW2A", "synth_gowin",
        {
            "LUT": {**{f"LUT{inputs}": 1 for inputs in range(1, 5)}, "ALU": 1},
            "LUT as memory": {"RAM16SDP1": 1, "RAM16SDP2": 2, "RAM16SDP4": 4},  # those that hold it
            "FF": {f"DFF{kind}": 1 for kind in ("", "E", "R", "RE", "S", "SE", "C", "CE", "P", "PE")},
            "block RAM, kbit": {"SP": 18, "SPX9": 18, "SDPB": 18, "SDPX9B": 18, "DPB": 18, "DPX9B": 18, "pROM": 18},
            "multipliers": {"MULT9X9": 1, "MULT18X18": 1, "MULT36X36": 4},
        },
    ),
}  # fmt: skip
_LATCHES = ("LDCE", "LDPE", "$dlatch", "DL", "DLE", "TRELLIS_LATCH")
_IGNORED = ("Lexer warning", "ABC: Warning: The network is combinational")
"""Warnings that speak of yosys' own files and of how it calls ABC."""


@dataclass
class Mapped:
    """What became of a block.

    Attributes
    ----------
    area : dict
        Column to amount.
    other : dict
        Cells that no column counts: buffers, carries, multiplexers.
    latches : int
        None, or something is wrong.
    warnings : dict
        yosys' warnings with numbers and names left out, and how often.
    problems : list of str
        What ``check`` has found: undriven wires, loops.
    seconds : float
    """

    area: dict[str, int]
    other: dict[str, int]
    latches: int
    warnings: dict[str, int]
    problems: list[str]
    seconds: float


def map_block(factory: Callable[[], Any], name: str, target: str) -> Mapped:
    """Synthesise a component for a family of :data:`TARGETS`; kept by a hash of the design. ToolError if yosys fails."""
    from tiptoe_hdl.verilog import module_rtlil

    chip = TARGETS[target]
    text = without_bypass(module_rtlil(factory(), _TOP))
    with cached_dir("target", f"{name}-{target}", digest(text, repr(chip))) as (folder, complete):
        if not complete:
            start = time.monotonic()
            (folder / "top.il").write_text(text)
            commands = ["read_rtlil top.il", "scratchpad -set abc9.verify 0", f"{chip.command} -top {_TOP}"]
            run_yosys(folder, [*commands, "tee -o stat.json stat -json", "tee -o check.txt check"])
            seconds = time.monotonic() - start
            (folder / "mapped.json").write_text(json.dumps(asdict(_read(folder, chip, seconds))))
        return Mapped(**json.loads((folder / "mapped.json").read_text()))


def _read(folder: Path, chip: Target, seconds: float) -> Mapped:
    cells: dict[str, int] = json.loads((folder / "stat.json").read_text())["design"]["num_cells_by_type"]
    area = {
        column: sum(cells.get(cell, 0) * each for cell, each in kinds.items()) for column, kinds in chip.cells.items()
    }
    counted = {cell for kinds in chip.cells.values() for cell in kinds} | {"$scopeinfo"}
    warnings = Counter(
        re.sub(r"\d+", "N", re.sub(r"[\\$]\S+|\S+\.", "X", line)).strip()
        for line in (folder / "yosys.log").read_text().splitlines()
        if "arning:" in line and not line.startswith(_IGNORED)
    )
    return Mapped(
        area=area,
        other={cell: number for cell, number in sorted(cells.items()) if cell not in counted},
        latches=sum(cells.get(cell, 0) for cell in _LATCHES),
        warnings=dict(warnings),
        problems=[line for line in (folder / "check.txt").read_text().splitlines() if line.startswith("Warning:")],
        seconds=seconds,
    )


def make_table(rows: Mapping[tuple[str, str], Mapped]) -> Table:
    """A row a block and family."""
    columns = list(_XILINX)
    table = Table("block", "family", *columns, "minutes", box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for (name, target), mapped in rows.items():
        figures = [f"{mapped.area[column]:,}" for column in columns]
        table.add_row(name, f"{TARGETS[target].title} ({target})", *figures, f"{mapped.seconds / 60:.1f}")
    return table
