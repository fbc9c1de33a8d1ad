"""The admin page of a gateway in a real browser: its apps, hooks and backends, and a connection that it closes."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Final, final

import httpx
import pusher
import pytest
from playwright.sync_api import Browser
from websockets.sync.client import ClientConnection, connect

from tests.admin.test_page import SIZES, eventually, faults, opened, rows
from tests.admin.test_workers import admin_of
from tests.browser.chromium import browsing
from tests.cli.commands import port
from tests.gateway.aws_running import chat_api
from tests.gateway.instances import instances
from tests.gateway.running import KEY, SECRET, app_file
from tests.processes import LOOPBACK, free_port
from tests.processes import eventually as sooner_or_later

SCREENSHOTS: Final = os.environ.get("TEST_SCREENSHOTS")

OPENED: Final = "connection_opened"
ADA: Final = "ada|1 <b>"
AUTHORIZED: Final = json.dumps(
    {
        "principalId": ADA,
        "policyDocument": {"Statement": [{"Action": "execute-api:Invoke", "Effect": "Allow", "Resource": "*"}]},
    }
).encode()


@final
class Receiver(ThreadingHTTPServer):
    """What a hook tells: it says `status`, and to come again after long."""

    status = 503

    def __init__(self) -> None:
        super().__init__((LOOPBACK, 0), Told)
        self.bodies: list[bytes] = []


@final
class Told(BaseHTTPRequestHandler):
    """A request of a hook."""

    def do_POST(self) -> None:
        assert isinstance(self.server, Receiver)
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        said = b"" if self.server.status == 204 else f"<h1>No</h1> nobody takes {self.path} now".encode()
        if self.path == "/authorizer":
            said = AUTHORIZED
        self.send_response(self.server.status)
        self.send_header("Retry-After", "200")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

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
            connect(f"{at}/app/{KEY}?protocol=7", proxy=None) as client,
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
            # Both events are in one request; where the second connection came late, its event waits behind that.
            sooner_or_later(lambda: f"the hook {hook} fails" in process.output)
            [first] = (json.loads(body)["events"] for body in told.bodies)
            assert [event["name"] for event in first] in ([OPENED], [OPENED, OPENED])
            # A test says what the receiver says now, and opens what it was told.
            assert not page.is_visible("#delivered")
            page.get_by_role("button", name=f"Send a test to {hook} of 3").click()
            eventually(page, "document.querySelector('#asked').textContent.includes(': 503 after')")
            eventually(page, "document.querySelectorAll('#deliveries tbody tr').length === 2")
            tested, failed = rows(page, "deliveries")
            assert tested[1:4] == ["503", "test", "1"]
            assert failed[2].count(OPENED) == len(first)
            assert (failed[1], failed[3]) == ("503, sent again after 3 min", "1")
            # What may be secret is not shown, whoever says it.
            assert failed[5] == "<h1>No</h1> nobody takes /hook?*** now"
            assert json.loads(told.bodies[-1])["events"][0]["name"] == "hook_test"
            for size, (width, height) in SIZES.items():
                page.set_viewport_size({"width": width, "height": height})
                for scheme in ("light", "dark"):
                    page.emulate_media(color_scheme=scheme)
                    assert page.evaluate("document.documentElement.scrollWidth") <= width
                    assert faults(page) == []
                    if SCREENSHOTS:
                        page.screenshot(path=Path(SCREENSHOTS) / f"admin-gateway-{size}-{scheme}.png", full_page=True)
            # It would be asked again much later.
            told.status = 204
            refused = len(told.bodies)
            page.get_by_role("button", name=re.compile("Send again")).click()
            eventually(page, "document.querySelectorAll('#hooks tbody td')[2].textContent === '0'")
            taken = [json.loads(body)["events"] for body in told.bodies[refused:]]
            assert [event["name"] for events in taken for event in events] == [OPENED, OPENED]
            assert [event["name"] for event in taken[0]] == [event["name"] for event in first]
            eventually(page, f"document.querySelectorAll('#deliveries tbody tr').length === {len(taken) + 2}")
            shown = [row[1] for row in rows(page, "deliveries")]
            assert shown == [*(["204"] * len(taken)), "503", "503, sent again after 3 min"]
            page.get_by_role("button", name=re.compile("Deliveries to")).click()
            eventually(page, "document.querySelector('#delivered').hidden")
            assert rows(page, "hooks")[0][3:7] == ["0", "0 s", "2", "0"]
            host, number = client.local_address[:2]
            page.on("dialog", lambda dialog: dialog.accept())
            page.get_by_role("button", name=re.compile(f"Close {host}:{number}")).click()
            client.recv(timeout=60)
            with pytest.raises(Exception, match="1008"):
                client.recv(timeout=60)
            eventually(page, "document.querySelectorAll('#apps tbody td')[1].textContent === '1'")
            page.click("#list")
            eventually(page, "document.querySelectorAll('#connections tbody tr').length === 2")
            assert complaints == []
            page.context.close()
    assert f"the hook {hook} fails" in process.output
    assert "secret" not in process.output


def tell(ws: ClientConnection, event: str, data: dict[str, str], answered: str) -> None:
    ws.send(json.dumps({"event": event, "data": data}))
    while json.loads(ws.recv(timeout=60))["event"] != answered:
        pass


def test_connections_are_shown_with_who_signed_in_and_whom_an_authorizer_knows(
    browser: Browser, tmp_path: Path
) -> None:
    library = pusher.Pusher(app_id="3", key=KEY, secret=SECRET)
    with application() as backend:
        backend.status = 200
        at = f"http://{LOOPBACK}:{backend.server_port}"
        api = chat_api(f"{at}/chat", "$default", api=f'authorizer = {{ url = "{at}/authorizer" }}')
        with (
            instances(tmp_path, app_file(head=f'[gateway]\nadmin = "{LOOPBACK}:0"\ndrain = 0') + api) as [process],
            connect(f"ws://{LOOPBACK}:{port(process)}/app/{KEY}?protocol=7", proxy=None) as signed_in,
            connect(f"ws://{LOOPBACK}:{port(process)}/app/{KEY}?protocol=7", proxy=None) as nobody,
            connect(f"ws://{LOOPBACK}:{port(process)}/prod", proxy=None),
        ):
            ident = json.loads(json.loads(signed_in.recv(timeout=60))["data"])["socket_id"]
            tell(signed_in, "pusher:signin", library.authenticate_user(ident, {"id": "bob"}), "pusher:signin_success")
            tell(nobody, "pusher:subscribe", {"channel": "news"}, "pusher_internal:subscription_succeeded")
            page, complaints = opened(browser, admin_of(process))
            page.click("#list")
            eventually(page, "document.querySelector('#listed').textContent === '3 of 3'")
            shown = {(row[1], row[3], row[8]) for row in rows(page, "connections")}
            # Who signed in has a topic of its own, by which it is reached.
            assert shown == {("bob", f"/app/{KEY}", "1"), ("", f"/app/{KEY}", "1"), (ADA, "/prod", "0")}
            for user, expected in (("bob", ["bob"]), (ADA, [ADA]), ("no", []), ("", ["", ADA, "bob"]), (ADA, [ADA])):
                page.get_by_label("Only of the user").fill(user)
                page.keyboard.press("Enter")
                sooner_or_later(
                    lambda expected=expected: sorted(row[1] for row in rows(page, "connections")) == expected  # type: ignore[misc]
                )
                assert page.inner_text("#listed") == f"{len(expected)} of {len(expected)}"
            assert page.locator("#connections b").count() == 0
            assert faults(page) == []
            assert complaints == []
            if SCREENSHOTS:
                page.screenshot(path=Path(SCREENSHOTS) / "admin-users.png", full_page=True)
            page.context.close()


def test_of_several_workers_one_sends_a_test_and_all_are_asked_what_they_sent(tmp_path: Path) -> None:
    with application() as told:
        told.status = 204
        at = f"http://{LOOPBACK}:{told.server_port}/hook"
        hook = {"app": "3", "url": at}
        table = f'[[app.hook]]\nurl = "{at}?token=secret"\nevents = ["connection_opened"]'
        text = app_file(table, head=f'[gateway]\nadmin = "{LOOPBACK}:0"\nbackplane = "workers"\ndrain = 0')
        with instances(tmp_path, text, 1, "--workers", "2") as [process], ExitStack() as clients:
            admin = httpx.Client(base_url=admin_of(process), timeout=60)
            clients.callback(admin.close)
            sent = admin.post("/v1/test", json=hook)
            assert sent.status_code == 200
            [test] = sent.json()["deliveries"]
            assert (test["test"], test["status"], test["outcome"]) == (True, 204, "sent")
            assert [json.loads(body)["events"][0]["name"] for body in told.bodies] == ["hook_test"]
            # As good as surely, the kernel gives some to each of the workers.
            for _ in range(20):
                clients.enter_context(connect(f"ws://{LOOPBACK}:{port(process)}/app/{KEY}?protocol=7", proxy=None))

            def deliveries() -> list[dict[str, Any]]:
                found = admin.get("/v1/deliveries", params=hook).json()
                assert found["busy"] == 0
                return list(found["deliveries"])

            sooner_or_later(lambda: sum(each["count"] for each in deliveries() if not each["test"]) == 20)
            assert [each for each in deliveries() if each["test"]] == [test]
            assert f"the hook {at} of 3 is sent a test" in process.output
        assert "secret" not in process.output
