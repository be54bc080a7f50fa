"""Every order of what several actors do: each actor's steps keep their own order, and all ways to merge them are run.

A scenario is data: a function that makes a fresh world, and actors, each a sequence of names of steps. ``explore`` runs
every order on a world of its own and returns how many there were; a failure names its order, which ``replay`` runs alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import factorial, prod
from typing import Protocol


class World(Protocol):
    """What a scenario happens in."""

    def step(self, actor: str, name: str) -> None:
        """One atomic step of an actor."""

    def check(self) -> None:
        """Raise when an invariant does not hold between two steps."""

    def finish(self) -> None:
        """Let everything come to its end, and raise when something is left."""


@dataclass(frozen=True)
class Scenario:
    """Actors and their steps, and the world they act in."""

    world: Callable[[], World]
    actors: Mapping[str, Sequence[str]]

    @property
    def count(self) -> int:
        """Number of orders: the multinomial coefficient of the actors' steps."""
        lengths = [len(steps) for steps in self.actors.values()]
        return factorial(sum(lengths)) // prod(map(factorial, lengths))


Order = tuple[str, ...]
"""Whose turn it is, step by step."""


class OrderFailed(AssertionError):
    """An invariant did not hold; the message has the steps, and the argument of ``replay``."""


def orders(lengths: Mapping[str, int]) -> Iterator[Order]:
    """Every way to merge actors with so many steps each."""
    if not any(lengths.values()):
        yield ()
        return
    for actor, left in lengths.items():
        if left:
            for rest in orders({**lengths, actor: left - 1}):
                yield (actor, *rest)


def replay(scenario: Scenario, order: str | Order) -> None:
    """Run one order: names of actors, or a text of them with spaces between."""
    order = tuple(order.split()) if isinstance(order, str) else order
    left = {actor: iter(steps) for actor, steps in scenario.actors.items()}
    done: list[str] = []
    try:
        world = scenario.world()
        for actor in order:
            name = next(left[actor])
            done.append(f"{actor}: {name}")
            world.step(actor, name)
            world.check()
        done.append("the end")
        world.finish()
    except Exception as error:
        steps = "\n".join(f"  {number}. {text}" for number, text in enumerate(done, 1))
        raise OrderFailed(
            f"{type(error).__name__}: {error}\nin the order\n{steps}\nreplay: {' '.join(order)!r}"
        ) from error


def explore(scenario: Scenario) -> int:
    """Run every order; returns how many different ones were run."""
    seen: set[Order] = set()
    for order in orders({actor: len(steps) for actor, steps in scenario.actors.items()}):
        replay(scenario, order)
        seen.add(order)
    return len(seen)
