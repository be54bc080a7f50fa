"""What of a run's folder the page may rely on: its files may be cut off, of another version, or of somebody's own making."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..native.recorder import CAPTURE, FORMAT

_HEADER: dict[str, type] = {
    "command": str, "config": str, "capture": str, "waveform": str, "address": str, "written": str, "clock": str,
    "began_ns": int, "data_bytes": int, "rx_words": int, "connections": int, "half_open": int, "listeners": int,
}  # fmt: skip


def header_of(text: str, folder: Path) -> dict[str, Any]:
    """run.json's text: what it holds of the right kind, with ``waves``, the words of a shell that open the waveform.
    ValueError for what is no header of this format."""
    found = json.loads(text)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(f"written in another format than {FORMAT}")
    header: dict[str, Any] = {"format": FORMAT, "command": "a run", "capture": CAPTURE}
    header |= {name: found[name] for name, kind in _HEADER.items() if type(found.get(name)) is kind}
    if "waveform" in header:
        path = os.path.normpath(folder / header["waveform"])
        header["waves"] = shlex.join(["tiptoe", "waves", f"./{path}" if path.startswith("-") else path])
    return header


def row_of(line: bytes) -> dict[str, Any] | None:
    """A line of the record; None if it is none that the page knows."""
    try:
        row = json.loads(line, parse_constant=_refused)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not _count(row.get("t")) or not _counts(row.get("counters", {})):
        return None
    sound = _KINDS.get(row["k"]) if isinstance(row.get("k"), str) else None
    return row if sound is not None and sound(row) else None


def _refused(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 64


def _counts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_count, value.values()))


def _sample(row: dict[str, Any]) -> bool:
    conns, commands = row.get("conns"), row.get("commands")
    return (
        isinstance(conns, list) and all(isinstance(each, dict) and isinstance(each.get("conn"), str) for each in conns)
        and isinstance(commands, list) and len(commands) == 3 and all(map(_count, commands))
        and _counts(row.get("engine")) and _count(row.get("ids")) and _count(row.get("half_open"))
    )  # fmt: skip


_KINDS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "state": lambda row: _count(row.get("id")) and all(isinstance(row.get(name), str) for name in ("conn", "state")),
    "event": lambda row: isinstance(row.get("name"), str),
    "sample": _sample,
    "counters": lambda row: True,
}
