"""Writes what other parts know of the register map and the rings, from tiptoe.rdl and abi.py.

``python -m tiptoe_hdl.host.generate`` writes the files; ``--check`` only says which differ (exit status 1).
"""

import argparse
import sys
from pathlib import Path

from .register_map import register_map
from .render_c import render_c
from .render_markdown import render_registers, render_rings
from .render_python import render_python

ROOT = Path(__file__).resolve().parents[3]


def outputs() -> dict[str, str]:
    """Text of every generated file by its path in the repository."""
    registers = register_map()
    return {
        "driver/tiptoe_driver/hardware/abi_gen.py": render_python(registers),
        "driver/include/tiptoe.h": render_c(registers),
        "docs/registers.md": render_registers(registers),
        "docs/rings.md": render_rings(),
    }


def stale(root: Path = ROOT) -> list[str]:
    """Paths of generated files that are missing or not what their sources say."""
    return [
        path
        for path, text in outputs().items()
        if not (root / path).is_file() or (root / path).read_text(encoding="utf-8") != text
    ]


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tiptoe_hdl.host.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, report stale files")
    options = parser.parse_args(arguments)
    changed = stale()
    for path in changed:
        if options.check:
            print(f"stale: {path}")
        else:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_text(outputs()[path], encoding="utf-8")
            print(f"wrote {path}")
    return int(options.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
