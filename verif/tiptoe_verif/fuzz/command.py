"""`tiptoe fuzz`: frames without manners until so many are through or something is wrong; then the shortest sequence found."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tiptoe_hdl.config import EngineConfig

from ..paths import BUILD
from ..wire.segment import SYN
from .minimise import minimise
from .steps import Frame, Polite, Step, choose
from .world import World

ROUND = 1500
"""Steps between two times of quiet; a run's state begins anew with each, so that what fails is not long."""


@dataclass(frozen=True)
class Finding:
    """What went wrong: the world's seed, the steps since it began, the words."""

    seed: int
    steps: list[Step]
    words: str


def play(
    config: str | EngineConfig, seed: int, steps: Iterable[Step], pcap: Path | None = None, cookies: bool = False
) -> str:
    """The steps in a world of their own, then quiet; what is wrong, or ""."""
    return _carry_out(World(config, seed, pcap, cookies), steps)


def _carry_out(world: World, steps: Iterable[Step]) -> str:
    """As ``play``, in this world, which ends with it."""
    try:
        for step in steps:
            world.do(step)
        world.calm()
        world.sim.check()
    except Exception as error:  # whatever it is, it is a finding
        return f"{type(error).__name__}: {error}"
    finally:
        world.close()
    return ""


def same_kind(one: str, other: str) -> bool:
    """Whether two findings are of one kind: what they say apart from numbers."""

    def bare(words: str) -> str:
        return "".join(letter for letter in words.splitlines()[0] if not letter.isdigit())[:60] if words else ""

    return bare(one) == bare(other)


def fuzz(config: str | EngineConfig, seed: int, frames: int, console: Console, cookies: bool = False) -> Finding | None:
    """Play rounds until ``frames`` frames have reached the engine; the first finding."""
    rng = random.Random(f"fuzz {seed}")
    done, last, number = 0, time.monotonic(), 0
    counted: Counter[str] = Counter()
    opened = delivered = 0
    while done < frames:
        world = World(config, seed * 100_000 + number, None, cookies)
        steps: list[Step] = []
        if words := _carry_out(world, _chosen(rng, world, steps, frames - done)):
            return Finding(seed * 100_000 + number, steps, words)
        number += 1
        done += world.frames
        opened, delivered = opened + world.opened, delivered + world.delivered
        counted.update(_kind(step) for step in steps)
        if time.monotonic() - last > 10:
            last = time.monotonic()
            console.print(f"  {done:,} frames", style="dim")
    kinds = ", ".join(f"{count:,} {name}" for name, count in counted.most_common())
    console.print(
        f"seed {seed}: {done:,} frames in {number} rounds ({kinds}); {opened:,} connections, {delivered:,} bytes delivered; "
        "nothing wrong"
    )
    return None


def _chosen(rng: random.Random, world: World, steps: list[Step], frames: int) -> Iterator[Step]:
    """Steps at random, noted in ``steps``, until a round is long enough or ``frames`` have gone."""
    while len(steps) < ROUND and world.frames < frames:
        steps.append(choose(rng))
        yield steps[-1]


def _kind(step: Step) -> str:
    if isinstance(step, Frame):
        return "damaged" if step.damage else "SYNs" if step.flags & SYN else "segments"
    return "polite" if isinstance(step, Polite) else "other steps"


def run_fuzz(config: str, seed: int, frames: int, runs: int, console: Console, cookies: bool = False) -> int:
    """The command; its exit code."""
    found = fuzz(config, seed, frames, console, cookies)
    if found is None:
        return 0
    console.print(f"[bold red]{found.words}[/]\n  after {len(found.steps)} steps; making it short", soft_wrap=True)
    short = minimise(
        found.steps, lambda steps: same_kind(play(config, found.seed, steps, None, cookies), found.words), runs
    )
    folder = BUILD / "fuzz"
    folder.mkdir(parents=True, exist_ok=True)
    pcap = folder / f"{config}-{found.seed}.pcap"
    words = play(config, found.seed, short, pcap, cookies)
    console.print(f"seed {seed}, world {found.seed}: {len(short)} steps, then quiet", soft_wrap=True)
    for step in short:
        console.print(f"  {step}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{words}\ncapture {pcap}", markup=False, soft_wrap=True)
    return 1
