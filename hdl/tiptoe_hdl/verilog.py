"""Verilog of the engine with AXI's flat port names (``s_axil_awaddr``, ``m_axi_awaddr``, ``s_axis_rx_tdata`` ...)."""

from amaranth.back import rtlil, verilog
from amaranth.hdl import Value

from .config import EngineConfig
from .engine import Engine

TOP = "tiptoe_engine"
"""Name of the Verilog module."""

RENAMED = {"m_axi_read": "m_axi", "m_axi_write": "m_axi"}
"""The two halves of the memory port carry one name."""


def flat_ports(engine: Engine) -> dict:
    """Port name to signal, for Amaranth's back ends. ``clk`` and ``rst`` come with the clock domain."""
    ports = {}
    for path, _, value in engine.signature.flatten(engine):
        interface, *rest = (str(part) for part in path)
        name = "_".join([RENAMED.get(interface, interface), *rest])
        ports[name] = (Value.cast(value), None)
    return ports


def engine_rtlil(cfg: EngineConfig) -> str:
    """RTLIL text of the engine, top module ``TOP``, without source locations."""
    engine = Engine(cfg)
    return rtlil.convert(engine, name=TOP, ports=flat_ports(engine), emit_src=False)


def engine_verilog(cfg: EngineConfig) -> str:
    """Verilog text of the engine, top module ``TOP``."""
    engine = Engine(cfg)
    return verilog.convert(engine, name=TOP, ports=flat_ports(engine), emit_src=False)
