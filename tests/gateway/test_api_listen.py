"""`api_listen`: the HTTP APIs of a gateway at an address of their own, and not at that of clients."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pusher
import pytest
import trustme
from botocore.exceptions import ClientError
from pusher.errors import PusherBadStatus
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from rawws.gateway.config import ConfigError
from rawws.gateway.loading import read_config
from tests.backplanes.engines import RedisEngine
from tests.cli.commands import fails, port, run, start
from tests.gateway.aws_running import SECRET as AWS_SECRET
from tests.gateway.aws_running import chat_api, sdk
from tests.gateway.running import APP, KEY, SECRET, app_file
from tests.processes import LOOPBACK, Process, eventually, free_port

HEAD = '[gateway]\nbackplane = "workers"\napi_listen = ["127.0.0.1:0"]\n'
TEXT = app_file(head=HEAD) + chat_api("http://127.0.0.1:1/")
BEARER = {"Authorization": f"Bearer {SECRET}"}
# One of each API, and the one that the library of Pusher for Python asks for without its app.
PATHS = (
    f"/apps/{APP}/events",
    "/users/ann/terminate_connections",
    f"/v1/apps/{APP}/publish",
    f"/v1/apps/{APP}/devices/phone",
    "/prod/@connections/tlqaumKKX4o4gkw%3D",
    "/%40connections/tlqaumKKX4o4gkw%3D",
)


def api_port(process: Process) -> int:
    found = re.search(r"HTTP APIs at https?://127\.0\.0\.1:(\d+)$", process.output, re.MULTILINE)
    assert found is not None, process.output
    return int(found[1])


def library(at: int, **more: Any) -> pusher.Pusher:
    return pusher.Pusher(
        **{"app_id": APP, "key": KEY, "secret": SECRET, "ssl": False, "port": at, "host": LOOPBACK, **more}
    )


@contextmanager
def client(at: int) -> Iterator[ClientConnection]:
    """Give a client that is subscribed to a channel."""
    with connect(f"ws://{LOOPBACK}:{at}/app/{KEY}?protocol=7") as ws:
        ws.recv(timeout=60)
        ws.send(json.dumps({"event": "pusher:subscribe", "data": {"channel": "room"}}))
        assert json.loads(ws.recv(timeout=60))["event"] == "pusher_internal:subscription_succeeded"
        yield ws


def hear_news(clients: int, servers: int) -> None:
    """Have a server publish an event, which a client hears."""
    with client(clients) as ws:
        library(servers).trigger("room", "news", {"a": 1})
        assert json.loads(ws.recv(timeout=60))["event"] == "news"


def status(at: int, path: str, method: str = "GET", **fields: str) -> int:
    body = b"{}" if method == "POST" else None
    try:
        with urlopen(Request(f"http://{LOOPBACK}:{at}{path}", body, fields, method=method), timeout=60) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


@pytest.mark.parametrize("workers", [1, 2])
def test_servers_ask_at_their_own_port_and_are_told_at_that_of_clients_that_there_is_nothing(
    tmp_path: Path, workers: int
) -> None:
    admin = free_port()
    text = TEXT.replace("[gateway]\n", f'[gateway]\nadmin = "127.0.0.1:{admin}"\n')
    (tmp_path / "gateway.toml").write_text(text)
    with start(tmp_path, "gateway", "gateway.toml", "--port", "0", "--workers", str(workers)) as process:
        clients, servers = port(process), api_port(process)
        hear_news(clients, servers)
        assert status(servers, f"/v1/apps/{APP}/channels", **BEARER) == 200
        with connect(f"ws://{LOOPBACK}:{clients}/prod") as ws:
            url = f"http://{LOOPBACK}:{servers}/v1/apps/chat/connections"
            with urlopen(Request(url, headers={"Authorization": f"Bearer {AWS_SECRET}"}), timeout=60) as answer:
                [told] = json.loads(answer.read())["connections"]
            sdk(servers).client.post_to_connection(ConnectionId=told["connection"], Data="hello")
            assert ws.recv(timeout=60) == "hello"
            with pytest.raises(ClientError, match="404"):
                sdk(clients).client.post_to_connection(ConnectionId=told["connection"], Data="hello")
        with pytest.raises(PusherBadStatus, match="404"):
            library(clients).trigger("room", "news", {"a": 1})
        for path in PATHS:
            assert {status(clients, path, method, **BEARER) for method in ("GET", "POST", "PUT", "DELETE")} == {404}
        for path in (f"/app/{KEY}?protocol=7", f"/connect/{APP}", "/prod"):
            with pytest.raises(InvalidStatus, match="404"), connect(f"ws://{LOOPBACK}:{servers}{path}"):
                pass
            assert status(servers, path) == 404
        for probe in ("healthz", "readyz"):
            assert status(admin, f"/{probe}") == 200
        with urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=60) as answer:
            told = answer.read().decode()
        assert f'rawws_gateway_requests_total{{app="{APP}",face="pusher",status="200"}} 1' in told


def test_without_it_servers_ask_at_the_port_of_clients(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(app_file())
    with start(tmp_path, "gateway", "gateway.toml", "--port", "0") as process:
        assert "HTTP APIs" not in process.output
        assert library(port(process)).channels_info() == {"channels": {}}


def test_servers_are_answered_while_clients_are_told_to_go_and_a_new_api_is_served(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(app_file(head=HEAD))
    with start(tmp_path, "gateway", "gateway.toml", "--port", "0", "--drain-grace", "600") as process:
        assert status(api_port(process), PATHS[-2]) == 404
        file.write_text(TEXT.replace("api_listen = [", "api_listen = ['127.0.0.1:1'] #"))
        os.kill(process.pid, signal.SIGHUP)
        process.wait_for(lambda output: "the configuration was loaded again" in output, "it reads the file again")
        assert "gateway.api_listen was changed, and needs a restart" in process.output
        assert (status(api_port(process), PATHS[-2]), status(port(process), PATHS[-2])) == (403, 404)
        os.kill(process.pid, signal.SIGTERM)
        hear_news(port(process), api_port(process))
        os.kill(process.pid, signal.SIGTERM)
        eventually(lambda: process.poll() is not None)


def test_it_has_the_certificate_of_the_port_of_clients_and_reads_that_again(tmp_path: Path) -> None:
    authority, trusting = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(trusting)

    def certify() -> None:
        authority.issue_cert(LOOPBACK).private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")

    def serial(at: int) -> object:
        with socket.create_connection((LOOPBACK, at), timeout=60) as plain:
            with trusting.wrap_socket(plain, server_hostname=LOOPBACK) as sock:
                told = sock.getpeercert()
                return told and told["serialNumber"]

    certify()
    (tmp_path / "gateway.toml").write_text(TEXT)
    with start(tmp_path, "gateway", "gateway.toml", "--port", "0", "--ssl-certfile", "server.pem") as process:
        servers, first = api_port(process), serial(port(process))
        url = f"https://{LOOPBACK}:{servers}/v1/apps/{APP}/channels"
        with urlopen(Request(url, headers=BEARER), timeout=60, context=trusting) as answer:
            assert json.loads(answer.read()) == {"channels": [], "more": False}
        assert serial(servers) == first
        certify()
        os.kill(process.pid, signal.SIGHUP)
        eventually(lambda: first not in {serial(servers), serial(port(process))})
        assert serial(servers) == serial(port(process))


def test_what_cannot_be_is_told(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    with socket.create_server((LOOPBACK, 0)) as taken:
        at = taken.getsockname()[1]
        file.write_text(app_file(head=HEAD.replace(":0", f":{at}")))
        for workers in ("1", "2"):
            told = fails(run(tmp_path, "gateway", "gateway.toml", "--port", "0", "--workers", workers), 1)
            assert f"cannot listen on 127.0.0.1, port {at} for gateway.api_listen: " in told
        told = fails(run(tmp_path, "gateway", "gateway.toml", "--port", str(at)), 1)
        assert f"gateway.api_listen has the port {at}, which --port says as well" in told


@pytest.mark.parametrize(
    ("head", "mistake"),
    [
        ('api_listen = ["here"]', "gateway.api_listen[0]: it is 'here', allowed is HOST:PORT"),
        ('api_listen = "127.0.0.1:1"', "gateway.api_listen: it is a string, allowed is an array"),
        (
            'api_listen = ["127.0.0.1:8766", "[::1]:8767"]',
            "gateway.api_listen[1]: the port is 8767, allowed is one up to 65535, the same for all",
        ),
        (
            'api_listen = ["10.0.0.1:8765"]',
            "gateway.api_listen[0]: the port is 8765, which listen or admin has, needed is another one",
        ),
        (
            'admin = "127.0.0.1:9400"\napi_listen = ["127.0.0.1:9400"]',
            "gateway.api_listen[0]: the port is 9400, which listen or admin has, needed is another one",
        ),
        ("listen = []", "gateway.listen: there is none, needed is at least one"),
    ],
)
def test_mistakes_in_it_are_told(head: str, mistake: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_config(app_file(head=f"[gateway]\n{head}"))
    assert raised.value.mistakes == [mistake]


def test_any_free_port_is_no_mistake() -> None:
    config = read_config(app_file(head='[gateway]\nlisten = ["127.0.0.1:0"]\napi_listen = ["127.0.0.1:0", "[::1]:0"]'))
    assert config.api_listen == ("127.0.0.1:0", "[::1]:0")


@pytest.mark.parametrize("patience", [600, 1], ids=["the drain waits", "the drain is over"])
def test_a_request_that_waits_when_the_end_comes_is_answered_or_refused_and_never_cut(
    tmp_path: Path, patience: int
) -> None:
    with ExitStack() as running:
        engine = RedisEngine(tmp_path)
        running.callback(engine.end)
        head = HEAD.replace('"workers"', f'"{engine.url}"')
        (tmp_path / "gateway.toml").write_text(app_file(head=head))
        more = ("--port", "0", "--drain-grace", "0", "--drain-timeout", str(patience))
        process = running.enter_context(start(tmp_path, "gateway", "gateway.toml", *more))
        at = api_port(process)
        assert status(at, f"/v1/apps/{APP}/publish", "POST", **BEARER) == 400
        assert engine.process is not None
        os.kill(engine.process.pid, signal.SIGSTOP)
        running.callback(os.kill, engine.process.pid, signal.SIGCONT)
        body = json.dumps({"channel": "room", "data": "hello"}).encode()
        with socket.create_connection((LOOPBACK, at), timeout=60) as waits:
            waits.sendall(
                f"POST /v1/apps/{APP}/publish HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {SECRET}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            os.kill(process.pid, signal.SIGTERM)
            answer = b"".join(iter(lambda: waits.recv(65536), b""))
        assert answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 503 ")), (answer, process.output)
        eventually(lambda: process.poll() is not None)
