"""A failing sequence made short: delta debugging (Zeller, Hildebrandt 2002), within so many runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def minimise(steps: list[T], fails: Callable[[list[T]], bool], runs: int) -> list[T]:
    """A part of ``steps``, in order, that still fails; none of its steps can be left out, unless the ``runs`` are used up first.

    ``fails`` is called at most ``runs`` times; it holds for ``steps`` as given.
    """
    parts = 2
    while len(steps) > 1 and runs > 0:
        size = -(-len(steps) // parts)
        for begin in range(0, len(steps), size):
            rest = steps[:begin] + steps[begin + size :]
            runs -= 1
            if fails(rest):
                steps, parts = rest, max(parts - 1, 2)
                break
            if runs <= 0:
                break
        else:
            if size == 1:
                break
            parts = min(2 * parts, len(steps))
    return steps
