"""What is haproxy's own: two servers, and WebSockets over the HTTP/2 of a page. The program is that of its page."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from rawws import ConnectionClosedOK, InvalidStatus
from rawws.sync import ClientConnection
from tests.browser.chromium import browsing, eventually
from tests.processes import LOOPBACK, Process, free_port
from tests.processes import eventually as waited_for
from tests.proxies.fronts import VISITOR, block, haproxy

PROGRAM: Final = block("haproxy.md", "python")


@contextmanager
def serving(folder: Path) -> Iterator[Process]:
    """Run the program of the page."""
    (folder / "app.py").write_text(PROGRAM, encoding="utf-8")
    port = free_port()
    with Process([sys.executable, "-W", "error", "app.py", str(port)], cwd=folder, listens=port) as process:
        yield process


def test_the_server_knows_the_client_and_not_what_it_forges(tmp_path: Path) -> None:
    with serving(tmp_path) as one, serving(tmp_path) as two, haproxy(tmp_path, one.port, two.port) as front:
        forged = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "http"}
        assert front.get("/", **forged).json() == {"address": VISITOR, "scheme": "https"}
        with front.connect("/echo", front.origin) as ws:
            ws.send("Grüße")
            assert ws.recv(timeout=60) == f"{VISITOR}: Grüße"
        with pytest.raises(InvalidStatus, match="403"):
            front.connect("/echo", "https://elsewhere.example")


def test_without_the_scheme_the_own_page_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path) as one, serving(tmp_path) as two:
        line = "http-request set-header X-Forwarded-Proto https"
        with haproxy(tmp_path, one.port, two.port, without=line) as front, pytest.raises(InvalidStatus, match="403"):
            front.connect("/echo", front.origin)


def test_a_page_has_its_websocket_over_the_one_connection_of_http_2(tmp_path: Path) -> None:
    with (
        serving(tmp_path) as one,
        serving(tmp_path) as two,
        haproxy(tmp_path, one.port, two.port) as front,
        browsing() as browser,
    ):
        page = browser.new_context(ignore_https_errors=True).new_page()
        page.goto(front.origin)
        assert page.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
        page.evaluate(
            """() => {
                window.got = [];
                const socket = new WebSocket(`wss://${location.host}/echo`);
                socket.onopen = () => socket.send("Grüße");
                socket.onmessage = (event) => got.push(event.data);
                socket.onclose = (event) => got.push([event.code, event.wasClean]);
            }"""
        )
        eventually(page, "got.length === 1")
        for server in (one, two):
            os.kill(server.pid, signal.SIGTERM)
        eventually(page, "got.length === 2")
        assert page.evaluate("got") == [f"{LOOPBACK}: Grüße", [1001, True]]


def test_connections_go_to_the_server_that_has_fewer_of_them(tmp_path: Path) -> None:
    with serving(tmp_path) as one, serving(tmp_path) as two, haproxy(tmp_path, one.port, two.port) as front:
        with front.connect("/echo") as first, front.connect("/echo") as second:
            for ws in (first, second):
                ws.send("Hello")
                assert ws.recv(timeout=60) == f"{VISITOR}: Hello"
            os.kill(one.pid, signal.SIGTERM)
            one.result(60)

            def told() -> bool:
                for ws in (first, second):
                    with suppress(ConnectionClosedOK, TimeoutError):
                        ws.recv(timeout=0.1)
                return first.close_code != second.close_code

            waited_for(told)
            assert {first.close_code, second.close_code} == {None, 1001}
        # From here on there is one; who comes meanwhile is sent to it by a second attempt at the latest.
        opened: list[ClientConnection] = []

        def reached() -> bool:
            # On a busy machine it may be late once with the answer that tells that it is ready.
            with suppress(InvalidStatus):
                opened.append(front.connect("/echo"))
            return bool(opened)

        waited_for(reached)
        with opened[0] as ws:
            ws.send("Hello")
            assert ws.recv(timeout=60) == f"{VISITOR}: Hello"
