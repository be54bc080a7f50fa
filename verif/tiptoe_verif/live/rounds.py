"""Time that passes in rounds: what an engine on wall time does for those who wait, whatever it runs on."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

_TURNS = 8
"""Of one task in a round: no task keeps the others from theirs."""


class Rounds:
    """Tasks, and waits made of rounds.

    Attributes
    ----------
    tasks : list of functions
        Called in every round; one that returns True wants another round at once.
    """

    tasks: list[Callable[[], bool]]

    def round(self, limit_us: int = 10_000) -> bool:
        """Wait until something needs the host, at most ``limit_us``, then let driver and tasks do their work."""
        raise NotImplementedError

    def run_tasks(self) -> None:
        """Let the tasks look at their sockets until none wants more."""
        for task in self.tasks:
            for _ in range(_TURNS):
                if not task():
                    break

    def run_until(self, condition: Callable[[], Any], timeout_s: float, what: str = "") -> None:
        """Rounds until ``condition()`` holds; TimeoutError, naming ``what``, when that takes too long."""
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"{what or 'the condition'}: not within {timeout_s:g} s")
            self.round(2_000)
