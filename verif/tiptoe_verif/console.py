"""What every command prints with: one console, progress of builds, errors in one line."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from .sim.toolchain import Progress as BuildProgress

# In a file or a pipe, tables get the room they need.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 132)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

_STEPS = {
    "generate": "engine: Verilog from Amaranth",
    "verilate": "engine: C++ from Verilog (Verilator)",
    "compile": "engine: compiling",
}


def bar(*, transient: bool = False, on: Console = console) -> Progress:
    """A progress display for steps with a fraction done; it stays visible when it ends."""
    return Progress(
        TextColumn("{task.description:<38}"), BarColumn(24), TaskProgressColumn(), TimeElapsedColumn(),
        console=on, transient=transient,
    )  # fmt: skip


@contextlib.contextmanager
def status_line(text: str, on: Console = console) -> Iterator[Callable[[str], None]]:
    """How a long run goes: gives a function that replaces the text. In a file or a pipe a line now and then instead, the first
    after a second and each of the others after twice as long, up to a minute; none while the text stays as it is."""
    if on.is_terminal:
        with on.status(text) as status:
            yield status.update
        return
    on.print(text)
    pause, due, said = 1.0, time.monotonic() + 1, text

    def say(text: str) -> None:
        nonlocal pause, due, said
        if time.monotonic() < due or text == said:
            return
        on.print(text)
        pause, said = min(2 * pause, 60.0), text
        due = time.monotonic() + pause

    yield say


@contextlib.contextmanager
def build_progress(on: Console = console) -> Iterator[BuildProgress]:
    """Shows the steps of a build, a line each where there is no terminal; nothing if the build is there already."""
    if not on.is_terminal:
        said: set[str] = {"generate"}

        def say(step: str, done: float) -> None:
            if step not in said:
                said.add(step)
                on.print(_STEPS.get(step, step))

        yield say
        return
    with bar(transient=True, on=on) as display:
        task = display.add_task("engine", total=1.0)

        def update(step: str, done: float) -> None:
            display.update(task, description=_STEPS.get(step, step), completed=done)

        yield update
