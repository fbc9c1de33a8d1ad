"""The live page in a real browser: what it shows and does, on a desk and on a phone, in light and dark, and to axe."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from playwright.sync_api import Browser, Page
from websockets.sync.client import ClientConnection

from tests.admin.looks import KEY
from tests.admin.test_workers import admin_of, dial, served
from tests.attacks.hostile import frame, upgrade
from tests.browser.chromium import browsing
from tests.cli.commands import port
from tests.processes import LOOPBACK, ROOT, Process
from tests.processes import eventually as sooner_or_later

LONG: Final = "<b>bold</b> and a name that is long " * 3
AXE: Final = ROOT / "tests" / "interop" / "node" / "node_modules" / "axe-core" / "axe.min.js"
KINDS: Final = ("connections", "streams", "polls")
# A folder for pictures, for whoever wants to look at them.
SCREENSHOTS: Final = os.environ.get("TEST_SCREENSHOTS")
# Of a message, of which five that wait are one too many.
SIZE: Final = 200_000
SIZES: Final = {"desk": (1280, 900), "phone": (360, 740)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as browser:
        yield browser


def eventually(page: Page, expression: str) -> None:
    """Wait until an expression is true in the page; Playwright's own way is `eval`, which the page's policy forbids."""
    sooner_or_later(lambda: page.evaluate(expression))


def subscribe(process: Process, topic: str, stack: ExitStack) -> ClientConnection:
    ws = stack.enter_context(dial(process, "rawws.v1"))
    ws.send(json.dumps({"id": 1, "subscribe": topic, "join": {"name": "Ada"}}))
    assert json.loads(ws.recv(timeout=60))["id"] == 1
    return ws


def opened(browser: Browser, url: str, **options: Any) -> tuple[Page, list[str]]:
    """Open a page; give it, and what it complains about."""
    context = browser.new_context(**options)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(url)
    return page, complaints


def faults(page: Page) -> list[str]:
    """Return what axe finds."""
    assert AXE.exists(), "npm ci --prefix tests/interop/node"
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found: list[str] = page.evaluate(
        """async () => (await axe.run()).violations.map(
            ({id, nodes}) => `${id}: ${nodes.map(({html}) => html).join(" ")}`)"""
    )
    return found


def slow_consumers(process: Process) -> list[str]:
    """Look anew, and return who does not read: what is answered first may have been seen before."""
    for _ in range(2):
        began = time.time()
        while (status := httpx.get(f"{admin_of(process)}/v1/status", timeout=60).json())["time"] <= began:
            time.sleep(0.1)
    # One message at least: less than that the kernel may take yet.
    return [each["remote"] for each in status["slow"] if each["waiting"] > SIZE]


def number(page: Page, name: str) -> str:
    return page.locator("#numbers li", has_text=name).locator("strong").inner_text()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_shows_what_there_is_and_axe_finds_nothing(browser: Browser, tmp_path: Path, size: str, scheme: str) -> None:
    width, height = SIZES[size]
    with served(tmp_path, "--admin", f"{LOOPBACK}:0") as process, ExitStack() as stack:
        listening = [subscribe(process, topic, stack) for topic in ("news", "news", LONG)]
        page, complaints = opened(
            browser, admin_of(process), viewport={"width": width, "height": height}, color_scheme=scheme
        )
        eventually(page, "document.querySelector('#numbers strong').textContent === '3'")
        eventually(page, "document.querySelectorAll('#workers tbody tr').length === 3")
        assert page.inner_text("#state") == "live: 3 processes"
        topics = page.locator("#topics tbody tr").all()
        assert topics[0].inner_text().split() == ["news", "2", "2", "0"]
        assert "<b>bold</b>" in topics[1].inner_text()
        assert page.locator("#topics b").count() == 0
        assert page.is_visible("#no-slow")
        assert not page.is_visible("#slow")
        listening[0].send(json.dumps({"id": 2, "publish": "news", "data": "x" * 10_000}))
        eventually(page, "!['0', '-'].includes(document.querySelectorAll('#numbers strong')[4].textContent)")
        # The curves have more than a point.
        eventually(page, "document.querySelector('#numbers polyline').getAttribute('points').includes(' ')")
        # Nothing is wider than the screen but what scrolls by itself.
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert faults(page) == []
        assert complaints == []
        if SCREENSHOTS:
            page.screenshot(path=Path(SCREENSHOTS) / f"admin-{size}-{scheme}.png", full_page=True)
        for ws in listening:
            ws.close()
        eventually(page, "document.querySelector('#numbers strong').textContent === '0'")
        page.context.close()
        assert "Traceback" not in process.output


def test_a_slow_consumer_is_closed_by_a_button(browser: Browser, tmp_path: Path) -> None:
    # It reads no Ping either: on a slow machine, it would be closed for that.
    words = ["--admin", f"{LOOPBACK}:0", "--ping-timeout", "off", "--close-timeout", "1"]
    with served(tmp_path, *words, workers=1) as process, ExitStack() as stack:
        # A client of `websockets` has a thread that reads, also where nobody asks it.
        unread = stack.enter_context(upgrade(port(process), "/", b"Sec-WebSocket-Protocol: rawws.v1"))
        unread.sendall(frame(1, b'{"id": 1, "subscribe": "news"}'))
        assert unread.recv(SIZE)
        silent = ":".join(map(str, unread.getsockname()))
        speaker = subscribe(process, "news", stack)
        page, complaints = opened(browser, admin_of(process))
        eventually(page, "document.querySelectorAll('#topics tbody tr').length === 1")
        # As much as the kernel takes for a client that does not read, and some more; less than what ends it.
        page.on("dialog", lambda dialog: dialog.accept())
        sent = 0
        while silent not in slow_consumers(process):
            # A look takes a second. Five times as much would end it.
            for _ in range(4):
                speaker.send(json.dumps({"id": 2, "publish": "news", "data": "x" * SIZE}))
                # What it publishes comes to itself, too.
                while json.loads(speaker.recv(timeout=60)).get("id") != 2:
                    pass
                sent += 1
            assert sent < 200
        # The speaker, too, was behind for a moment.
        eventually(page, "document.querySelectorAll('#slow tbody tr').length === 1")
        eventually(page, f"document.querySelector('#slow tbody').innerText.includes('{silent}')")
        button = page.get_by_role("button", name=re.compile(f"Close {silent}"))
        button.focus()
        page.wait_for_timeout(1500)
        # The table was written anew meanwhile.
        assert page.evaluate("document.activeElement.textContent") == "Close"
        assert faults(page) == []
        page.keyboard.press("Enter")
        eventually(page, "document.querySelectorAll('#slow tbody tr').length === 0")
        assert page.is_visible("#no-slow")
        assert complaints == []
        page.context.close()


def test_the_key_is_asked_for_and_comes_back_after_the_server(browser: Browser, tmp_path: Path) -> None:
    env = {"RAWWS_ADMIN_KEY": KEY}
    with served(tmp_path, "--admin", f"{LOOPBACK}:0", workers=1, env=env) as process:
        url = admin_of(process)
        page, _ = opened(browser, url)
        page.wait_for_selector("#door:not([hidden])")
        assert page.evaluate("document.activeElement.id") == "key"
        assert faults(page) == []
        page.fill("#key", "0123456789wrong!")
        page.keyboard.press("Enter")
        eventually(page, "document.querySelector('#wrong').textContent === 'That is not the key.'")
        page.fill("#key", KEY)
        page.click("#door button")
        eventually(page, "document.querySelector('#state').textContent === 'live: 1 process'")
        assert not page.is_visible("#door")
        # Nowhere else, and not in an address.
        assert page.evaluate("[document.cookie, localStorage.length, location.search]") == ["", 0, ""]
    eventually(page, "document.querySelector('#state').textContent.startsWith('not connected')")
    assert page.evaluate("document.querySelector('#state').classList.contains('bad')")
    address = url.removeprefix("http://")
    with served(tmp_path, "--admin", address, workers=1, env=env):
        eventually(page, "document.querySelector('#state').textContent === 'live: 1 process'")
    page.context.close()


def rows(page: Page, table: str) -> list[list[str]]:
    """Return the cells of a table of the page, row by row."""
    found: list[list[str]] = page.evaluate(
        """name => [...document.querySelectorAll(`#${name} tbody tr`)].map(
            row => [...row.cells].map(cell => cell.textContent))""",
        table,
    )
    return found


def test_the_page_and_top_show_the_same_numbers_of_all_workers(browser: Browser, tmp_path: Path) -> None:
    with served(tmp_path, "--admin", f"{LOOPBACK}:0") as process, ExitStack() as stack:
        address = admin_of(process)
        page, complaints = opened(browser, address)
        command = [sys.executable, "-m", "rawws", "top", "--json", "--interval", "0.2", "--url", address]
        top = stack.enter_context(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
        stack.callback(top.terminate)

        def top_says() -> Any:
            assert top.stdout is not None
            return json.loads(top.stdout.readline())

        def shown() -> list[Any]:
            cards = [number(page, name) for name in ("WebSockets", "event streams", "long polls")]
            return [cards, [row[:6] for row in rows(page, "workers")], rows(page, "topics")]

        def told(said: Any) -> list[Any]:
            workers = [
                [str(each["worker"]), "serving", str(each["pid"]), *(str(each[kind]) for kind in KINDS)]
                for each in said["workers"]
            ]
            topics = [
                [each["topic"], *(str(each[name]) for name in ("subscribers", "present", "held"))]
                for each in said["topics"]["topics"]
            ]
            return [[str(said[kind]) for kind in KINDS], workers, topics]

        listening = [subscribe(process, topic, stack) for topic in ["news"] * 20 + [LONG]]
        for count in (len(listening), 10):
            for ws in listening[count:]:
                ws.close()
            sooner_or_later(lambda count=count: top_says()["connections"] == count)  # type: ignore[misc]
            sooner_or_later(lambda: told(top_says()) == shown())
            assert number(page, "WebSockets") == str(count)
            # The kernel has given some to more than one worker, as good as surely.
            assert sum(row[3] != "0" for row in rows(page, "workers")) > 1
        assert complaints == []
        page.context.close()
