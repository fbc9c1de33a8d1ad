"""A real haproxy with HTTP/2 and TLS in front of two servers, with the configuration of docs/run/haproxy.md.

Only ports and paths are replaced in it, and the program is the page's own. haproxy is ended by its id.
"""

from __future__ import annotations

import os
import re
import signal
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

import httpx
import pytest
import trustme
from websockets import ConnectionClosedOK, InvalidStatus, Origin
from websockets.sync.client import ClientConnection, connect

from tests.browser.chromium import browsing, eventually
from tests.processes import LOOPBACK, ROOT, Process, find_program, free_port

PAGE: Final = (ROOT / "docs" / "run" / "haproxy.md").read_text(encoding="utf-8")
[SITE] = re.findall(r"^```haproxy\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
[PROGRAM] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


class Front(NamedTuple):
    """haproxy, and what a client needs to trust it."""

    port: int
    authority: Path

    @property
    def origin(self) -> str:
        return f"https://{LOOPBACK}:{self.port}"

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority))

    def get(self, path: str, address: str = LOOPBACK, **headers: str) -> httpx.Response:
        transport = httpx.HTTPTransport(verify=self.context(), local_address=address)
        with httpx.Client(transport=transport) as client:
            return client.get(self.origin + path, headers=headers)

    def connect(self, origin: str | None = None) -> ClientConnection:
        said = None if origin is None else Origin(origin)
        return connect(f"wss://{LOOPBACK}:{self.port}/echo", ssl=self.context(), origin=said, proxy=None)


@contextmanager
def serving(folder: Path) -> Iterator[Process]:
    """Run the program of the page."""
    (folder / "app.py").write_text(PROGRAM, encoding="utf-8")
    port = free_port()
    with Process([sys.executable, "-W", "error", "app.py", str(port)], cwd=folder, listens=port) as process:
        yield process


@contextmanager
def haproxy(folder: Path, one: int | None, two: int | None, without: str = "") -> Iterator[Front]:
    """Run haproxy in front of two ports."""
    authority, port = trustme.CA(), free_port()
    front = Front(port, folder / "authority.pem")
    authority.cert_pem.write_to_path(str(front.authority))
    authority.issue_cert(LOOPBACK).private_key_and_cert_chain_pem.write_to_path(str(folder / "site.pem"))
    site = SITE
    for documented, here in {
        "127.0.0.1:8765": f"{LOOPBACK}:{one}",
        "127.0.0.1:8766": f"{LOOPBACK}:{two}",
        "bind :443": f"bind {LOOPBACK}:{port}",
        "/etc/ssl/example.com.pem": str(folder / "site.pem"),
    }.items():
        assert site.count(documented) == 1, documented
        site = site.replace(documented, here)
    assert without in site
    (folder / "haproxy.cfg").write_text(site.replace(without, "") if without else site)
    program = find_program("haproxy", "apt-get install haproxy")
    with Process([program, "-db", "-f", folder / "haproxy.cfg"], listens=port) as process:
        yield front
        assert process.poll() is None, process.output


def test_the_server_knows_the_client_and_not_what_it_forges(tmp_path: Path) -> None:
    with serving(tmp_path) as one, serving(tmp_path) as two, haproxy(tmp_path, one.port, two.port) as front:
        forged = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "http"}
        assert front.get("/", "127.0.0.2", **forged).json() == {"address": "127.0.0.2", "scheme": "https"}
        with front.connect(front.origin) as ws:
            ws.send("Grüße")
            assert ws.recv(timeout=10) == f"{LOOPBACK}: Grüße"
        with pytest.raises(InvalidStatus, match="403"):
            front.connect("https://elsewhere.example")


def test_without_the_scheme_the_own_page_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path) as one, serving(tmp_path) as two:
        line = "http-request set-header X-Forwarded-Proto https"
        with haproxy(tmp_path, one.port, two.port, without=line) as front, pytest.raises(InvalidStatus, match="403"):
            front.connect(front.origin)


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
        with front.connect() as first, front.connect() as second:
            for ws in (first, second):
                ws.send("Hello")
                assert ws.recv(timeout=10) == f"{LOOPBACK}: Hello"
            os.kill(one.pid, signal.SIGTERM)
            one.result(20)
            for ws in (first, second):
                with suppress(ConnectionClosedOK, TimeoutError):
                    ws.recv(timeout=1)
            assert {first.close_code, second.close_code} == {None, 1001}
        # From here on there is one; who comes meanwhile is sent to it by a second attempt at the latest.
        with front.connect() as ws:
            ws.send("Hello")
            assert ws.recv(timeout=10) == f"{LOOPBACK}: Hello"
