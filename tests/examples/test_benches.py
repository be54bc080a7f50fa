"""examples/cocotb and examples/amaranth, as they are: with what is installed here, and from the wheel alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tiptoe_hdl.config import TINY
from tiptoe_verif.paths import ROOT
from tiptoe_verif.sim import engine_verilog, run_cocotb

EXAMPLES = ROOT / "examples"


def run(*command: str | Path, **options) -> str:
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=3600, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_cocotb_bench(tmp_path: Path) -> None:
    """On the build that tests/cocotb has; the clock is the bench's own."""
    top, verilog = engine_verilog(TINY)
    results = run_cocotb(top, verilog, EXAMPLES / "cocotb" / "bench.py", clock_ns=None, results_dir=tmp_path)
    assert results.passed == ["connection", "lost_segment"]


def test_amaranth_design(tmp_path: Path) -> None:
    assert "http" in run(sys.executable, EXAMPLES / "amaranth" / "appliance.py", cwd=tmp_path)


@pytest.mark.soak
def test_cocotb_project_from_the_wheel(tmp_path: Path) -> None:
    """Exported, compiled and run by `pytest` in a copy of the folder, without the checkout."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    run(*pip, "wheel", "--no-deps", "-w", tmp_path / "dist", ROOT)
    run(*pip, "install", "--no-deps", "--target", tmp_path / "installed", *(tmp_path / "dist").glob("*.whl"))
    project = shutil.copytree(EXAMPLES / "cocotb", tmp_path / "project")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("TIPTOE_", "XDG_", "PYTEST"))
    }
    environment |= {"PYTHONPATH": str(tmp_path / "installed"), "HOME": str(tmp_path)}
    assert "1 passed" in run(sys.executable, "-m", "pytest", "-q", cwd=project, env=environment)
    assert (project / "build" / "engine" / "rtl" / "tiptoe_engine.v").exists()
