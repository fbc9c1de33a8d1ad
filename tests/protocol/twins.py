"""Both twins in one process: the interpreted one under another name, beside the one that `import rawws` gave."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import SOURCE_SUFFIXES, ExtensionFileLoader, FileFinder, ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import rawws.protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

# The private name of the interpreted twin of rawws.protocol; its modules import each other relatively.
PACKAGE = "_interpreted_protocol"


class Finder:
    """Finds the modules of the private package by their `.py` alone (a finder of `sys.meta_path`)."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] != PACKAGE or path is None:
            return None
        return FileFinder(path[0], (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(fullname)


def compiled(name: str) -> bool:
    """Whether `import rawws.protocol.name` gives the compiled twin."""
    spec = importlib.util.find_spec(f"rawws.protocol.{name}")
    return spec is not None and isinstance(spec.loader, ExtensionFileLoader)


def interpreted(name: str) -> ModuleType:
    """The interpreted twin of `rawws.protocol.name`."""
    if PACKAGE not in sys.modules:
        package = ModuleType(PACKAGE)
        package.__path__ = [str(Path(next(iter(rawws.protocol.__path__))))]
        sys.modules[PACKAGE] = package
        sys.meta_path.insert(0, Finder())
    return importlib.import_module(f"{PACKAGE}.{name}")
