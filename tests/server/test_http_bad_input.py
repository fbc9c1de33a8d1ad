"""What is no request, or too much of one: refused with the right status, and never misread."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rawws
from tests.server.answers import ask, get, judge, served
from tests.server.peers import Peer, eventually, serve


def table(seen: list[str]) -> rawws.Routes:
    """Return routes that note what they are asked."""
    routes = rawws.Routes()

    def note(asked: rawws.HttpRequest) -> str:
        seen.append(f"{asked.method} {asked.path} {asked.body!r}")
        return "noted"

    routes.add(rawws.Route("/{path:path}", note, ["GET", "POST"]))
    return routes


SMUGGLED = get("/smuggled")
LENGTH = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
REFUSED = {
    "both lengths": (LENGTH + b"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "two lengths": (b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 0\r\n\r\n", 400),
    "signed length": (b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", 400),
    "list of lengths": (b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n", 400),
    "chunked in 1.0": (b"POST /a HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked twice": (b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked not last": (b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, x\r\n\r\n0\r\n\r\n", 400),
    "gzip": (b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "space before colon": (b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    "bare LF": (b"GET /a HTTP/1.1\nHost: a\n\n", 400),
    "no host": (b"GET /a HTTP/1.1\r\n\r\n", 400),
    "two hosts": (b"GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "TLS": (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", 400),
    "long head": (b"GET /a HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 100 + b"\r\n", 431),
    "long line": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    "connect": (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    "options in Connection": (b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: a b\r\n\r\n", 400),
    "chunk size": (CHUNKED + b"0x5\r\n", 400),
    "chunk end": (CHUNKED + b"1\r\nabcd", 400),
    "chunk LF": (CHUNKED + b"1\nab\r\n", 400),
    "large body": (b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001, 413),
    "large chunks": (CHUNKED + b"1f4\r\n" + b"x" * 500 + b"\r\n1f5\r\n", 413),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("first", [b"", get("/first")], ids=["alone", "behind another"])
async def test_what_is_refused_ends_the_connection_and_nothing_behind_it_is_processed(name: str, first: bytes) -> None:
    data, status = REFUSED[name]
    seen: list[str] = []
    async with served(table(seen), max_size=1000, hosts="*") as (_, peer):
        await peer.write(first + data + SMUGGLED)
        await peer.write(SMUGGLED)
        answers = judge(await peer.read_to_end(), ["GET", "GET"] if first else ["GET"], closed=True)
        assert (answers[-1].status, answers[-1].headers["connection"]) == (status, "close")
        assert seen == (["GET /first b''"] if first else [])


@pytest.mark.parametrize("name", REFUSED)
def test_the_verdict_is_the_same_for_every_split(name: str) -> None:
    data, status = REFUSED[name]

    async def answer(step: int) -> tuple[int, bytes]:
        async with served(table([]), max_size=1000, hosts="*") as (_, peer):
            for at in range(0, len(data), step):
                await peer.write(data[at : at + step])
                await asyncio.sleep(0)
            [answer] = judge(await peer.read_to_end(), ["GET"], closed=True)
            return answer.status, answer.body

    steps = (7, 97) if len(data) > 400 else (1, 7)
    found = {asyncio.run(answer(step)) for step in (*steps, len(data))}
    assert len(found) == 1
    assert found.pop()[0] == status


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_get_a_refusal_or_a_timeout_and_harm_nobody(data: bytes) -> None:
    async def attack() -> None:
        seen: list[str] = []
        async with serve(table(seen), hosts="*") as server:
            peer = await Peer.reach(server.sockets[0].getsockname())
            await peer.write(data)
            [answer] = await ask(server, get("/after"))
            assert answer.status == 200
            peer.close()
            assert seen == ["GET /after b''"]

    asyncio.run(attack())


async def test_a_body_at_the_limit_is_taken() -> None:
    seen: list[str] = []
    async with serve(table(seen), max_size=10, hosts="*") as server:
        [answer] = await ask(server, get("/a", method="POST", body=b"0123456789"), ["POST"])
        assert answer.status == 200
        assert seen == ["POST /a b'0123456789'"]


async def test_a_get_may_have_a_body() -> None:
    seen: list[str] = []
    async with serve(table(seen), hosts="*") as server:
        await ask(server, get("/a", body=b"x") + get("/b"), ["GET", "GET"])
        assert seen == ["GET /a b'x'", "GET /b b''"]


@pytest.mark.usefixtures("steady")
@pytest.mark.parametrize(
    "data",
    [b"", b"G", get("/a")[:-2], get("/a", "Content-Length: 5", method="POST") + b"1234",
     get("/a", "Transfer-Encoding: chunked", method="POST") + b"1\r\na\r\n"],
)  # fmt: skip
@pytest.mark.parametrize("first", [b"", get("/first")], ids=["alone", "behind another"])
async def test_a_request_that_does_not_arrive_is_408(data: bytes, first: bytes) -> None:
    seen: list[str] = []
    async with served(table(seen), open_timeout=0.2, keep_alive_timeout=0.2, max_size=1000, hosts="*") as (
        server,
        peer,
    ):
        await peer.write(first + data)
        methods = ["GET"] * bool(first) + ["GET"] * bool(data or not first)
        answers = judge(await peer.read_to_end(), methods, closed=True)
        if data or not first:
            assert (answers[-1].status, answers[-1].body) == (408, b"the request did not arrive in time\n")
        assert len(seen) == bool(first)
        peer.close()
        await eventually(lambda: not server.settings.connections)


async def test_a_dribble_does_not_move_the_deadline() -> None:
    async with served(table([]), open_timeout=0.3, max_size=1000, hosts="*") as (_, peer):
        await peer.write(get("/a", "Content-Length: 1000", method="POST"))
        reading = asyncio.ensure_future(peer.read_to_end())
        count = 0
        while not reading.done():
            count += 1
            await peer.write(b"x")
            await asyncio.sleep(0.02)
        assert b" 408 " in (await reading)[:20]
        assert count < 200
