"""A real nginx with HTTP/2 and TLS in front of our server, with the configuration that docs/run/nginx.md recommends.

Only ports and paths are replaced in it. nginx is started from a folder of its own, and ended by its id.
"""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import httpx
import pytest
import trustme
from playwright.sync_api import Page
from websockets import ConnectionClosedOK, InvalidStatus, Origin
from websockets.sync.client import connect

from tests.browser.chromium import SERVER, browsing, eventually, serving
from tests.processes import LOOPBACK, ROOT, Process, find_program, free_port

PAGE: Final = (ROOT / "docs" / "run" / "nginx.md").read_text(encoding="utf-8")
[SITE] = re.findall(r"^```nginx\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
TRUSTING: Final = {"trusted_proxies": [LOOPBACK]}
MAIN: Final = """
{user}
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


class Secret(NamedTuple):
    """A certificate and its key in one file, and the authority that gave it."""

    chain: Path
    authority: Path

    def context(self) -> ssl.SSLContext:
        """Return what a client needs to trust it."""
        return ssl.create_default_context(cafile=str(self.authority))


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Secret:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    found = Secret(folder / "chain.pem", folder / "authority.pem")
    authority.issue_cert(LOOPBACK).private_key_and_cert_chain_pem.write_to_path(str(found.chain))
    authority.cert_pem.write_to_path(str(found.authority))
    return found


@contextmanager
def nginx(folder: Path, secret: Secret, upstream: int | Path, *lines: str, without: str | None = None) -> Iterator[int]:
    """Run nginx in front of a port or a socket, `location /` with these lines more or without one; give its port."""
    port = free_port()
    places = {
        "127.0.0.1:8765": f"unix:{upstream}" if isinstance(upstream, Path) else f"{LOOPBACK}:{upstream}",
        "listen 443": f"listen {LOOPBACK}:{port}",
        "/etc/ssl/example.com.pem": str(secret.chain),
        "/etc/ssl/example.com.key": str(secret.chain),
        "proxy_http_version 1.1;": "\n".join(["proxy_http_version 1.1;", *lines]),
    }
    site = SITE
    for documented, here in places.items():
        assert site.count(documented) == 1, documented
        site = site.replace(documented, here)
    (folder / "site.conf").write_text(site.replace(without, "") if without else site)
    # Its workers would be another user's, who may not enter this folder.
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder, user=user))
    program = find_program("nginx", "apt-get install nginx-light")
    with Process([program, "-p", folder, "-e", "stderr", "-c", folder / "nginx.conf"], listens=port) as process:
        yield port
        assert process.poll() is None, process.output


def client(secret: Secret, address: str = LOOPBACK) -> httpx.Client:
    """Return a client that connects from this address."""
    return httpx.Client(transport=httpx.HTTPTransport(verify=secret.context(), local_address=address))


# What a page sees


def test_one_page_has_twenty_streams_and_two_sockets_and_all_end_well(tmp_path: Path, secret: Secret) -> None:
    with (
        serving(free_port(), **TRUSTING) as server,
        nginx(tmp_path, secret, server.port or 0) as port,
        browsing() as browser,
    ):
        page = browser.new_context(ignore_https_errors=True).new_page()
        page.goto(f"https://{LOOPBACK}:{port}/")
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
        host = f"{LOOPBACK}:{port}"
        for told in page.evaluate("told"):
            assert told == {"address": [LOOPBACK, 0], "scheme": "https", "host": host, "cookies": {}}
        # A stream that ends well can be read to its end; else this fails.
        page.evaluate("async () => { window.rest = (await fetch('/who/stream')).text(); }")
        os.kill(server.pid, signal.SIGTERM)
        assert "Traceback" not in server.result(20)
        eventually(page, "ends.length === 2")
        assert page.evaluate("ends") == [[1001, True]] * 2
        assert page.evaluate("rest").startswith("data: {")


def test_a_page_resumes_its_stream_when_the_server_is_back(tmp_path: Path, secret: Secret) -> None:
    first, many = free_port(), 10_000
    server = serving(first)
    try:
        with nginx(tmp_path, secret, first) as port, browsing() as browser:
            page = browser.new_context(ignore_https_errors=True).new_page()
            page.goto(f"https://{LOOPBACK}:{port}/")
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


def test_without_its_line_for_that_the_page_gives_up(tmp_path: Path, secret: Secret) -> None:
    line = "error_page 502 504 = @away;"
    assert SITE.count(line) == 1
    with serving(free_port()) as server, nginx(tmp_path, secret, server.port or 0, without=line) as port:
        with browsing() as browser:
            page = browser.new_context(ignore_https_errors=True).new_page()
            page.goto(f"https://{LOOPBACK}:{port}/")
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


def test_the_server_knows_the_client_and_not_what_it_forges(tmp_path: Path, secret: Secret) -> None:
    with (
        serving(free_port(), **TRUSTING) as server,
        nginx(tmp_path, secret, server.port or 0) as port,
        client(secret, "127.0.0.2") as visitor,
    ):
        forged = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "http"}
        told = visitor.get(f"https://{LOOPBACK}:{port}/who", headers=forged).json()
        assert told["address"] == ["127.0.0.2", 0]
        assert told["scheme"] == "https"
        origin = f"https://{LOOPBACK}:{port}"
        with connect(f"wss://{LOOPBACK}:{port}/echo", ssl=secret.context(), origin=Origin(origin), proxy=None) as ws:
            assert json.loads(ws.recv(timeout=10))["address"] == [LOOPBACK, 0]


def test_it_knows_the_client_over_a_unix_socket(tmp_path: Path, secret: Secret) -> None:
    path = tmp_path / "socket"
    options = {"trusted_proxies": ["unix"]}
    with Process([sys.executable, SERVER, path, json.dumps(options)]) as server:
        server.wait_for(lambda _: path.is_socket(), "it listens")
        with nginx(tmp_path, secret, path) as port, client(secret, "127.0.0.2") as visitor:
            told = visitor.get(f"https://{LOOPBACK}:{port}/who").json()
            assert (told["address"], told["scheme"]) == (["127.0.0.2", 0], "https")


def test_a_server_that_trusts_no_proxy_refuses_its_own_page(tmp_path: Path, secret: Secret) -> None:
    with serving(free_port()) as server, nginx(tmp_path, secret, server.port or 0) as port:
        origin = f"https://{LOOPBACK}:{port}"
        with pytest.raises(InvalidStatus, match="403"):
            connect(f"wss://{LOOPBACK}:{port}/echo", ssl=secret.context(), origin=Origin(origin), proxy=None)
        with client(secret) as visitor:
            assert visitor.get(f"{origin}/who", headers={"Origin": origin}).status_code == 403


def test_clients_and_nginx_keep_their_connections(tmp_path: Path, secret: Secret) -> None:
    # It trusts nobody: so the address is that of nginx, with its port.
    with serving(free_port()) as server, nginx(tmp_path, secret, server.port or 0) as port:
        path = f"https://{LOOPBACK}:{port}/who"
        asked = []
        for _ in range(2):
            with client(secret) as visitor:
                asked += [visitor.get(path).json()["address"] for _ in range(2)]
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

        trust = ["--cacert", str(secret.authority)]
        assert curl(path, *trust) == ["2 200 1", "2 200 0", "2 200 0"]
        assert curl(path, *trust, "--http1.1") == ["1.1 200 1", "1.1 200 0", "1.1 200 0"]
        assert curl(f"http://{LOOPBACK}:{server.port}/who") == ["1.1 200 1", "1.1 200 0", "1.1 200 0"]


IGNORED: Final = "proxy_ignore_headers X-Accel-Buffering;"


@pytest.mark.parametrize("lines", [(), (IGNORED, "proxy_buffering off;")], ids=["as documented", "header ignored"])
def test_an_event_is_not_held_back(tmp_path: Path, secret: Secret, lines: tuple[str, ...]) -> None:
    with (
        serving(free_port()) as server,
        nginx(tmp_path, secret, server.port or 0, *lines) as port,
        client(secret) as visitor,
        visitor.stream("GET", f"https://{LOOPBACK}:{port}/who/stream", timeout=20) as answer,
    ):
        assert next(answer.iter_text()).startswith("data: ")
        assert answer.headers["Content-Type"] == "text/event-stream"


def test_an_event_would_be_held_back_without_the_header(tmp_path: Path, secret: Secret) -> None:
    with (
        serving(free_port()) as server,
        nginx(tmp_path, secret, server.port or 0, IGNORED) as port,
        client(secret) as visitor,
        pytest.raises(httpx.ReadTimeout),
        visitor.stream("GET", f"https://{LOOPBACK}:{port}/who/stream", timeout=1) as answer,
    ):
        next(answer.iter_text())


def test_a_websocket_gets_its_close_code_when_the_server_ends(tmp_path: Path, secret: Secret) -> None:
    with (
        serving(free_port()) as server,
        nginx(tmp_path, secret, server.port or 0) as port,
        connect(f"wss://{LOOPBACK}:{port}/echo", ssl=secret.context(), proxy=None) as ws,
        client(secret) as visitor,
    ):
        ws.recv(timeout=10)
        os.kill(server.pid, signal.SIGTERM)
        with pytest.raises(ConnectionClosedOK, match="1001"):
            ws.recv(timeout=10)
        server.result(20)
        path = f"https://{LOOPBACK}:{port}/who"
        assert visitor.get(path).status_code == 502
        with pytest.raises(httpx.RemoteProtocolError):
            visitor.get(path, headers={"Accept": "text/event-stream"})
