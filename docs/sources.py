"""A Sphinx extension: a file or folder outside docs/ that the pages link to becomes a page of the site.

So every link works without the repository and without a network, and one that leads nowhere is a warning.
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pygments.lexers
import pygments.util
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform

ROOT = Path(__file__).resolve().parents[1]

PAGES = {"README.md": "index", "CONTRIBUTING.md": "contributing", "CHANGELOG.md": "changelog"}
"""Files at the root and the pages that show them."""

NO_TEXT = {".png", ".pyc", ".bin"}


def page_of(path: Path) -> str:
    """Name of the page of a file or folder outside docs/."""
    return f"sources/{path.relative_to(ROOT)}"


class SourceLinks(SphinxTransform):
    """Turns links to files and folders outside docs/ into links to their pages."""

    default_priority = 5  # before Sphinx collects what is to be downloaded

    def apply(self, **kwargs: Any) -> None:
        """Go through a page."""
        name = self.env.docname
        wanted = self.env.tiptoe_sources[name] = set()  # type: ignore[attr-defined]
        links = self.document.findall(
            lambda node: isinstance(node, addnodes.download_reference | addnodes.pending_xref)
        )
        for node in list(links):
            if node.get("reftype") != "myst" or node.get("refdomain") == "doc":
                continue
            target, _, anchor = node["reftarget"].partition("#")
            path = Path(os.path.normpath(ROOT / "docs" / Path(name).parent / target))
            if not target or not path.exists() or path.parent == ROOT / "docs":
                continue  # Sphinx' own business: it warns
            page = PAGES.get(str(path.relative_to(ROOT)))
            if page:
                link = addnodes.pending_xref(
                    refdomain="doc", reftype="myst", reftarget=page, reftargetid=anchor or None
                )
            else:
                wanted.add(path)
                link = addnodes.pending_xref(refdomain=None, reftype="source", reftarget=page_of(path))
            link.update_basic_atts({})
            link["refdoc"], link["refexplicit"] = name, True
            link += node.children
            node.replace_self(link)


def resolve(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, content: nodes.Element
) -> nodes.Element | None:
    """The link to a file's page."""
    if node.get("reftype") != "source":
        return None
    return nodes.reference(
        "", "", content, internal=True, refuri=app.builder.get_relative_uri(node["refdoc"], node["reftarget"])
    )


def below(path: Path) -> Iterator[Path]:
    """A file, or a folder and everything in it."""
    yield path
    if path.is_dir():
        for entry in path.iterdir():
            if entry.name != "__pycache__" and entry.suffix not in NO_TEXT:
                yield from below(entry)


def _body(app: Sphinx, path: Path) -> str:
    if path.is_dir():
        entries = sorted(
            (entry for entry in below(path) if entry.parent == path), key=lambda entry: (entry.is_file(), entry.name)
        )
        links = (
            (app.builder.get_relative_uri(page_of(path), page_of(entry)), entry.name + "/" * entry.is_dir())
            for entry in entries
        )
        return "<ul>" + "".join(f'<li><a href="{uri}">{html.escape(name)}</a></li>' for uri, name in links) + "</ul>"
    text = path.read_text(errors="replace")
    try:
        language = pygments.lexers.get_lexer_for_filename(path.name, text).aliases[0]
    except pygments.util.ClassNotFound:
        language = "text"
    return app.builder.highlighter.highlight_block(text, language, force=True)  # type: ignore[attr-defined, no-any-return]


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The pages of all that is linked to."""
    linked: set[Path] = set().union(*app.env.tiptoe_sources.values())  # type: ignore[attr-defined]
    for path in sorted({entry for start in linked for entry in below(start)}):
        name = str(path.relative_to(ROOT))
        yield page_of(path), {"title": name, "body": f"<h1>{html.escape(name)}</h1>{_body(app, path)}"}, "page.html"


def prepare(app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """Pages that are gone link to nothing any more."""
    for name in removed:
        env.tiptoe_sources.pop(name, None)  # type: ignore[attr-defined]
    return []


def begin(app: Sphinx) -> None:
    """Where each page's links are noted."""
    app.env.tiptoe_sources = getattr(app.env, "tiptoe_sources", {})  # type: ignore[attr-defined]


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx' entry."""
    app.add_transform(SourceLinks)
    app.connect("builder-inited", begin)
    app.connect("env-get-outdated", prepare)
    app.connect("missing-reference", resolve, priority=400)
    app.connect("html-collect-pages", pages)
    return {"version": "1", "parallel_read_safe": False}
