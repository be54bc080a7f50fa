"""The top: engine, MAC, Etherbone and UART bridges, host memory, a processor if wanted, on one Wishbone bus."""

from __future__ import annotations

from typing import Any

from litex.gen import LiteXModule
from litex.soc.integration.soc import SoCRegion
from litex.soc.integration.soc_core import SoCMini

from tiptoe_litex import Tiptoe, add_mac

from .address_map import CSR_BASE, CSR_PAGES, ENGINE_BASE, ENGINE_BYTES, MEMORY_BASE
from .cpu import INTERRUPTS, Cpu, Program, add_constants, connect_interrupt
from .ddr3 import Ddr3Memory
from .modules import DATA_BITS, Sizes
from .neighbours import HostMemory, SharedMac
from .station import EtherboneStation
from .status import Status


class TiptoeSoC(SoCMini):
    """The whole top but for its clocks, its PHY and its pins.

    Parameters
    ----------
    platform
        LiteX's.
    crg
        Makes the clock domain ``sys``.
    phy
        A LiteEth PHY of 8 bits with the clock domains ``eth_rx`` and ``eth_tx``.
    sizes : Sizes
    clock_hz : int
        Of ``sys``.
    build : int
        32 bits that tell builds apart.
    mac_address, ip_address
        The bridge's own; the engine's are set by its driver.
    uart
        A second bridge, UARTBone, at the pins ``serial``, unless they are the processor's console: LiteX's options for it;
        None: there is none.
    sdram
        A DDR3 chip's PHY and LiteDRAM's controller for it: host memory; without, it is in block memory.
    cpu : Cpu, optional
        A processor that drives the engine; without one the host at the bridge does.
    """

    csr_map = CSR_PAGES
    interrupt_map = INTERRUPTS
    mem_map = {"csr": CSR_BASE}

    def __init__(
        self, platform: Any, crg: LiteXModule, phy: Any, sizes: Sizes, *,
        clock_hz: int, build: int, mac_address: int, ip_address: str, uart: dict[str, int] | None,
        sdram: tuple[Any, Any] | None = None, cpu: Cpu | None = None,
    ) -> None:  # fmt: skip
        self.crg = crg
        SoCMini.__init__(self, platform, clock_hz, csr_data_width=32, **(cpu.soc_options() if cpu else {}))
        self.phy = phy
        add_mac(self, phy, DATA_BITS)
        self.engine = engine = Tiptoe(sizes.engine)
        self.share = share = SharedMac(self.mac, engine, mac_address)
        if sdram:
            self.ddrphy, self.sdram = sdram
            self.memory = memory = Ddr3Memory(self.sdram, sizes)
        else:
            self.memory = memory = HostMemory(sizes.memory_bytes)
        self.comb += engine.axi.connect(memory.axi)
        self.station = station = EtherboneStation(share, mac_address, ip_address, clock_hz)
        self.status = Status(
            engine,
            share,
            station.guard.last,
            build=build,
            clock_hz=clock_hz,
            memory_bytes=sizes.memory_bytes,
            dram=bool(sdram),
        )
        if cpu:
            connect_interrupt(self, engine.irq)
            add_constants(self, sizes)
            self.program = Program()
        if uart and not (cpu and cpu.console == "serial"):
            self.add_uartbone(**uart)
        self.bus.add_master(name="etherbone", master=station.bus)
        self.bus.add_slave("engine", engine.axil, SoCRegion(origin=ENGINE_BASE, size=ENGINE_BYTES, cached=False))
        self.bus.add_slave("memory", memory.bus, SoCRegion(origin=MEMORY_BASE, size=sizes.memory_bytes, cached=False))
