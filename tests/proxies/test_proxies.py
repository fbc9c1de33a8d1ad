"""What works through every proxy: WebSockets, event streams, polls, and the right answer for each client.

The server is that of the browsers' tests. It is started for each test, and the proxy once.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Final, NamedTuple

import httpx
import pytest
from httpx_sse import EventSource

from rawws import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from tests.browser.chromium import serving
from tests.processes import LOOPBACK, Process, eventually, free_port
from tests.proxies.fronts import PROXIES, VISITOR, Front

TRUSTING: Final = {"trusted_proxies": [LOOPBACK]}


class Place(NamedTuple):
    """A proxy, and the port that it sends its clients to."""

    front: Front
    upstream: int

    @contextmanager
    def served(self, **options: object) -> Iterator[Process]:
        """Run the server, and wait until the proxy has noticed: haproxy looks once a second."""
        with serving(self.upstream, **options) as server:
            eventually(lambda: self.front.get("/").status_code == 200)
            yield server
            assert "Traceback" not in server.output


@pytest.fixture(scope="module", params=PROXIES)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    upstream = free_port()
    with PROXIES[request.param](tmp_path_factory.mktemp(request.param), upstream) as front:
        yield Place(front, upstream)


@pytest.fixture
def front(place: Place) -> Iterator[Front]:
    """Give a proxy with a server behind it."""
    with place.served(**TRUSTING):
        yield place.front


# WebSockets


def test_messages_are_compressed_and_come_back_whole(front: Front) -> None:
    with front.connect("/echo") as ws:
        assert ws.response is not None
        assert ws.response.headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate")
        ws.recv(timeout=60)
        for message in ("Grüße", "x" * 1_000_000, os.urandom(1_000_000)):
            ws.send(message)
            assert ws.recv(timeout=60) == message


def test_close_codes_and_reasons_go_both_ways(front: Front) -> None:
    with front.connect("/echo") as ws:
        ws.close(4001, "tschüß")
        assert (ws.close_code, ws.close_reason) == (4001, "tschüß")
    with front.connect("/closed") as ws, pytest.raises(ConnectionClosedError, match="4002"):
        ws.recv(timeout=60)
    assert (ws.close_code, ws.close_reason) == (4002, "geschlossen")


# Event streams and polls


def test_an_event_comes_while_its_stream_is_open(front: Front) -> None:
    with front.client() as client, client.stream("GET", "/who/stream") as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert next(answer.iter_lines()).startswith("data: ")


def test_a_stream_goes_on_behind_the_event_that_came_last(front: Front) -> None:
    came = [0]
    with front.client() as client:
        for to in (100_000, 100):
            with client.stream("GET", f"/numbers?to={to}", headers={"Last-Event-ID": str(came[-1])}) as answer:
                for event in EventSource(answer).iter_sse():
                    came.append(int(event.id))
                    if to > 100 and len(came) > 50:
                        break
    assert came == list(range(101))


def test_polls_of_one_url_are_held_and_answered_at_once(front: Front) -> None:
    with ThreadPoolExecutor() as pool:
        polls = [pool.submit(front.get, "/poll?since=0") for _ in range(3)]
        eventually(lambda: front.get("/waiting").text == "3")
        with front.client() as client:
            assert client.post("/publish", content="Grüße").text == "3"
        for poll in polls:
            assert poll.result(60).json() == {"messages": ["Grüße"], "next": 1}


# Whose answer it is


REFUSED: Final = [
    ("HEAD", "/nothing", {}, 404),
    ("HEAD", "/echo", {}, 405),
    ("HEAD", "/who", {"Origin": "https://elsewhere.example"}, 403),
    ("HEAD", "/publish", {}, 405),
    ("GET", "/nothing", {}, 404),
    ("GET", "/who", {"Origin": "https://elsewhere.example"}, 403),
    ("POST", "/nothing", {}, 404),
    ("POST", "/who", {}, 405),
]


def test_what_is_refused_leaves_the_answers_of_others_alone(front: Front) -> None:
    with front.client(VISITOR) as one, front.client("127.0.0.3") as two:

        def both() -> None:
            for client, address in ((one, VISITOR), (two, "127.0.0.3")):
                head = client.head("/who")
                assert (head.status_code, head.content) == (200, b"")
                answer = client.get("/who")
                assert (answer.status_code, answer.json()["address"]) == (200, [address, 0])

        both()
        for method, path, headers, status in REFUSED:
            content = b"x" * 10_000 if method == "POST" else None
            answer = one.request(method, path, headers=headers, content=content)
            assert answer.status_code == status, (method, path)
            assert bool(answer.content) == (method != "HEAD"), (method, path)
            both()
        # Some proxies refuse these by themselves.
        for headers in ({f"X-{number}": "1" for number in range(65)}, {"X-Long": "x" * 9000}):
            for method in ("HEAD", "GET"):
                # And end its connection, which a client may see too late for its next request.
                with front.client(VISITOR) as refused:
                    assert refused.request(method, "/who", headers=headers).status_code in {400, 431}
                both()


def test_the_server_knows_the_client_and_not_what_it_forges(front: Front) -> None:
    forged = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "ftp", "Forwarded": "for=192.0.2.1"}
    told = front.get("/who", **forged).json()
    assert told == {"address": [VISITOR, 0], "scheme": front.scheme, "host": front.host, "cookies": {}}
    with front.connect("/echo", front.origin) as ws:
        assert ws.recv(timeout=60) == f'{{"address": ["{VISITOR}", 0]}}'
    with pytest.raises(InvalidStatus, match="403"):
        front.connect("/echo", "https://elsewhere.example")


@pytest.mark.parametrize("path", ["/who", "/echo"], ids=["taken for a plain request", "refused"])
def test_nobody_reaches_the_server_past_the_proxy(front: Front, path: str) -> None:
    upgrade = "\r\n".join(
        [
            f"GET {path} HTTP/1.1",
            f"Host: {front.host}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 12",
            "\r\n",
        ]
    )
    forging = f"GET /who HTTP/1.1\r\nHost: {front.host}\r\nX-Forwarded-For: 192.0.2.1\r\nConnection: close\r\n\r\n"
    context = front.context()
    with socket.create_connection((LOOPBACK, front.port), 60, (VISITOR, 0)) as plain:
        with closing(context.wrap_socket(plain, server_hostname=LOOPBACK) if context else plain) as sock:
            sock.sendall((upgrade + forging).encode())
            answer = b""
            while data := sock.recv(65536):
                answer += data
    assert answer.startswith(b"HTTP/1.1 ")
    assert b"192.0.2.1" not in answer


# Connections to the server


def test_connections_to_the_server_are_kept(place: Place) -> None:
    # It trusts nobody: so the address is that of the proxy, with its port.
    with place.served():
        asked = []
        for _ in range(3):
            with place.front.client() as client:
                for _ in range(4):
                    # A proxy gives up a connection where more comes than the answer, such as a body after HEAD.
                    client.head("/who")
                    asked.append(tuple(client.get("/who").json()["address"]))
        assert len(set(asked)) <= 6, asked


def test_all_end_well_when_the_server_does_and_the_next_takes_over(place: Place) -> None:
    front = place.front
    with front.client() as client:
        with (
            place.served(**TRUSTING) as server,
            front.connect("/echo") as ws,
            ThreadPoolExecutor() as pool,
            client.stream("GET", "/who/stream") as stream,
        ):
            ws.recv(timeout=60)
            poll = pool.submit(front.get, "/poll?since=0")
            eventually(lambda: client.get("/waiting").text == "1")
            os.kill(server.pid, signal.SIGTERM)
            with pytest.raises(ConnectionClosedOK, match="1001"):
                ws.recv(timeout=60)
            # A stream that ends well can be read to its end; else this fails.
            assert stream.read().startswith(b"data: {")
            assert poll.result(60).status_code == 204
            server.result(60)
        assert client.get("/who").status_code == front.away
        assert comes_back(client) == front.comes_back
        with place.served(**TRUSTING):
            assert client.post("/publish", content="Grüße").text == "0"
            assert client.get("/who").json()["address"] == [VISITOR, 0]


def comes_back(client: httpx.Client) -> bool:
    """Tell whether an EventSource comes back after what it gets now (HTML 9.2.2)."""
    try:
        answer = client.get("/numbers?to=1", headers={"Accept": "text/event-stream"})
    except httpx.RemoteProtocolError:
        return True
    return (answer.status_code, answer.headers.get("Content-Type")) == (200, "text/event-stream")
