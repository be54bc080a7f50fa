"""Where things are on the bus of bridges and processor (32-bit byte addresses); the engine sees host memory from address 0.

What others than the processor write lies above 0x8000_0000: VexRiscv never caches that. Below are its ROM and its memory.
"""

MEMORY_BASE = 0x8000_0000
"""Host memory."""

ENGINE_BASE, ENGINE_BYTES = 0xE000_0000, 1 << 20
"""The engine's registers and doorbells (docs/registers.md)."""

CSR_BASE, CSR_PAGE = 0xF000_0000, 0x800
"""LiteX's registers, a page a block."""

CSR_PAGES = {"ctrl": 0, "status": 1, "mac": 2, "phy": 3, "uart": 4, "timer0": 5}
STATUS_NAMES = ("build", "clock", "memory", "irq", "rx_dropped", "rx_damaged", "tx_dropped", "host_dropped")
"""Words of the block ``status``, in order."""

BRIDGE_MAC, BRIDGE_IP = 0x10E2_D500_0000, "192.168.1.50"
"""The bridge's own addresses: those of LiteX's own targets. The engine's are its driver's choice."""


def status_address(name: str) -> int:
    """Address of a word of the block ``status``."""
    return CSR_BASE + CSR_PAGE * CSR_PAGES["status"] + 4 * STATUS_NAMES.index(name)
