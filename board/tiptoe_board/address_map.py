"""Where things are on the bus of bridges and processor (32-bit byte addresses); the engine sees host memory from address 0.

What others than the processor write lies above 0x8000_0000: VexRiscv never caches that. Below are its ROM and its memory.
"""

MEMORY_BASE = 0x8000_0000
"""Host memory."""

ENGINE_BASE, ENGINE_BYTES = 0xE000_0000, 1 << 20
"""The engine's registers and doorbells (docs/registers.md)."""

CSR_BASE, CSR_PAGE = 0xF000_0000, 0x800
"""LiteX's registers, a page a block."""

CSR_PAGES = {"ctrl": 0, "status": 1, "mac": 2, "phy": 3, "ddrphy": 4, "sdram": 5, "uart": 6, "timer0": 7, "program": 8}
STATUS_NAMES = (
    "build", "clock", "memory", "irq", "rx_dropped", "rx_damaged", "tx_dropped", "host_dropped", "dram", "sequence",
)  # fmt: skip
"""Words of the block ``status``, in order."""

DDRPHY_NAMES = (
    "dly_sel", "rdly_dq_rst", "rdly_dq_inc", "rdly_dq_bitslip_rst", "rdly_dq_bitslip", "burstdet_clr", "burstdet_seen",
)  # fmt: skip
"""Words of the block ``ddrphy``, LiteDRAM's for ECP5, in order."""
_SDRAM_WORDS = {"command": 0, "issue": 1, "address": 2, "baddress": 3, "wrdata": 4, "rddata": 6}
_SDRAM_PHASE = 8
"""The block ``sdram``, LiteDRAM's: a word ``control``, then so many for each of two phases. Of data's two the upper is first."""

BRIDGE_MAC, BRIDGE_IP = 0x10E2_D500_0000, "192.168.1.50"
"""The bridge's own addresses: those of LiteX's own targets. The engine's are its driver's choice."""


def status_address(name: str) -> int:
    """Address of a word of the block ``status``."""
    return CSR_BASE + CSR_PAGE * CSR_PAGES["status"] + 4 * STATUS_NAMES.index(name)


PROGRAM_FAULT = CSR_BASE + CSR_PAGE * CSR_PAGES["program"]
"""What a processor's program says of itself (``cpu.Program``)."""

UART_BAUD = 1_000_000
"""Of the serial bridge."""

SIM_UART_CYCLES, SIM_CONSOLE_CYCLES = 4, 10
"""Of the system clock, a bit of the serial bridge and of a processor's console in simulation, where time is dear."""


def ddrphy_address(name: str) -> int:
    """Address of a word of the block ``ddrphy``."""
    return CSR_BASE + CSR_PAGE * CSR_PAGES["ddrphy"] + 4 * DDRPHY_NAMES.index(name)


def sdram_address(name: str, phase: int = 0) -> int:
    """Address of ``control``, or of a phase's register, of the block ``sdram``."""
    word = 0 if name == "control" else 1 + _SDRAM_PHASE * phase + _SDRAM_WORDS[name]
    return CSR_BASE + CSR_PAGE * CSR_PAGES["sdram"] + 4 * word
