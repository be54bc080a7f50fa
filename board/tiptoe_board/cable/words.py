"""What a cable carries: words of the board's bus; and how the driver's shadow uses them."""

from __future__ import annotations

from typing import Protocol

from ..address_map import ENGINE_BASE, MEMORY_BASE, status_address
from .fault import CableError

_CLOCKS = range(1_000_000, 1_000_000_001)
_LEAST_MEMORY = 1 << 14


class Words(Protocol):
    """A bridge's bus from afar: 32-bit words at byte addresses. CableError when the board does not answer."""

    def read_at(self, addresses: list[int]) -> list[int]:
        """Read a word at each address, in this order, behind everything written before."""

    def write(self, address: int, words: list[int]) -> None:
        """Write words from ``address`` on, in order, each once; they have arrived when a later read returns."""


class Bus:
    """A bridge as the shadow wants it (``shadow.WordBus``)."""

    def __init__(self, words: Words) -> None:
        self._words = words

    def read_words(self, addresses: list[int]) -> list[int]:
        """Words of host memory."""
        return self._words.read_at([MEMORY_BASE + address for address in addresses])

    def write_words(self, address: int, words: list[int]) -> None:
        """Words of host memory."""
        self._words.write(MEMORY_BASE + address, words)

    def read_register(self, address: int) -> int:
        """An engine's register."""
        return self._words.read_at([ENGINE_BASE + address])[0]

    def write_register(self, address: int, value: int) -> None:
        """An engine's register."""
        self._words.write(ENGINE_BASE + address, [value])


GREETING_NAMES = ("build", "clock", "memory")
GREETING = [status_address(name) for name in GREETING_NAMES]
"""What is read first."""


def check_greeting(name: str, words: list[int], build: int | None) -> dict[str, int]:
    """The words at GREETING by name; CableError when they are not those of a Tiptoe top, or not of the build wanted."""
    found, clock, memory = words
    if clock not in _CLOCKS or memory < _LEAST_MEMORY or memory & memory - 1:
        raise CableError(
            f"{name} answers, but not as a board of Tiptoe (clock {clock:,} Hz, {memory:,} bytes of memory): "
            "load its bitstream (make load BOARD=...)"
        )
    if build is not None and found != build:
        raise CableError(f"{name} has build {found:08x}, not {build:08x}: load that one (make load BOARD=...)")
    return dict(zip(GREETING_NAMES, words, strict=True))
