"""A FuseSoC core (CAPI2) of the exported folder, and the bench that its target ``sim`` runs."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from pathlib import Path
from string import Template

from .choice import Choice, Port

BENCH = "sim/tiptoe_tb.sv"
_BENCH = Path(__file__).with_name("bench.sv")
_USED = ("ID", "VERSION", "LIMITS", "CONTROL", "STATUS", "MAC_LO", "MAC_HI", "IP_ADDR")
"""Registers the bench knows."""
_CONTROL = ("ENABLE", "RST_UNKNOWN")


def version() -> str:
    """Of this package: IP-XACT's and FuseSoC's too."""
    return importlib.metadata.version("tiptoe-engine")


def core(choice: Choice, sources: Iterable[str]) -> str:
    """The core file. A core that depends on it gets the target ``default``: Verilog, and what Verilator may say of it."""
    files = "".join(f"      - {source}\n" for source in sources)
    config = choice.config
    return f"""CAPI=2:
# fusesoc --cores-root . run --target=lint|sim tiptoe:ip:{choice.top}
name: tiptoe:ip:{choice.top}:{version()}
description: TCP offload engine, {config.connections} connections, {config.data_width} bits

filesets:
  rtl:
    files:
{files}    file_type: verilogSource
  waivers:
    files:
      - verilator.vlt
    file_type: vlt
  bench:
    files:
      - {BENCH}
    file_type: systemVerilogSource

targets:
  default: &default
    filesets: [rtl, waivers]
    toplevel: {choice.top}
  lint:
    <<: *default
    flow: lint
    flow_options:
      tool: verilator
      verilator_options: [-Wall]
  sim:
    <<: *default
    filesets_append: [bench]
    toplevel: tiptoe_tb
    flow: sim
    flow_options:
      tool: verilator
      mode: binary
      # What Verilator's configure script finds out, for a Verilator from the Python package index, which has not run it;
      # and no optimisation: the bench is short.
      verilator_options: [-MAKEFLAGS CFG_CXXFLAGS_PCH_I=-include, -CFLAGS -fcoroutines, -CFLAGS -O0, -j 0]
"""


def bench(choice: Choice) -> str:
    """A bench in SystemVerilog: registers over AXI4-Lite, and a frame that the engine answers."""
    ports = [port for port in choice.ports if port.name not in ("clk", "rst")]
    return Template(_BENCH.read_text(encoding="utf-8")).substitute(
        top=choice.top, latest=100_000 + 100 * choice.config.connections,
        data_bits=choice.config.data_width, addr_bits=choice.config.addr_width,
        registers="\n".join(_registers()), signals="\n".join(map(_signal, ports)),
        connections=",\n".join(f"    .{port.name}({port.name})" for port in choice.ports),
    )  # fmt: skip


def _registers() -> Iterable[str]:
    from tiptoe_hdl.host.register_map import register_map

    known = register_map()
    for name in _USED:
        yield f"  localparam bit [19:0] {name} = 20'h{known[name].address:05x};"
    for name in ("ID", "VERSION"):
        value = sum((field.reset or 0) << field.low for field in known[name].fields)
        yield f"  localparam bit [31:0] {name}_VALUE = 32'h{value:08x};"
    places = {field.name: field.low for field in known["CONTROL"].fields}
    for name in _CONTROL:
        yield f"  localparam bit [31:0] CONTROL_{name} = 32'd1 << {places[name]};"
    (ready,) = (field.low for field in known["STATUS"].fields if field.name == "READY")
    yield f"  localparam int STATUS_READY = {ready};"


def _signal(port: Port) -> str:
    """Inputs of the engine are two-state: they start at 0."""
    bits = f"[{port.width - 1}:0] " if port.width > 1 else ""
    return f"  bit {bits}{port.name};" if port.direction == "in" else f"  wire {bits}{port.name};"
