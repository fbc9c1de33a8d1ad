"""Chromium: the Debian package, headless, driven by Playwright, and a process of ours that serves it."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.processes import Process, find_program

__all__ = ["SERVER", "browsing", "eventually", "serving"]

# Without the last three Chromium asks its maker's hosts for updates at every start.
ARGUMENTS: Final = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
SERVER: Final = Path(__file__).with_name("server.py")
TIMEOUT: Final = 60_000.0
# Five seconds, as Playwright has it, are too few for a page on a busy machine.
expect.set_options(timeout=TIMEOUT)


@contextmanager
def browsing(*, back_forward_cache: bool = False) -> Iterator[Browser]:
    """Run a browser; Playwright has it keep no pages that were left, unless it is told."""
    chromium = find_program("chromium", "apt-get install chromium")
    # It leaves its temporary files.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, sync_playwright() as playwright:
        environment: dict[str, str | float | bool] = {**os.environ, "TMPDIR": folder}
        left_out = ["--disable-back-forward-cache"] if back_forward_cache else []
        browser = playwright.chromium.launch(
            executable_path=chromium, args=ARGUMENTS, env=environment, ignore_default_args=left_out, timeout=2 * TIMEOUT
        )
        yield browser
        browser.close()


def serving(port: int, **options: object) -> Process:
    """Run server.py on this port, with these options of `rawws.serve`."""
    return Process([sys.executable, SERVER, str(port), json.dumps(options)], listens=port)


def eventually(page: Page, expression: str) -> None:
    """Wait until an expression is true in the page."""
    page.wait_for_function(expression, timeout=TIMEOUT)
