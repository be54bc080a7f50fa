"""From a board's name to its constraints, netlist and report."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tiptoe_board import firmware
from tiptoe_board.address_map import (
    DDRPHY_NAMES,
    PROGRAM_FAULT,
    STATUS_NAMES,
    ddrphy_address,
    sdram_address,
    status_address,
)
from tiptoe_board.boards import load_boards
from tiptoe_board.cpu import RAM_BYTES, ROM_IMAGE, Cpu
from tiptoe_board.flow import (
    DEVICES,
    TOP,
    Netlist,
    TimingError,
    check_constant,
    clocks,
    elaborate,
    make_netlist,
    place,
    used_cells,
)
from tiptoe_board.modules import BESIDE_CPU
from tiptoe_board.report import part_of, placed_cells, write_report
from tiptoe_verif.paths import CONSTRAINTS
from tiptoe_verif.sim.toolchain import ToolError
from tiptoe_verif.synth.memory_sites import MEMORY, chip, pads_of

BOARDS = load_boards()
SDRAM_NAMES = {name: name for name in ("command", "address", "baddress", "wrdata", "rddata")}
SDRAM_NAMES["issue"] = "command_issue"
REPORT = {"fmax": {"$glbnet$sys_clk": {"achieved": 60.0, "constraint": 50.0}}}


@pytest.mark.parametrize(
    ("name", "memory", "cpu"),
    [
        ("ecpix5", "ddr3", ""), ("butterstick", "ddr3", ""), ("ecpix5", "block", ""),
        ("ecpix5", BESIDE_CPU, "vexriscv"), ("butterstick", BESIDE_CPU, "vexriscv"), ("ecpix5", "ddr3", "vexriscv"),
    ],
)  # fmt: skip
def test_the_constraints_are_what_the_platform_says(name: str, memory: str, cpu: str, tmp_path: Path) -> None:
    """Pins, levels and clocks of LiteX's platform, for the top's ports and no others; every clock of the top has its rate.
    LiteX's registers are where the address map has them."""
    board = replace(BOARDS[name], memory=memory, cpu=cpu)
    elaborate(board, tmp_path, "0" * 8)
    assert ("module VexRiscv (" in (tmp_path / "top.v").read_text()) == bool(cpu)
    lines = board.used_constraints.splitlines()
    assert f'FREQUENCY PORT "{board.input_clock}" {board.input_mhz} MHz;' in lines
    assert 'FREQUENCY PORT "eth_clocks_rx" 125.0 MHz;' in lines
    located = [line.split('"')[1] for line in lines if line.startswith("LOCATE")]
    assert len(located) == len(set(located))
    assert any("ddram_dq" in line for line in lines) == (memory == "ddr3")
    registers = json.loads((tmp_path / "map.json").read_text())["csr_registers"]
    expected = {f"status_{word}": status_address(word) for word in STATUS_NAMES}
    if cpu:
        expected["program_fault"] = PROGRAM_FAULT
    if memory == "ddr3":
        expected |= {f"ddrphy_{word}": ddrphy_address(word) for word in DDRPHY_NAMES}
        expected["sdram_dfii_control"] = sdram_address("control")
        for phase in (0, 1):
            for word, register in SDRAM_NAMES.items():
                expected[f"sdram_dfii_pi{phase}_{register}"] = sdram_address(word, phase)
    assert {key: registers[key]["addr"] for key in expected} == expected


@pytest.mark.parametrize("memory", RAM_BYTES)
def test_the_program_is_part_of_the_design(memory: str, tmp_path: Path) -> None:
    """It is compiled for the board's own map, and fits the ROM that the Verilog reads from a file beside it."""
    try:
        firmware.compiler()
    except ToolError as error:
        pytest.skip(str(error))
    cpu = Cpu(memory=memory)
    elaborate(replace(BOARDS["butterstick"], memory=memory, cpu=cpu.name), tmp_path, "0" * 8)
    made = firmware.build_server(tmp_path)
    assert made.rom_bytes <= cpu.rom_bytes and made.ram_bytes <= cpu.ram_bytes - 1024
    assert f'$readmemh("{ROM_IMAGE}", rom);' in (tmp_path / "top.v").read_text()


