"""Time-sequence graphs (after Van Jacobson and tcptrace): what one sender's data did, drawn from a capture."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .pcap import read_pcap
from .relative import Placed, Relative
from .segment import SYN, Malformed, Segment, ip_text, parse_tcp

_ZOOMED = 40
"""Segments in the enlarged part of a graph."""

_INK, _DATA, _ACK_LINE, _WINDOW, _AGAIN = "#23303b", "#1f6fb4", "#2c9a63", "#9aa7b1", "#d1382c"


@dataclass
class Trace:
    """One direction of one connection: sequence numbers from the first data byte on, times in milliseconds.

    Attributes
    ----------
    segments : list of (time, first byte, end, whether sent before)
        Data.
    acks, edges : list of (time, byte)
        What the other side acknowledged, and how far its window reached.
    """

    source: tuple[int, int]
    target: tuple[int, int]
    segments: list[tuple[float, int, int, bool]] = field(default_factory=list)
    acks: list[tuple[float, int]] = field(default_factory=list)
    edges: list[tuple[float, int]] = field(default_factory=list)
    highest: int = 0

    @property
    def name(self) -> str:
        """From whom to whom."""
        ends = [f"{ip_text(address)}:{port}" for address, port in (self.source, self.target)]
        return f"{ends[0]} → {ends[1]}"


def traces(path: Path) -> list[Trace]:
    """The data of every connection whose opening is in the capture, one trace a direction, most bytes first."""
    relative = Relative()
    found: dict[tuple[int, bool], Trace] = {}
    begin_ns: int | None = None
    for time_ns, frame in read_pcap(path):
        begin_ns = time_ns if begin_ns is None else begin_ns
        try:
            segment = parse_tcp(frame)
        except Malformed:
            continue
        if segment is not None:
            _note(found, relative.place(segment), segment, (time_ns - begin_ns) / 1e6)
    return sorted((trace for trace in found.values() if trace.segments), key=lambda trace: -trace.highest)


def _note(found: dict[tuple[int, bool], Trace], placed: Placed, segment: Segment, time: float) -> None:
    if not placed.opened:
        return
    for forward in (True, False):
        if (placed.connection, forward) not in found:
            ends = (segment.src, segment.sport), (segment.dst, segment.dport)
            source, target = ends if forward == placed.forward else ends[::-1]
            found[placed.connection, forward] = Trace(source, target)
    if segment.payload:
        trace = found[placed.connection, placed.forward]
        trace.segments.append((time, placed.start, placed.end, placed.again))
        trace.highest = max(trace.highest, placed.end)
    if placed.ack is not None and not segment.flags & SYN:
        trace = found[placed.connection, not placed.forward]
        trace.acks.append((time, placed.ack))
        trace.edges.append((time, placed.edge))


def draw(path: Path, panels: list[tuple[str, Trace]]) -> Path:
    """Draw traces side by side, each with its title, into the PNG file ``path``."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(6.2 * len(panels), 5.0), squeeze=False, constrained_layout=True
    )
    for axis, (title, trace) in zip(axes[0], panels, strict=True):
        _panel(axis, title, trace)
    axes[0][0].set_ylabel("KiB since the connection began", color=_INK)
    axes[0][0].legend(loc="upper left", frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path


def _panel(axis: Any, title: str, trace: Trace) -> None:
    origin = trace.segments[0][0]
    last = trace.segments[-1][0] - origin
    unit, name = (1000.0, "seconds") if last > 2000 else (1.0, "milliseconds")
    _plot(axis, trace, origin, unit)
    axis.set_title(f"{title}\n", color=_INK, fontsize=11, loc="left")
    axis.text(0, 1.015, trace.name, transform=axis.transAxes, fontsize=8, color=_WINDOW)
    axis.set_xlabel(name, color=_INK)
    axis.set_xlim(left=min(0.0, -0.01 * last / unit), right=last * 1.03 / unit + 1e-6)
    axis.set_ylim(bottom=0, top=trace.highest * 1.12 / 1024)
    axis.grid(True, color="#e6eaed", linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    if len(trace.segments) > 4 * _ZOOMED:
        _zoom(axis, trace, origin, unit)


def _zoom(axis: Any, trace: Trace, origin: float, unit: float) -> None:
    """A few segments at a size that shows each of them: around the first one sent again, else from the middle."""
    again = next((index for index, piece in enumerate(trace.segments) if piece[3]), len(trace.segments) // 2)
    begin = max(0, min(again - _ZOOMED // 2, len(trace.segments) - _ZOOMED))
    chosen = trace.segments[begin : begin + _ZOOMED]
    inset = axis.inset_axes([0.57, 0.06, 0.41, 0.36])
    _plot(inset, trace, origin, unit)
    inset.set_xlim((chosen[0][0] - origin) / unit, (chosen[-1][0] - origin) / unit + 1e-6)
    low = min([start for _, start, _, _ in chosen])
    inset.set_ylim((low - 3000) / 1024, (max(end for _, _, end, _ in chosen) + 3000) / 1024)
    inset.set_xticks([])
    inset.set_yticks([])
    for spine in inset.spines.values():
        spine.set_color(_WINDOW)
    axis.indicate_inset_zoom(inset, edgecolor=_WINDOW, alpha=0.8)


def _plot(axis: Any, trace: Trace, origin: float, unit: float) -> None:
    def points(pairs: list[tuple[float, int]]) -> tuple[list[float], list[float]]:
        return [(time - origin) / unit for time, _ in pairs], [byte / 1024 for _, byte in pairs]

    for again, colour, label in ((False, _DATA, "data segment"), (True, _AGAIN, "sent again")):
        chosen = [piece for piece in trace.segments if piece[3] == again]
        if chosen:
            axis.vlines(
                [(time - origin) / unit for time, *_ in chosen], [start / 1024 for _, start, _, _ in chosen],
                [end / 1024 for _, _, end, _ in chosen], color=colour, linewidth=1.6, label=label, zorder=3,
            )  # fmt: skip
    marks = [(time, start) for time, start, _, before in trace.segments if before]
    axis.plot(*points(marks), linestyle="", marker="o", markersize=3.2, color=_AGAIN, zorder=4)
    axis.step(*points(trace.edges), where="post", color=_WINDOW, linewidth=0.9, label="receiver's window")
    axis.step(*points(trace.acks), where="post", color=_ACK_LINE, linewidth=1.1, label="acknowledged", zorder=2)
