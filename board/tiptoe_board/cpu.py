"""The top's optional processor: VexRiscv (RV32IM) with ROM, memory, clock and console, a master on the bus beside the bridge.

VexRiscv never caches what lies above 0x8000_0000, and all that others than the processor write lies there (``address_map.py``):
what the engine has written into host memory is what the next load reads, and what a store wrote is there before the next store,
the doorbell, begins. ROM and its own memory, below, are cached.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .modules import TOP

ROM_IMAGE, RAM_IMAGE = f"{TOP}_rom.init", f"{TOP}_sram.init"
"""The files, beside LiteX's Verilog, that its memories are filled from: a word of eight hex digits a line."""

CPUS = {"vexriscv": "standard", "vexriscv-lite": "lite"}
"""Names for users to LiteX's variants with multiplier and divider. ``standard`` has 4 KiB of cache for code, 4 KiB for data, and
shifts in one cycle; ``lite`` has 2 KiB for code, none for data, and takes six block RAMs less."""

INTERRUPTS = {"tiptoe": 0, "uart": 1, "timer0": 2}
"""Lines of the processor; ``tiptoe`` is the engine's."""


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """What the processor has.

    Attributes
    ----------
    name : str
        One of ``CPUS``.
    rom_bytes, ram_bytes : int
        Its program, and its data and stack: 2 KiB take a block RAM each.
    baud : int
        Of the console.
    console : str
        ``serial``: the board's serial line, which the bridge UARTBone leaves to it then; ``crossover``: registers that
        ``litex_term crossover`` reads over Etherbone.
    """

    name: str = "vexriscv"
    rom_bytes: int = 1 << 15
    ram_bytes: int = 1 << 13
    baud: int = 115_200
    console: str = "serial"

    def soc_options(self) -> dict[str, Any]:
        """Arguments of LiteX's SoCCore. Its ROM begins with a jump to itself until the firmware's image takes its place."""
        return {
            "cpu_type": "vexriscv", "cpu_variant": CPUS[self.name],
            "integrated_rom_size": self.rom_bytes, "integrated_rom_init": [0x0000_006F],
            "integrated_sram_size": self.ram_bytes,
            "with_uart": True, "uart_name": self.console, "uart_baudrate": self.baud,
            "with_timer": True, "timer_uptime": True,
        }  # fmt: skip


def connect_interrupt(soc: Any, irq: Any) -> None:
    """The engine's line to the processor's; a level, which its register ``tiptoe_interrupt`` shows (CSR 0xFC0)."""
    soc.comb += soc.cpu.interrupt[INTERRUPTS["tiptoe"]].eq(irq)
