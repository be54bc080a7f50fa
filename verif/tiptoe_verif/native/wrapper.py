"""A Verilog module around the top, so that Verilator evaluates the design once a cycle.

Verilator evaluates what follows a clock edge, and what depends combinationally on an input, in every ``eval``: with inputs
set between two edges, much of the design twice a cycle. The wrapper takes the inputs (all but clk) into registers at the rising
edge. The harness sets them before the edge, and the engine sees them in the cycle after it: together with its own
registers, as it would have seen inputs set just after the edge.
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
    lines += [",\n".join(f"  {direction} {size} {name}" for direction, size, name in ports)]
    lines += [");"]
    lines += [f"  reg {size} {name}_taken;" for size, name in inputs]
    lines += ["  always @(posedge clk) begin"]
    lines += [f"    {name}_taken <= {name};" for _, name in inputs]
    lines += ["  end", f"  {top} engine ("]
    taken = {name for _, name in inputs}
    connections = [f"    .{name}({name}{'_taken' if name in taken else ''})" for _, _, name in ports]
    lines += [",\n".join(connections), "  );", "endmodule", ""]
    return "\n".join(lines)
