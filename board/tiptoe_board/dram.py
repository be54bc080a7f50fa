"""Starts a board's DDR3 chip over a bridge: its mode registers, the delays at which it is read, and a test of the memory.

From the host and not by a state machine on the chip: what is wrong on a board shows in the scan of all delays, and another way of
looking for them needs no new bitstream. Nothing may use host memory meanwhile: start the driver afterwards. It is started anew
whenever the chip has been configured or reset; a second start does no harm but to what is in the memory.
"""

from __future__ import annotations

import operator
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

from litedram.init import get_sdram_phy_init_sequence

from .address_map import MEMORY_BASE, ddrphy_address, sdram_address, status_address
from .ddr3 import BITSLIPS, CHIPS, DELAYS, LANES, PHASES, phy_settings

SEL, _CKE, _ODT, _RESET_N = 1, 2, 4, 8
_CS, _WE, _CAS, _RAS, _WRITE_DATA, _READ_DATA = 1, 2, 4, 8, 0x10, 0x20
ACTIVATE, WRITE, READ, PRECHARGE = _RAS | _CS, _CAS | _WE | _CS | _WRITE_DATA, _CAS | _CS | _READ_DATA, _RAS | _WE | _CS
_FLAGS = {
    "DFII_CONTROL_CKE": _CKE, "DFII_CONTROL_ODT": _ODT, "DFII_CONTROL_RESET_N": _RESET_N,
    "DFII_COMMAND_CS": _CS, "DFII_COMMAND_WE": _WE, "DFII_COMMAND_CAS": _CAS, "DFII_COMMAND_RAS": _RAS,
}  # fmt: skip
"""LiteDRAM's names."""

_RESET_US, _RELEASED_US, _STEP_US = 200, 500, 20
"""How long RESET# is low, CKE is low after it, and the longest of the other steps, tZQinit, takes (JESD79-3F, 3.3.1)."""
ALL_BANKS = 1 << 10
BEATS = 4
"""Of a lane in a phase's register."""
_SEEDS = (0x0F1E, 0x2D3C)
TEST_WORDS = 255


class DramError(RuntimeError):
    """The memory does not work; the text says what was seen."""


class Bus(Protocol):
    """What a bridge does, in its addresses."""

    def read(self, address: int, count: int = 1) -> list[int]:
        """Words from ``address`` on."""

    def write(self, address: int, words: Sequence[int]) -> None:
        """Words to ``address`` and on, carried out in order."""


@dataclass(frozen=True)
class Tap:
    """Where a lane is read: its data shifted, its strobe delayed by so many steps."""

    shift: int
    delay: int


@dataclass(frozen=True)
class Leveling:
    """What was found: a tap for each lane, and a line for each lane and shift with a 1 for each delay that reads right."""

    taps: tuple[Tap, ...]
    scan: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """A step of a chip's start: pins that no command changes (``control``), or a command; and how long to wait behind it."""

    control: bool
    value: int
    address: int
    bank: int
    wait_us: int


def start_steps(clock_hz: float) -> list[Step]:
    """Reset, clock enable, mode registers, calibration of its outputs."""
    kind, _ = CHIPS["MT41K64M16"]  # the steps depend on the rate only
    timing = kind(clock_hz, f"1:{PHASES}").timing_settings
    steps = [Step(True, 0, 0, 0, _RESET_US)]
    for _, address, bank, flags, _ in get_sdram_phy_init_sequence(phy_settings(clock_hz), timing)[0]:
        value = reduce(operator.or_, (_FLAGS[flag] for flag in flags.split("|")))
        control = "CONTROL" in flags
        steps.append(Step(control, value, address, bank, _RELEASED_US if control and not value & _CKE else _STEP_US))
    return steps


def _sleep(us: int) -> None:
    time.sleep(us / 1e6)


def start_dram(bus: Bus, *, wait: Callable[[int], None] = _sleep, taps: Sequence[Tap] | None = None) -> Leveling:
    """Start the chip and test the memory; :exc:`DramError` when there is no delay to read it at, or it does not keep what was
    written.

    Parameters
    ----------
    wait : callable
        Lets as many microseconds pass.
    taps : sequence of Tap
        From an earlier start of the same build on the same board: no scan then.
    """
    chip = _Chip(bus, float(bus.read(status_address("clock"))[0]))
    chip.start(wait)
    found = Leveling(tuple(taps), ()) if taps else level(chip)
    for lane, tap in enumerate(found.taps):
        chip.set_tap(1 << lane, tap)
    chip.control(SEL)
    check_memory(bus, bus.read(status_address("memory"))[0])
    return found


