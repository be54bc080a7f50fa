"""Where the project and its build results lie."""

import os
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[2]

ROOT = _CHECKOUT if (_CHECKOUT / "pyproject.toml").exists() else Path.cwd()
"""The checkout, or the current folder when the package is installed elsewhere."""

BUILD = Path(os.environ.get("TIPTOE_BUILD", ROOT / "build"))
"""Build results and captures; TIPTOE_BUILD overrides it. Safe to delete at any time."""
