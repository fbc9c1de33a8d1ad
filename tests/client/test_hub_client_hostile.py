"""Servers that mean a `HubClient` ill: what it holds, asks and waits for stays bounded; in threads, too."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

import rawws
import rawws.sync
from rawws.client import hub_http_links
from rawws.client.envelopes import LONGEST_NAME
from tests.client.hubs import HASTY
from tests.client.peers import scripted
from tests.server.peers import eventually

pytestmark = pytest.mark.usefixtures("coming_back")

BOUNDED: Final[dict[str, Any]] = {**HASTY, "transports": ["poll"], "max_size": 100_000}
MEGABYTE: Final = b"x" * (1 << 20)
Says = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


def answer(body: bytes, status: str = "200 OK", *fields: str) -> bytes:
    """Return a response."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + body


def poll(offset: int, cursor: str = "", **publication: Any) -> bytes:
    """Return the answer to a poll of the topic "a"."""
    cursor = cursor or f"e:{offset}"
    publications = [{"topic": "a", "cursor": cursor, **publication}] if publication else []
    said = {"cursor": f"a={cursor}", "recovered": True, "publications": publications}
    return answer(json.dumps(said).encode())


@asynccontextmanager
async def hostile(says: Says) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Run a server that does as it likes with each request; return its URL and the heads that came."""
    heads: list[bytes] = []
    tasks: set[asyncio.Task[None]] = set()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            await says(heads[-1], writer)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, RuntimeError):
            pass  # the client is gone; uvloop says so by RuntimeError
        finally:
            writer.close()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(take(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(begin, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", heads
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


def always(said: bytes) -> Says:
    """Have a server answer each request the same."""

    async def says(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()

    return says


@pytest.mark.parametrize(
    "beginning",
    [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n100000\r\n", answer(MEGABYTE)],
    ids=["until the end", "a chunk of a megabyte", "a length"],
)
async def test_an_answer_without_an_end_is_read_up_to_max_size_and_ends_the_client(beginning: bytes) -> None:
    sent = 0

    async def says(_head: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(beginning)
        while True:
            writer.write(MEGABYTE)
            await writer.drain()
            sent += len(MEGABYTE)

    async with hostile(says) as (url, heads), rawws.HubClient(url, **BOUNDED) as client:
        client.subscribe("a")
        error = await client.wait_closed()
        assert (error.code, "max_size" in error.reason) == ("failed", True)
        # It would come again: nobody asks for it once more. The rest is what sockets hold.
        assert len(heads) == 1
        assert sent < 64 << 20


@pytest.mark.parametrize("said", [answer(b"", "204 No Content"), poll(1)], ids=["204", "200 without publications"])
async def test_a_server_that_holds_no_poll_is_not_asked_without_a_pause(
    said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_http_links, "LEAST_INTERVAL", 1000.0)
    polls = itertools.count()
    counted = 0

    async def says(head: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal counted
        if head.startswith(b"POST"):
            return
        counted = next(polls) + 1
        # The first one tells where the topic is.
        writer.write(poll(1) if counted == 1 else said)

    async with hostile(says) as (url, _), rawws.HubClient(url, **BOUNDED) as client:
        subscription = client.subscribe("a")
        assert (await subscription.ready()).cursor == "e:1"
        await eventually(lambda: counted == 2)
        for _ in range(20):
            # Each takes as long as a poll would.
            await asyncio.gather(client.publish("b", "x"), return_exceptions=True)
        assert counted == 2
        # What is subscribed to meanwhile does not wait for that.
        client.subscribe("c")
        await eventually(lambda: counted > 2)


@pytest.mark.parametrize(
    "said",
    [
        poll(2, "e" * LONGEST_NAME + ":2"),
        poll(2, data="x", event="x" * (LONGEST_NAME + 1)),
        poll(2, data="x", user="x" * (LONGEST_NAME + 1)),
        answer(b'{"cursor": "a=e:1", "recovered": true, "publications": ' + b"[" * 900 + b"]" * 900 + b"}"),
        answer(b'{"cursor": "b=e:1", "recovered": true}'),
        answer(b'{"cursor": "a=e:1", "recovered": true, "publications": [7]}'),
        answer(b"[" * 99_000),
        answer(b"\xff"),
    ],
    ids=["cursor", "event", "user", "nested", "of another topic", "no envelope", "no end", "no UTF-8"],
)
async def test_what_no_hub_says_is_not_held_and_ends_the_client_or_is_asked_for_after_a_wait(said: bytes) -> None:
    retries: list[Exception] = []

    async with hostile(always(said)) as (url, heads):
        options = {**BOUNDED, "on_retry": lambda error, _: retries.append(error)}
        async with rawws.HubClient(url, **options) as client:
            subscription = client.subscribe("a")
            await eventually(lambda: len(retries) >= 3 or client.state == "failed")
            assert subscription.cursor == ""
            assert client.state == ("connecting" if retries else "failed")
    # None of it goes back.
    assert max(map(len, heads)) < 1000
    assert all(len(str(error)) < 300 for error in retries)


async def test_long_cursors_do_not_wait_beside_the_messages_that_are_counted() -> None:
    async def flood(ws: rawws.WebSocket) -> None:
        async for text in ws:
            asked = json.loads(text)
            if "subscribe" in asked:
                ws.send(json.dumps({"id": asked["id"], "topic": "a", "cursor": "e:1", "recovered": True}))
                for number in range(2, 100):
                    ws.send(json.dumps({"topic": "a", "cursor": "e" * 50_000 + f":{number}", "data": "x"}))
            else:
                ws.send(json.dumps({"id": asked["id"], "topic": "a"}))

    failures: list[Exception] = []
    options = {**HASTY, "transports": ["websocket"], "on_retry": lambda error, _: failures.append(error)}
    async with rawws.serve(flood, "127.0.0.1", 0, subprotocols=["rawws.v1"], hard_limit=None) as server:
        port = server.sockets[0].getsockname()[1]
        async with rawws.HubClient(f"ws://127.0.0.1:{port}/", **options) as client:
            subscription = client.subscribe("a")
            await eventually(lambda: failures)
            assert "50002 characters as cursor, limit 1024" in str(failures[0])
            assert not subscription._receiver._buffer


async def test_no_redirect_takes_the_token_elsewhere() -> None:
    async with scripted(lambda _: None) as other:
        said = answer(b"", "302 Found", f"Location: http://127.0.0.1:{other.port}/")
        async with hostile(always(said)) as (url, heads), rawws.HubClient(url, **BOUNDED, token="secret") as client:
            client.subscribe("a")
            with pytest.raises(rawws.HubError, match="302"):
                await client.publish("a", "x")
            assert b"token=secret" in heads[0]
        assert other.transports == []


@pytest.mark.parametrize("beginning", [b"", answer(b"x" * 90_000)[:100]], ids=["head", "body"])
async def test_a_server_that_drips_is_left_after_open_timeout(beginning: bytes) -> None:
    async def says(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(beginning)
        for octet in itertools.chain(b"" if beginning else b"HTTP/1.1 200 OK\r\nX: ", itertools.repeat(0x78)):
            writer.write(bytes([octet]))
            await writer.drain()
            await asyncio.sleep(0.01)

    failures: list[Exception] = []
    options = {**BOUNDED, "open_timeout": 0.2, "on_retry": lambda error, _: failures.append(error)}
    async with hostile(says) as (url, _), rawws.HubClient(url, **options) as client:
        client.subscribe("a")
        await eventually(lambda: len(failures) >= 2)
        assert all(isinstance(error, TimeoutError) for error in failures)


# -- in threads


async def in_a_thread(work: Callable[[str], None], says: Says) -> list[bytes]:
    """Have a thread do something with a server, and return the heads that came."""
    async with hostile(says) as (url, heads):
        await asyncio.get_running_loop().run_in_executor(None, work, url)
        return heads


async def test_a_thread_waits_for_no_hostile_server_longer_than_it_says() -> None:
    async def says(_head: bytes, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    def work(url: str) -> None:
        with rawws.sync.HubClient(url, **BOUNDED) as client:
            subscription = client.subscribe("a")
            for wait in (
                lambda: client.wait_open(timeout=0.05),
                lambda: client.publish("a", "x", timeout=0.05),
                lambda: client.history("a", timeout=0.05),
                lambda: subscription.ready(timeout=0.05),
                lambda: subscription.recv(timeout=0.05),
            ):
                with pytest.raises(TimeoutError):
                    wait()
            assert client.state == "connecting"
        assert client.state == "closed"

    await in_a_thread(work, says)


async def test_a_thread_is_told_of_an_answer_without_an_end() -> None:
    async def says(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(MEGABYTE)
            await writer.drain()

    def work(url: str) -> None:
        with rawws.sync.HubClient(url, **BOUNDED) as client:
            # It may be over before there is a topic.
            with pytest.raises(rawws.HubError, match="max_size"):
                client.subscribe("a").recv()
            assert client.wait_closed(timeout=60).code == "failed"

    assert len(await in_a_thread(work, says)) == 1
