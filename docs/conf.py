"""The site: these pages as they stand here, to HTML (`make docs`; Sphinx, MyST and Furo).

Invariants: the Markdown is read on a forge as it is, so what only the site needs is added here. The navigation is the
list in README.md. A link to a file of the source leads to a page that shows it, at the line of what the link names.
"""

from __future__ import annotations

import ast
import html
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from posixpath import normpath
from typing import Any

from pygments import highlight
from pygments.formatters.html import HtmlFormatter
from pygments.lexers import get_lexer_for_filename
from pygments.lexers.special import TextLexer
from sphinx.highlighting import lexers

HERE = Path(__file__).parent
ROOT = HERE.parent
# The documentation is in the source, so the source is what is imported.
os.environ["RAWWS_PURE"] = "1"
sys.path.insert(0, str(ROOT))

from rawws import __version__ as release  # noqa: E402

project = "rawws"
author = "The rawws authors"
version = release
root_doc = "README"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns = ["_build", "examples/**/node_modules"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]
default_role = "literal"  # docstrings have no other markup
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
add_module_names = False
toc_object_entries_show_parents = "hide"
html_theme = "furo"
html_title = f"rawws {release}"
html_show_sourcelink = False
html_static_path = ["site.css"]
html_css_files = ["site.css"]
lexers["haproxy"] = lexers["caddyfile"] = TextLexer()  # they have no other
pygments_style = "tango"
pygments_dark_style = "github-dark"

LINK = re.compile(r"(?<!!)\[([^\]\[]+)\]\(([^)\s#:]+)(?:#[^)\s]*)?\)")
shown: set[Path] = set()


def navigation(text: str) -> str:
    """Return a toctree for each list of README.md, with the heading that stands above it."""
    parts = []
    for heading, body in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL):
        pages = re.findall(r"\[[^\]]+\]\(([\w./-]+)\.(?:md|rst)\)", body)
        if pages:
            parts.append("\n".join(["```{toctree}", ":hidden:", f":caption: {heading}", "", *pages, "```"]))
    return "\n\n".join(parts)


def line_of(path: Path, name: str) -> int:
    """Return the line of a function or class of this name, 1 where there is none."""
    if path.suffix != ".py":
        return 1
    body: list[Any] = ast.parse(path.read_text(encoding="utf-8")).body
    line = 1
    for part in name.split("."):
        found = next((node for node in body if getattr(node, "name", None) == part), None)
        if found is None:
            return 1
        line, body = found.lineno, getattr(found, "body", [])
    return line


def page_of(path: Path) -> str:
    """Return the name of the page that shows a file."""
    return f"source/{path.relative_to(ROOT)}"


def read_source(_app: Any, docname: str, source: list[str]) -> None:
    """Add the navigation, and lead links to the source to where the site shows it."""
    up = "../" * docname.count("/")

    def lead(found: re.Match[str]) -> str:
        text, target = found.groups()
        path = ROOT / normpath(f"docs/{docname}/../{target}")
        label = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))
        if path.is_file() and path.suffix not in {".md", ".rst"}:
            shown.add(path)
            return f'<a href="{up}{page_of(path)}.html#L-{line_of(path, text.strip("`"))}">{label}</a>'
        if path.is_dir() or not path.is_relative_to(HERE):
            return text
        return found[0]

    source[0] = LINK.sub(lead, source[0])
    if docname == root_doc:
        source[0] += "\n" + navigation(source[0])


def source_pages(_app: Any) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield a page for each file that a link leads to."""
    formatter = HtmlFormatter(cssclass="highlight", lineanchors="L")
    for path in sorted(shown):
        code = highlight(path.read_text(encoding="utf-8"), get_lexer_for_filename(path.name), formatter)
        name = str(path.relative_to(ROOT))
        yield page_of(path), {"title": name, "body": f"<h1>{html.escape(name)}</h1>{code}"}, "page.html"


def process_docstring(_app: Any, what: str, _name: str, _it: Any, _options: Any, lines: list[str]) -> None:
    """Keep the first paragraph of a module's docstring: its invariants are for readers of the source."""
    if what == "module" and "" in lines:
        del lines[lines.index("") + 1 :]


def process_signature(
    _app: Any, _what: str, name: str, _it: Any, _options: Any, signature: str | None, result: str | None
) -> tuple[str | None, str | None] | None:
    """Leave out how that is made which no user makes, and say which of two of one name is returned."""
    made = {"rawws.WebSocket", "rawws.Server", "rawws.HttpRequest", "rawws.testing.Host"}
    made |= {"rawws.TopicSubscription", "rawws.sync.ClientConnection", "rawws.sync.TopicSubscription"}
    if name in made:
        return "", None
    # There is one of `rawws.sync`, too.
    return (signature, "rawws.HubClient") if result == "HubClient" else None


def setup(app: Any) -> dict[str, bool]:
    """Hook in."""
    app.connect("source-read", read_source)
    app.connect("html-collect-pages", source_pages)
    app.connect("autodoc-process-docstring", process_docstring)
    app.connect("autodoc-process-signature", process_signature)
    # Reading in one process, so that `shown` is filled where it is read.
    return {"parallel_read_safe": False}
