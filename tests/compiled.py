"""Compiled files: tests do not run against those that were not compiled from the sources beside them.

They would test other code than the one you read: take a rule out of a module, forget `make build`, and all would pass.
`setup.py` writes down the digest of each source that it compiles; times tell nothing, for `git checkout` changes them.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

__all__ = ["differences", "refuse"]

ROOT = Path(__file__).resolve().parents[1]
SUFFIX = EXTENSION_SUFFIXES[0]
RECORD = ROOT / "build" / f"compiled{SUFFIX}.json"


def refuse() -> None:
    """End this process where `import rawws` would load compiled files that differ from their sources.

    The interpreted twin needs none, and what pytest-xdist starts was looked at before.
    """
    if os.environ.get("RAWWS_PURE", "") not in {"", "0"} or "PYTEST_XDIST_WORKER" in os.environ:
        return
    if wrong := differences():
        lines = "\n".join(f"  {line}" for line in wrong)
        raise SystemExit(
            f"rawws: the compiled files do not match their sources, and nothing was run:\n{lines}\n"
            "Run `make build` to compile them, or set RAWWS_PURE=1 to run the interpreted twin."
        )


def differences() -> list[str]:
    """Return a line for each file that is not compiled, has changed since it was, or is compiled and has no source."""
    folders = [ROOT / package for package in ("rawws", "rawws_sse")]
    types = sorted(path for folder in folders for path in folder.rglob("*.pxd"))
    # A `.pxd` without a `.py` declares what C already has.
    modules = [path.with_suffix(".py") for path in types if path.with_suffix(".py").exists()]
    wanted = {module: module.with_name(module.stem + SUFFIX) for module in modules}
    built = {path for folder in folders for path in folder.rglob(f"*{SUFFIX}")}
    if not built:
        return ["none of them is compiled"] if can_compile() else []
    if not RECORD.exists():
        return ["what they were compiled from is not written down"]
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    there = [*(module for module in modules if wanted[module] in built), *types]
    changed = [path for path in there if record.get(inside(path)) != hashlib.sha256(path.read_bytes()).hexdigest()]
    return [
        *(f"{inside(module)} is not compiled" for module in modules if wanted[module] not in built),
        *(f"{inside(path)} has changed since it was compiled" for path in changed),
        *(f"{inside(path)} has no source" for path in sorted(built.difference(wanted.values()))),
    ]


def can_compile() -> bool:
    """Tell whether this Python can compile here."""
    return subprocess.run([sys.executable, ROOT / ".ci" / "can_compile.py"], check=False).returncode == 0


def inside(path: Path) -> str:
    """Return a path as it stands in the repository."""
    return path.relative_to(ROOT).as_posix()
