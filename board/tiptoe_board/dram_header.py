"""What ``dram.py`` knows of a DDR3 chip's start, as a C header for the processor's program (``board/firmware/dram.c``)."""

from __future__ import annotations

from . import dram
from .ddr3 import BITSLIPS, DELAYS, LANES, PHASES, phy_settings


def dram_header(clock_hz: float) -> str:
    """``dram.h`` for a system clock: sizes, commands, and the steps of the start as rows of a table."""
    settings = phy_settings(clock_hz)
    numbers = {
        "LANES": LANES, "PHASES": PHASES, "BITSLIPS": BITSLIPS, "DELAYS": DELAYS, "BEATS": dram.BEATS,
        "READ_PHASE": settings.rdphase, "WRITE_PHASE": settings.wrphase,
        "CONTROLLER": dram.SEL, "ACTIVATE": dram.ACTIVATE, "WRITE": dram.WRITE, "READ": dram.READ,
        "PRECHARGE": dram.PRECHARGE, "ALL_BANKS": dram.ALL_BANKS, "TEST_WORDS": dram.TEST_WORDS,
    }  # fmt: skip
    steps = [
        f"    {{ {int(step.control)}, {step.value:#x}, {step.address:#x}, {step.bank}, {step.wait_us} }},"
        for step in dram.start_steps(clock_hz)
    ]
    lines = [
        "/* Written by tiptoe_board.dram_header. */",
        *(f"#define DRAM_{name} {number}" for name, number in numbers.items()),
        "/* Rows: pins (1) or a command (0), its flags, address, bank; microseconds to wait behind it. */",
        " \\\n".join(["#define DRAM_STEPS", *steps]),
    ]
    return "".join(f"{line}\n" for line in lines)
