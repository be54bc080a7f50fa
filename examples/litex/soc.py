"""A LiteX SoC with Tiptoe at its bus and at LiteEth's MAC: ``python soc.py FOLDER`` writes its Verilog.

Pins and PHY are those of a simulation; on a board they are its platform's and ``LiteEthPHYRGMII`` or the like.
"""

import sys
from pathlib import Path

from liteeth.phy.model import LiteEthPHYModel
from litex.build.generic_platform import Pins, Subsignal
from litex.build.io import CRG
from litex.build.sim.platform import SimPlatform
from litex.soc.integration.soc import SoCRegion
from litex.soc.integration.soc_core import SoCMini

from tiptoe_hdl.config import TINY
from tiptoe_litex import Tiptoe, add_mac

PINS = [
    ("sys_clk", 0, Pins(1)),
    ("serial", 0, Subsignal("tx", Pins(1)), Subsignal("rx", Pins(1))),
    (
        "eth", 0,
        Subsignal("sink_valid", Pins(1)), Subsignal("sink_data", Pins(8)),
        Subsignal("source_valid", Pins(1)), Subsignal("source_data", Pins(8)),
    ),
    ("irq", 0, Pins(1)),
]  # fmt: skip


class ExampleSoC(SoCMini):
    """The engine, 64 KiB of host memory, and a serial bridge to both for the driver."""

    def __init__(self, platform, sources, clock_hz=50_000_000):
        # As wide as LiteX's bus: nothing has to be converted.
        config = TINY.with_(data_width=32, addr_width=32, tick_cycles=clock_hz // 1000)
        self.crg = CRG(platform.request("sys_clk"))
        SoCMini.__init__(self, platform, clock_hz)
        self.phy = LiteEthPHYModel(platform.request("eth"))
        add_mac(self, self.phy, config.data_width)

        self.tiptoe = Tiptoe(config)
        self.tiptoe.add_sources(platform, sources)
        self.tiptoe.connect_mac(self.mac)
        self.bus.add_slave("tiptoe", self.tiptoe.axil, SoCRegion(origin=0xE000_0000, size=1 << 20, cached=False))
        self.bus.add_master("tiptoe", self.tiptoe.axi)
        self.comb += platform.request("irq").eq(self.tiptoe.irq)  # with a processor: self.irq.add("tiptoe")

        self.add_ram("host_memory", origin=0x4000_0000, size=1 << 16)
        self.add_uartbone(baudrate=1_000_000)


def write_verilog(folder):
    """The top as FOLDER/soc.v, the engine below FOLDER/tiptoe; on a board it is LiteX's ``Builder(soc).build()`` that does it."""
    platform = SimPlatform("SIM", PINS)
    soc = ExampleSoC(platform, folder / "tiptoe")
    soc.finalize()
    (folder / "soc.v").write_text(platform.get_verilog(soc, name="soc").main_source)
    return soc


if __name__ == "__main__":
    write_verilog(Path(sys.argv[1]))
