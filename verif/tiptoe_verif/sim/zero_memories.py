"""Amaranth writes the initial contents of a memory bit by bit, zeros too: two minutes for the largest configuration."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def zero_memories_left_out() -> Iterator[None]:
    """RTLIL made meanwhile says nothing of contents that are all zero. For simulations, which begin with zeros anyway.

    Replaces a method of Amaranth's back end (its version is pinned); where that has another shape, nothing is left out.
    """
    from amaranth.back import rtlil

    emitter: Any = getattr(rtlil, "ModuleEmitter", None)
    original = getattr(emitter, "emit_memory", None)
    if original is None:
        yield
        return

    def emit_memory(self: Any, cell_idx: int, cell: Any) -> None:
        if any(cell.init):
            original(self, cell_idx, cell)

    emitter.emit_memory = emit_memory
    try:
        yield
    finally:
        emitter.emit_memory = original
