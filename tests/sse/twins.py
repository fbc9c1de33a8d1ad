"""The interpreted twin of rawws_sse under another name, beside the one that `import rawws_sse` gave."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import SOURCE_SUFFIXES, ExtensionFileLoader, FileFinder, ModuleSpec, SourceFileLoader
from types import ModuleType

import rawws_sse

PACKAGE = "_interpreted_sse"
MODULES = ("event", "encoder", "decoder")


class Finder:
    """Finds the modules of the private package by their `.py` alone (a finder of `sys.meta_path`)."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] != PACKAGE or path is None:
            return None
        return FileFinder(path[0], (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(fullname)


def compiled(name: str) -> bool:
    """Whether `import rawws_sse.name` gives the compiled twin."""
    return isinstance(sys.modules[f"rawws_sse.{name}"].__loader__, ExtensionFileLoader)


def interpreted() -> ModuleType:
    """The interpreted twin of rawws_sse."""
    if PACKAGE not in sys.modules:
        finder = Finder()
        sys.meta_path.insert(0, finder)
        folders = list(rawws_sse.__path__)
        spec = importlib.util.spec_from_file_location(PACKAGE, rawws_sse.__file__, submodule_search_locations=folders)
        assert spec is not None
        assert spec.loader is not None
        package = sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(package)
    return sys.modules[PACKAGE]
