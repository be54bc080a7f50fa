"""Timing constraints of an exported engine: for any tool (SDC), and for Vivado."""

from __future__ import annotations

from collections.abc import Iterator

from ..paths import CONSTRAINTS
from .choice import ENGINE, Choice

_VIVADO = ("out_of_context.tcl", "package_ip.tcl", "zynqmp.xdc")


def constraints(choice: Choice) -> Iterator[tuple[str, str]]:
    """Files and their text; Vivado's scripts and its template for a design are the project's own."""
    clock = f"create_clock -name clk -period {choice.period:.3f} [get_ports clk]\n"
    yield "tiptoe.sdc", f"# {choice.top} alone: one clock. In a design, clk has its clock from there.\n{clock}{_PORTS}"
    yield "tiptoe_ooc.xdc", f"# For synthesis out of context only: in a design clk has its clock from there.\n{clock}"
    for name in _VIVADO:
        text = (CONSTRAINTS / "xilinx" / name).read_text(encoding="utf-8")
        yield f"vivado/{name}", text.replace(f"{{ set top {ENGINE} }}", f"{{ set top {choice.top} }}")


_PORTS = """
# Nothing in it is a false path or takes more than a cycle, rst included. All ports are synchronous to clk.
# Where the module is a chip's or a partition's border, its neighbours take their part of the cycle, in ns:
# set_input_delay -clock clk 2.0 [all_inputs]
# set_output_delay -clock clk 2.0 [all_outputs]
"""
