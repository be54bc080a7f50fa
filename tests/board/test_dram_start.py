"""The start of a DDR3 chip against registers and a memory of Python: what is written in which order, and what it says when the
memory does not work. The whole of it on the simulated top is in test_dram.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from tiptoe_board.address_map import MEMORY_BASE, ddrphy_address, sdram_address, status_address
from tiptoe_board.dram import DramError, Leveling, Tap, check_memory, level, start_dram

SIZE = 1 << 16
TAPS = (Tap(0, 3), Tap(1, 2))


class Board:
    """Registers that nothing answers behind, and a memory that ``spoil`` may spoil: (place, word) to those that are kept."""

    def __init__(self, spoil: Callable[[int, int], tuple[int, int]] = lambda place, word: (place, word)) -> None:
        self.spoil = spoil
        self.words: dict[int, int] = {}
        self.registers = {
            status_address("clock"): 50_000_000,
            status_address("memory"): SIZE,
            status_address("dram"): 1,
        }
        self.log: list[tuple[int, int]] = []

    def read(self, address: int, count: int = 1) -> list[int]:
        places = range(address, address + 4 * count, 4)
        if address >= MEMORY_BASE + SIZE:
            return [self.registers.get(place, 0) for place in places]
        return [self.words.get(self.spoil(place - MEMORY_BASE, 0)[0], 0) for place in places]

    def write(self, address: int, words: Sequence[int]) -> None:
        for place, word in enumerate(words):
            at = address + 4 * place
            if MEMORY_BASE <= at < MEMORY_BASE + SIZE:
                kept, value = self.spoil(at - MEMORY_BASE, word)
                self.words[kept] = value
            else:
                self.log.append((at, word))


def test_the_chip_is_started_in_the_standards_order() -> None:
    """RESET# low and released, clock enable, mode registers 2, 3, 1, 0 and ZQ calibration, with the waits between; then the taps,
    and the controller has the chip."""
    board = Board()
    trace: list[object] = []
    waits: list[int] = []

    def wait(us: int) -> None:
        waits.append(us)
        trace.append(len(board.log))

    assert start_dram(board, wait=wait, taps=TAPS) == Leveling(TAPS, ())
    controls = [word for address, word in board.log if address == sdram_address("control")]
    assert controls == [0, 0xC, 0xE, 1]  # all low, RESET# and ODT high, clock enable too, the controller
    banks = [word for address, word in board.log if address == sdram_address("baddress")]
    assert banks == [2, 3, 1, 0, 0]
    assert waits[:2] == [200, 500] and len(waits) == 8
    increments = [word for address, word in board.log if address == ddrphy_address("rdly_dq_inc")]
    shifts = [word for address, word in board.log if address == ddrphy_address("rdly_dq_bitslip")]
    assert (len(increments), len(shifts)) == (5, 1)
    assert board.log[-1] == (sdram_address("control"), 1)


def test_a_chip_that_does_not_answer_is_told_of() -> None:
    with pytest.raises(DramError, match=r"(?s)lane 0 reads wrong at every delay.*lane 1, shift 3: \|00000000\|"):
        start_dram(Board(), wait=lambda us: None)


class Lanes:
    """A chip whose lanes read right where ``scan`` has a 1: a line for each lane and shift."""

    def __init__(self, scan: Sequence[Sequence[str]]) -> None:
        self.scan = scan
        self.tap = Tap(0, 0)

    def set_tap(self, lanes: int, tap: Tap) -> None:
        assert lanes == 3
        self.tap = tap

    def reads_right(self, seed: int) -> list[bool]:
        return [lines[self.tap.shift][self.tap.delay] == "1" for lines in self.scan]


@pytest.mark.parametrize(
    ("lines", "tap"),
    [
        (("11100000", "00000000", "00000000", "00000000"), Tap(0, 1)),
        (("00000001", "01111100", "00000000", "00000000"), Tap(1, 3)),
        (("11000110", "00000000", "00000000", "11011100"), Tap(3, 4)),
        (("00110000", "11000000", "00000000", "00000000"), Tap(0, 2)),
        (("00000000", "00000000", "11111111", "00000000"), Tap(2, 3)),
    ],
)
def test_the_middle_of_the_longest_run_is_taken(lines: tuple[str, ...], tap: Tap) -> None:
    """Of all shifts; of two that are as long, the smaller shift's and the smaller delays'."""
    other = ("00000000", "00000100", "00000000", "00000000")
    assert level(Lanes([lines, other])).taps == (tap, Tap(1, 5))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda place, word: (place & ~0x2000, word), "2 of 15 words differ|1 of 15 words differ"),
        (lambda place, word: (place, word & ~0x40), "in bits 0x00000040"),
        (lambda place, word: (place, 0), "of 15 words differ"),
    ],
)
def test_a_memory_that_does_not_keep_its_words_is_told_of(spoil, said: str) -> None:
    """An address line, or a rank, that does nothing; a data line that hangs; nothing there at all."""
    with pytest.raises(DramError, match=said):
        check_memory(Board(spoil), SIZE)


def test_a_memory_that_keeps_its_words_passes() -> None:
    check_memory(Board(), SIZE)
