"""Twins: one source, loaded interpreted or compiled, and the name of the twin that runs.

Where a compiled file lies beside a `.py`, Python's importer prefers it. With `RAWWS_PURE=1` in the environment the
`.py` is loaded instead. Importing this module makes the choice, so `rawws/__init__.py` imports it before all others.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import SOURCE_SUFFIXES, ExtensionFileLoader, FileFinder, ModuleSpec, SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["PURE", "running"]

PACKAGES = ("rawws", "rawws_sse")

PURE = os.environ.get("RAWWS_PURE", "") not in {"", "0"}


@final
class SourceFinder:
    """Finds the modules of this project by their `.py` alone (a finder of `sys.meta_path`)."""

    __slots__ = ()

    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:  # noqa: ARG002
        """Return where `fullname` is, or None to leave it to the importers that follow."""
        if path is None or fullname.partition(".")[0] not in PACKAGES:
            return None
        found = (FileFinder(entry, (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(fullname) for entry in path)
        return next(filter(None, found), None)


def running() -> str:
    """Return "compiled" or "interpreted", whichever twin this process runs.

    Half an installation says "partly compiled" and names the modules that are not.
    """
    twins = dict(_twins())
    interpreted = sorted(name for name, compiled in twins.items() if not compiled)
    if len(interpreted) == len(twins):
        return "interpreted"
    return f"partly compiled, without {', '.join(interpreted)}" if interpreted else "compiled"


def _twins() -> Iterator[tuple[str, bool]]:
    """Yield each module that can be compiled, and whether it is: those that have a `.pxd` beside their `.py`."""
    for package in PACKAGES:
        spec = find_spec(package)
        for folder in map(Path, spec.submodule_search_locations or () if spec else ()):
            for types in sorted(folder.rglob("*.pxd")):
                if types.with_suffix(".py").exists():
                    name = ".".join((package, *types.relative_to(folder).with_suffix("").parts))
                    # importlib's own `find_spec` imports the packages above, which half an installation may not bear.
                    found = (finder.find_spec(name, [str(types.parent)]) for finder in sys.meta_path)
                    module = next(filter(None, found), None)
                    yield name, module is not None and isinstance(module.loader, ExtensionFileLoader)


if PURE and not any(isinstance(finder, SourceFinder) for finder in sys.meta_path):
    sys.meta_path.insert(0, SourceFinder())