def test_constraints_that_are_not_the_boards_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = BOARDS["ecpix5"]
    (tmp_path / "ecpix5.lpf").write_text(board.constraints.read_text().replace("K23", "K24"))
    monkeypatch.setattr("tiptoe_board.boards.CONSTRAINTS", tmp_path)
    (tmp_path / "out").mkdir()
    with pytest.raises(ToolError, match="not what LiteX's platform says"):
        elaborate(board, tmp_path / "out", "0" * 8)


def test_every_board_has_its_file() -> None:
    assert {path.stem for path in CONSTRAINTS.glob("*.lpf")} == set(BOARDS)


def module(cells: dict[str, str]) -> dict:
    return {"cells": {name: {"type": kind} for name, kind in cells.items()}}


def test_cells_are_counted() -> None:
    used = used_cells(module({"a": "LUT4", "b": "CCU2C", "c": "TRELLIS_FF", "d": "DP16KD", "e": "MULT18X18D"}))
    assert used == {"LUT": 3, "FF": 1, "block RAM": 1, "multiplier": 1}


@pytest.mark.parametrize("pin, bits", [("ddram_cs_n", ["0", "1"]), ("ddram_cke", [7, 8]), ("eth_tx_ctl", ["x"])])
def test_a_pin_that_is_constant_or_not_as_it_should_be_is_an_error(pin: str, bits: list[Any]) -> None:
    """The first rank's chip select was, and the memory asleep, beside clocks that were all met."""
    board = BOARDS["butterstick"]
    good = {
        "ddram_cs_n": [5, "1"], "ddram_cke": [6, "0"], "user_led_color": ["0", "1", "0"], "eth_tx_ctl": [9], "user_btn": ["x"],
    }  # fmt: skip
    ports = {
        name: {"direction": "input" if name == "user_btn" else "output", "bits": levels}
        for name, levels in good.items()
    }
    check_constant({"ports": ports}, board)
    ports[pin]["bits"] = bits
    with pytest.raises(ToolError, match=pin):
        check_constant({"ports": ports}, board)


def test_the_second_rank_rests_and_the_first_is_the_phys(tmp_path: Path) -> None:
    """ButterStick's two ranks: of each pad one bit is LiteDRAM's, and none has a second driver."""
    elaborate(BOARDS["butterstick"], tmp_path, "0" * 8)
    text = (tmp_path / "top.v").read_text()
    for name, level in (("cs_n", 1), ("cke", 0), ("odt", 0), ("clk_p", 0)):
        assert f"assign ddram_{name} = {{{{1{{1'd{level}}}}}, {name}_first}};" in text
        assert len(re.findall(rf"\.Z +\({name}_first\)", text)) == 1
        assert len(re.findall(rf"\bddram_{name}\b", text)) == 2


def placed(folder: Path) -> Netlist:
    """What nextpnr leaves, of three cells."""
    cells = {
        "tiptoe_mac_engine.engine.flow.x": "X10/Y20/SLICEA.LUT0", "tiptoe_host_memory.storage.0": "X4/Y5/EBR",
        "main_x": "X1/Y2/SLICEB.FF1",
    }  # fmt: skip
    netlist = {name: {"attributes": {"NEXTPNR_BEL": bel}} for name, bel in cells.items()}
    (folder / "placed.json").write_text(json.dumps({"modules": {"top": {"cells": netlist}}}))
    (folder / "report.json").write_text(json.dumps(REPORT))
    return Netlist(folder, "1234abcd", {"LUT": 8364, "FF": 1, "block RAM": 104, "multiplier": 0}, 1.0)


