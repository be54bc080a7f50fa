"""The boards there are (constraints/boards.toml)."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from tiptoe_verif.paths import CONSTRAINTS

FILE = CONSTRAINTS / "boards.toml"


@dataclass(frozen=True, kw_only=True)
class Board:
    """One board, as boards.toml describes it."""

    name: str
    title: str
    platform: str
    """LiteX's module with its pins."""
    size: str
    """nextpnr's name of the chip's size."""
    package: str
    speed: int
    input_clock: str
    input_mhz: float
    reset: str
    """A button, low when pressed."""
    leds: str
    uart: bool
    """There is a serial line to the host."""
    clock_mhz: float
    """System clock."""
    rx_delay_ns: float
    """What the FPGA delays the PHY's received data by."""
    loader: str
    """openFPGALoader's name of the board."""
    chip: str
    """The DDR3 chip: a name of LiteDRAM's (``ddr3.CHIPS``)."""
    constant: list[str]
    """Pins that the top drives to one level for good, as the constraints name them; another one that is constant is a fault."""
    verified: dict[str, str]
    """What was looked at, and how."""
    memory: str = "ddr3"
    """Where host memory is (``modules.MEMORIES``)."""
    cpu: str = ""
    """The processor that drives the engine (``cpu.CPUS``), if there is one."""

    @property
    def clock_hz(self) -> int:
        """System clock, Hz."""
        return round(self.clock_mhz * 1e6)

    @property
    def constraints(self) -> Path:
        """Its pins and clocks, the DDR3 chip's too."""
        return CONSTRAINTS / f"{self.name}.lpf"

    @property
    def used_constraints(self) -> str:
        """Those of the pins that the top has."""
        lines = self.constraints.read_text().splitlines(keepends=True)
        return "".join(line for line in lines if self.memory == "ddr3" or '"ddram_' not in line)


def load_boards() -> dict[str, Board]:
    """Boards by name."""
    return {name: Board(name=name, **entry) for name, entry in tomllib.loads(FILE.read_text()).items()}
