"""Sphinx' settings for the site: ``make docs``. Nothing in it comes from a network.

Sphinx, since one tool checks the pages' links and anchors and the names in docstrings, and reads docstrings as they are
(sections of napoleon, roles in double backquotes); MyST, since the pages are Markdown that is read without a site too.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import re
import sys
from pathlib import Path
from typing import Any

from amaranth.lib.wiring import Component

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

linkcheck_ignore = [r"(?!https?:)"]  # links within the site are every build's

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


def signature(
    app: Any, what: str, name: str, obj: Any, options: Any, shown: str, returns: str
) -> tuple[str, str] | None:
    """A component's arguments: its base class hides them."""
    if what != "class" or not issubclass(obj, Component):
        return None
    given = [item.replace(annotation=item.empty) for item in inspect.signature(obj.__init__).parameters.values()]
    return str(inspect.Signature(given[1:])), returns


def setup(app: Any) -> None:
    """Sphinx' entry."""
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-process-docstring", headings, priority=100)
