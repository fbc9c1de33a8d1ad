"""Twins: the name of the one that runs, and the choice between them, which `rawws_sse` makes for both packages.

Importing this module makes the choice, so `rawws/__init__.py` imports it before all others.
"""

from __future__ import annotations

import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rawws_sse._twins import PURE, prefer_source

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["running"]

PACKAGES = ("rawws", "rawws_sse")


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


if PURE:
    prefer_source("rawws")
