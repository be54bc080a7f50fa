"""The engine's neighbours as LiteX modules around their Verilog; usable in any LiteX SoC beside ``tiptoe_litex.Tiptoe``."""

from __future__ import annotations

from typing import Any

from liteeth.common import eth_phy_description
from litex.gen import LiteXModule
from litex.soc.interconnect import axi, stream, wishbone
from migen import Instance, Signal

from tiptoe_litex import FrameStream, Tiptoe
from tiptoe_litex.ports import axi_slave, axis, clock_ports

from .modules import DATA_BITS, MEMORY, SHARE


class HostMemory(LiteXModule):
    """Host memory in block memory (Verilog module ``tiptoe_host_memory``): ``axi`` and ``bus`` are its slaves."""

    def __init__(self, size: int) -> None:
        self.axi = bus = axi.AXIInterface(data_width=DATA_BITS, address_width=32, id_width=1)
        self.bus = host = wishbone.Interface(data_width=32, adr_width=30)
        self.specials += Instance(MEMORY, **clock_ports(), **axi_slave(bus), **wishbone_slave(host, size))


class SharedMac(LiteXModule):
    """The engine and a neighbour at one LiteEth MAC core of 64 bits (Verilog module ``tiptoe_mac_share``).

    Parameters
    ----------
    core : LiteEthMACCore
    engine : Tiptoe
    address : int
        The neighbour's MAC address.

    Attributes
    ----------
    source, sink : stream.Endpoint
        The neighbour's received frames and those it sends, in LiteEth's layout.
    dropped : Signal(32)
        Frames for the neighbour that found no room.
    """

    def __init__(self, core: Any, engine: Tiptoe, address: int) -> None:
        self.source = stream.Endpoint(eth_phy_description(DATA_BITS))
        self.sink = stream.Endpoint(eth_phy_description(DATA_BITS))
        self.dropped = Signal(32)
        mac_rx, mac_tx, host_rx, host_tx = (FrameStream(DATA_BITS) for _ in range(4))
        self.comb += [
            *mac_rx.from_liteeth(core.source),
            *mac_tx.to_liteeth(core.sink),
            *host_rx.to_liteeth(self.source),
            *host_tx.from_liteeth(self.sink),
        ]
        self.specials += Instance(
            SHARE, **clock_ports(), i_address=address, o_host_dropped=self.dropped,
            **axis("mac_rx", mac_rx, inward=True, user=True), **axis("mac_tx", mac_tx, inward=False, user=False),
            **axis("engine_rx", engine.rx, inward=False, user=True), **axis("engine_tx", engine.tx, inward=True, user=False),
            **axis("host_rx", host_rx, inward=False, user=False), **axis("host_tx", host_tx, inward=True, user=False),
        )  # fmt: skip


def wishbone_slave(bus: Any, size: int) -> dict[str, Any]:
    """Connections of an Instance with a Wishbone slave ``wishbone`` of ``size`` bytes."""
    return {
        "i_wishbone_adr": bus.adr[: (size // 4 - 1).bit_length()], "i_wishbone_dat_w": bus.dat_w, "i_wishbone_sel": bus.sel,
        "i_wishbone_cyc": bus.cyc, "i_wishbone_stb": bus.stb, "i_wishbone_we": bus.we,
        "o_wishbone_dat_r": bus.dat_r, "o_wishbone_ack": bus.ack,
    }  # fmt: skip
