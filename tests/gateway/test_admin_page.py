"""The admin page of a gateway in a real browser: its apps, hooks and backends, and a connection that it closes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Final, final

import pytest
from playwright.sync_api import Browser
from websockets.sync.client import connect

from tests.admin.test_page import eventually, faults, opened, rows
from tests.admin.test_workers import admin_of
from tests.browser.chromium import browsing
from tests.cli.commands import port
from tests.gateway.aws_running import chat_api
from tests.gateway.instances import instances
from tests.gateway.running import KEY, app_file
from tests.processes import LOOPBACK, free_port

SCREENSHOTS: Final = os.environ.get("RAWWS_TEST_SCREENSHOTS")


@final
class Receiver(ThreadingHTTPServer):
    """What a hook tells: it says `status`, and to come again after long."""

    status = 503

    def __init__(self) -> None:
        super().__init__((LOOPBACK, 0), Told)


@final
class Told(BaseHTTPRequestHandler):
    """A request of a hook."""

    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.server.status)
        self.send_header("Retry-After", "200")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def application() -> Iterator[Receiver]:
    """Run one, in a thread."""
    with Receiver() as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as browser:
        yield browser


def test_m1_it_shows_apps_hooks_and_backends_and_closes_a_connection(browser: Browser, tmp_path: Path) -> None:
    dead = f"http://{LOOPBACK}:{free_port()}"
    with application() as told:
        at = f"http://{LOOPBACK}:{told.server_port}/hook"
        hook = f'[[app.hook]]\nurl = "{at}?token=secret"\nevents = ["connection_opened"]'
        head = f'[gateway]\nadmin = "{LOOPBACK}:0"\ndrain = 0'
        look(browser, tmp_path, app_file(hook, head=head) + chat_api(f"{dead}/chat", "$default"), dead, at, told)


def look(browser: Browser, folder: Path, text: str, dead: str, hook: str, told: Receiver) -> None:
    with instances(folder, text, 1, "--log-level", "debug") as [process]:
        at = f"ws://{LOOPBACK}:{port(process)}"
        with (
            connect(f"{at}/app/{KEY}?protocol=7", proxy=None) as pusher,
            connect(f"{at}/app/{KEY}?protocol=7", proxy=None),
            connect(f"{at}/prod", proxy=None) as aws,
        ):
            for _ in range(6):
                aws.send("hello")
                assert "Internal server error" in str(aws.recv(timeout=60))
            page, complaints = opened(browser, admin_of(process), viewport={"width": 1280, "height": 900})
            eventually(page, "document.querySelectorAll('#apps tbody tr').length === 2")
            eventually(page, "document.querySelectorAll('#hooks tbody tr').length === 1")
            eventually(page, "document.querySelectorAll('#backends tbody tr').length === 2")
            assert [row[:4] for row in rows(page, "apps")] == [["3", "pusher", "2", "2"], ["chat", "aws", "1", "1"]]
            [[url, app, _, waiting, *_]] = rows(page, "hooks")
            # What may be secret in a URL is not shown.
            assert (url, app, waiting) == (hook, "3", "2")
            backends = {row[0]: row[1:] for row in rows(page, "backends")}
            assert backends[f"{dead}/chat"][0] in {"left alone for a while", "the next call tries"}
            assert backends[f"{dead}/chat"][2:] == ["6", "6"]
            page.select_option("#sort", "sent")
            page.click("#list")
            eventually(page, "document.querySelectorAll('#connections tbody tr').length === 3")
            assert {row[3] for row in rows(page, "connections")} == {f"/app/{KEY}", "/prod"}
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                assert faults(page) == []
                if SCREENSHOTS:
                    page.screenshot(path=Path(SCREENSHOTS) / f"admin-gateway-{scheme}.png", full_page=True)
            page.set_viewport_size({"width": 360, "height": 740})
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
            assert faults(page) == []
            # It would be asked again much later.
            told.status = 204
            page.get_by_role("button", name=re.compile("Send again")).click()
            eventually(page, "document.querySelectorAll('#hooks tbody td')[2].textContent === '0'")
            assert rows(page, "hooks")[0][3:7] == ["0", "0 s", "2", "0"]
            host, number = pusher.local_address[:2]
            page.on("dialog", lambda dialog: dialog.accept())
            page.get_by_role("button", name=re.compile(f"Close {host}:{number}")).click()
            pusher.recv(timeout=60)
            with pytest.raises(Exception, match="1008"):
                pusher.recv(timeout=60)
            eventually(page, "document.querySelectorAll('#apps tbody td')[1].textContent === '1'")
            page.click("#list")
            eventually(page, "document.querySelectorAll('#connections tbody tr').length === 2")
            assert complaints == []
            page.context.close()
    assert f"the hook {hook} fails" in process.output
    assert "secret" not in process.output
