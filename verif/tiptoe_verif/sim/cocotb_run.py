"""Runs cocotb benches on a Verilated top module, from pytest or anything else.

One program is compiled per top module and shared by all benches. The port ``clk`` is toggled by the
simulation's own main program: a bench waits for its edges (``RisingEdge(dut.clk)``) and must not start a
``Clock`` on it.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..paths import BUILD, ROOT
from .toolchain import Progress, ToolError, has_fst
from .verilate import build_cocotb
from .wave_view import write_views


@dataclass
class CocotbResults:
    """Outcome of one simulation."""

    passed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Name of the test to its error message."""
    skipped: list[str] = field(default_factory=list)
    sim_time_ns: float = 0.0
    """Simulated time of all tests, nanoseconds."""
    real_time_s: float = 0.0
    """Wall time of all tests, seconds."""
    log: Path = Path()
    waveform: Path | None = None
    timed_out: bool = False
    """The simulation was ended after ``timeout_s``."""


class CocotbFailure(AssertionError):
    """At least one cocotb test failed; the message says which, why, and where log and waveform are."""


def bench_tests(bench: Path) -> list[str]:
    """Names of the cocotb tests in a file, to parametrize a test over ``run_cocotb(testcase=...)``."""
    pattern = r"^@cocotb\.(?:test|parametrize)\b.*?^async def (\w+)"
    return re.findall(pattern, bench.read_text(), re.S | re.M)


def run_cocotb(
    top_name: str,
    verilog_text: str,
    test_module: str | Path,
    *,
    testcase: str | None = None,
    env: Mapping[str, str] | None = None,
    clock_ns: float | None = 8.0,
    seed: int | None = None,
    waves: bool = False,
    results_dir: Path | None = None,
    timeout_s: float = 900.0,
    check: bool = True,
    progress: Progress | None = None,
) -> CocotbResults:
    """Build the simulation if need be and run a module of cocotb tests on it.

    Parameters
    ----------
    top_name, verilog_text
        The design; only its ports are visible to the tests.
    test_module
        An importable module's name, or the path of a Python file.
    testcase
        Run only this test; all of the module if not given.
    env
        Further environment variables: the way to hand parameters to the tests.
    clock_ns
        Period of ``dut.clk`` in nanoseconds; None leaves the clock to the tests.
    seed
        Random seed (cocotb seeds ``random`` with it); TIPTOE_SEED or 1 if not given.
    waves
        Write a waveform in any case. Without it, the first failing test is run again with one, unless the
        environment says TIPTOE_WAVES=0.
    results_dir
        Where log, results and waveforms go; a folder under build/cocotb if not given.
    timeout_s
        Wall time in seconds after which the simulation is ended and counts as failed; no second run then.
    check
        Raise :exc:`CocotbFailure` unless all tests passed.
    """
    seed = int(os.environ.get("TIPTOE_SEED", "1"), 0) if seed is None else seed
    module, search = _module(test_module)
    if results_dir is None:
        # The same folder for the same pytest test, so that results do not pile up; never shared by running ones.
        context = os.environ.get("PYTEST_CURRENT_TEST") or str(os.getpid())
        tag = hashlib.sha256(f"{context} {sorted((env or {}).items())} {seed}".encode()).hexdigest()[:8]
        results_dir = BUILD / "cocotb" / f"{module.rsplit('.', 1)[-1]}-{testcase or 'all'}-{tag}"
    results_dir.mkdir(parents=True, exist_ok=True)

    def run(only: str | None, trace: bool, log_name: str) -> CocotbResults:
        program = build_cocotb(top_name, verilog_text, trace=trace, progress=progress)
        arguments = [] if clock_ns is None else ["--clock", str(round(clock_ns * 1000))]
        waveform = results_dir / f"{only or 'waves'}.{'fst' if has_fst() else 'vcd'}" if trace else None
        if waveform:
            arguments += ["--trace", str(waveform)]
        environment = _environment(top_name, module, search, only, seed, trace) | dict(env or {})
        results = _execute([str(program), *arguments], environment, results_dir, log_name, timeout_s)
        results.waveform = waveform
        if waveform is not None and waveform.exists():
            write_views(waveform)
        return results

    results = run(testcase, waves, "sim.log")
    if results.failed and not results.timed_out and not waves and os.environ.get("TIPTOE_WAVES", "1") != "0":
        first = next(iter(results.failed))
        again = run(None if first.startswith("(") else first, True, "waves.log")
        results.log, results.waveform = again.log, again.waveform
    if check and results.failed:
        raise CocotbFailure(_report(results, seed))
    return results


