"""``python -m tiptoe_board.elaborate BOARD FOLDER BUILD MEMORY [CPU]``: LiteX's half as Verilog, its constraints and its map.

A process of its own: LiteX keeps what it elaborated in the process, and says so much that a log is the place for it.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

from litex.soc.integration import export

from .address_map import BRIDGE_IP, BRIDGE_MAC, SIM_CONSOLE_CYCLES, UART_BAUD
from .boards import Board, load_boards
from .cpu import RAM_IMAGE, ROM_IMAGE, Cpu
from .dram_header import dram_header
from .modules import TOP, Sizes, sizes
from .soc import TiptoeSoC


def sim_soc(sizes: Sizes, clock_hz: int, build: int, cpu: Cpu | None) -> TiptoeSoC:
    """The top for Verilator."""
    from .sim_pins import SIM_UART, SimClocks, SimPhy, add_pause, sim_platform, sim_sdram

    platform = sim_platform()
    clocks, line = platform.request("clocks"), platform.request("line")
    soc = TiptoeSoC(
        platform, SimClocks(clocks), SimPhy(line, clocks), sizes, clock_hz=clock_hz, build=build,
        mac_address=BRIDGE_MAC, ip_address=BRIDGE_IP, uart=SIM_UART,
        sdram=sim_sdram(clock_hz) if sizes.memory == "ddr3" else None, cpu=cpu,
    )  # fmt: skip
    add_pause(soc, platform.request("pause"))
    return soc


def board_soc(board: Board, sizes: Sizes, build: int, cpu: Cpu | None) -> TiptoeSoC:
    """The top for a board."""
    from .pins import Leds, board_platform, board_sdram

    platform, crg, phy = board_platform(board)
    soc = TiptoeSoC(
        platform, crg, phy, sizes, clock_hz=board.clock_hz, build=build, mac_address=BRIDGE_MAC, ip_address=BRIDGE_IP,
        uart={"baudrate": UART_BAUD} if board.uart else None, sdram=board_sdram(platform, board, crg), cpu=cpu,
    )  # fmt: skip
    soc.leds = Leds(platform, board, soc.engine, soc.program.fault.storage if cpu else None)
    return soc


def main(name: str, folder: Path, build: str, memory: str, processor: str = "") -> None:
    """Write ``top.v``, ``top.lpf`` (boards only), ``map.json``, and with a processor what its program is compiled with."""
    if name == "sim":
        cpu = Cpu(name=processor, memory=memory, baud=50_000_000 // SIM_CONSOLE_CYCLES) if processor else None
        soc = sim_soc(sizes(50.0, memory), 50_000_000, int(build, 16), cpu)
        soc.finalize()
        text = soc.platform.get_verilog(soc, name=TOP).main_source
        # The program is the simulation's argument: one model runs them all.
        text = text.replace(
            f'$readmemh("{ROM_IMAGE}", rom);',
            'begin string path; if ($value$plusargs("rom=%s", path)) $readmemh(path, rom); end',
        )
    else:
        board = replace(load_boards()[name], memory=memory)
        cpu = None
        if processor:
            cpu = Cpu(name=processor, memory=memory, console="serial" if board.uart else "crossover")
        soc = board_soc(board, sizes(board.clock_mhz, memory), int(build, 16), cpu)
        soc.finalize()
        soc.platform.build(soc, build_dir=str(folder), build_name=TOP, run=False)
        text = (folder / f"{TOP}.v").read_text()
        lines = (folder / f"{TOP}.lpf").read_text().splitlines()
        (folder / "top.lpf").write_text("".join(f"{line}\n" for line in lines if line))
    text = text.replace(f'$readmemh("{RAM_IMAGE}", sram);', "")  # LiteX's image of it is empty
    text += "".join(Path(source).read_text() for source, *_ in soc.platform.sources if "VexRiscv" in source)
    # Comments tell the time of day; without them equal designs give equal text.
    text = re.sub(r"`timescale[^\n]*\n|/\*.*?\*/|^\s*//[^\n]*\n", "", text, flags=re.S | re.M)
    (folder / "top.v").write_text(text)
    (folder / "map.json").write_text(export.get_csr_json(soc.csr_regions, soc.constants, soc.mem_regions))
    if cpu:
        (folder / "csr.h").write_text(
            export.get_csr_header(soc.csr_regions, soc.constants, with_access_functions=False)
        )
        (folder / "soc.h").write_text(export.get_soc_header(soc.constants, with_access_functions=False))
        (folder / "mem.h").write_text(export.get_mem_header(soc.mem_regions))
        (folder / "dram.h").write_text(dram_header(soc.sys_clk_freq) if memory == "ddr3" else "")
        (folder / "regions.ld").write_text(export.get_linker_regions(soc.mem_regions))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
