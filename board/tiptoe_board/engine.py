"""The engine and its neighbours as LiteX modules around their Verilog; usable in any LiteX SoC."""

from __future__ import annotations

from typing import Any

from liteeth.common import eth_phy_description
from litex.gen import LiteXModule
from litex.soc.interconnect import axi, stream, wishbone
from migen import Cat, ClockSignal, Instance, ResetSignal, Signal

from .modules import ENGINE, MEMORY, SHARE

DATA_BITS = 64


class FrameStream:
    """An AXI4-Stream of frames as signals, ``tdata`` to ``tuser``."""

    def __init__(self) -> None:
        self.tdata, self.tkeep = Signal(DATA_BITS), Signal(DATA_BITS // 8)
        self.tvalid, self.tready, self.tlast, self.tuser = Signal(), Signal(), Signal(), Signal()

    def from_liteeth(self, source: Any) -> list[Any]:
        """Statements that feed it from a LiteEth stream, whose ``last_be`` marks the last byte of the last word."""
        marks = source.last_be
        return [
            self.tvalid.eq(source.valid),
            source.ready.eq(self.tready),
            self.tdata.eq(source.data),
            self.tlast.eq(source.last),
            self.tkeep.eq(_up_to(marks)),
            self.tuser.eq(source.last & (source.error != 0)),
        ]

    def to_liteeth(self, sink: Any) -> list[Any]:
        """Statements that feed a LiteEth stream from it."""
        keep = self.tkeep
        return [
            sink.valid.eq(self.tvalid),
            self.tready.eq(sink.ready),
            sink.data.eq(self.tdata),
            sink.last.eq(self.tlast),
            *(
                sink.last_be[lane].eq(self.tlast & keep[lane] & (~keep[lane + 1] if lane + 1 < len(keep) else 1))
                for lane in range(len(keep))
            ),
        ]


def _up_to(marks: Any) -> Any:
    """Ones up to the marked lane; all ones without a mark: ``last_be`` is one-hot, or 0 before the last word."""
    return Cat(*((marks[:lane] == 0) if lane else 1 for lane in range(len(marks))))


def _axis(prefix: str, port: FrameStream, *, inward: bool, user: bool) -> dict[str, Any]:
    """Connections of an Instance to ``port``; ``inward``: frames go into the instance."""
    names = ["tdata", "tkeep", "tvalid", "tlast", *(["tuser"] if user else [])]
    here, there = ("i", "o") if inward else ("o", "i")
    return {f"{here}_{prefix}_{name}": getattr(port, name) for name in names} | {
        f"{there}_{prefix}_tready": port.tready
    }


def clock_ports() -> dict[str, Any]:
    """Connections of an Instance to the domain ``sys``."""
    return {"i_clk": ClockSignal("sys"), "i_rst": ResetSignal("sys")}


class TiptoeEngine(LiteXModule):
    """The engine with its queues of frames (Verilog module ``tiptoe_mac_engine``).

    Attributes
    ----------
    axil : AXILiteInterface
        Slave: registers and doorbells, 1 MiB.
    axi : AXIInterface
        Master: host memory, 64 bits.
    rx, tx : FrameStream
        From and to the MAC.
    irq : Signal
    rx_dropped, rx_damaged, tx_dropped : Signal(32)
    """

    def __init__(self) -> None:
        self.axil = axil = axi.AXILiteInterface(data_width=32, address_width=32)
        self.axi = bus = axi.AXIInterface(data_width=DATA_BITS, address_width=32, id_width=1)
        self.rx, self.tx = FrameStream(), FrameStream()
        self.irq = Signal()
        self.rx_dropped, self.rx_damaged, self.tx_dropped = Signal(32), Signal(32), Signal(32)
        self.specials += Instance(
            ENGINE, **clock_ports(), **_axis("s_axis_rx", self.rx, inward=True, user=True),
            **_axis("m_axis_tx", self.tx, inward=False, user=False), **_axil_slave(axil), **_axi_master(bus),
            i_tick=0, o_irq=self.irq,
            o_rx_dropped=self.rx_dropped, o_rx_damaged=self.rx_damaged, o_tx_dropped=self.tx_dropped,
        )  # fmt: skip


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
    engine : TiptoeEngine
    address : int
        The neighbour's MAC address.

    Attributes
    ----------
    source, sink : stream.Endpoint
        The neighbour's received frames and those it sends, in LiteEth's layout.
    dropped : Signal(32)
        Frames for the neighbour that found no room.
    """

    def __init__(self, core: Any, engine: TiptoeEngine, address: int) -> None:
        self.source = stream.Endpoint(eth_phy_description(DATA_BITS))
        self.sink = stream.Endpoint(eth_phy_description(DATA_BITS))
        self.dropped = Signal(32)
        mac_rx, mac_tx, host_rx, host_tx = FrameStream(), FrameStream(), FrameStream(), FrameStream()
        self.comb += [
            *mac_rx.from_liteeth(core.source),
            *mac_tx.to_liteeth(core.sink),
            *host_rx.to_liteeth(self.source),
            *host_tx.from_liteeth(self.sink),
        ]
        self.specials += Instance(
            SHARE, **clock_ports(), i_address=address, o_host_dropped=self.dropped,
            **_axis("mac_rx", mac_rx, inward=True, user=True), **_axis("mac_tx", mac_tx, inward=False, user=False),
            **_axis("engine_rx", engine.rx, inward=False, user=True), **_axis("engine_tx", engine.tx, inward=True, user=False),
            **_axis("host_rx", host_rx, inward=False, user=False), **_axis("host_tx", host_tx, inward=True, user=False),
        )  # fmt: skip


def _axil_slave(bus: Any) -> dict[str, Any]:
    return {
        "i_s_axil_awaddr": bus.aw.addr[:20], "i_s_axil_awprot": 0,
        "i_s_axil_awvalid": bus.aw.valid, "o_s_axil_awready": bus.aw.ready,
        "i_s_axil_wdata": bus.w.data, "i_s_axil_wstrb": bus.w.strb,
        "i_s_axil_wvalid": bus.w.valid, "o_s_axil_wready": bus.w.ready,
        "o_s_axil_bresp": bus.b.resp, "o_s_axil_bvalid": bus.b.valid, "i_s_axil_bready": bus.b.ready,
        "i_s_axil_araddr": bus.ar.addr[:20], "i_s_axil_arprot": 0,
        "i_s_axil_arvalid": bus.ar.valid, "o_s_axil_arready": bus.ar.ready,
        "o_s_axil_rdata": bus.r.data, "o_s_axil_rresp": bus.r.resp,
        "o_s_axil_rvalid": bus.r.valid, "i_s_axil_rready": bus.r.ready,
    }  # fmt: skip


def _axi_channels(prefix: str, bus: Any, request: str, answer: str) -> dict[str, Any]:
    """``request``: direction of what a master gives, ``answer`` of what it takes."""
    ports: dict[str, Any] = {}
    for letters, channel in (("aw", bus.aw), ("ar", bus.ar)):
        for name in ("addr", "len", "size", "burst", "lock", "cache", "prot", "id", "valid"):
            ports[f"{request}_{prefix}_{letters}{name}"] = getattr(channel, name)
        ports[f"{answer}_{prefix}_{letters}ready"] = channel.ready
    for name in ("data", "strb", "last", "valid"):
        ports[f"{request}_{prefix}_w{name}"] = getattr(bus.w, name)
    ports[f"{answer}_{prefix}_wready"] = bus.w.ready
    for letters, channel, names in (
        ("b", bus.b, ("resp", "id", "valid")),
        ("r", bus.r, ("data", "resp", "last", "id", "valid")),
    ):
        for name in names:
            ports[f"{answer}_{prefix}_{letters}{name}"] = getattr(channel, name)
        ports[f"{request}_{prefix}_{letters}ready"] = channel.ready
    return ports


def _axi_master(bus: Any) -> dict[str, Any]:
    return _axi_channels("m_axi", bus, "o", "i")


def axi_slave(bus: Any) -> dict[str, Any]:
    """Connections of an Instance with an AXI4 slave ``s_axi``."""
    return _axi_channels("s_axi", bus, "i", "o")


def wishbone_slave(bus: Any, size: int) -> dict[str, Any]:
    """Connections of an Instance with a Wishbone slave ``wishbone`` of ``size`` bytes."""
    return {
        "i_wishbone_adr": bus.adr[: (size // 4 - 1).bit_length()], "i_wishbone_dat_w": bus.dat_w, "i_wishbone_sel": bus.sel,
        "i_wishbone_cyc": bus.cyc, "i_wishbone_stb": bus.stb, "i_wishbone_we": bus.we,
        "o_wishbone_dat_r": bus.dat_r, "o_wishbone_ack": bus.ack,
    }  # fmt: skip
