"""The top for Verilator: its clocks, the PHY's bytes and the UART's pins are ports, and its DDR3 chip is a model."""

from __future__ import annotations

from typing import Any

from liteeth.common import eth_phy_description
from litex.build.generic_platform import Pins, Subsignal
from litex.build.sim.platform import SimPlatform
from litex.gen import LiteXModule
from litex.soc.interconnect import stream
from migen import ClockDomain, If

from .address_map import SIM_UART_CYCLES
from .ddr3 import SIM_CHIP, controller
from .sim_ddr3 import SimDdr3Phy

SIM_UART = {"clk_freq": 500_000, "baudrate": 500_000 // SIM_UART_CYCLES}
"""The serial bridge's seconds are a hundred times shorter than the board's: UARTBone waits 1 ms for the rest of a command."""

IO = [
    ("clocks", 0, Subsignal("sys", Pins(1)), Subsignal("rst", Pins(1)), Subsignal("eth", Pins(1))),
    (
        "line", 0,
        Subsignal("rx_valid", Pins(1)), Subsignal("rx_data", Pins(8)), Subsignal("rx_last", Pins(1)),
        Subsignal("tx_valid", Pins(1)), Subsignal("tx_data", Pins(8)),
    ),
    ("pause", 0, Pins(1)),
    ("serial", 0, Subsignal("tx", Pins(1)), Subsignal("rx", Pins(1))),
]  # fmt: skip


class SimClocks(LiteXModule):
    """Clock domains straight from ports."""

    def __init__(self, pads: Any) -> None:
        self.cd_sys = ClockDomain()
        self.comb += [self.cd_sys.clk.eq(pads.sys), self.cd_sys.rst.eq(pads.rst)]


class SimPhy(LiteXModule):
    """A PHY as LiteEth's RGMII one is behind its pins: a byte a cycle of the line's clock, preamble, FCS and gaps among them, and
    no way to wait. ``last`` comes with a frame's last byte, as there."""

    dw = 8

    def __init__(self, pads: Any, clocks: Any) -> None:
        self.cd_eth_rx = ClockDomain()
        self.cd_eth_tx = ClockDomain()
        self.source = source = stream.Endpoint(eth_phy_description(8))
        self.sink = sink = stream.Endpoint(eth_phy_description(8))
        for domain in (self.cd_eth_rx, self.cd_eth_tx):
            self.comb += [domain.clk.eq(clocks.eth), domain.rst.eq(clocks.rst)]
        self.comb += [
            source.valid.eq(pads.rx_valid),
            source.data.eq(pads.rx_data),
            source.last.eq(pads.rx_last),
            sink.ready.eq(1),
            pads.tx_valid.eq(sink.valid),
            pads.tx_data.eq(sink.data),
        ]


def sim_platform() -> SimPlatform:
    """A platform whose pins are the simulation's ports."""
    return SimPlatform("SIM", IO)


def sim_sdram(clock_hz: int) -> tuple[SimDdr3Phy, Any]:
    """The model of a small chip behind a PHY, and its controller."""
    phy = SimDdr3Phy(clock_hz)
    return phy, controller(phy, SIM_CHIP, clock_hz)


def add_pause(soc: Any, pause: Any) -> None:
    """While ``pause`` is high host memory takes no word of the engine's: as slow a memory as a test wants."""
    engine, memory = soc.engine.axi, soc.memory.axi
    soc.comb += If(pause, engine.w.ready.eq(0), memory.w.valid.eq(0))
