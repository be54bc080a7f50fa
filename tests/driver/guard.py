"""A tcpcb that watches who touches it: the driver only with its inpcb lock held (contract row LOCK-1), and not at all once
the two were parted (DETACH-1)."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import tiptoe_driver
from tiptoe_driver.netinet import structures

_FOLDER = Path(tiptoe_driver.__file__).parent
_DRIVER = frozenset(
    str(_FOLDER / f"{name}.py")
    for name in (
        "toe/device",
        "toe/calls",
        "toe/active_open",
        "toe/events",
        "toe/passive_open",
        "hardware/ids",
        "hardware/engine",
    )
)
"""Files of the device's driver; the others are the stack, which may keep a tcpcb for as long as it likes."""
_HARMLESS = frozenset({"t_inpcb", "t_toe", "__class__", "__hash__", "__eq__"})
"""What finds the lock, and what tells that there is no connection any more."""


if not all(map(os.path.exists, _DRIVER)):
    raise FileNotFoundError(f"a file of the driver has moved: {sorted(_DRIVER)}")


class GuardError(AssertionError):
    """The driver touched a tcpcb that it must not touch now."""


class GuardedTcpcb(structures.tcpcb):
    """A tcpcb; ``parted`` once TF_TOE, which detach clears last, has been cleared."""

    parted = False

    def __getattribute__(self, name: str) -> Any:
        if name not in _HARMLESS and sys._getframe(1).f_code.co_filename in _DRIVER:
            _check(self, name)
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if sys._getframe(1).f_code.co_filename in _DRIVER:
            _check(self, name)
        if name == "t_flags" and getattr(self, name, 0) & structures.TF_TOE and not value & structures.TF_TOE:
            object.__setattr__(self, "parted", True)
        object.__setattr__(self, name, value)


def _check(tp: GuardedTcpcb, name: str) -> None:
    get = object.__getattribute__
    if get(tp, "parted"):
        raise GuardError(f"{name} of a tcpcb that was detached")
    if not get(tp, "t_inpcb").lock.owned:
        raise GuardError(f"{name} of a tcpcb without its inpcb lock")
