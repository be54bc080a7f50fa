"""The start of a DDR3 chip by the processor's program (board/firmware/dram.c), compiled for this machine, against registers
and a memory of Python: what dram.py does over a bridge, write by write. On the simulated top it is in test_cpu.py."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence

import pytest

from tests.board.test_dram_start import SIZE, Board
from tiptoe_board.address_map import DDRPHY_NAMES, MEMORY_BASE, ddrphy_address, sdram_address
from tiptoe_board.ddr3 import BITSLIPS, DELAYS, LANES, PHASES
from tiptoe_board.dram import BEATS, DramError, Leveling, Tap, start_dram
from tiptoe_board.dram_header import dram_header
from tiptoe_board.firmware import SOURCES
from tiptoe_verif.sim.toolchain import require

HZ = 50_000_000
SDRAM_NAMES = {"command": "command", "command_issue": "issue"} | {
    name: name for name in ("address", "baddress", "wrdata", "rddata")
}
DATA = {sdram_address("wrdata", phase) + 4 * word for phase in range(PHASES) for word in range(BEATS * LANES // 4)}
READ_US = 1
"""What the program waits for a read: over a bridge that time is gone anyway."""

GOOD = (("01110000", "00000000", "00000000", "00000000"), ("00000110", "00011110", "00000000", "00000000"))
NOTHING = (("0" * DELAYS,) * BITSLIPS,) * LANES
PLATFORM = """
#define PLATFORM_H
#include <stdbool.h>
#include <stdint.h>
static uint32_t (*reads)(uint32_t);
static void (*writes)(uint32_t, uint32_t), (*waits)(uint32_t), (*says)(const char *, int, uint32_t);
static uint32_t platform_read(uintptr_t address) { return reads((uint32_t)address); }
static void platform_write(uintptr_t address, uint32_t value) { writes((uint32_t)address, value); }
static void platform_wait_us(uint32_t microseconds) { waits(microseconds); }
static void platform_print(const char *text) { says(text, 0, 0); }
static void platform_print_hex(const char *text, uint32_t number) { says(text, 1, number); }
bool platform_start_memory(void);
void connect_platform(void *read, void *write, void *wait, void *say);
void connect_platform(void *read, void *write, void *wait, void *say)
{
    reads = (uint32_t (*)(uint32_t))read;
    writes = (void (*)(uint32_t, uint32_t))write;
    waits = (void (*)(uint32_t))wait;
    says = (void (*)(const char *, int, uint32_t))say;
}
"""


class ChipBoard(Board):
    """A board whose lanes read right where ``scan`` has a 1: a line for each lane and shift. Its log has no data of bursts."""

    def __init__(
        self, scan: Sequence[Sequence[str]] = GOOD, spoil: Callable[[int, int], tuple[int, int]] = lambda *kept: kept
    ) -> None:
        super().__init__(spoil)
        self.scan, self.selected, self.waited = scan, 0, [0]
        self.shift, self.delay = [0] * LANES, [0] * LANES
        self.burst: dict[int, int] = {}
        self.names = {ddrphy_address(name): name for name in DDRPHY_NAMES}

    def _right(self, lane: int) -> bool:
        return self.scan[lane][self.shift[lane]][self.delay[lane]] == "1"

    def read(self, address: int, count: int = 1) -> list[int]:
        if self.names.get(address) == "burstdet_seen":
            return [sum(1 << lane for lane in range(LANES) if self._right(lane))]
        if address - sdram_address("rddata") + sdram_address("wrdata") not in DATA:
            return super().read(address, count)
        offset = sdram_address("wrdata") - sdram_address("rddata")
        damage = sum(0xFF << 8 * byte for byte in range(4) if not self._right(byte % LANES))
        return [self.burst[address + offset + 4 * word] ^ damage for word in range(count)]

    def write(self, address: int, words: Sequence[int]) -> None:
        for at, word in enumerate(words, address // 4):
            if 4 * at in DATA:
                self.burst[4 * at] = word
                word = 0
            self._phy(self.names.get(4 * at, ""), word)
            super().write(4 * at, [word])

    def _phy(self, name: str, word: int) -> None:
        if name == "dly_sel":
            self.selected = word
        for lane in range(LANES):
            if self.selected >> lane & 1:
                if name in ("rdly_dq_rst", "rdly_dq_inc"):
                    self.delay[lane] = (self.delay[lane] + 1) % DELAYS if name == "rdly_dq_inc" else 0
                if name in ("rdly_dq_bitslip_rst", "rdly_dq_bitslip"):
                    self.shift[lane] = (self.shift[lane] + 1) % BITSLIPS if name == "rdly_dq_bitslip" else 0

    def wait(self, us: int) -> None:
        """A wait, as a pair of the log that no register has."""
        if us != READ_US:
            self.log.append((0, us))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("dram")
    addresses = {"CSR_SDRAM_BASE": 1, "CSR_SDRAM_DFII_CONTROL_ADDR": sdram_address("control")}
    addresses |= {f"CSR_DDRPHY_{name.upper()}_ADDR": ddrphy_address(name) for name in DDRPHY_NAMES}
    addresses |= {
        f"CSR_SDRAM_DFII_PI{phase}_{name.upper()}_ADDR": sdram_address(word, phase)
        for phase in range(PHASES)
        for name, word in SDRAM_NAMES.items()
    }
    addresses |= {"MEMORY_BASE": MEMORY_BASE, "MEMORY_SIZE": SIZE}
    defines = "".join(f"#define {name} {number:#x}\n" for name, number in addresses.items())
    (folder / "shim.h").write_text(defines + PLATFORM)
    (folder / "dram.h").write_text(dram_header(HZ))
    compiler = shutil.which("cc") or shutil.which("gcc") or require("gcc")
    result = folder / "dram.so"
    subprocess.run(
        [compiler, "-std=c11", "-Wall", "-Wextra", "-Werror", "-fsanitize=undefined", "-fno-sanitize-recover=all", "-O1",
         "-fPIC", "-shared", f"-I{folder}", "-include", str(folder / "shim.h"), str(SOURCES / "dram.c"), "-o", str(result)],
        check=True,
    )  # fmt: skip
    return ctypes.CDLL(str(result))


def started(library: ctypes.CDLL, board: ChipBoard) -> tuple[bool, str]:
    """What the program says of that board, and whether it works."""
    text: list[str] = []

    def say(what: bytes, with_number: int, number: int) -> None:
        text.append(what.decode() + (f"{number:08x}\n" if with_number else ""))

    word = ctypes.c_uint32
    calls = (
        ctypes.CFUNCTYPE(word, word)(lambda address: board.read(address)[0]),
        ctypes.CFUNCTYPE(None, word, word)(lambda address, value: board.write(address, [value])),
        ctypes.CFUNCTYPE(None, word)(board.wait),
        ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int, word)(say),
    )
    library.connect_platform(*(ctypes.cast(call, ctypes.c_void_p) for call in calls))
    library.platform_start_memory.restype = ctypes.c_bool
    return library.platform_start_memory(), "".join(text)


def test_it_does_what_the_bridge_does(library: ctypes.CDLL) -> None:
    """The same writes in the same order, the same waits, the same taps."""
    program, bridge = ChipBoard(), ChipBoard()
    assert started(library, program) == (True, "DDR3: lane 0, shift 0, delay 2\nDDR3: lane 1, shift 1, delay 4\n")
    found = start_dram(bridge, wait=bridge.wait)
    assert found == Leveling((Tap(0, 2), Tap(1, 4)), found.scan)
    assert program.log == bridge.log and len(program.log) > 1000
    assert (program.shift, program.delay) == (bridge.shift, bridge.delay) == ([0, 1], [2, 4])


@pytest.mark.parametrize(
    ("lines", "tap"),
    [
        (("11100000", "00000000", "00000000", "00000000"), (0, 1)),
        (("00000001", "01111100", "00000000", "00000000"), (1, 3)),
        (("11000110", "00000000", "00000000", "11011100"), (3, 4)),
        (("00110000", "11000000", "00000000", "00000000"), (0, 2)),
        (("00000000", "00000000", "11111111", "00000000"), (2, 3)),
    ],
)
def test_the_middle_of_the_longest_run_is_taken(
    library: ctypes.CDLL, lines: tuple[str, ...], tap: tuple[int, int]
) -> None:
    board = ChipBoard((lines, GOOD[1]))
    assert started(library, board)[0] and (board.shift[0], board.delay[0]) == tap
    bridge = ChipBoard((lines, GOOD[1]))
    start_dram(bridge, wait=bridge.wait)
    assert (board.shift, board.delay) == (bridge.shift, bridge.delay)


@pytest.mark.parametrize("scan", [NOTHING, (GOOD[0], NOTHING[1])])
def test_a_chip_that_does_not_answer_is_told_of(library: ctypes.CDLL, scan: Sequence[Sequence[str]]) -> None:
    """In the words of dram.py. The controller does not get the chip, and memory is not touched; a second try starts anew."""
    board = ChipBoard(scan)
    works, said = started(library, board)
    with pytest.raises(DramError) as error:
        start_dram(ChipBoard(scan), wait=lambda us: None)
    assert not works and said == f"{error.value}\n"
    assert board.log[-1][0] != sdram_address("control") and not board.words
    board.scan = GOOD
    assert started(library, board)[0]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda place, word: (place & ~0x2000, word), "differ: 00000001\n  of 0000010e"),
        (lambda place, word: (place, word & ~0x40), "in bits 00000040\n"),
        (lambda place, word: (place, 0), "differ: 0000010e\n"),
    ],
)
def test_a_memory_that_does_not_keep_its_words_is_told_of(
    library: ctypes.CDLL, spoil: Callable[[int, int], tuple[int, int]], said: str
) -> None:
    """An address line, or a rank, that does nothing; a data line that hangs; nothing there at all."""
    works, text = started(library, ChipBoard(spoil=spoil))
    assert not works and "DDR3: the memory does not keep what is written" in text and said in text
    assert re.search(r"the first at [0-9a-f]{8}\n  wrote [0-9a-f]{8}\n  read [0-9a-f]{8}\n$", text)
