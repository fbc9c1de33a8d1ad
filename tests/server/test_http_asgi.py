"""Responses in ASGI: what an endpoint of ours answers, over the `receive` and `send` of a server in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, final

import pytest

import rawws
from rawws import clock
from rawws.http.asgi import answer_asgi
from rawws.http.event_stream import EARLY_LIMIT
from tests.server.peers import Logged, eventually


@final
class Visit:
    """One request to an application, whose client may be slow, or gone."""

    def __init__(self, method: str = "GET", *events: dict[str, Any], **scope: Any) -> None:
        self.scope = {
            "type": "http",
            "method": method,
            "path": "/a b",
            "query_string": b"c=d",
            "headers": [(b"host", b"a"), (b"last-event-id", "Grüße".encode())],
            "client": ["127.0.0.1", 1],
            "server": ["127.0.0.1", 2],
            **scope,
        }
        self.events = list(events) or [{"type": "http.request", "body": b"", "more_body": False}]
        self.gone = asyncio.Event()
        self.reads = asyncio.Event()
        self.reads.set()
        self.error: Exception | None = None
        self.head: dict[str, Any] = {}
        self.pieces: list[bytes] = []
        self.complete = False

    async def receive(self) -> dict[str, Any]:
        if self.events:
            return self.events.pop(0)
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, event: dict[str, Any]) -> None:
        await self.reads.wait()
        if self.error is not None:
            raise self.error
        if event["type"] == "http.response.start":
            assert not self.head
            self.head = event
        else:
            assert self.head
            assert not self.complete
            self.pieces.append(event["body"])
            self.complete = not event["more_body"]

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.head["headers"])

    async def answer(self, endpoint: Callable[[rawws.HttpRequest], object], **options: Any) -> Visit:
        await answer_asgi(self.scope, self.receive, self.send, endpoint, **options)
        return self


@contextlib.asynccontextmanager
async def answering(
    visit: Visit, endpoint: Callable[[rawws.HttpRequest], object]
) -> AsyncIterator[asyncio.Task[Visit]]:
    task = asyncio.create_task(visit.answer(endpoint))
    await eventually(lambda: visit.head or task.done() or not visit.reads.is_set())
    yield task
    await task


async def test_a_request_is_described_and_answered() -> None:
    seen: list[rawws.HttpRequest] = []

    def endpoint(asked: rawws.HttpRequest) -> rawws.Response:
        seen.append(asked)
        return rawws.Response(201, "Grüße", {"X-A": "b"})

    visit = await Visit(raw_path=b"/a%20b?c=d", path_params={"n": "1"}, scheme="https").answer(endpoint)
    [asked] = seen
    assert (asked.method, asked.head.path, asked.path, asked.query["c"]) == ("GET", "/a%20b?c=d", "/a b", "d")
    assert (asked.scheme, asked.remote_address, asked.path_params["n"]) == ("https", ("127.0.0.1", 1), "1")
    assert (asked.last_event_id, asked.scope, asked.server) == ("Grüße", visit.scope, None)
    assert (visit.head["status"], visit.body, visit.complete) == (201, "Grüße".encode(), True)
    assert visit.headers[b"content-length"] == b"7"
    assert visit.headers[b"x-a"] == b"b"


async def test_whatever_an_endpoint_may_return_is_an_answer() -> None:
    async def later(_: rawws.HttpRequest) -> dict[str, int]:
        await asyncio.sleep(0)
        return {"a": 1}

    visit = await Visit().answer(later)
    assert (visit.body, visit.headers[b"content-type"]) == (b'{"a":1}', b"application/json")
    visit = await Visit().answer(lambda _: None)
    assert (visit.head["status"], visit.body, visit.headers) == (204, b"", {})
    visit = await Visit("HEAD").answer(lambda _: "text", fields=(("X-B", "c"),))
    assert (visit.headers[b"content-length"], visit.body, visit.headers[b"x-b"]) == (b"4", b"", b"c")


async def test_a_poll_waits_and_its_client_may_leave() -> None:
    poll, visit = rawws.LongPoll(), Visit()
    visiting = asyncio.create_task(visit.answer(lambda _: poll))
    await eventually(lambda: not visit.events)
    assert not visit.head
    poll.respond("a")
    await visiting
    assert visit.body == b"a"
    told: list[object] = []
    left = rawws.LongPoll(on_close=told.append)
    visit = Visit()
    visiting = asyncio.create_task(visit.answer(lambda _: left))
    await asyncio.sleep(0)
    visit.gone.set()
    await visiting
    assert (told, visit.head) == ([left], {})
    visit = await Visit().answer(lambda _: rawws.LongPoll(0.01))
    assert visit.head["status"] == 204


async def test_a_file_is_sent_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(bytes(300_000))
    visit = await Visit().answer(lambda _: rawws.Response.file(path))
    assert (visit.body, visit.complete, visit.headers[b"content-length"]) == (bytes(300_000), True, b"300000")
    assert len(visit.pieces) > 1
    visit = await Visit().answer(lambda _: rawws.Response.file(tmp_path / "nothing"))
    assert visit.head["status"] == 404
    slow = Visit()
    slow.reads.clear()
    async with answering(slow, lambda _: rawws.Response.file(path)):
        slow.gone.set()
        slow.error = OSError()
        slow.reads.set()


async def test_the_body_is_read_up_to_its_limit() -> None:
    pieces: list[Any] = [
        {"type": "http.request", "body": b"a" * 6, "more_body": True},
        {"type": "http.request", "body": b"b"},
    ]
    visit = await Visit("POST", *pieces).answer(lambda asked: asked.body, max_size=7)
    assert visit.body == b"aaaaaab"
    visit = await Visit("POST", *pieces).answer(lambda asked: asked.body, max_size=6)
    assert (visit.head["status"], visit.body) == (413, b"the body is over 6 bytes, the limit\n")
    visit = await Visit("POST", pieces[0], {"type": "http.disconnect"}).answer(lambda asked: asked.body, max_size=7)
    assert visit.head == {}


async def test_what_an_endpoint_raises_is_its_status_or_500(logged: Logged) -> None:
    def refuse(_: rawws.HttpRequest) -> None:
        raise rawws.HttpError(418, "no coffee", (("X-Pot", "tea"),))

    async def fail(_: rawws.HttpRequest) -> None:
        raise ZeroDivisionError

    visit = await Visit().answer(refuse)
    assert (visit.head["status"], visit.body, visit.headers[b"x-pot"]) == (418, b"no coffee\n", b"tea")
    assert (await Visit().answer(fail)).head["status"] == 500
    logged.take("request failed: /a b", ZeroDivisionError)
    assert (await Visit().answer(lambda _: object())).head["status"] == 500
    logged.take("request failed: /a b", TypeError)
    bad = await Visit().answer(lambda _: rawws.Response(200, "", {"X": "a\r\nSet-Cookie: b"}))
    assert (bad.head["status"], b"set-cookie" in bad.headers) == (500, False)
    logged.take("request failed: /a b", rawws.LocalProtocolError)


async def test_an_endpoint_whose_client_is_gone_runs_to_its_end() -> None:
    begun, go, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def endpoint(asked: rawws.HttpRequest) -> str:
        begun.set()
        await asked.disconnected()
        await go.wait()
        ended.set()
        return "to nobody"

    visit = Visit()
    visiting = asyncio.create_task(visit.answer(endpoint))
    await begun.wait()
    visit.gone.set()
    await visiting
    go.set()
    await ended.wait()
    assert not visit.head


# -- event streams


async def test_a_stream_is_an_application() -> None:
    async def events() -> AsyncIterator[str]:
        yield "a"
        yield "b"

    visit = Visit()
    stream = rawws.EventStream(events(), headers={"Set-Cookie": "a=1"})
    await stream(visit.scope, visit.receive, visit.send)
    assert (visit.body, visit.complete) == (b"data: a\n\ndata: b\n\n", True)
    assert visit.headers[b"set-cookie"] == b"a=1"
    assert visit.headers[b"content-type"] == b"text/event-stream"


async def test_what_is_sent_in_one_turn_is_one_piece_of_the_body() -> None:
    stream, visit = rawws.EventStream(), Visit()
    stream.send("early")
    async with answering(visit, lambda _: stream):
        await eventually(lambda: visit.pieces == [b"data: early\n\n"])
        assert stream.last_event_id == "Grüße"
        stream.send("a")
        stream.send("b")
        await eventually(lambda: visit.pieces[1:] == [b"data: a\n\ndata: b\n\n"])
        big = "x" * 60_000
        for _ in range(3):
            stream.send(big)
        await eventually(lambda: len(visit.pieces) == 5)
        stream.close()
    assert visit.complete


async def test_head_has_no_events() -> None:
    visit = await Visit("HEAD").answer(lambda _: rawws.EventStream())
    assert (visit.body, visit.complete) == (b"", True)


async def test_a_silent_stream_sends_a_comment() -> None:
    stream, visit = rawws.EventStream(keepalive=0.02), Visit()
    async with answering(visit, lambda _: stream):
        await eventually(lambda: visit.body.startswith(b":\n\n:\n\n"))
        visit.gone.set()
        await stream.wait_closed()


async def test_awaiting_send_waits_for_the_client() -> None:
    stream, visit = rawws.EventStream(), Visit()
    async with answering(visit, lambda _: stream):
        visit.reads.clear()
        first = asyncio.ensure_future(stream.send("x" * 100_000))
        await asyncio.sleep(0.01)
        assert (first.done(), stream.congested) == (False, True)
        visit.reads.set()
        await first
        assert (first.done(), stream.congested) == (True, False)
        visit.gone.set()
    with pytest.raises(rawws.ConnectionClosed):
        stream.send("late")


async def test_a_client_that_reads_nothing_is_given_up_and_the_application_returns() -> None:
    stream, visit = rawws.EventStream(keepalive=0.02), Visit()
    async with answering(visit, lambda _: stream):
        visit.reads.clear()
        stream.send("a")
        await stream.wait_closed()
    assert not visit.complete


async def test_over_the_hard_limit_a_stream_ends() -> None:
    stream, visit = rawws.EventStream(), Visit()
    async with answering(visit, lambda _: stream):
        visit.reads.clear()
        for _ in range(20):
            if not stream.closed:
                stream.send("x" * 100_000)
        await stream.wait_closed()
    assert not visit.complete
    assert EARLY_LIMIT == 1 << 20


async def test_a_hub_drops_for_a_slow_stream_what_its_policy_says() -> None:
    hub, stream, visit = rawws.Hub(), rawws.EventStream(), Visit()
    hub.subscribe(stream, "t", policy=rawws.Policy("drop_oldest", limit=1))
    async with answering(visit, lambda _: stream):
        visit.reads.clear()
        hub.publish("t", "x" * 70_000)
        for number in range(3):
            hub.publish("t", str(number))
        assert hub.stats().dropped == 2
        visit.reads.set()
        await eventually(lambda: visit.body.endswith(b"data: 2\n\n"))
        assert b"data: 1\n" not in visit.body
        visit.gone.set()
    await eventually(lambda: hub.stats().subscribers == 0)


async def test_a_producer_that_fails_leaves_the_response_without_its_end(logged: Logged) -> None:
    async def events() -> AsyncIterator[str]:
        yield "a"
        await asyncio.sleep(0.01)
        raise ZeroDivisionError

    visit = await Visit().answer(lambda _: rawws.EventStream(events()))
    assert (visit.body, visit.complete) == (b"data: a\n\n", False)
    logged.take("event stream failed", ZeroDivisionError)


async def test_a_server_that_raises_because_its_client_is_gone_ends_the_stream() -> None:
    stream, visit = rawws.EventStream(), Visit()
    async with answering(visit, lambda _: stream):
        visit.error = OSError("gone")
        stream.send("a")
        await stream.wait_closed()


async def test_an_application_that_is_cancelled_ends_its_stream() -> None:
    stream, visit = rawws.EventStream(), Visit()
    task = asyncio.create_task(visit.answer(lambda _: stream))
    await eventually(lambda: visit.head)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stream.closed


async def test_in_another_thread_nothing_is_sent() -> None:
    stream, visit = rawws.EventStream(), Visit()
    async with answering(visit, lambda _: stream):
        with pytest.raises(RuntimeError, match="publish_threadsafe"):
            await asyncio.to_thread(stream.send, "late")
        stream.close()
    assert visit.body == b""
    assert clock.monotonic() > 0
