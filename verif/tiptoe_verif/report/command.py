"""`tiptoe report` and `tiptoe waves`."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

from rich.console import Console

from ..sim.wave_view import GTKW, SURFER, write_views
from .page import write_report
from .reader import NoRun, files_of

_VIEWERS = ("surfer", "gtkwave")


def report(console: Console, run: Path, out: Path | None, *, kept: int, frame_bytes: int) -> None:
    """Write the page and say where it is."""
    if not run.exists():
        raise NoRun(f"{run}: there is no such file or folder")
    page = out or (run / "report.html" if run.is_dir() else run.with_suffix(".html"))
    if any(file.exists() and page.exists() and page.samefile(file) for file in files_of(run)):
        raise NoRun(f"{page} is of the run itself: name another file for the page")
    data = write_report(run, page, kept=kept, frame_bytes=frame_bytes)
    left = f", {data['frames_before']:,} before them left out" if data["frames_before"] else ""
    console.print(
        f"{page}: {len(data['frames']):,} frames{left}, {page.stat().st_size / 1e6:.1f} MB",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip


def open_waves(console: Console, waveform: Path, cycle: int | None, viewer: str) -> int:
    """Write the views, with a cursor in that cycle, and open the one of a viewer that is there."""
    if not waveform.exists():
        raise NoRun(f"{waveform}: there is no such file")
    try:
        write_views(waveform, cycle)
    except RuntimeError as error:  # what the reader of waveforms raises
        raise NoRun(f"{waveform}: {error}") from None
    found = [name for name in ([viewer] if viewer else _VIEWERS) if shutil.which(name)]
    if not found:
        raise NoRun(
            f"{viewer or 'surfer or gtkwave'} is not installed (Debian: apt-get install gtkwave); the views are "
            f"{waveform.stem}{GTKW} and {waveform.stem}{SURFER} beside the waveform"
        )
    view = waveform.with_suffix(GTKW if found[0] == "gtkwave" else SURFER)
    command = (
        ["gtkwave", str(view)] if found[0] == "gtkwave" else ["surfer", "--command-file", str(view), str(waveform)]
    )
    console.print(shlex.join(command), style="dim", markup=False, soft_wrap=True)
    return subprocess.run(command).returncode
