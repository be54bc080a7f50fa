"""Makes a board's host memory ready before the driver comes: DDR3 has to be started once after the FPGA has been configured."""

from __future__ import annotations

from collections.abc import Sequence

from tiptoe_driver.hardware import abi_gen as abi

from ..address_map import ENGINE_BASE, status_address
from .device import Cable
from .fault import CableError

_TRIES = 3


class _Bus:
    """A cable as ``dram.py`` wants it."""

    def __init__(self, cable: Cable) -> None:
        self._cable = cable

    def read(self, address: int, count: int = 1) -> list[int]:
        """Words from ``address`` on."""
        return self._cable.read_at([address + 4 * n for n in range(count)])

    def write(self, address: int, words: Sequence[int]) -> None:
        """Words to ``address`` and on."""
        self._cable.write(address, list(words))


def prepare_memory(cable: Cable) -> None:
    """Start DRAM, unless it works. CableError when it does not come.

    The engine is reset first: one that a session has left running writes to memory. Starting the chip counts steps, so over a
    cable that may carry out a write twice it is done again when it has.
    """
    if not cable.read_at([status_address("dram")])[0]:
        return
    from ..dram import DramError, check_memory, start_dram  # LiteDRAM takes its time

    bus = _Bus(cable)
    cable.write(ENGINE_BASE + abi.REG_CONTROL, [abi.CONTROL_SOFT_RESET])
    try:
        check_memory(bus, cable.greeting["memory"])
        return
    except DramError:
        pass
    for _ in range(_TRIES):
        repeated = cable.counters()["repeated"]
        try:
            start_dram(bus)
        except DramError as error:
            trouble = str(error)
        else:
            if cable.once or cable.counters()["repeated"] == repeated:
                return
            trouble = "the line lost bytes while DDR3 was started"
    raise CableError(f"{cable.name}: {trouble}")
