"""docs/timings from the engine's simulation: ``python -m tests.timings.page``; a test finds drift."""

from pathlib import Path

from tiptoe_hdl.config import TINY
from tiptoe_verif.sim import engine_verilog, run_cocotb

FOLDER = Path(__file__).parents[2] / "docs" / "timings"


def record(results: Path) -> dict[str, str]:
    """The diagrams of a run, by file name."""
    for old in results.glob("*.json"):
        old.unlink()
    top, verilog = engine_verilog(TINY)
    run_cocotb(
        top, verilog, Path(__file__).with_name("bench.py"), seed=1, env={"TIPTOE_SEED": "1"}, results_dir=results
    )
    return {path.name: path.read_text() for path in sorted(results.glob("*.json"))}


if __name__ == "__main__":
    from tiptoe_verif.paths import BUILD

    for name, drawing in record(BUILD / "timings").items():
        (FOLDER / name).write_text(drawing)
