"""`python -m tests.benchmarks.http2`: HTTP/2 with TLS: a WebSocket message on one of 32 streams, and a GET by h2load.

Each server is a fresh process on one core, the load is on another: 16 messages of 64 bytes are in flight on each of 32
streams of one connection; over HTTP/1.1, on each of 32 connections with TLS. They come in one DATA frame, as a program
sends what it has at once (`joined`), or in one each, as a browser does (`apart`); HTTP/1.1 has no such frames. A GET
has an answer of 100 bytes; h2load has 10 in flight on each of 4 connections. Reported are the medians of the rounds:
CPU of the server process per message and per request, and ratios of the same run.
"""
# mypy: disable-error-code="import-not-found, import-untyped"

import asyncio
import base64
import functools
import re
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol, final

import trustme

from rawws.protocol.connection import Role
from rawws.protocol.http2 import Http2Endpoint
from rawws.protocol.http2_events import DataReceived, ResponseReceived, SettingsReceived
from rawws.protocol.http2_streams import Http2Stream
from rawws.protocol.http11 import Headers, Request
from tests.processes import find_program

from .process import ServerProcess
from .rounds import (
    HOST,
    PATIENCE,
    Program,
    cores,
    cpu_per,
    interleave,
    measure_server,
    medians,
    options,
    repeat,
    verdict,
)

MODULE: Final = f"{__package__}.http2"
STREAMS: Final = 32
IN_FLIGHT: Final = 16
MESSAGE: Final = bytes(range(64))
# Binary, masked with zeros, and what comes back.
FRAME: Final = b"\x82" + bytes([0x80 | len(MESSAGE)]) + bytes(4) + MESSAGE
REPLY: Final = (b"\x82" + bytes([len(MESSAGE)]) + MESSAGE) * IN_FLIGHT
ANSWER: Final = b"x" * 100
READ_SIZE: Final = 262144

# Goals for the CPU, of HTTP/2 to the others.
GOALS: Final = (
    ("joined", "rawws-http1", 1.3),
    ("apart", "rawws-http1", 1.3),
    ("joined", "hypercorn", 0.25),
    ("apart", "hypercorn", 0.25),
    ("get", "hypercorn", 0.35),
)


# The servers


async def rawws(port: int, _seconds: float) -> None:
    import rawws  # noqa: PLC0415

    class Echo(rawws.Handler):
        def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
            ws.send(message)

    answer = rawws.Response(200, ANSWER, content_type="text/plain")
    routes = rawws.Routes([rawws.Route("/", lambda _: answer), rawws.Route("/ws", Echo(), websocket=True)])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert(HOST).configure_cert(context)
    async with rawws.serve(routes, HOST, port, ssl=context, compression=None, ping_interval=None) as server:
        await server.serve_forever()


async def hypercorn(port: int, _seconds: float) -> None:
    from hypercorn.asyncio import serve  # noqa: PLC0415
    from hypercorn.config import Config  # noqa: PLC0415

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(ANSWER))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": ANSWER})
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (event := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "bytes": event["bytes"]})

    with tempfile.TemporaryDirectory() as folder:
        pem = Path(folder, "server.pem")
        trustme.CA().issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(pem)
        config = Config()
        config.bind = [f"{HOST}:{port}"]
        config.certfile = config.keyfile = str(pem)
        config.loglevel = "ERROR"
        # Else it would end each connection of h2load in the middle.
        config.keep_alive_max_requests = 1 << 30
        await serve(app, config, shutdown_trigger=asyncio.Event().wait)


SERVERS: Final[dict[str, Program]] = {"rawws": rawws, "rawws-http1": rawws, "hypercorn": hypercorn}


# The load


class Load(Protocol):
    """WebSockets to one server."""

    def turn(self, joined: bool) -> None:
        """Send so many messages on each, and read all answers."""

    def close(self) -> None:
        """End them."""


def dial(port: int, protocol: str) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    sock = context.wrap_socket(socket.create_connection((HOST, port), PATIENCE))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    assert sock.selected_alpn_protocol() == protocol
    return sock


