"""Where the project, its build results and what is kept between runs lie: in a checkout all below build/; of an installed package
in the working folder and in the user's cache (XDG Base Directory Specification), never beside the code."""

import os
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[2]

ROOT = _CHECKOUT if (_CHECKOUT / "pyproject.toml").exists() else Path.cwd()
"""The checkout, or the current folder when the package is installed elsewhere."""

BUILD = Path(os.environ.get("TIPTOE_BUILD", ROOT / "build"))
"""Build results and captures; TIPTOE_BUILD overrides it. Safe to delete at any time."""

CACHE = (
    BUILD
    if ROOT == _CHECKOUT or "TIPTOE_BUILD" in os.environ
    else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tiptoe"
)
CACHE = Path(os.environ.get("TIPTOE_CACHE", CACHE))
"""Built simulations and netlists, each by a hash of what went in; TIPTOE_CACHE overrides it. Safe to delete at any time."""

_PACKED = Path(__file__).with_name("constraints")
CONSTRAINTS = _PACKED if _PACKED.is_dir() else ROOT / "constraints"
"""Pins, clocks and templates, and the baselines of figures."""