def test_a_report_says_what_was_built(tmp_path: Path) -> None:
    mapped = placed(tmp_path)
    text = write_report(BOARDS["ecpix5"], mapped, REPORT).read_text()
    assert "`1234abcd`" in text and "| LUT | 8,364 | 83,640 | 10 |" in text
    assert "| sys_clk | 60.0 | 50.0 | 3.33 |" in text and "openFPGALoader --board ecpix5" in text
    assert (tmp_path / "floorplan.png").read_bytes()[:4] == b"\x89PNG"
    assert "Not placed yet" in write_report(BOARDS["ecpix5"], mapped, None).read_text()


def test_cells_belong_to_parts(tmp_path: Path) -> None:
    assert placed_cells(placed(tmp_path).folder / "placed.json") == {
        "engine": [(10, 20)], "host memory": [(4, 5)], "LiteX, LiteEth": [(1, 2)],
    }  # fmt: skip
    assert part_of("tiptoe_mac_engine.rx_queue.storage") == "frame queues"


def test_a_clock_that_is_too_slow_is_an_error(tmp_path: Path) -> None:
    """A report that is there already is taken; one of its clocks misses its rate."""
    board, mapped = BOARDS["ecpix5"], placed(tmp_path)
    assert clocks(place(board, mapped, print)) == [("$glbnet$sys_clk", 60.0, 50.0)]
    slow = {"fmax": {"$glbnet$sys_clk": {"achieved": 49.9, "constraint": 50.0}}}
    (tmp_path / "report.json").write_text(json.dumps(slow))
    with pytest.raises(TimingError, match=r"sys_clk: 49.9 MHz of 50.0"):
        place(board, mapped, print)


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "tiptoe_board.commands", *arguments], capture_output=True, text=True)


def test_boards_are_listed() -> None:
    shown = command("boards")
    assert shown.returncode == 0 and all(board.name in shown.stdout for board in BOARDS.values())


def test_an_unknown_board_is_named() -> None:
    shown = command("netlist", "breadboard")
    assert shown.returncode == 1 and "no board 'breadboard': there are ecpix5" in shown.stderr


def test_an_unknown_memory_is_named() -> None:
    shown = command("netlist", "ecpix5", "--memory", "rom")
    assert shown.returncode == 1 and "no memory 'rom': there are ddr3, block" in shown.stderr


def test_what_goes_with_a_processor() -> None:
    shown = command("netlist", "ecpix5", "--cpu", "z80")
    assert shown.returncode == 1 and "no processor 'z80': there are vexriscv" in shown.stderr
    shown = command("netlist", "ecpix5", "--cpu", "vexriscv", "--memory", "block")
    assert shown.returncode == 1 and "host memory is one of small, ddr3: there is no room for 'block'" in shown.stderr


@pytest.mark.parametrize("name", BOARDS)
def test_every_pin_of_the_constraints_is_a_pad_of_the_chip(name: str) -> None:
    """So that the block memories of what is at the pins come to lie near them."""
    board = BOARDS[name]
    pads = pads_of(board.used_constraints)
    assert len(pads) > 60 and set(pads.values()) <= set(chip(DEVICES[board.size], board.package).pads)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("name", "cpu", "memory"),
    [*((name, "", BOARDS[name].memory) for name in BOARDS), *(("ecpix5", "vexriscv", memory) for memory in RAM_BYTES)],
)
def test_the_netlist_fits_the_chip(name: str, cpu: str, memory: str) -> None:
    """yosys and the passes: no loop, no cell that is not there, room for all; and it is kept."""
    board = replace(BOARDS[name], memory=memory, cpu=cpu)
    mapped = make_netlist(board, print)
    assert 20_000 < mapped.used["LUT"] < 70_000 and mapped.used["block RAM"] <= 208
    cells = json.loads((mapped.folder / f"{TOP}.json").read_text())["modules"][TOP]["cells"].values()
    sites = [cell["attributes"]["BEL"] for cell in cells if cell["type"] == MEMORY]
    assert len(set(sites)) == len(sites) == mapped.used["block RAM"]
    again = make_netlist(replace(board, title="the same"), print)
    assert again == mapped
