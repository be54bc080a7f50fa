"""`tiptoe bench --only floods`: which floods against which engine, as tables, and what does not hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from tiptoe_driver.hardware import abi_gen as abi
from tiptoe_hdl.config import EngineConfig

from ..console import build_progress, console
from ..native.harness import build_engine
from .floods import LEAST, SHARE, Outcome, outcomes
from .getting_in import MOST, Entry, GettingIn
from .rig import Rig

FRAMES = 100_000
LISTENERS = (64, 256)
CLIENTS = 32
_FAST_TICK_US = 3
"""Of the clients' measurement: a second passes in 375,000 cycles."""
_FAST = {abi.REG_RETRIES: 12 | 1 << 8, abi.REG_MSL_TICKS: 100}
"""There: half-open connections of nobody end after three seconds."""


@dataclass
class Rigged:
    """One engine under all floods."""

    listeners: int
    cookies: bool
    outcomes: list[Outcome] = field(default_factory=list)
    entry: Entry | None = None

    @property
    def name(self) -> str:
        """Conditions."""
        return f"{self.listeners} listeners, cookies {'on' if self.cookies else 'off'}"

    def as_json(self) -> dict[str, Any]:
        """For the JSON."""
        return {
            "listeners": self.listeners, "cookies": self.cookies, "floods": [one.as_json() for one in self.outcomes],
            "clients": self.entry.as_json() if self.entry else None,
        }  # fmt: skip


def measure(config: EngineConfig, *, quick: bool = False) -> list[Rigged]:
    """All of it; ``quick``: fewer frames, and only as many listeners as the configuration has."""
    found = []
    for listeners in (config.listeners,) if quick else LISTENERS:
        engine = config
        if listeners > config.listeners:
            engine = config.with_(name=f"{config.name}{listeners}", listeners=listeners)
        with build_progress() as progress:
            library = build_engine(engine, progress=progress)
        for cookies in (False, True):
            rigged = Rigged(listeners, cookies)
            ids = min(64, engine.connections // 2)
            syns_only = cookies or (listeners != LISTENERS[0] and not quick)
            driver: dict[str, Any] = {"syn_cookies": cookies, "registers": {}}
            with console.status("") as status:
                with Rig(engine, 1, spare=ids, listeners=listeners, driver=driver, library=library) as rig:
                    frames = FRAMES // 20 if quick else FRAMES
                    rigged.outcomes = list(outcomes(rig, frames, status.update, syns_only=syns_only))
                driver["registers"] = _FAST
                with Rig(
                    engine, 1, spare=ids, listeners=listeners, driver=driver, tick_us=_FAST_TICK_US, library=library
                ) as rig:
                    rigged.entry = GettingIn(rig, 4 if quick else CLIENTS).run(status.update)
            found.append(rigged)
    return found


def tables(found: Sequence[Rigged]) -> Iterator[Table]:
    """For people."""
    if not found:
        return
    table = _table(
        f"floods with {SHARE:.0%} of the line, one connection beside them",
        "frames", "goodput of what is left", "answers", "allowed",
    )  # fmt: skip
    for rigged in found:
        table.add_row(f"[dim]{rigged.name}[/]")
        for one in rigged.outcomes:
            allowed = "all" if one.allowed < 0 else f"{one.allowed:,}"
            share = f"{one.share:.1%}" if one.holds else f"[bold red]{one.share:.1%}[/]"
            table.add_row(f"  {one.name}", f"{one.frames:,}", share, f"{one.replies:,}", allowed)
    yield table
    table = _table(
        "clients while SYNs of random sources fill the line",
        "clients", "in with the first SYN", f"with at most {MOST}", "ids lost",
    )  # fmt: skip
    for rigged in found:
        if (entry := rigged.entry) is not None:
            table.add_row(rigged.name, *(f"{n}" for n in (entry.clients, entry.first, entry.inside, entry.lost)))
    yield table


def _table(title: str, *headings: str) -> Table:
    """A name in the first column, figures in the others."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in ("", *headings):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    return table


def faults(found: Sequence[Rigged]) -> list[str]:
    """What is not as it should be."""
    wrong = [
        f"{rigged.name}, {one.name}: {one.share:.1%} of the goodput (at least {LEAST:.0%}), {one.replies} answers "
        f"({'any' if one.allowed < 0 else one.allowed} allowed)"
        for rigged in found for one in rigged.outcomes if not one.holds
    ]  # fmt: skip
    for rigged in found:
        if (entry := rigged.entry) is not None:
            if rigged.cookies and entry.inside < entry.clients:
                wrong.append(f"{rigged.name}: {entry.clients - entry.inside} of {entry.clients} clients were kept out")
            if entry.lost:
                wrong.append(f"{rigged.name}: {entry.lost} ids were lost")
    return wrong
