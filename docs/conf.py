"""Sphinx' settings for the site: ``make docs``. Nothing in it comes from a network."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

project = "Tiptoe"
author = "the Tiptoe authors"
version = release = importlib.metadata.version("tiptoe-engine")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "sources"]

html_theme = "furo"
html_title = f"Tiptoe {release}"
html_copy_source = False

myst_heading_anchors = 4

nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!tiptoe_).*"),  # the standard library's pages are not here
    (
        r"py:class",
        r"tiptoe_verif\.(native\.device\.EngineDevice|native\.world\.Node|standin\.tcp\.StandInTcp)",
    ),  # inside
]

autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_default_options = {"members": True, "exclude-members": "elaborate"}
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Ports", "params_style"), ("Members", "params_style"), ("Counters", "params_style")]


def headings(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """A heading of a docstring's section may say more than its name: napoleon wants the name alone."""
    for number in range(1, len(lines)):
        if re.fullmatch("-{3,}", lines[number]) and (more := re.match(r"(\w+) \(.*\)$", lines[number - 1])):
            lines[number - 1], lines[number] = more[1], "-" * len(more[1])


def setup(app: Any) -> None:
    """Sphinx' entry."""
    app.connect("autodoc-process-docstring", headings, priority=100)
