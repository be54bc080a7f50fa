"""A Verilog module around the top, so that Verilator evaluates the design once a cycle.

Verilator evaluates what follows a clock edge, and what depends combinationally on an input, in every ``eval``: with inputs
set between two edges, much of the design twice a cycle. The wrapper takes the inputs (all but clk) into registers at the rising
edge. The harness sets them before the edge, and the engine sees them in the cycle after it: together with its own
registers, as it would have seen inputs set just after the edge.

``rx_level`` is how full the engine's receive buffer is, in words (0: another top).

Blocks that can rest (``native/resting.py``) take a clock of their own, ``clk_busy``, while ``resting`` is low.
"""

from __future__ import annotations

import re

from ..sim.toolchain import ToolError
from .resting import let_rest

WRAPPED = "_wrapped"
"""Suffix of the wrapper's module name."""
BUSY = "clk_busy"

_PORT = re.compile(r"^\s*(input|output)\s+(?:wire\s+|reg\s+)?(\[\d+:0\])?\s*(\w+)\s*;", re.M)


def wrapped(top: str, verilog: str, *, rest: bool = True) -> str:
    """``verilog`` and the wrapper around its module ``top``; with ``rest``, blocks that can rest do."""
    blocks: list[str] = []
    if rest:
        verilog, blocks = let_rest(verilog, f"{top}{WRAPPED}.{BUSY}")
    return f"{verilog}\n{_wrapper(top, verilog, blocks)}"


def _wrapper(top: str, verilog: str, blocks: list[str]) -> str:
    module = re.search(rf"^module \\?{re.escape(top)} ?\(.*?^endmodule", verilog, re.S | re.M)
    if module is None:
        raise ToolError(f"the Verilog has no module {top}")
    ports = [(direction, size or "", name) for direction, size, name in _PORT.findall(module[0])]
    inputs = [(size, name) for direction, size, name in ports if direction == "input" and name != "clk"]
    lines = [f"module {top}{WRAPPED}(", f"  input {BUSY},", "  output resting,", "  output [31:0] rx_level,"]
    lines += [",\n".join(f"  {direction} {size} {name}" for direction, size, name in ports)]
    lines += [");"]
    lines += [f"  reg {size} {name}_taken;" for size, name in inputs]
    lines += ["  always @(posedge clk) begin"]
    lines += [f"    {name}_taken <= {name};" for _, name in inputs]
    lines += ["  end", f"  {top} engine ("]
    taken = {name for _, name in inputs}
    connections = [f"    .{name}({name}{'_taken' if name in taken else ''})" for _, _, name in ports]
    # All rest together, or none.
    paths = [f"engine{block.removeprefix(top)}.resting" for block in blocks]
    buffer = re.search(rf"^module \\?{re.escape(top)}\.buffer ?\(.*?^endmodule", verilog, re.S | re.M)
    level = "engine.buffer.level" if buffer and re.search(r"^ +reg \[\d+:0\] level\b", buffer[0], re.M) else "0"
    lines += [",\n".join(connections), "  );", f"  assign resting = {' & '.join(paths) or 0};"]
    lines += [f"  assign rx_level = {level};", "endmodule", ""]
    return "\n".join(lines)
