"""The list of modules on the design page: packages and modules with the first lines of their docstrings.

`python -m tests.specification.modules` writes it into the page, between two comments.
"""

from __future__ import annotations

import ast
from itertools import groupby
from pathlib import Path
from typing import Final

from tests.processes import ROOT
from tests.test_layers import MODULES, line, unit

__all__ = ["PAGE", "with_modules"]

PAGE: Final = ROOT / "docs" / "understand" / "design.md"
# What the packages of each line are, in the order of `LINES`.
TITLES: Final = (
    "What all others may use",
    "The protocols, without I/O",
    "Sockets and the WebSocket on them",
    "HTTP",
    "Servers, clients and topics",
    "What connects them to others: engines, frameworks, monitoring, tests",
    "Applications of the library",
    "The command line",
    "Its entry",
)
BEGIN, END = "<!-- Made from the docstrings by `make docs`. -->\n", "<!-- End of what is made. -->\n"


def with_modules(page: str) -> str:
    """Return the page with its list made anew."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}{_listing()}{END}{rest.partition(END)[2]}"


def _listing() -> str:
    names = sorted((name for name in MODULES if name.startswith("rawws.")), key=lambda name: (line(name), name))
    lines = []
    for number, inside in groupby(names, key=line):
        lines.append(f"\n**{number + 1}. {TITLES[number]}**\n")
        lines += ["| module | what lives there | compiled |", "|---|---|---|"]
        for package, modules in groupby(inside, key=unit):
            lines += [_row(name, package) for name in modules]
    return "\n".join([*lines, "", ""])


def _row(name: str, package: str) -> str:
    path = MODULES[name]
    inside = path.relative_to(ROOT).as_posix().removesuffix("/__init__.py")
    text = _first_line(path)
    if name == package and path.name == "__init__.py":
        return f"| **`{inside}/`** | **{text}** | |"
    return f"| `{inside}` | {text} | {'yes ' if path.with_suffix('.pxd').exists() else ''}|"


def _first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].removesuffix(".")


if __name__ == "__main__":
    PAGE.write_text(with_modules(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
