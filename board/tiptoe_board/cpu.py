"""The top's optional processor: VexRiscv (RV32IM) with ROM, memory, clock and console, a master on the bus beside the bridge.

VexRiscv never caches what lies above 0x8000_0000, and all that others than the processor write lies there (``address_map.py``):
what the engine has written into host memory is what the next load reads, and what a store wrote is there before the next store,
the doorbell, begins. ROM and its own memory, below, are cached.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from litex.gen import LiteXModule
from litex.soc.interconnect.csr import CSRStorage

from .modules import BESIDE_CPU, TOP, Sizes

ROM_IMAGE, RAM_IMAGE = f"{TOP}_rom.init", f"{TOP}_sram.init"
"""The files, beside LiteX's Verilog, that its memories are filled from: a word of eight hex digits a line."""

CPUS = {"vexriscv": "standard", "vexriscv-lite": "lite"}
"""Names for users to LiteX's variants with multiplier and divider. ``standard`` has 4 KiB of cache for code, 4 KiB for data, and
shifts in one cycle; ``lite`` has 2 KiB for code, none for data, and takes six block RAMs less."""

RAM_BYTES = {"small": 1 << 13, "ddr3": 1 << 15}
"""Where host memory may be beside a processor, to bytes of the processor's own: its data and stack. With DDR3 the driver's
tables are those of all the engine's connections."""

INTERRUPTS = {"tiptoe": 0, "uart": 1, "timer0": 2}
"""Lines of the processor; ``tiptoe`` is the engine's."""


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """What the processor has.

    Attributes
    ----------
    name : str
        One of ``CPUS``.
    memory : str
        Where host memory is: one of ``RAM_BYTES``.
    rom_bytes : int
        Its program: 2 KiB take a block RAM, as of its memory.
    baud : int
        Of the console.
    console : str
        ``serial``: the board's serial line, which the bridge UARTBone leaves to it then; ``crossover``: registers that
        ``litex_term crossover`` reads over Etherbone.
    """

    name: str = "vexriscv"
    memory: str = BESIDE_CPU
    rom_bytes: int = 1 << 15
    baud: int = 115_200
    console: str = "serial"

    @property
    def ram_bytes(self) -> int:
        """Its own memory."""
        return RAM_BYTES[self.memory]

    def soc_options(self) -> dict[str, Any]:
        """Arguments of LiteX's SoCCore. Its ROM begins with a jump to itself until the firmware's image takes its place."""
        return {
            "cpu_type": "vexriscv", "cpu_variant": CPUS[self.name],
            "integrated_rom_size": self.rom_bytes, "integrated_rom_init": [0x0000_006F],
            "integrated_sram_size": self.ram_bytes,
            "with_uart": True, "uart_name": self.console, "uart_baudrate": self.baud,
            "with_timer": True, "timer_uptime": True,
        }  # fmt: skip


class Program(LiteXModule):
    """What the processor's program says of itself: ``fault``, a register of 32 bits, is 0 while all is well; what the other
    numbers mean stands in ``board/firmware/platform.h``."""

    def __init__(self) -> None:
        self.fault = CSRStorage(32, name="fault")


def add_constants(soc: Any, sizes: Sizes) -> None:
    """What the program has to know of the engine before it asks it: the lengths of its tables."""
    soc.add_constant("TIPTOE_CONNECTIONS", sizes.engine.connections)
    soc.add_constant("TIPTOE_SYNCACHE", sizes.engine.syncache_entries)


def connect_interrupt(soc: Any, irq: Any) -> None:
    """The engine's line to the processor's; a level, which its register ``tiptoe_interrupt`` shows (CSR 0xFC0)."""
    soc.comb += soc.cpu.interrupt[INTERRUPTS["tiptoe"]].eq(irq)
