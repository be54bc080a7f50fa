"""Verilog of the engine with AXI's flat port names (``s_axil_awaddr``, ``m_axi_awaddr``, ``s_axis_rx_tdata`` ...)."""

import re

from amaranth.back import rtlil, verilog
from amaranth.hdl import Value

from .config import EngineConfig
from .engine import Engine
from .resets import without_payload_resets

TOP = "tiptoe_engine"
"""Name of the Verilog module."""

_STANDARD = re.compile(r"^\s*(?:wire|reg|memory)\b.*[\s\\](mailbox|process|semaphore|std)\b(?:;| \[|$)", re.MULTILINE)

RENAMED = {"m_axi_read": "m_axi", "m_axi_write": "m_axi", "s_axi_read": "s_axi", "s_axi_write": "s_axi"}
"""The two halves of a memory port carry one name."""


def port_name(path) -> str:
    """AXI's flat name of a port, from its path in the component's signature."""
    interface, *rest = (str(part) for part in path)
    return "_".join([RENAMED.get(interface, interface), *rest])


def flat_ports(component) -> dict:
    """Port name to signal, for Amaranth's back ends. ``clk`` and ``rst`` come with the clock domain."""
    ports = {}
    for path, _, value in component.signature.flatten(component):
        ports[port_name(path)] = (Value.cast(value), None)
    return ports


def engine_rtlil(cfg: EngineConfig) -> str:
    """RTLIL text of the engine, top module ``TOP``, without source locations."""
    return module_rtlil(Engine(cfg), TOP)


def module_rtlil(component, name: str) -> str:
    """RTLIL text of any component with ports of standard names, top module ``name``; payloads of streams have no reset in it."""
    text = str(rtlil.convert(component, name=name, ports=flat_ports(component), emit_src=False))
    return without_payload_resets(_checked(text))


def module_verilog(component, name: str) -> str:
    """Verilog text of any component with ports of standard names, top module ``name``."""
    return _checked(verilog.convert(component, name=name, ports=flat_ports(component), emit_src=False))


def _checked(text: str) -> str:
    """The text, unless a signal or memory in it has a name that SystemVerilog's tools know already and warn of."""
    found = _STANDARD.search(text)
    if found:
        raise ValueError(f"{found[1]} is a name of SystemVerilog's package std: call the signal or memory otherwise")
    return text


def engine_verilog(cfg: EngineConfig) -> str:
    """Verilog text of the engine, top module ``TOP``."""
    return module_verilog(Engine(cfg), TOP)
