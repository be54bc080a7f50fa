"""Builds and runs Verilated simulations of Amaranth components."""

from .cocotb_run import CocotbFailure, CocotbResults, bench_tests, run_cocotb
from .toolchain import Progress, ToolError
from .verilate import build_cocotb, build_library, cached_verilog, engine_verilog, port_names, to_verilog

__all__ = [
    "CocotbFailure",
    "CocotbResults",
    "Progress",
    "ToolError",
    "build_cocotb",
    "build_library",
    "cached_verilog",
    "engine_verilog",
    "port_names",
    "run_cocotb",
    "bench_tests",
    "to_verilog",
]
