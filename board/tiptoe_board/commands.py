"""``python -m tiptoe_board.commands boards|netlist|bitstream|load``: what the Makefile's targets for boards call."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from tiptoe_verif.console import console
from tiptoe_verif.paths import BUILD
from tiptoe_verif.sim.toolchain import ToolError

from .boards import Board, load_boards
from .cpu import CPUS, RAM_BYTES
from .flow import Netlist, make_netlist, pack, place
from .modules import BESIDE_CPU, MEMORIES
from .report import load_command, write_report

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Tiptoe on a board.")
Processor = Annotated[str, typer.Option("--cpu", help=f"A processor that drives the engine: {', '.join(CPUS)}.")]
Memory = Annotated[
    str,
    typer.Option(
        "--memory", metavar="|".join(MEMORIES), help="Where host memory is; the board's own choice if not given."
    ),
]
Name = Annotated[str, typer.Argument(metavar="BOARD", help="Its name, as `boards` lists it.")]


class Steps:
    """Prints each step with the time since the start."""

    def __init__(self, name: str) -> None:
        self._name, self._start = name, time.monotonic()

    def __call__(self, step: str) -> None:
        minutes, seconds = divmod(round(time.monotonic() - self._start), 60)
        print(f"{self._name} {minutes:3d}:{seconds:02d}  {step}", flush=True)


def _board(name: str, memory: str = "", cpu: str = "") -> Board:
    known = load_boards()
    if name not in known:
        sys.exit(f"error: no board {name!r}: there are {', '.join(known)}")
    board = known[name]
    if memory and memory not in MEMORIES:
        sys.exit(f"error: no memory {memory!r}: there are {', '.join(MEMORIES)}")
    if cpu and cpu not in CPUS:
        sys.exit(f"error: no processor {cpu!r}: there are {', '.join(CPUS)}")
    if cpu and memory and memory not in RAM_BYTES:
        sys.exit(
            f"error: beside a processor host memory is one of {', '.join(RAM_BYTES)}: there is no room for {memory!r}"
        )
    return replace(board, memory=memory or (BESIDE_CPU if cpu else board.memory), cpu=cpu)


def _folder(board: Board) -> Path:
    """Results where they are easily found: build/NAME, build/NAME-CPU."""
    return BUILD / "-".join(filter(None, (board.name, board.cpu)))


def _publish(board: Board, mapped: Netlist) -> Path:
    folder = _folder(board)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("report.md", "floorplan.png", "tiptoe.bit", "tiptoe.svf", "map.json"):
        source, target = mapped.folder / name, folder / name
        target.unlink(missing_ok=True)
        if source.exists():
            shutil.copyfile(source, target)
    return folder


@app.command()
def boards() -> None:
    """List the boards, and what of each was verified how."""
    table = Table("board", "what it is", "MHz", "verified")
    for board in load_boards().values():
        verified = "\n".join(f"{what}: {how}" for what, how in board.verified.items()) or "nothing"
        table.add_row(board.name, board.title, f"{board.clock_mhz:g}", verified)
    console.print(table)


@app.command()
def netlist(name: Name, memory: Memory = "", cpu: Processor = "") -> None:
    """Everything up to place and route: about 10 minutes, or none when it is there."""
    board, log = _board(name, memory, cpu), Steps(name)
    mapped = make_netlist(board, log)
    write_report(board, mapped, None)
    page = _publish(board, mapped) / "report.md"
    log(f"netlist: {', '.join(f'{used:,} {kind}' for kind, used in mapped.used.items())}; {page}")


@app.command()
def bitstream(name: Name, memory: Memory = "", cpu: Processor = "") -> None:
    """The bitstream and its report: an hour, or half a minute when they are there."""
    board, log = _board(name, memory, cpu), Steps(name)
    mapped = make_netlist(board, log)
    timing = place(board, mapped, log)
    bit, _ = pack(mapped, log)
    write_report(board, mapped, timing)
    folder = _publish(board, mapped)
    log(f"{folder / bit.name}, {folder / 'tiptoe.svf'}, {folder / 'report.md'}")
    print(f"to load it: make load BOARD={name}{f' CPU={cpu}' if cpu else ''}")


@app.command()
def load(name: Name, cpu: Processor = "") -> None:
    """Load the bitstream into the board's chip (until the power goes) with openFPGALoader."""
    board = _board(name, cpu=cpu)
    bit = _folder(board) / "tiptoe.bit"
    command = load_command(board, bit)
    if not bit.exists():
        sys.exit(f"error: {bit} is not there: make bitstream BOARD={name}{f' CPU={cpu}' if cpu else ''}")
    if shutil.which("openFPGALoader") is None:
        sys.exit(
            f"error: openFPGALoader not found: install it (Debian: apt-get install openfpgaloader), then: {command}"
        )
    sys.exit(subprocess.run(command.split()).returncode)


def main() -> None:
    """Run a command; a tool's failure is an error message."""
    try:
        app()
    except ToolError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