class _Chip:
    """The chip in the host's hands: commands by register writes."""

    def __init__(self, bus: Bus, clock_hz: float) -> None:
        self._bus = bus
        self._settings = phy_settings(clock_hz)
        self._steps = start_steps(clock_hz)

    def control(self, flags: int) -> None:
        """Pins that no command changes."""
        self._bus.write(sdram_address("control"), [flags])

    def command(self, command: int, address: int = 0, bank: int = 0, phase: int = 0) -> None:
        """One command."""
        self._bus.write(sdram_address("address", phase), [address, bank])
        self._bus.write(sdram_address("command", phase), [command, 1])  # the second word issues it

    def start(self, wait: Callable[[int], None]) -> None:
        """Reset, clock enable, mode registers, calibration of its outputs."""
        for step in self._steps:
            if step.control:
                self.control(step.value)
            else:
                self.command(step.value, step.address, step.bank)
            wait(step.wait_us)

    def set_tap(self, lanes: int, tap: Tap) -> None:
        """Set the lanes of a mask; then all strobes' counters are brought in step again, which ECP5 wants."""
        every = (1 << LANES) - 1
        for name, value in (
            ("dly_sel", lanes), ("rdly_dq_rst", 1), *[("rdly_dq_inc", 1)] * tap.delay,
            ("rdly_dq_bitslip_rst", 1), *[("rdly_dq_bitslip", 1)] * tap.shift,
            ("dly_sel", 0), ("dly_sel", every), ("dly_sel", 0),
        ):  # fmt: skip
            self._bus.write(ddrphy_address(name), [value])

    def reads_right(self, seed: int) -> list[bool]:
        """For each lane: is a random burst read as it was written, and was its strobe seen?"""
        rng = random.Random(seed)
        written = [rng.getrandbits(64) for _ in range(PHASES)]
        self.command(ACTIVATE)
        for phase, word in enumerate(written):
            self._bus.write(sdram_address("wrdata", phase), [word >> 32, word & 0xFFFF_FFFF])
        self.command(WRITE, phase=self._settings.wrphase)
        self._bus.write(ddrphy_address("burstdet_clr"), [1])
        self.command(READ, phase=self._settings.rdphase)
        self.command(PRECHARGE, ALL_BANKS)
        halves = [self._bus.read(sdram_address("rddata", phase), 2) for phase in range(PHASES)]
        differs = [word ^ (high << 32 | low) for word, (high, low) in zip(written, halves, strict=True)]
        seen = self._bus.read(ddrphy_address("burstdet_seen"))[0]
        return [
            bool(seen >> lane & 1)
            and not any(word >> 8 * (beat * LANES + lane) & 0xFF for word in differs for beat in range(BEATS))
            for lane in range(LANES)
        ]


def level(chip: _Chip) -> Leveling:
    """Try all shifts and delays, all lanes at once: the middle of each lane's longest run of delays is its tap."""
    marks = [["" for _ in range(BITSLIPS)] for _ in range(LANES)]
    for shift in range(BITSLIPS):
        for delay in range(DELAYS):
            chip.set_tap((1 << LANES) - 1, Tap(shift, delay))
            right = [all(lane) for lane in zip(*(chip.reads_right(seed) for seed in _SEEDS), strict=True)]
            for lane, good in enumerate(right):
                marks[lane][shift] += "01"[good]
    scan = tuple(
        f"lane {lane}, shift {shift}: |{line}|" for lane in range(LANES) for shift, line in enumerate(marks[lane])
    )
    taps = []
    for lane, lines in enumerate(marks):
        length, shift = max((max(map(len, line.split("0"))), -shift) for shift, line in enumerate(lines))
        if not length:
            raise DramError(
                f"DDR3: lane {lane} reads wrong at every delay. 1 is right:\n" + "\n".join(scan) + "\n"
                "All 0 on all lanes: the chip gives no answer (power, clock, another chip than boards.toml says)."
            )  # fmt: skip
        taps.append(Tap(-shift, lines[-shift].index("1" * length) + (length - 1) // 2))
    return Leveling(tuple(taps), scan)


def check_memory(bus: Bus, size: int) -> None:
    """Write and read over the controller: a word at each power of two, for address lines and ranks, and random words in a row,
    for data lines; :exc:`DramError` when one differs."""
    rng = random.Random(size)
    places = [0, *(1 << bit for bit in range(2, size.bit_length() - 1))]
    words = {place: rng.getrandbits(32) for place in places}
    for place, word in words.items():
        bus.write(MEMORY_BASE + place, [word])
    _compare(words, {place: bus.read(MEMORY_BASE + place)[0] for place in places})
    start = size - 4 * TEST_WORDS
    row = [rng.getrandbits(32) for _ in range(TEST_WORDS)]
    bus.write(MEMORY_BASE + start, row)
    back = bus.read(MEMORY_BASE + start, TEST_WORDS)
    _compare({start + 4 * n: word for n, word in enumerate(row)}, {start + 4 * n: word for n, word in enumerate(back)})


def _compare(written: dict[int, int], read: dict[int, int]) -> None:
    wrong = [place for place in written if written[place] != read[place]]
    if wrong:
        bits = reduce(operator.or_, (written[place] ^ read[place] for place in wrong))
        first = wrong[0]
        raise DramError(
            f"DDR3: {len(wrong)} of {len(written)} words differ, in bits {bits:#010x}; the first at {first:#x}: wrote"
            f" {written[first]:#010x}, read {read[first]:#010x}"
        )
