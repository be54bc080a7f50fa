"""Host memory in DDR3 through LiteDRAM: which chips, and the engine's and the bridges' way to its controller."""

from __future__ import annotations

import math
from typing import Any

from litedram import modules
from litedram.common import PhySettings, get_default_cl_cwl, get_sys_latency, get_sys_phase
from litedram.core import LiteDRAMCore
from litex.gen import LiteXModule
from litex.soc.interconnect import axi, wishbone
from migen import Instance, Signal

from tiptoe_litex.ports import axi_slave, clock_ports

from .modules import DATA_BITS, MEMORY, Sizes
from .neighbours import wishbone_slave

LANES = 2
"""Bytes of the chip's width, each with a strobe and delays of its own."""
PHASES = 2
"""The chip's clock is twice the system's."""
BITSLIPS, DELAYS = 4, 8
"""Places a lane's reads can be shifted to, and delays of its strobe."""

WORD_BYTES = 16
"""A burst of the chip: a word of the controller's ports."""
_READ_PIPELINE = 10
"""System clocks that ECP5's PHY adds to a read's latency."""


class SmallChip(modules.MT41K64M16):  # type: ignore[misc]
    """For simulation: 32 MiB."""

    nrows = 2048


SIM_CHIP = "small"
CHIPS = {"MT41K64M16": (modules.MT41K64M16, 110), "MT41K256M16": (modules.MT41K256M16, 260), SIM_CHIP: (SmallChip, 110)}
"""Name to LiteDRAM's description and tRFC in ns (JESD79-3F, table 61). LiteDRAM's tables have the latter in clocks of the chip's
fastest rate: at a rate as slow as ours that would be up to a quarter of all time."""


def phy_settings(clock_hz: float) -> PhySettings:
    """What LiteDRAM has to know of ECP5's PHY with a chip of 16 bits."""
    cl, cwl = get_default_cl_cwl("DDR3", 1 / (PHASES * clock_hz))
    read, write = get_sys_latency(PHASES, cl), get_sys_latency(PHASES, cwl)
    return PhySettings(
        phytype="ECP5DDRPHY", memtype="DDR3", databits=8 * LANES, dfi_databits=4 * 8 * LANES, nphases=PHASES,
        rdphase=get_sys_phase(PHASES, read, cl), wrphase=get_sys_phase(PHASES, write, cwl), cl=cl, cwl=cwl,
        read_latency=read + _READ_PIPELINE, write_latency=write, read_leveling=True, bitslips=BITSLIPS, delays=DELAYS,
    )  # fmt: skip


class Ddr3Memory(LiteXModule):
    """Host memory behind a controller (Verilog module ``tiptoe_host_memory``): ``axi`` and ``bus`` are its slaves.

    Parameters
    ----------
    core : LiteDRAMCore
    """

    def __init__(self, core: Any, sizes: Sizes) -> None:
        self.axi = bus = axi.AXIInterface(data_width=DATA_BITS, address_width=32, id_width=1)
        self.bus = host = wishbone.Interface(data_width=32, adr_width=30)
        size = sizes.memory_bytes
        ports: dict[str, Any] = {}
        for name, mode in (("reads", "read"), ("writes", "write"), ("host", "both")):
            port, word = core.crossbar.get_port(mode), Signal((size // WORD_BYTES - 1).bit_length())
            self.comb += port.cmd.addr.eq(word)  # of a larger chip the upper words are not host memory
            ports |= _native(name, port, word)
        self.specials += Instance(MEMORY, **clock_ports(), **axi_slave(bus), **wishbone_slave(host, size), **ports)


def controller(phy: Any, chip: str, clock_hz: int) -> LiteDRAMCore:
    """LiteDRAM's controller for a chip behind its PHY."""
    kind, refresh_ns = CHIPS[chip]
    module = kind(clock_hz, f"1:{PHASES}")
    timing = module.timing_settings
    timing.tRFC = math.ceil(refresh_ns * 1e-9 * clock_hz) + 1
    return LiteDRAMCore(phy, module.geom_settings, timing, clock_hz)


def _native(prefix: str, port: Any, word: Signal) -> dict[str, Any]:
    """Connections of an Instance to a port of the controller, but for ``word``, the address."""
    return {
        f"o_{prefix}_cmd_valid": port.cmd.valid, f"i_{prefix}_cmd_ready": port.cmd.ready,
        f"o_{prefix}_cmd_we": port.cmd.we, f"o_{prefix}_cmd_addr": word,
        f"o_{prefix}_wdata_valid": port.wdata.valid, f"i_{prefix}_wdata_ready": port.wdata.ready,
        f"o_{prefix}_wdata": port.wdata.data, f"o_{prefix}_wdata_we": port.wdata.we,
        f"i_{prefix}_rdata_valid": port.rdata.valid, f"i_{prefix}_rdata": port.rdata.data,
    }  # fmt: skip
