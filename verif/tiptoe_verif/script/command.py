"""`tiptoe script`: packet scripts one after the other, and of each that fails what was expected beside what was seen."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tiptoe_hdl.config import CONFIGS, EngineConfig

from ..console import build_progress
from ..native.harness import build_engine
from ..native.recorder import CAPTURE, WAVES
from ..paths import BUILD
from ..sim.wave_view import CYCLE_PS
from ..wire.pcap import free_capture
from .parser import parse
from .runner import CYCLES_PER_US, Result, run_script
from .settings import settings
from .tree import ScriptError, Unsupported

DEFAULT = CONFIGS["tiny"].with_(name="stamped", timestamps=True)
"""Small and quick to build, with time stamps."""
_STYLES = {"ok": "green", "FAILED": "bold red", "skipped": "yellow", "unreadable": "bold red"}


def script_files(paths: Iterable[Path]) -> list[Path]:
    """The scripts, of folders all below them; FileNotFoundError names what is not there."""
    found = []
    for path in paths:
        if path.is_dir():
            below = sorted(path.rglob("*.pkt"))
            if not below:
                raise FileNotFoundError(f"{path}: no *.pkt below it")
            found += below
        elif path.exists():
            found.append(path)
        else:
            raise FileNotFoundError(f"{path}: there is no such file or folder")
    return found


def play(
    path: Path, config: EngineConfig = DEFAULT, *, library: Path | None = None, pcap: Path | None = None,
    trace: Path | None = None, tolerance_us: int | None = None, lenient: bool = False, record: Path | None = None,
) -> Result:  # fmt: skip
    """One file on an engine of its own."""
    try:
        script = parse(path.read_text())
        chosen = settings(script, path.parent)
    except Unsupported as error:
        return Result("skipped", error.line, why=str(error))
    except ScriptError as error:
        return Result("unreadable", error.line, why=str(error))
    if tolerance_us is not None:
        chosen.tolerance_us = tolerance_us
    return run_script(
        script, chosen, config, library=library, pcap=pcap, trace=trace, lenient=lenient, record=record,
    )  # fmt: skip


def show(console: Console, name: str, result: Result, seconds: float, *, notes: bool = False) -> None:
    """A line for a script; of a failure the last packets, and expected beside seen."""
    where = f" line {result.line}" if result.status == "FAILED" else ""
    line = Text.assemble(f"{name}: ", (result.status, _STYLES[result.status]), where)
    line.append(f"  {seconds:.1f} s" if result.status in ("ok", "FAILED") else "", style="dim")
    line.append(f"  {result.why}" if result.why else "")
    console.print(line, soft_wrap=True)
    if result.status == "FAILED":
        for packet in result.history:
            console.print(f"    {packet}", style="dim", markup=False, soft_wrap=True)
        table = Table(box=None, pad_edge=False, show_header=True, padding=(0, 3, 0, 0))
        for heading in ("expected", "seen"):
            table.add_column(f"  {heading}", overflow="fold")
        table.add_row(Text(f"  {result.expected}"), Text(f"  {result.seen}", style="red"))
        console.print(Text(f"  {result.line}: {result.text}"), soft_wrap=True)
        console.print(table)
    for note in result.notes if notes else ():
        console.print(f"    {note}", style="dim", markup=False, soft_wrap=True)


def run_scripts(
    paths: list[Path], config: EngineConfig, console: Console, *, pcap: Path | None, trace: bool, tolerance_us: int | None,
    lenient: bool, verbose: bool, record: Path | None = None,
) -> int:  # fmt: skip
    """The command; its exit code: 1 if a script has failed or cannot be read. ``record``: a folder a script there, with ``trace``
    each with a waveform."""
    files = script_files(paths)
    with build_progress() as progress:
        library = build_engine(config, trace=trace and record is not None, progress=progress)
    counted: Counter[str] = Counter()
    stems = Counter(path.stem for path in files)
    begin = time.monotonic()
    for path in files:
        name = path.stem if stems[path.stem] == 1 else f"{path.parent.name}-{path.stem}"
        folder = record / name if record else None
        kept = folder / CAPTURE if folder else free_capture((pcap or BUILD / "script") / f"{name}.pcap")
        started = time.monotonic()
        result = play(path, config, library=library, pcap=kept, tolerance_us=tolerance_us, lenient=lenient, record=folder,
                      trace=kept.with_name(WAVES) if folder and trace else None)  # fmt: skip
        show(console, str(path), result, time.monotonic() - started, notes=verbose)
        counted[result.status] += 1
        if result.status == "FAILED":
            console.print(f"  capture {kept}", markup=False, soft_wrap=True)
            if trace and not folder:
                _trace(path, config, kept.with_suffix(".fst"), console, result, tolerance_us, lenient)
        elif pcap is None and not folder:
            kept.unlink(missing_ok=True)
    words = ", ".join(f"{counted[status]} {status}" for status in _STYLES if counted[status])
    console.print(f"{len(files)} scripts: {words}; {time.monotonic() - begin:.1f} s")
    return 1 if counted["FAILED"] or counted["unreadable"] else 0


def _trace(
    path: Path,
    config: EngineConfig,
    waveform: Path,
    console: Console,
    result: Result,
    tolerance_us: int | None,
    lenient: bool,
) -> None:
    """The same again, which is the same cycle by cycle, with a waveform."""
    with build_progress() as progress:
        library = build_engine(config, trace=True, progress=progress)
    play(path, config, library=library, trace=waveform, tolerance_us=tolerance_us, lenient=lenient)
    written = sorted(waveform.parent.glob(f"{waveform.stem}.[fv][sc][td]"))
    console.print(
        f"  waveform {written[-1] if written else waveform}: ends in cycle {result.cycle:,}, at "
        f"{result.cycle * CYCLE_PS / 1e6:,.3f} us ({CYCLES_PER_US} cycles a microsecond of the script)",
        markup=False, soft_wrap=True,
    )  # fmt: skip
