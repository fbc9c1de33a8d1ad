"""What the tests of the examples share: each runs as its user would run it, and is looked at in a Chromium."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, BrowserContext, Page

from tests.javascript.parts import ESBUILD, MODULES
from tests.processes import LOOPBACK, ROOT, Process, free_port

__all__ = ["EXAMPLES", "FOLDER", "REPORTS", "SIZES", "bundle", "context_of", "example", "visit"]

FOLDER: Final = ROOT / "docs" / "begin" / "examples"
EXAMPLES: Final = sorted(path.stem for path in FOLDER.glob("*.py"))
REPORTS: Final = ROOT / "reports" / "examples"  # to be looked at
SIZES: Final = {"desktop": (1120, 760), "phone": (390, 760)}


def example(name: str, *, cwd: Path = ROOT, port: int | None = None) -> Process:
    """Run an example on a port of its own, or on this one."""
    port = port or free_port()
    path: Path = FOLDER / f"{name}.py"
    return Process([sys.executable, "-W", "error", path, str(port)], cwd=cwd, listens=port)


def bundle(folder: Path) -> None:
    """Make yjs.js in a folder, as docs/use/collaboration.md says, without its installation."""
    page = (ROOT / "docs" / "use" / "collaboration.md").read_text(encoding="utf-8")
    [command] = re.findall(r"^(echo .*?)\n```$", page, re.MULTILINE | re.DOTALL)
    (folder / "node_modules").symlink_to(MODULES)
    subprocess.run(["sh", "-c", command.replace("npx esbuild", str(ESBUILD))], cwd=folder, check=True)


def context_of(browser: Browser, size: str = "desktop", scheme: str = "light") -> BrowserContext:
    """Return a browser of this size, by day or by night."""
    width, height = SIZES[size]
    viewport = {"width": width, "height": height}
    return browser.new_context(viewport=viewport, color_scheme=scheme)  # type: ignore[arg-type]


def visit(context: BrowserContext, port: int | None, complaints: list[str] | None = None, path: str = "/") -> Page:
    """Open the page of an example; what its console complains of is kept."""
    page = context.new_page()
    heard = [] if complaints is None else complaints
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("console", lambda message: heard.append(message.text) if message.type == "error" else None)
    page.goto(f"http://{LOOPBACK}:{port}{path}")
    page.wait_for_selector('.state[data-state="open"]')
    return page
