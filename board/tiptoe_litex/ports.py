"""Connections of an Instance of one of the project's Verilog modules, by the ports' names."""

from __future__ import annotations

from typing import Any

from migen import ClockSignal, Constant, ResetSignal

from .frames import FrameStream


def axis(prefix: str, port: FrameStream, *, inward: bool, user: bool) -> dict[str, Any]:
    """Connections of an Instance to ``port``; ``inward``: frames go into the instance."""
    names = ["tdata", "tkeep", "tvalid", "tlast", *(["tuser"] if user else [])]
    here, there = ("i", "o") if inward else ("o", "i")
    return {f"{here}_{prefix}_{name}": getattr(port, name) for name in names} | {
        f"{there}_{prefix}_tready": port.tready
    }


def clock_ports() -> dict[str, Any]:
    """Connections of an Instance to the domain ``sys``."""
    return {"i_clk": ClockSignal("sys"), "i_rst": ResetSignal("sys")}


def axil_slave(bus: Any) -> dict[str, Any]:
    """Connections of an Instance with an AXI4-Lite slave ``s_axil`` of 1 MiB."""
    return {
        "i_s_axil_awaddr": bus.aw.addr[:20], "i_s_axil_awprot": Constant(0, 3),
        "i_s_axil_awvalid": bus.aw.valid, "o_s_axil_awready": bus.aw.ready,
        "i_s_axil_wdata": bus.w.data, "i_s_axil_wstrb": bus.w.strb,
        "i_s_axil_wvalid": bus.w.valid, "o_s_axil_wready": bus.w.ready,
        "o_s_axil_bresp": bus.b.resp, "o_s_axil_bvalid": bus.b.valid, "i_s_axil_bready": bus.b.ready,
        "i_s_axil_araddr": bus.ar.addr[:20], "i_s_axil_arprot": Constant(0, 3),
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


def axi_master(bus: Any) -> dict[str, Any]:
    """Connections of an Instance with an AXI4 master ``m_axi``."""
    return _axi_channels("m_axi", bus, "o", "i")


def axi_slave(bus: Any) -> dict[str, Any]:
    """Connections of an Instance with an AXI4 slave ``s_axi``."""
    return _axi_channels("s_axi", bus, "i", "o")
