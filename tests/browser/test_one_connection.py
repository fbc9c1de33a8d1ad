"""The demo's page of one connection, in a real Chromium and a real Firefox: what shares it, and what comes back on it.

How many TCP connections there are is counted in the kernel, and by what the server says that each came by.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

from tests.browser.firefox import firefox
from tests.processes import LOOPBACK, ROOT, Process, free_port

# How many of each kind are open, or answered.
COUNTS: Final = """['streams', 'sockets', 'requests'].map(
    kind => Number(document.getElementById(`${kind}-count`).textContent))"""
ALL: Final = f"({COUNTS}).join() === '20,20,20'"
CLOSED: Final = "20 of 20 closed with the code and the reason that they were asked to close with."
# Each step has so long: Firefox may wait for a minute by itself.
TIMEOUT: Final = 300.0
# The state of a TCP connection that both sides have open, in /proc.
ESTABLISHED: Final = "01"

# From an expression to what it is in the page.
Evaluate = Callable[[str], Any]


def demo(port: int, *options: str | Path) -> Process:
    return Process([sys.executable, "-m", "rawws", "demo", "--port", str(port), *options], listens=port)


def connections(port: int) -> int:
    """Count the TCP connections whose end at this port of this machine is open."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == ESTABLISHED for row in rows)


def wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def text(element: str) -> str:
    return f"document.getElementById('{element}').textContent"


def documented(folder: Path) -> list[str]:
    """Make a certificate in this folder as the documentation says, and return the options of its demo."""
    page = (ROOT / "docs" / "run" / "http2.md").read_text(encoding="utf-8")
    [block] = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    make, _, run = block.partition("\nrawws demo ")
    subprocess.run(["sh", "-ec", make], cwd=folder, check=True, capture_output=True)
    return [str(folder / word) if word.endswith(".pem") else word for word in shlex.split(run)]


def look(open_page: Callable[[str], object], evaluate: Evaluate, folder: Path, *, killed: bool) -> None:
    """See that all share one connection, also after a restart, and that close codes and reasons arrive."""
    port, options = free_port(), documented(folder)
    with demo(port, *options) as server:
        open_page(f"https://localhost:{port}/connection")
        wait(lambda: evaluate(ALL))
        assert [evaluate(text("connections")), evaluate(text("version"))] == ["1", "2"]
        # What a browser opened in advance, and does not use, it closes.
        wait(lambda: connections(port) == 1)
        evaluate("document.getElementById('close').click()")
        wait(lambda: evaluate(f"{text('closed')} === '{CLOSED}'"))
        evaluate("document.getElementById('close').click()")
        wait(lambda: evaluate(ALL))
        assert evaluate(text("connections")) == "1"
        if killed:
            os.kill(server.pid, signal.SIGKILL)
    wait(lambda: evaluate(f"({COUNTS})[0] === 0 && ({COUNTS})[1] === 0"))
    with demo(port, *options):
        wait(lambda: evaluate(ALL))
        assert evaluate(text("connections")) == "1"
        wait(lambda: connections(port) == 1)


def test_all_of_a_page_share_one_connection_of_chromium(browser: Browser, tmp_path: Path) -> None:
    context = browser.new_context(ignore_https_errors=True)
    try:
        page = context.new_page()
        look(page.goto, page.evaluate, tmp_path, killed=True)
    finally:
        context.close()


def test_all_of_a_page_share_one_connection_of_firefox(tmp_path: Path) -> None:
    with firefox() as browser:
        # Where 20 WebSockets were cut, it waits for a minute before it opens the next.
        look(browser.open, browser.evaluate, tmp_path, killed=False)


# The page


@pytest.fixture(scope="module")
def plain() -> Iterator[int]:
    """Run the demo without TLS."""
    with demo(free_port()) as process:
        assert process.port is not None
        yield process.port


def test_over_http_1_six_streams_of_twenty_open_and_the_page_says_why(browser: Browser, plain: int) -> None:
    page = browser.new_page()
    page.goto(f"http://{LOOPBACK}:{plain}/")
    page.click("text=one connection for all")
    wait(lambda: page.evaluate(f"({COUNTS}).slice(0, 2).join() === '6,20'"))
    expect(page.locator("#connections")).to_have_text("26")
    expect(page.locator("#version")).to_have_text("1.1")
    expect(page.locator("#hint")).to_contain_text("Over HTTP/1.1 a browser opens six connections")
    page.close()


@pytest.mark.parametrize(("size", "scheme"), [((1280, 900), "light"), ((390, 844), "dark")], ids=["desktop", "phone"])
def test_the_page_is_accessible_and_fits(browser: Browser, plain: int, size: tuple[int, int], scheme: Any) -> None:
    viewport: Any = {"width": size[0], "height": size[1]}
    # Axe brings a script of its own into the page.
    context = browser.new_context(viewport=viewport, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"http://{LOOPBACK}:{plain}/connection")
    # Chromium takes seconds for the last ones of many WebSockets.
    wait(lambda: page.evaluate(f"({COUNTS}).slice(0, 2).every(count => count > 5)"))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert complaints == []
    folder = ROOT / "reports" / "demo"  # to be looked at
    page.screenshot(path=folder / f"connection-{scheme}-{size[0]}.png", full_page=True)
    context.close()
