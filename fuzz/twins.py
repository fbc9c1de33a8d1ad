"""Twins: the name of a module to the compiled or the interpreted one, both in one process, for tests and targets.

The interpreted twin stands under a private name beside the one that `import` gives.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple, final

import rawws.errors
import rawws_sse
from rawws_sse._twins import prefer_source

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COMPILED", "INTERPRETED", "PACKAGES", "Twin", "is_compiled"]

PREFIX = "_interpreted_"
# The interpreted twins of the two packages, under names of their own.
PACKAGES = [f"{PREFIX}rawws", f"{PREFIX}rawws_sse"]


class Twin(NamedTuple):
    """One of the two."""

    name: str
    prefix: str

    def load(self, module: str) -> ModuleType:
        """Return this twin of a module, such as `rawws.protocol.frames`."""
        return importlib.import_module(self.prefix + module)


def is_compiled(module: str = "rawws.protocol.connection") -> bool:
    """Tell whether `import` gives the compiled twin of a module."""
    return isinstance(importlib.import_module(module).__loader__, ExtensionFileLoader)


@final
class PackageFinder:
    """Finds the private twin of `rawws_sse` itself, which no folder has the name of (a finder of `sys.meta_path`)."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        """Return where `fullname` is, or None to leave it to the importers that follow."""
        if fullname != f"{PREFIX}rawws_sse":
            return None
        return spec_from_file_location(
            fullname, rawws_sse.__file__, submodule_search_locations=list(rawws_sse.__path__)
        )


def _add_packages() -> None:
    # `rawws` itself is not run again: it would load all of its modules for the one that is asked for.
    private = sys.modules[f"{PREFIX}rawws"] = ModuleType(f"{PREFIX}rawws")
    private.__path__ = list(rawws.__path__)
    # The errors are those of both, as in a process that runs one twin.
    sys.modules[f"{PREFIX}rawws.errors"] = rawws.errors
    sys.meta_path.insert(0, PackageFinder())
    for package in PACKAGES:
        prefer_source(package)


COMPILED = Twin("compiled", "")
INTERPRETED = Twin("interpreted", PREFIX)

if PACKAGES[0] not in sys.modules:
    _add_packages()