def _module(test_module: str | Path) -> tuple[str, list[str]]:
    if isinstance(test_module, Path) or test_module.endswith(".py"):
        path = Path(test_module).resolve()
        return path.stem, [str(path.parent)]
    return test_module, []


def _environment(
    top: str, module: str, search: list[str], testcase: str | None, seed: int, trace: bool
) -> dict[str, str]:
    import cocotb_tools.config
    import find_libpython

    libpython = os.environ.get("LIBPYTHON_LOC") or find_libpython.find_libpython()
    if not libpython:
        package = f"libpython3.{sys.version_info.minor}"
        raise ToolError(f"libpython not found: install it (Debian: apt-get install {package})")
    path = [*search, str(ROOT), *(entry for entry in sys.path if entry)]
    environment = os.environ | {
        "GPI_USERS": f"{libpython};{cocotb_tools.config.pygpi_entry_point()}",
        "PYGPI_PYTHON_BIN": sys.executable,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(path)),
        "PATH": f"{os.environ['PATH']}{os.pathsep}{cocotb_tools.config.libs_dir}",
        "COCOTB_TRUST_INERTIAL_WRITES": "1",
        "COCOTB_TOPLEVEL": top,
        "COCOTB_TEST_MODULES": module,
        "COCOTB_RANDOM_SEED": str(seed),
        "TOPLEVEL_LANG": "verilog",
        # cocotbext-axi uses names that cocotb 2 deprecates.
        "PYTHONWARNINGS": "ignore::DeprecationWarning",
        "NO_COLOR": "1",
        # Bus models log every transfer, which costs more than the simulation; a failure's rerun shows it.
        "COCOTB_LOG_LEVEL": os.environ.get("COCOTB_LOG_LEVEL", "INFO" if trace else "WARNING"),
    }
    environment.pop("COCOTB_TEST_FILTER", None)
    if testcase is not None:
        environment["COCOTB_TEST_FILTER"] = rf"(^|\.){re.escape(testcase)}$"
    return environment


def _execute(
    command: list[str], environment: dict[str, str], folder: Path, log_name: str, timeout_s: float
) -> CocotbResults:
    results_file = folder / "results.xml"
    results_file.unlink(missing_ok=True)
    log = folder / log_name
    environment = environment | {"COCOTB_RESULTS_FILE": str(results_file)}
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            # A shell's background job ignores SIGINT, and so would the simulation that is to be ended with it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # cocotb ends the test and Verilator closes the waveform
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            results = _results(results_file, log)
            reason = f"did not end within {timeout_s:.0f} s (give the test a timeout_time to get a waveform)"
            results.failed = dict.fromkeys(results.failed or ["(simulation)"], reason)
            results.timed_out = True
            return results
    results = _results(results_file, log)
    if not (results.passed or results.failed or results.skipped):
        results.failed["(simulation)"] = f"ran no test, exit status {process.returncode}"
    elif process.returncode != 0 and not results.failed:
        results.failed["(simulation)"] = f"exit status {process.returncode}"
    return results


def _results(file: Path, log: Path) -> CocotbResults:
    results = CocotbResults(log=log)
    if not file.exists():
        return results
    for case in ElementTree.parse(file).iter("testcase"):
        name = case.get("name", "?")
        properties = {item.get("name"): item.get("value") for item in case.iter("property")}
        results.sim_time_ns += float(properties.get("sim_time_duration") or 0)
        results.real_time_s += float(case.get("time") or 0)
        trouble = case.find("failure")
        trouble = case.find("error") if trouble is None else trouble
        if trouble is not None:
            results.failed[name] = trouble.get("message") or trouble.get("error_msg") or trouble.text or "failed"
        elif case.find("skipped") is not None:
            results.skipped.append(name)
        else:
            results.passed.append(name)
    return results


def _report(results: CocotbResults, seed: int) -> str:
    total = len(results.failed) + len(results.passed)
    lines = [f"{len(results.failed)} of {total} cocotb tests failed (seed {seed})"]
    lines += [f"  {name}: {message}" for name, message in results.failed.items()]
    lines.append(f"log: {results.log}")
    if results.waveform:
        lines.append(f"waveform: {results.waveform}")
    lines.append("end of the log:")
    lines += [line[:300] for line in results.log.read_text(errors="replace").splitlines()[-40:]]
    return "\n".join(lines)
