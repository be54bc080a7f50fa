"""WaveJSON, the notation of WaveDrom's timing diagrams, from recorded cycles."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Cycle = Mapping[str, int]
"""The value of every recorded port in one cycle."""


@dataclass(frozen=True)
class Row:
    """A line of a diagram.

    Attributes
    ----------
    port : str
        The port's name.
    while_ : str
        A port of several bits is shown only in cycles in which this one is high; empty: it is a single bit.
    digits : int
        Hexadecimal digits shown.
    low : int
        The lowest bit shown; negative: all bits are.
    """

    port: str
    while_: str = ""
    digits: int = 1
    low: int = -1

    @property
    def name(self) -> str:
        """The row's."""
        return self.port if self.low < 0 else f"{self.port}[{self.low + 4 * self.digits - 1}:{self.low}]"

    def state(self, cycle: Cycle) -> str:
        """What is drawn of a cycle."""
        if not self.while_:
            return str(cycle[self.port])
        if not cycle[self.while_]:
            return "x"
        return f"{cycle[self.port] >> max(self.low, 0) & (1 << 4 * self.digits) - 1:0{self.digits}x}"


def rests(rows: Sequence[Row], cycles: Sequence[Cycle], keep: int) -> list[bool]:
    """For each cycle, whether it is in the middle of a time without change: further than ``keep`` from any."""
    shown = [[row.state(cycle) for row in rows] for cycle in cycles]
    changes = [n for n in range(1, len(cycles)) if shown[n] != shown[n - 1]]
    return [
        keep < n < len(cycles) - keep and all(n < change - keep or n >= change + keep for change in changes)
        for n in range(len(cycles))
    ]


def diagram(title: str, groups: Mapping[str, Sequence[Row]], cycles: Sequence[Cycle], keep: int = 1) -> dict[str, Any]:
    """A diagram of consecutive cycles; a long time without change is drawn as a gap that tells how long it is."""
    resting = rests([row for rows in groups.values() for row in rows], cycles, keep)
    columns: list[tuple[Cycle | None, int]] = []  # a cycle, or None for a gap; its number, or the gap's length
    for number, cycle in enumerate(cycles):
        if not resting[number]:
            columns.append((cycle, number))
        elif columns and columns[-1][0] is None:
            columns[-1] = (None, columns[-1][1] + 1)
        else:
            columns.append((None, 1))
    clock = "p" + "".join("|" if cycle is None else "." for cycle, _ in columns[1:])
    numbers = [f"+{number}" if cycle is None else str(number) for cycle, number in columns]
    signal: list[Any] = [{"name": "clk", "wave": clock}, {"name": "cycle", "wave": "=" * len(numbers), "data": numbers}]
    signal += [[group, *(_row(row, columns) for row in rows)] for group, rows in groups.items()]
    widest = max((row.digits for rows in groups.values() for row in rows), default=1)
    return {"signal": signal, "head": {"text": title}, "config": {"hscale": 1 if widest < 5 else 2}}


def _row(row: Row, columns: Sequence[tuple[Cycle | None, int]]) -> dict[str, Any]:
    wave, labels, before = "", [], None
    for cycle, _ in columns:
        if cycle is None:
            wave += "|"
            continue
        state = row.state(cycle)
        if state == before:
            wave += "."
        elif row.while_ and state != "x":
            wave += "="
            labels.append(state)
        else:
            wave += state
        before = state
    return {"name": row.name, "wave": wave} | ({"data": labels} if labels else {})


def text(drawing: Mapping[str, Any]) -> str:
    """The file's contents: a row of the diagram a line."""
    rows: list[str] = []
    for entry in drawing["signal"]:
        if isinstance(entry, dict):
            rows.append(f"  {json.dumps(entry)}")
        else:
            inside = ",\n".join(f"    {json.dumps(row)}" for row in entry[1:])
            rows.append(f"  [{json.dumps(entry[0])},\n{inside}\n  ]")
    return (
        '{\n"signal": [\n'
        + ",\n".join(rows)
        + f'\n],\n"head": {json.dumps(drawing["head"])},\n"config": {json.dumps(drawing["config"])}\n}}\n'
    )
