"""The stack's locks as a checked model.

The driver runs in one thread; the locks exist to prove that it keeps FreeBSD's rules: order P (pcbinfo) → I (inpcb)
→ B (syncache bucket) → K (socket); one lock of a kind at a time, but for inpcbs under P; and during a toe_usrreqs call the
caller's I is held from entry to exit and P is not taken (contract row LOCK-1). Breaking a rule raises LockError.

Where a thread would wait for a lock, another may run: a test sets ``LockModel.preempt`` to be that other thread.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from types import TracebackType


class LockError(AssertionError):
    """A locking rule was broken: a bug in the driver."""


class Rank(IntEnum):
    """Order of acquisition."""

    P = 0
    I = 1  # noqa: E741 - the contract's letter
    B = 2
    K = 3


class LockModel:
    """The locks held in one stack.

    Attributes
    ----------
    preempt : callable or None
        Called before a lock is taken while none is held.
    """

    __slots__ = ("held", "pinned", "preempt")

    def __init__(self) -> None:
        self.held: list[Lock] = []
        self.pinned: list[Lock] = []
        """inpcb locks of the toe_usrreqs calls in progress."""
        self.preempt: Callable[[], None] | None = None


class Lock:
    """One lock of the model; use it with ``with``."""

    __slots__ = ("model", "owned", "rank")

    def __init__(self, model: LockModel, rank: Rank) -> None:
        self.model = model
        self.rank = rank
        self.owned = False
        """Whether it is held."""

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock."""
        model = self.model
        if model.preempt is not None and not model.held:
            model.preempt()
        if self.rank is Rank.P and model.pinned:
            raise LockError("pcbinfo lock taken during a toe_usrreqs call")
        if self.owned:
            raise LockError(f"lock {self.rank.name} taken twice")
        for other in model.held:
            if other.rank > self.rank:
                raise LockError(f"lock {self.rank.name} taken while {other.rank.name} is held")
            if other.rank is self.rank and not (self.rank is Rank.I and model.held[0].rank is Rank.P):
                raise LockError(f"second lock {self.rank.name} taken: the order of the two is not defined")
        self.owned = True
        model.held.append(self)

    def release(self) -> None:
        """Give the lock back."""
        if not self.owned:
            raise LockError(f"lock {self.rank.name} released but not held")
        if self in self.model.pinned:
            raise LockError("inpcb lock dropped during a toe_usrreqs call")
        self.owned = False
        self.model.held.remove(self)

    def require(self) -> None:
        """Raise unless the lock is held."""
        if not self.owned:
            raise LockError(f"lock {self.rank.name} must be held here")


class ToeCall:
    """Scope of one toe_usrreqs call: the inpcb lock must be held on entry, and stays held until the exit."""

    __slots__ = ("_lock",)

    def __init__(self, lock: Lock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        self._lock.require()
        self._lock.model.pinned.append(self._lock)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.model.pinned.remove(self._lock)
        self._lock.require()
