"""What is nginx's own: a page over its HTTP/2, a unix socket, and what each line of its configuration is for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import httpx
import pytest
from playwright.sync_api import Page

from rawws import InvalidStatus
from tests.browser.chromium import SERVER, browsing, eventually, serving
from tests.processes import LOOPBACK, Process, find_program, free_port
from tests.proxies.fronts import VISITOR, block, nginx

TRUSTING: Final = {"trusted_proxies": [LOOPBACK]}

# What a page sees


def test_one_page_has_twenty_streams_and_two_sockets_and_all_end_well(tmp_path: Path) -> None:
    with (
        serving(free_port(), **TRUSTING) as server,
        nginx(tmp_path, server.port or 0) as front,
        browsing() as browser,
    ):
        page = browser.new_context(ignore_https_errors=True).new_page()
        page.goto(front.origin)
        assert page.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol") == "h2"
        page.evaluate(
            """() => {
                window.told = [];
                window.echoed = [];
                window.ends = [];
                window.streams = Array.from({ length: 20 }, (_, n) => {
                    const source = new EventSource(`/who/stream?${n}`);
                    source.onmessage = (event) => { told[n] = JSON.parse(event.data); };
                    return source;
                });
                window.sockets = Array.from({ length: 2 }, (_, n) => {
                    const socket = new WebSocket(`wss://${location.host}/echo`);
                    socket.onopen = () => socket.send(`Grüße ${n}`);
                    socket.onmessage = (event) => { if (event.data.startsWith("Grüße")) echoed[n] = event.data; };
                    socket.onclose = (event) => ends.push([event.code, event.wasClean]);
                    return socket;
                });
            }"""
        )
        eventually(page, "told.filter(Boolean).length === 20 && echoed.filter(Boolean).length === 2")
        assert page.evaluate("streams.map((stream) => stream.readyState)") == [1] * 20
        assert page.evaluate("sockets.map((socket) => socket.readyState)") == [1] * 2
        assert page.evaluate("echoed") == ["Grüße 0", "Grüße 1"]
        for told in page.evaluate("told"):
            assert told == {"address": [LOOPBACK, 0], "scheme": "https", "host": front.host, "cookies": {}}
        # A stream that ends well can be read to its end; else this fails.
        page.evaluate("async () => { window.rest = (await fetch('/who/stream')).text(); }")
        os.kill(server.pid, signal.SIGTERM)
        assert "Traceback" not in server.result(60)
        eventually(page, "ends.length === 2")
        assert page.evaluate("ends") == [[1001, True]] * 2
        assert page.evaluate("rest").startswith("data: {")


def test_a_page_resumes_its_stream_when_the_server_is_back(tmp_path: Path) -> None:
    first, many = free_port(), 10_000
    server = serving(first)
    try:
        with nginx(tmp_path, first) as front, browsing() as browser:
            page = browser.new_context(ignore_https_errors=True).new_page()
            page.goto(front.origin)
            follow(page, many)
            eventually(page, "got.length >= 2000")
            os.kill(server.pid, signal.SIGKILL)
            server.stop()
            # The first is the end of the stream, the next are nginx's word that nobody is there.
            eventually(page, "refused >= 3")
            server = serving(first)
            eventually(page, "over")
            assert page.evaluate("got") == list(range(1, many + 1))
    finally:
        server.stop()


def test_without_its_line_for_that_the_page_gives_up(tmp_path: Path) -> None:
    line = "error_page 502 504 = @away;"
    assert block("nginx.md", "nginx").count(line) == 1
    with serving(free_port()) as server, nginx(tmp_path, server.port or 0, without=line) as front:
        with browsing() as browser:
            page = browser.new_context(ignore_https_errors=True).new_page()
            page.goto(front.origin)
            follow(page, 10_000)
            eventually(page, "got.length >= 100")
            os.kill(server.pid, signal.SIGKILL)
            eventually(page, "over")


def follow(page: Page, to: int) -> None:
    page.evaluate(
        """to => {
            window.got = []; window.refused = 0; window.over = false;
            const source = new EventSource(`/numbers?to=${to}`);
            source.onmessage = (event) => got.push(Number(event.lastEventId));
            source.onerror = () => { refused += 1; over = source.readyState === EventSource.CLOSED; };
        }""",
        to,
    )


# What programs see


def test_it_knows_the_client_over_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    options = {"trusted_proxies": ["unix"]}
    with Process([sys.executable, SERVER, path, json.dumps(options)]) as server:
        server.wait_for(lambda _: path.is_socket(), "it listens")
        with nginx(tmp_path, path) as front:
            told = front.get("/who").json()
            assert (told["address"], told["scheme"]) == ([VISITOR, 0], "https")


def test_a_server_that_trusts_no_proxy_refuses_its_own_page(tmp_path: Path) -> None:
    with serving(free_port()) as server, nginx(tmp_path, server.port or 0) as front:
        with pytest.raises(InvalidStatus, match="403"):
            front.connect("/echo", front.origin)
        assert front.get("/who", Origin=front.origin).status_code == 403


def test_clients_and_nginx_keep_their_connections(tmp_path: Path) -> None:
    # It trusts nobody: so the address is that of nginx, with its port.
    with serving(free_port()) as server, nginx(tmp_path, server.port or 0) as front:
        asked = []
        for _ in range(2):
            with front.client() as visitor:
                asked += [visitor.get("/who").json()["address"] for _ in range(2)]
        assert len({told for _, told in asked}) == 1, asked

        def curl(url: str, *options: str) -> list[str]:
            command = [find_program("curl", "apt-get install curl"), "--silent", "--noproxy", "*", *options]
            for _ in range(3):
                command += [
                    "--write-out",
                    "%{http_version} %{http_code} %{num_connects}\n",
                    "--output",
                    "/dev/null",
                    url,
                ]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()

        trust = ["--cacert", str(front.authority)]
        assert curl(f"{front.origin}/who", *trust) == ["2 200 1", "2 200 0", "2 200 0"]
        assert curl(f"{front.origin}/who", *trust, "--http1.1") == ["1.1 200 1", "1.1 200 0", "1.1 200 0"]
        assert curl(f"http://{LOOPBACK}:{server.port}/who") == ["1.1 200 1", "1.1 200 0", "1.1 200 0"]


IGNORED: Final = "proxy_ignore_headers X-Accel-Buffering;"


def test_an_event_is_not_held_back_where_the_header_is_ignored(tmp_path: Path) -> None:
    with (
        serving(free_port()) as server,
        nginx(tmp_path, server.port or 0, IGNORED, "proxy_buffering off;") as front,
        front.client() as visitor,
        visitor.stream("GET", "/who/stream") as answer,
    ):
        assert next(answer.iter_text()).startswith("data: ")


def test_an_event_would_be_held_back_without_the_header(tmp_path: Path) -> None:
    with (
        serving(free_port()) as server,
        nginx(tmp_path, server.port or 0, IGNORED) as front,
        front.client() as visitor,
        pytest.raises(httpx.ReadTimeout),
        visitor.stream("GET", "/who/stream", timeout=httpx.Timeout(60, read=1)) as answer,
    ):
        next(answer.iter_text())
