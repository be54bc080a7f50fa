"""Connecting interfaces with a check that Amaranth's own ``connect`` leaves out: equal layouts, not only equal widths."""

from amaranth.hdl import Module
from amaranth.lib import wiring


def connect_same(m: Module, source, sink) -> None:
    """``wiring.connect(m, source, sink)`` for two streams or valid-only ports, after comparing their payload layouts.

    Raises
    ------
    TypeError
        The payloads have different layouts.
    """
    ours, theirs = source.payload.shape(), sink.payload.shape()
    if ours != theirs:
        raise TypeError(f"payload layouts differ: {ours!r} and {theirs!r}")
    wiring.connect(m, source, sink)
