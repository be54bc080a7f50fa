"""The page: one HTML file with the plotting library, the style, the program, and a run's data or where to ask for it."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from .reader import RunReader

_PARTS = ("decode.js", "series.js", "figures.js", "page.js")


def library() -> str:
    """Plotly's program, as its package brings it (4.6 MiB)."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _json(value: Any) -> str:
    """JSON that is safe within a script element, whatever the strings in it."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c").replace("\u2028", "\\u2028")


def page(data: dict[str, Any] | None, title: str, *, script: str | None = None) -> str:
    """The document. ``data`` None: it asks its server. ``script``: the library's address instead of itself."""
    plot = f'<script src="{script}"></script>' if script else f"<script>{library()}</script>"
    program = "\n".join(_part(name) for name in _PARTS)
    text = _part("page.html")
    for name, part in {
        "TITLE": _escaped(title), "STYLE": _part("page.css"), "LIBRARY": plot, "DATA": _json(data), "PROGRAM": program,
    }.items():  # fmt: skip
        text = text.replace(f"<!--{name}-->", part, 1)
    return text


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


def write_report(run: Path, out: Path, *, kept: int, frame_bytes: int) -> dict[str, Any]:
    """Write the report on a run; the data that is in it."""
    reader = RunReader(run, kept=kept, frame_bytes=frame_bytes)
    try:
        reader.read()
    finally:
        reader.close()
    data = reader.data()
    _write(out, page(data, f"{data['header']['command']} · Tiptoe"))
    return data


def _write(out: Path, text: str) -> None:
    """The whole of it or, when it cannot be, what was there before. Names of files may be no UTF-8, and are shown as they can."""
    content = text.encode("utf-8", "replace")
    if out.exists() and not out.is_file():  # a pipe, a terminal; of a folder, the error
        out.write_bytes(content)
        return
    out = out.resolve()
    part = out.with_name(f"{out.name}.part")
    try:
        part.write_bytes(content)
        os.replace(part, out)
    finally:
        part.unlink(missing_ok=True)
