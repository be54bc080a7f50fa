"""The page about a build: what it uses of the chip, its clocks, where it lies, and how to load it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from .boards import Board
from .flow import Netlist, clocks, utilisation

_PARTS = (
    ("engine", "tiptoe_mac_engine.engine"), ("frame queues", "tiptoe_mac_engine"), ("frame queues", "tiptoe_mac_share"),
    ("host memory", "tiptoe_host_memory"),
)  # fmt: skip
_REST = "LiteX, LiteEth"


def write_report(board: Board, mapped: Netlist, timing: dict[str, Any] | None) -> Path:
    """report.md beside the build; with ``timing``, which place and route gives, its clocks and a picture of the chip."""
    lines = [
        f"# Tiptoe on {board.title}", "",
        f"Build `{mapped.build}`, system clock {board.clock_mhz:g} MHz, host memory: {board.memory}.", "",
        "| of the chip | used | there | % |", "|---|---|---|---|",
        *(f"| {kind} | {used:,} | {there:,} | {100 * used / there:.0f} |" for kind, used, there in utilisation(mapped.used)),
        "",
    ]  # fmt: skip
    if timing is None:
        lines += ["Not placed yet: `make bitstream` goes on from here."]
    else:
        lines += ["| clock | MHz reached | MHz asked for | slack, ns |", "|---|---|---|---|"]
        lines += [
            f"| {_clock(name)} | {rate:.1f} | {wanted:.1f} | {1000 / wanted - 1000 / rate:.2f} |"
            for name, rate, wanted in clocks(timing)
        ]
        draw_floorplan(mapped.folder / "placed.json", mapped.folder / "floorplan.png")
        lines += [
            "",
            "![where its parts lie](floorplan.png)",
            "",
            f"To load it: `{load_command(board, mapped.folder / 'tiptoe.bit')}`",
        ]
    page = mapped.folder / "report.md"
    page.write_text("\n".join(lines) + "\n")
    return page


def load_command(board: Board, bit: Path) -> str:
    """What loads a bitstream until the power goes."""
    return f"openFPGALoader --board {board.loader} {bit}"


def _clock(name: str) -> str:
    return name.removeprefix("$glbnet$")


def part_of(cell: str) -> str:
    """Which part of the design a flattened cell's name tells of."""
    return next((part for part, prefix in _PARTS if cell.startswith(f"{prefix}.")), _REST)


def placed_cells(netlist: Path) -> dict[str, list[tuple[int, int]]]:
    """Part to the places of its cells, from what nextpnr wrote."""
    places: dict[str, list[tuple[int, int]]] = {}
    cells = json.loads(netlist.read_text())["modules"]["top"]["cells"]  # nextpnr's name of whatever it placed
    for name, cell in cells.items():
        if found := re.match(r"X(\d+)/Y(\d+)/", cell.get("attributes", {}).get("NEXTPNR_BEL", "")):
            places.setdefault(part_of(name), []).append((int(found[1]), int(found[2])))
    return places


def draw_floorplan(netlist: Path, picture: Path) -> None:
    """A point for every cell, coloured by the part it belongs to."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 6), layout="constrained")
    for part, places in sorted(placed_cells(netlist).items(), key=lambda item: -len(item[1])):
        columns, rows = zip(*places, strict=True)
        axes.scatter(columns, rows, s=1, label=f"{part} ({len(places):,} cells)")
    axes.invert_yaxis()
    axes.set_aspect("equal")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.05), ncols=2, markerscale=6)
    figure.savefig(picture, dpi=120)
    pyplot.close(figure)