@final
class Http2Load:
    """Streams of one connection (RFC 8441)."""

    def __init__(self, port: int) -> None:
        self.sock = dial(port, "h2")
        self.core = Http2Endpoint(Role.CLIENT)
        self.settled = False
        self.opened = 0
        self.got: dict[int, bytes] = {}
        self.until(lambda: self.settled)
        assert self.core.peer_connect_protocol
        head = Request("CONNECT", "/ws", Headers([("Host", HOST), ("Sec-WebSocket-Version", "13")]), "2")
        self.streams: list[Http2Stream] = [
            self.core.request(head, protocol="websocket", end_stream=False) for _ in range(STREAMS)
        ]
        self.until(lambda: self.opened == STREAMS)

    def until(self, condition: Callable[[], bool]) -> None:
        """Write what waits, and read until something is so."""
        self.flush()
        while not condition():
            data = self.sock.recv(READ_SIZE)
            assert data, "the server ended the connection"
            self.core.receive(data)
            while (event := self.core.next_event()) is not None:
                if isinstance(event, DataReceived):
                    self.got[event.stream.id] = self.got.get(event.stream.id, b"") + event.data
                    self.core.acknowledge(event.stream, len(event.data))
                elif isinstance(event, ResponseReceived):
                    assert event.status == 200, event
                    self.opened += 1
                elif isinstance(event, SettingsReceived):
                    self.settled = True
            self.core.keep_buffer()
            self.flush()

    def has_room(self, stream: Http2Stream, size: int) -> bool:
        """Tell whether the windows allow so much."""
        return self.core.sendable(stream) >= size

    def flush(self) -> None:
        data = b"".join(self.core.data_to_send())
        if data:
            self.sock.sendall(data)

    def turn(self, joined: bool) -> None:
        self.got.clear()
        pieces = [FRAME * IN_FLIGHT] if joined else [FRAME] * IN_FLIGHT
        for stream in self.streams:
            for piece in pieces:
                if self.core.sendable(stream) < len(piece):
                    # What opens the windows may come behind the answers.
                    self.until(functools.partial(self.has_room, stream, len(piece)))
                self.core.send_data(stream, piece)
        self.until(lambda: sum(map(len, self.got.values())) >= STREAMS * len(REPLY))
        assert all(self.got[stream.id] == REPLY for stream in self.streams)

    def close(self) -> None:
        self.sock.close()


@final
class Http1Load:
    """A connection for each."""

    def __init__(self, port: int) -> None:
        self.socks = [dial(port, "http/1.1") for _ in range(STREAMS)]
        key = base64.b64encode(bytes(16)).decode()
        fields = f"Host: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        for sock in self.socks:
            sock.sendall(f"GET /ws HTTP/1.1\r\n{fields}Sec-WebSocket-Key: {key}\r\n\r\n".encode())
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                data = sock.recv(READ_SIZE)
                assert data, head
                head += data
            assert head.startswith(b"HTTP/1.1 101 "), head

    def turn(self, joined: bool) -> None:
        for sock in self.socks:
            sock.sendall(FRAME * IN_FLIGHT)
        for sock in self.socks:
            got = b""
            while len(got) < len(REPLY):
                data = sock.recv(READ_SIZE)
                assert data, "the server ended the connection"
                got += data
            assert got == REPLY

    def close(self) -> None:
        for sock in self.socks:
            sock.close()


def get(port: int, requests: int, *more: str) -> int:
    """Have h2load get so many answers, and see that they are right; return how many."""
    command = [find_program("h2load", "apt-get install nghttp2-client"), "-n", str(requests), "-c4", *more]
    done = subprocess.run([*command, f"https://{HOST}:{port}/"], capture_output=True, text=True, check=True)
    assert f"status codes: {requests} 2xx" in done.stdout, done.stdout
    traffic = re.search(r"\((\d+)\) data", done.stdout)
    assert traffic is not None, done.stdout
    assert int(traffic[1]) == requests * len(ANSWER), done.stdout
    return requests


def weigh(server: ServerProcess, which: str, seconds: float, requests: int) -> dict[str, float]:
    """Return the figures of one round of one server."""
    over_http1 = which.endswith("-http1")
    load: Load = Http1Load(server.port) if over_http1 else Http2Load(server.port)
    found = {}
    for key, joined in (("joined", True), ("apart", False)):
        repeat(seconds / 4, lambda _, joined=joined: load.turn(joined))  # type: ignore[misc]
        found[key] = cpu_per(server, lambda joined=joined: exchange(load, joined, seconds))  # type: ignore[misc]
    load.close()
    # In HTTP/1.1, what is in flight on one connection is pipelined, which no browser does.
    more = ["--h1", "-m1"] if over_http1 else ["-m10"]
    get(server.port, requests // 4, *more)
    return {**found, "get": cpu_per(server, lambda: get(server.port, requests, *more))}


def exchange(load: Load, joined: bool, seconds: float) -> int:
    """Exchange messages for so long, and return how many."""
    return repeat(seconds, lambda _: load.turn(joined)) * STREAMS * IN_FLIGHT


def main() -> None:
    given = options(MODULE, __doc__, SERVERS, rounds=3, seconds=2.0, requests=8000)
    _, last = cores()
    rounds = interleave(
        SERVERS,
        given.rounds,
        lambda name: measure_server(
            MODULE, name, last, lambda server: weigh(server, name, given.seconds, given.requests)
        ),
    )
    figures = medians(rounds)
    base = figures["rawws"]
    print(f"CPU us of the server, and ratios to rawws\n{'':14}" + "".join(f"{key:>14}{'x':>7}" for key in base))
    for name, row in figures.items():
        print(f"{name:14}" + "".join(f"{row[key]:14.2f}{row[key] / base[key]:7.2f}" for key in base))
    for key, other, goal in GOALS:
        verdict(f"{key}: rawws / {other}", base[key] / figures[other][key], goal)


if __name__ == "__main__":
    main()
