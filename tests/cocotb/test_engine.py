"""The cocotb benches of the whole engine, one simulation a file; all share one build of the TINY configuration."""

from pathlib import Path

import pytest

from tiptoe_hdl.config import TINY
from tiptoe_verif.sim import engine_verilog, run_cocotb

NO_BENCHES = ("test_", "conftest", "steps")
BENCHES = sorted(path for path in Path(__file__).parent.glob("*.py") if not path.name.startswith(NO_BENCHES))


@pytest.mark.parametrize("bench", BENCHES, ids=lambda path: path.stem)
def test_engine(bench, out_dir):
    top, verilog = engine_verilog(TINY)
    results = run_cocotb(top, verilog, bench, results_dir=out_dir)
    assert results.passed


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 120))
@pytest.mark.parametrize("bench", BENCHES, ids=lambda path: path.stem)
def test_engine_with_other_seeds(bench, seed, out_dir):
    top, verilog = engine_verilog(TINY)
    assert run_cocotb(top, verilog, bench, seed=seed, env={"TIPTOE_SEED": str(seed)}, results_dir=out_dir).passed
