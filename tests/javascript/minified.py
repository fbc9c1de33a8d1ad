"""rawws.min.js: rawws.js as browsers get it, by esbuild. `python -m tests.javascript.minified` writes it."""

from __future__ import annotations

import subprocess
from typing import Final

from tests.processes import ROOT, MissingComponentError

from .parts import ESBUILD

__all__ = ["MINIFIED", "SOURCE", "minified"]

SOURCE: Final = ROOT / "rawws" / "topics" / "js" / "rawws.js"
MINIFIED: Final = SOURCE.with_name("rawws.min.js")


def minified() -> bytes:
    """Return rawws.js without comments and with short names, for browsers that have private methods."""
    if not ESBUILD.exists():
        raise MissingComponentError("esbuild is not installed: npm ci --prefix tests/javascript")
    command = [str(ESBUILD), str(SOURCE), "--minify", "--format=esm", "--target=es2022", "--charset=utf8"]
    return subprocess.run(command, check=True, capture_output=True).stdout


if __name__ == "__main__":
    MINIFIED.write_bytes(minified())
