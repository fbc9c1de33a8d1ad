"""Plain HTTP against the server under test: bytes out, and h11 as the judge of what comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import h11

import rawws
from tests.server.peers import Peer, serve

__all__ = ["Answer", "ask", "asked", "get", "judge", "on", "served"]


class Answer(NamedTuple):
    """A response as h11 understands it; `interim` are the statuses that came before it."""

    status: int
    headers: dict[str, str]
    body: bytes
    interim: tuple[int, ...] = ()


def get(target: str = "/", *fields: str, method: str = "GET", body: bytes = b"", version: str = "1.1") -> bytes:
    """Return a request; Content-Length is added where there is a body."""
    lines = [f"{method} {target} HTTP/{version}", "Host: localhost", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def judge(data: bytes, methods: Sequence[str], *, closed: bool) -> list[Answer]:
    """Return the responses to requests of these methods in what a server sent; what is no such response fails."""
    answers: list[Answer] = []
    while len(answers) < len(methods):
        answer, data = _parse(data, methods[len(answers)], closed=closed)
        assert answer is not None, (answers, data)
        answers.append(answer)
    assert data == b""
    return answers


def _parse(data: bytes, method: str, *, closed: bool) -> tuple[Answer | None, bytes]:
    """Return the first response and what is left, None where it is not whole."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "localhost")]))
    client.send(h11.EndOfMessage())
    if data:
        client.receive_data(data)
    if closed:
        client.receive_data(b"")
    interim: list[int] = []
    status, headers, body = 0, {}, b""
    while True:
        event = client.next_event()
        if event is h11.NEED_DATA:
            return None, data
        if isinstance(event, h11.InformationalResponse):
            interim.append(event.status_code)
        elif isinstance(event, h11.Response):
            status = event.status_code
            headers = {name.decode(): value.decode("latin-1") for name, value in event.headers}
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        else:
            assert isinstance(event, h11.EndOfMessage), event
            return Answer(status, headers, body, tuple(interim)), client.trailing_data[0]


@asynccontextmanager
async def served(routes: rawws.Routes, **options: Any) -> AsyncIterator[tuple[rawws.Server, Peer]]:
    """Give a server of routes, and a peer that is connected to it."""
    async with serve(routes, **options) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        try:
            yield server, peer
        finally:
            peer.close()


async def asked(peer: Peer, methods: Iterable[str] = ("GET",)) -> list[Answer]:
    """Read so many responses as there are methods, and no octet more; the end of the connection may end the last."""
    answers: list[Answer] = []
    data = b""
    for method in methods:
        answer, data = _parse(data, method, closed=False)
        while answer is None:
            more = await peer.read()
            answer, data = _parse(data + more, method, closed=not more)
        answers.append(answer)
    assert data == b""
    return answers


async def ask(server: rawws.Server, data: bytes, methods: Iterable[str] = ("GET",)) -> list[Answer]:
    """Send bytes over a connection of their own, and return the responses."""
    peer = await Peer.reach(server.sockets[0].getsockname())
    try:
        await peer.write(data)
        return await asked(peer, methods)
    finally:
        peer.close()


def on(path: str, endpoint: Any, *methods: str) -> rawws.Routes:
    """Return a table of one route."""
    return rawws.Routes([rawws.Route(path, endpoint, methods or ("GET",))])
