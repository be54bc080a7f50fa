"""A Verilog module around the top, so that Verilator evaluates the logic behind the inputs once a cycle, or not at all.

Verilator evaluates everything that depends combinationally on an input in every ``eval``, changed or not, and a clock
cycle takes two. Behind the wrapper the inputs (all but clk) are copies, taken when ``sample`` changes, so that this logic runs
only when the harness has changed an input. What the engine sees is the same, in the same cycle.
"""

from __future__ import annotations

import re

from ..sim.toolchain import ToolError

WRAPPED = "_wrapped"
"""Suffix of the wrapper's module name."""

_PORT = re.compile(r"^\s*(input|output)\s+(?:wire\s+|reg\s+)?(\[\d+:0\])?\s*(\w+)\s*;", re.M)


def wrapper(top: str, verilog: str) -> str:
    """The wrapper's source for module ``top`` of ``verilog``."""
    module = re.search(rf"^module \\?{re.escape(top)} ?\(.*?^endmodule", verilog, re.S | re.M)
    if module is None:
        raise ToolError(f"the Verilog has no module {top}")
    ports = [(direction, size or "", name) for direction, size, name in _PORT.findall(module[0])]
    inputs = [(size, name) for direction, size, name in ports if direction == "input" and name != "clk"]
    lines = [f"module {top}{WRAPPED}("]
    lines += [f"  {direction} {size} {name}," for direction, size, name in ports]
    lines += ["  input sample", ");"]
    lines += [f"  reg {size} {name}_sampled;" for size, name in inputs]
    lines += ["  always @(posedge sample or negedge sample) begin"]
    lines += [f"    {name}_sampled <= {name};" for _, name in inputs]
    lines += ["  end", f"  {top} engine ("]
    sampled = {name for _, name in inputs}
    connections = [f"    .{name}({name}{'_sampled' if name in sampled else ''})" for _, _, name in ports]
    lines += [",\n".join(connections), "  );", "endmodule", ""]
    return "\n".join(lines)
