"""Twins: the name of a module to the compiled or the interpreted one, both in one process."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import SOURCE_SUFFIXES, ExtensionFileLoader, FileFinder, ModuleSpec, SourceFileLoader
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import rawws.errors
import rawws_sse

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COMPILED", "INTERPRETED", "PACKAGES", "Twin", "is_compiled"]

PREFIX = "_interpreted_"
# The interpreted twins of the two packages, under names of their own.
PACKAGES = [f"{PREFIX}rawws", f"{PREFIX}rawws_sse"]


class Finder:
    """Finds the modules of the private packages by their `.py` alone (a finder of `sys.meta_path`)."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        """Return where `fullname` is, or None to leave it to the importers that follow."""
        if path is None or fullname.partition(".")[0] not in PACKAGES:
            return None
        return FileFinder(path[0], (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(fullname)


class Twin(NamedTuple):
    """One of the two."""

    name: str
    prefix: str

    def load(self, module: str) -> ModuleType:
        """Return this twin of a module, such as `rawws.protocol.frames`."""
        return importlib.import_module(self.prefix + module)


def is_compiled() -> bool:
    """Tell whether `import rawws` gives the compiled twin."""
    return isinstance(importlib.import_module("rawws.protocol.connection").__loader__, ExtensionFileLoader)


def _add_packages() -> None:
    for package in (rawws, rawws_sse):
        private = sys.modules[PREFIX + package.__name__] = ModuleType(PREFIX + package.__name__)
        private.__path__ = list(package.__path__)
    # The errors are those of both, as in a process that runs one twin.
    sys.modules[f"{PREFIX}rawws.errors"] = rawws.errors
    sys.meta_path.insert(0, Finder())


COMPILED = Twin("compiled", "")
INTERPRETED = Twin("interpreted", PREFIX)

if PACKAGES[0] not in sys.modules:
    _add_packages()
