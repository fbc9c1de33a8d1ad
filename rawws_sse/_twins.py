"""Twins: one source, loaded interpreted or compiled.

Where a compiled file lies beside a `.py`, Python's importer prefers it. With `RAWWS_PURE=1` in the environment the
`.py` is loaded instead. Importing this module makes the choice for its package, so the package imports it before all
others. `rawws` chooses by the same finder, and so do the tests that compare both twins in one process.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PURE", "SourceFinder", "prefer_source"]

PURE = os.environ.get("RAWWS_PURE", "") not in {"", "0"}


@final
class SourceFinder:
    """Finds the modules of one package by their `.py` alone (a finder of `sys.meta_path`)."""

    __slots__ = ("package",)

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        """Return where `fullname` is, or None to leave it to the importers that follow."""
        if path is None or fullname.partition(".")[0] != self.package:
            return None
        found = (FileFinder(entry, (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(fullname) for entry in path)
        return next(filter(None, found), None)


def prefer_source(package: str) -> None:
    """Load the modules of a package by their `.py` alone from now on; those that are loaded stay as they are."""
    if not any(isinstance(finder, SourceFinder) and finder.package == package for finder in sys.meta_path):
        sys.meta_path.insert(0, SourceFinder(package))


if PURE:
    prefer_source(__name__.partition(".")[0])
