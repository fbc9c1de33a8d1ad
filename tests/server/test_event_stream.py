"""Event streams: what is sent arrives whole and in order, and whoever goes is noticed."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

import rawws
import rawws_sse
from tests.server.answers import get, judge, on, served
from tests.server.peers import Follower, Logged, Peer, eventually, handler_of, narrow, serve, set_at_end
from tests.topics.receivers import still


@asynccontextmanager
async def streaming(
    make: Callable[[rawws.HttpRequest], rawws.EventStream] = lambda _: rawws.EventStream(),
    *fields: str,
    version: str = "1.1",
    **options: Any,
) -> AsyncIterator[tuple[rawws.EventStream, Peer]]:
    """Give both ends of a stream whose response has begun."""
    made: list[rawws.EventStream] = []

    def endpoint(asked: rawws.HttpRequest) -> rawws.EventStream:
        made.append(make(asked))
        return made[0]

    async with served(on("/", endpoint), **options) as (_, peer):
        await peer.write(get("/", *fields, version=version))
        response = await peer.response()
        assert response.status == 200
        yield made[0], peer


async def until(peer: Peer, end: bytes) -> bytes:
    """Read on until what came ends so."""
    while not peer.rest.endswith(end):
        more = await peer.read()
        assert more, peer.rest
        peer.rest += more
    data, peer.rest = peer.rest, b""
    return data


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


# -- pushed


async def test_the_head_says_what_it_is_and_that_nobody_may_keep_it() -> None:
    async with served(on("/", lambda _: rawws.EventStream())) as (_, peer):
        await peer.write(get())
        response = await peer.response()
    assert response.headers.get_all("Content-Type") == ["text/event-stream"]
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Accel-Buffering"] == "no"
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert "Date" in response.headers
    assert "Content-Length" not in response.headers


@pytest.mark.parametrize("pairs", [False, True], ids=["mapping", "pairs"])
async def test_its_head_has_the_fields_of_the_application_in_the_place_of_its_own(pairs: bool) -> None:
    fields = {"cache-control": "no-cache, no-transform", "Set-Cookie": "a=1", "X-Accel-Buffering": "yes"}
    given = [*fields.items(), ("Set-Cookie", "b=2")] if pairs else fields
    async with served(on("/", lambda _: rawws.EventStream(headers=given))) as (_, peer):
        await peer.write(get())
        response = await peer.response()
    assert response.headers.get_all("Content-Type") == ["text/event-stream"]
    assert response.headers.get_all("Cache-Control") == ["no-cache, no-transform"]
    assert response.headers.get_all("X-Accel-Buffering") == ["yes"]
    assert response.headers.get_all("X-Content-Type-Options") == ["nosniff"]
    assert response.headers.get_all("Set-Cookie") == (["a=1", "b=2"] if pairs else ["a=1"])
    assert response.headers.get_all("Transfer-Encoding") == ["chunked"]


@pytest.mark.parametrize("name", ["content-type", "Content-Length", "Transfer-Encoding", "CONNECTION"])
def test_what_says_how_it_is_sent_is_its_own(name: str) -> None:
    with pytest.raises(
        ValueError, match=f"(?i)headers has {name}, allowed are those that a stream does not say itself"
    ):
        rawws.EventStream(headers={name: "7"})


@pytest.mark.parametrize(("name", "value"), [("X-A", "b\r\nX-C: d"), ("X A", "b"), ("X-A", "b\0")])
def test_no_field_breaks_out_of_its_line(name: str, value: str) -> None:
    with pytest.raises(rawws.LocalProtocolError):
        rawws.EventStream(headers=[(name, value)])


async def test_what_is_sent_is_an_event_in_a_chunk_of_its_own() -> None:
    async with streaming() as (stream, peer):
        stream.send("one")
        stream.send("two\nlines", event="news", id="7", retry=2000)
        stream.send(rawws.Event("three", id="8"))
        expected = [b"data: one\n\n", b"event: news\nid: 7\nretry: 2000\ndata: two\ndata: lines\n\n",
                    b"id: 8\ndata: three\n\n"]  # fmt: skip
        assert await until(peer, b"three\n\n\r\n") == b"".join(map(chunk, expected))
        assert stream.buffered == 0


async def test_awaiting_send_is_allowed_and_so_is_not_awaiting_it() -> None:
    async with streaming() as (stream, peer):
        assert await stream.send("one") is None  # type: ignore[func-returns-value]
        stream.send("two")
        await asyncio.gather(stream.send("three"))
        assert (await until(peer, b"three\n\n\r\n")).count(b"data: ") == 3


async def test_what_is_sent_before_the_response_begins_goes_out_with_it() -> None:
    def make(asked: rawws.HttpRequest) -> rawws.EventStream:
        stream = rawws.EventStream(retry=3000)
        stream.send("first", id="1")
        assert stream.buffered > 0
        assert stream.last_event_id == ""
        return stream

    async with streaming(make, "Last-Event-ID: 0é") as (stream, peer):
        assert await until(peer, b"first\n\n\r\n") == chunk(b"retry: 3000\nid: 1\ndata: first\n\n")
        assert stream.last_event_id == "0\ufffd"


async def test_an_http_1_0_client_gets_events_without_chunks_up_to_the_end_of_the_connection() -> None:
    def make(_: rawws.HttpRequest) -> rawws.EventStream:
        stream = rawws.EventStream()
        stream.send("early")
        return stream

    async with streaming(make, "Connection: keep-alive", version="1.0") as (stream, peer):
        stream.send("late")
        stream.close()
        assert await peer.read_to_end() == b"data: early\n\ndata: late\n\n"


async def test_close_ends_the_response_and_not_the_connection() -> None:
    async with served(on("/", lambda _: rawws.EventStream())) as (server, peer):
        await peer.write(get() + get("/none", method="PUT"))
        await eventually(lambda: any(handler_of(ws).observer for ws in server.settings.connections))
        [ws] = server.settings.connections
        stream = handler_of(ws).observer
        stream.send("last")
        stream.close()
        stream.close()
        assert stream.closed
        first, second = judge(await peer.read_to_end(), ["GET", "PUT"], closed=True)
        assert (first.body, second.status) == (b"data: last\n\n", 404)


async def test_a_closed_stream_takes_no_more() -> None:
    async with streaming() as (stream, _):
        stream.close()
        with pytest.raises(rawws.ConnectionClosed):
            stream.send("late")
        await stream.wait_closed()
    early = rawws.EventStream()
    early.close()
    with pytest.raises(rawws.ConnectionClosed):
        early.send("late")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((7,), TypeError),
        ((None,), TypeError),
        ((b"bytes",), TypeError),
        (("x", {"event": "a\nb"}), ValueError),
        (("x", {"id": "a\0b"}), ValueError),
        (("x", {"retry": -1}), ValueError),
        ((rawws.Event("x"), {"id": "1"}), TypeError),
    ],
)
async def test_what_is_no_event_raises_and_nothing_is_sent(arguments: Any, error: type[Exception]) -> None:
    async with streaming() as (stream, peer):
        data, options = (*arguments, {})[:2]
        with pytest.raises(error):
            stream.send(data, **options)
        stream.send("only this")
        assert await until(peer, b"this\n\n\r\n") == chunk(b"data: only this\n\n")


@pytest.mark.parametrize(("options", "error"), [({"keepalive": 0}, ValueError), ({"events": [1]}, TypeError)])
def test_a_stream_that_cannot_be_is_refused(options: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="allowed are"):
        rawws.EventStream(**options)


async def test_a_stream_is_one_response(logged: Logged) -> None:
    stream = rawws.EventStream()
    async with serve(on("/", lambda _: stream)) as server:
        one, two = [await Peer.reach(server.sockets[0].getsockname()) for _ in range(2)]
        await one.write(get())
        await one.response()
        await two.write(get())
        [answer] = judge(await two.read_to_end(), ["GET"], closed=True)
        assert answer.status == 500
        stream.send("for one")
        assert await until(one, b"one\n\n\r\n") == chunk(b"data: for one\n\n")
        one.close()
        two.close()
    logged.take("request failed", rawws.LocalProtocolError)


async def test_a_stream_that_nobody_returns_holds_so_much_and_no_more() -> None:
    told: list[rawws.EventStream] = []
    stream = rawws.EventStream(on_close=told.append)
    with pytest.raises(rawws.LocalProtocolError, match="that no endpoint has returned"):
        for _ in range(100):
            stream.send("x" * 50_000)
    assert (stream.closed, stream.buffered) == (True, 0)
    await asyncio.sleep(0)
    assert told == [stream]


async def test_a_stream_says_in_which_state_it_is() -> None:
    stream = rawws.EventStream()
    assert repr(stream) == "<rawws.EventStream waiting>"
    async with streaming(lambda _: stream) as (_, peer):
        assert repr(stream) == "<rawws.EventStream open>"
        peer.close()
        await stream.wait_closed()
        assert repr(stream) == "<rawws.EventStream over>"


# -- the end


async def test_a_client_that_goes_is_noticed_at_once() -> None:
    streams: set[rawws.EventStream] = set()

    def make(_: rawws.HttpRequest) -> rawws.EventStream:
        stream = rawws.EventStream(on_close=streams.discard)
        streams.add(stream)
        return stream

    async with streaming(make) as (stream, peer):
        waiting = asyncio.ensure_future(stream.wait_closed())
        peer.close()
        await waiting
        await eventually(lambda: not streams)
        with pytest.raises(rawws.ConnectionClosed):
            stream.send("late")


async def test_on_close_is_called_once_and_not_inside_close() -> None:
    streams: set[rawws.EventStream] = set()
    async with streaming(lambda _: rawws.EventStream(on_close=streams.remove)) as (stream, peer):
        streams.add(stream)
        for one in streams:
            one.close()
        assert streams == {stream}
        await eventually(lambda: not streams)
        peer.close()


async def test_on_close_that_raises_is_logged(logged: Logged) -> None:
    def broken(_: rawws.EventStream) -> None:
        raise KeyError("broken")

    async with streaming(lambda _: rawws.EventStream(on_close=broken)) as (stream, peer):
        peer.close()
        await stream.wait_closed()
        await asyncio.sleep(0)
    logged.take("on_close of an event stream failed: GET /", KeyError)


async def test_the_stream_of_a_client_that_left_before_it_was_made_is_over() -> None:
    started, made = asyncio.Event(), asyncio.Event()
    stream = rawws.EventStream()

    async def endpoint(_: rawws.HttpRequest) -> rawws.EventStream:
        started.set()
        await made.wait()
        return stream

    async with served(on("/", endpoint)) as (server, peer), set_at_end(made):
        await peer.write(get())
        await started.wait()
        peer.reset()
        await eventually(lambda: not server.settings.connections)
        made.set()
        await stream.wait_closed()


async def test_at_the_end_of_the_server_streams_end_whole() -> None:
    async with served(on("/", lambda _: rawws.EventStream())) as (server, peer):
        await peer.write(get())
        await eventually(lambda: any(handler_of(ws).observer for ws in server.settings.connections))
        [ws] = server.settings.connections
        handler_of(ws).observer.send("last")
        server.close()
        [answer] = judge(await peer.read_to_end(), ["GET"], closed=True)
        assert answer.body == b"data: last\n\n"
        peer.close()
        await server.wait_closed()


async def test_head_gets_no_events_and_the_stream_is_over() -> None:
    stream = rawws.EventStream()
    stream.send("unseen")
    async with served(on("/", lambda _: stream)) as (_, peer):
        await peer.write(get("/", "Connection: close", method="HEAD"))
        [answer] = judge(await peer.read_to_end(), ["HEAD"], closed=True)
        assert (answer.status, answer.body, stream.closed) == (200, b"", True)


# -- keep-alive and slow clients


async def test_silence_is_broken_by_a_comment() -> None:
    async with streaming(lambda _: rawws.EventStream(keepalive=0.1), open_timeout=0.5) as (_, peer):
        assert await until(peer, chunk(b":\n\n") * 2) == chunk(b":\n\n") * 2
    async with streaming(lambda _: rawws.EventStream(keepalive=0.1), version="1.0", open_timeout=0.5) as (_, peer):
        assert await until(peer, b":\n\n:\n\n") == b":\n\n:\n\n"


@pytest.mark.usefixtures("steady")
async def test_a_stream_that_speaks_needs_no_comments() -> None:
    async with streaming(lambda _: rawws.EventStream(keepalive=0.3), open_timeout=0.5) as (stream, peer):
        for _ in range(10):
            stream.send("x")
            await asyncio.sleep(0.05)
        stream.close()
        data = await until(peer, b"0\r\n\r\n")
        assert data == chunk(b"data: x\n\n") * 10 + b"0\r\n\r\n"


async def test_without_keepalive_there_are_no_comments() -> None:
    async with streaming(lambda _: rawws.EventStream(keepalive=None), open_timeout=0.1) as (stream, peer):
        await asyncio.sleep(0.3)
        stream.send("x")
        assert await until(peer, b"\n\n\r\n") == chunk(b"data: x\n\n")


@asynccontextmanager
async def slow(make: Any, **options: Any) -> AsyncIterator[tuple[rawws.Server, Peer]]:
    async with rawws.serve(on("/", make), sock=narrow(), **options) as server:
        peer = await Peer.reach(server.sockets[0].getsockname(), 2048)
        await peer.write(get())
        yield server, peer
        peer.close()


async def test_send_waits_for_a_slow_client_and_every_event_arrives() -> None:
    stream = rawws.EventStream()
    async with slow(lambda _: stream) as (_, peer):
        await peer.response()
        waited = 0

        async def send_all() -> None:
            nonlocal waited
            for number in range(300):
                awaitable = stream.send(f"{number} " + "x" * 2000)
                waited += stream.buffered > 65536
                await awaitable
            stream.close()

        task = asyncio.ensure_future(send_all())
        await eventually(lambda: waited)
        assert not task.done()
        data = await until(peer, b"0\r\n\r\n")
        await task
        assert [int(line.split()[1]) for line in data.split(b"\n") if line.startswith(b"data")] == list(range(300))


async def test_a_client_that_reads_too_slowly_is_let_go_and_others_are_served() -> None:
    streams: list[rawws.EventStream] = []

    def make(_: rawws.HttpRequest) -> rawws.EventStream:
        streams.append(rawws.EventStream())
        return streams[-1]

    async with slow(make, hard_limit=1 << 17) as (server, _):
        fast = await Peer.reach(server.sockets[0].getsockname())
        await fast.write(get())
        await fast.response()
        await eventually(lambda: len(streams) == 2)
        event = rawws.Event("x" * 30_000)
        for _ in range(20):
            rawws.broadcast(streams, event)
            await until(fast, b"\n\n\r\n")
        assert [stream.closed for stream in streams] == [True, False]
        await eventually(lambda: len(server.settings.connections) == 1)
        fast.close()


async def test_what_a_task_awaits_does_not_count_against_the_hard_limit_of_a_stream() -> None:
    stream = rawws.EventStream()
    async with slow(lambda _: stream, hard_limit=1 << 17) as (_, peer):
        await eventually(lambda: stream._exchange)
        sending = asyncio.gather(*[stream.send("x" * 300_000) for _ in range(3)])
        data = await until(peer, b"\n\n\r\n")
        while data.count(b"data: ") < 3 or not data.endswith(b"\n\n\r\n"):
            data += await peer.read()
        await sending
        assert not stream.closed


@pytest.mark.usefixtures("steady")
async def test_a_client_that_reads_slowly_is_not_let_go_while_the_kernel_has_no_room_yet() -> None:
    """The kernel takes more in large pieces; meanwhile what it has shrinks."""
    stream = rawws.EventStream(keepalive=0.2)
    async with serve(on("/", lambda _: stream)) as server:
        peer = await Peer.reach(server.sockets[0].getsockname(), 4096)
        await peer.write(get())
        await eventually(lambda: stream._exchange)
        while not stream.congested:
            stream.send("x" * 30_000)
            await asyncio.sleep(0)
        waiting = stream.buffered
        for _ in range(50):
            assert await peer.read(4096)
            await asyncio.sleep(0.02)
        assert stream.buffered == waiting
        assert not stream.closed
        peer.close()


async def test_a_client_that_reads_nothing_for_two_keepalives_is_let_go() -> None:
    stream = rawws.EventStream(keepalive=0.2)
    async with slow(lambda _: stream, open_timeout=0.5) as (server, _):
        await eventually(lambda: server.settings.connections)
        while stream.buffered < 80_000:
            stream.send("x" * 3000)
            await asyncio.sleep(0)
        await stream.wait_closed()
        await eventually(lambda: not server.settings.connections)


async def test_send_that_waits_for_a_client_that_goes_raises() -> None:
    stream = rawws.EventStream()
    async with slow(lambda _: stream) as (_, peer):
        await peer.response()
        while stream.buffered < 80_000:
            waiting = stream.send("x" * 3000)
            await asyncio.sleep(0)
        task = asyncio.ensure_future(waiting)
        await asyncio.sleep(0)
        peer.reset()
        with pytest.raises(rawws.ConnectionClosed):
            await task


@pytest.mark.parametrize("early", [True, False], ids=["before the response", "after it began"])
async def test_a_follower_is_told_when_the_stream_is_over(early: bool) -> None:
    stream, follower, gone = rawws.EventStream(), Follower(), Follower()
    if early:
        stream.follow(follower)
    async with slow(lambda _: stream) as (_, peer):
        await peer.response()
        if not early:
            stream.follow(follower)
        stream.follow(gone)
        stream.unfollow(gone)
        while not stream.congested:
            stream.send("x" * 3000)
            await asyncio.sleep(0)
        assert not follower.told.count("lost")
        stream.close()
        await until(peer, b"0\r\n\r\n")
        await eventually(lambda: follower.told.count("lost"))
        with pytest.raises(rawws.ConnectionClosed):
            stream.follow(gone)
    assert (follower.told[-1], gone.told) == ("lost", [])


async def test_a_follower_is_told_that_the_client_has_read() -> None:
    stream, follower = rawws.EventStream(), Follower()
    async with slow(lambda _: stream) as (_, peer):
        await peer.response()
        stream.follow(follower)
        while not stream.congested:
            stream.send("x" * 3000)
            await asyncio.sleep(0)
        while not follower.told:
            await peer.read()
        assert follower.told == ["drained"]


# -- pumped


async def test_an_iterable_is_sent_and_the_stream_ends_with_it() -> None:
    async def count() -> AsyncIterator[rawws.Event | str]:
        yield "zero"
        await asyncio.sleep(0)
        yield rawws.Event("one", id="1")

    async with streaming(lambda _: rawws.EventStream(count())) as (_, peer):
        assert await until(peer, b"0\r\n\r\n") == (
            chunk(b"data: zero\n\n") + chunk(b"id: 1\ndata: one\n\n") + b"0\r\n\r\n"
        )


async def test_the_producer_of_a_client_that_goes_is_cancelled_and_closed() -> None:
    ended: list[str] = []

    async def forever() -> AsyncIterator[str]:
        try:
            yield "x"
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        finally:
            ended.append("closed")

    async with streaming(lambda _: rawws.EventStream(forever())) as (_, peer):
        await until(peer, b"x\n\n\r\n")
        peer.close()
        await eventually(lambda: len(ended) == 2)
    assert ended == ["cancelled", "closed"]


async def test_a_producer_that_waits_for_a_slow_client_is_closed_when_that_goes() -> None:
    ended: list[int] = []

    async def flood() -> AsyncIterator[str]:
        number = 0
        try:
            while True:
                number += 1
                yield "x" * 3000
        finally:
            ended.append(number)

    stream = rawws.EventStream(flood())
    async with slow(lambda _: stream) as (_, peer):
        await eventually(lambda: stream.buffered > 65536)
        await asyncio.sleep(0.05)
        assert stream.buffered < 140_000
        peer.reset()
        await eventually(lambda: ended)


async def test_a_producer_that_raises_is_logged_and_ends_the_connection_behind_a_whole_event(logged: Logged) -> None:
    async def broken() -> AsyncIterator[str]:
        yield "whole"
        raise KeyError("broken")

    async with streaming(lambda _: rawws.EventStream(broken())) as (stream, peer):
        assert await peer.read_to_end() == chunk(b"data: whole\n\n")
        await stream.wait_closed()
    logged.take("event stream failed: GET /", KeyError)


async def test_a_producer_that_gives_what_is_no_event_is_logged(logged: Logged) -> None:
    async def wrong() -> AsyncIterator[Any]:
        yield "whole"
        yield 7

    async with streaming(lambda _: rawws.EventStream(wrong())) as (_, peer):
        assert await peer.read_to_end() == chunk(b"data: whole\n\n")
    logged.take("event stream failed: GET /", TypeError)


async def test_a_producer_may_close_its_stream() -> None:
    streams: list[rawws.EventStream] = []

    async def stop() -> AsyncIterator[str]:
        yield "one"
        streams[0].close()
        yield "two"

    def make(_: rawws.HttpRequest) -> rawws.EventStream:
        streams.append(rawws.EventStream(stop()))
        return streams[0]

    async with streaming(make) as (_, peer):
        assert await until(peer, b"0\r\n\r\n") == chunk(b"data: one\n\n") + b"0\r\n\r\n"


# -- fan-out


async def test_a_broadcast_reaches_streams_and_websockets() -> None:
    routes = rawws.Routes()
    receivers: set[Any] = set()

    @routes.websocket("/ws")
    async def take(ws: rawws.WebSocket) -> None:
        receivers.add(ws)
        await ws.wait_closed()

    @routes.get("/events")
    def events(_: rawws.HttpRequest) -> rawws.EventStream:
        stream = rawws.EventStream(on_close=receivers.discard)
        receivers.add(stream)
        return stream

    async with served(routes) as (server, one):
        two = await Peer.reach(server.sockets[0].getsockname())
        await one.write(get("/events"))
        await one.response()
        await two.shake_hands(line="GET /ws HTTP/1.1")
        await eventually(lambda: len(receivers) == 2)
        rawws.broadcast(receivers, "to all")
        assert await two.message() == "to all"
        assert await until(one, b"all\n\n\r\n") == chunk(b"data: to all\n\n")
        with pytest.raises(TypeError, match="message is Event"):
            rawws.broadcast([ws for ws in receivers if isinstance(ws, rawws.WebSocket)], rawws.Event("x"))
        two.close()


async def test_an_event_for_many_streams_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    streams: list[rawws.EventStream] = []
    encoded: list[Any] = []

    def encode(event: Any) -> bytes:
        encoded.append(event)
        return rawws_sse.encode(event)

    def make(_: rawws.HttpRequest) -> rawws.EventStream:
        streams.append(rawws.EventStream())
        return streams[-1]

    async with serve(on("/", make)) as server:
        peers = [await Peer.reach(server.sockets[0].getsockname()) for _ in range(10)]
        for peer in peers:
            await peer.write(get())
            await peer.response()
        monkeypatch.setattr("rawws.http.event_stream.encode", encode)
        event = rawws.Event("hi", id="1")
        rawws.broadcast(streams, event)
        for peer in peers:
            assert await until(peer, b"hi\n\n\r\n") == chunk(b"id: 1\ndata: hi\n\n")
            peer.close()
    assert encoded == [event]


async def test_an_idle_stream_costs_no_task_and_little_memory() -> None:
    """What Python allocates for it; the transport of the loop and the socket come on top."""
    streams: set[rawws.EventStream] = set()

    def make(_: rawws.HttpRequest) -> rawws.EventStream:
        stream = rawws.EventStream(on_close=streams.discard)
        streams.add(stream)
        return stream

    count = 200
    async with serve(on("/", make)) as server:
        address = server.sockets[0].getsockname()
        peers = [await Peer.reach(address) for _ in range(count)]
        for peer in peers[:10]:
            await peer.write(get())
        await eventually(lambda: len(streams) == 10)
        tasks = len(asyncio.all_tasks())
        gc.collect()
        tracemalloc.start()
        for peer in peers[10:]:
            await peer.write(get())
        await eventually(lambda: len(streams) == count)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert len(asyncio.all_tasks()) == tasks
        assert grown / (count - 10) < 4096
        for peer in peers:
            peer.close()
        await eventually(lambda: not streams)


# -- the iterator is closed whatever happened


class Source:
    """An iterator that says whether it was begun, and closed."""

    def __init__(self, *, fails: bool = False) -> None:
        self.begun = self.closed = 0
        self.fails = fails

    def __aiter__(self) -> Source:
        return self

    async def __anext__(self) -> str:
        self.begun += 1
        await asyncio.Event().wait()
        raise AssertionError

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.closed += 1
        if self.fails:
            raise KeyError("closing")


async def test_the_iterator_of_a_client_that_left_before_the_stream_was_made_is_closed() -> None:
    started, made = asyncio.Event(), asyncio.Event()
    source = Source()

    async def endpoint(_: rawws.HttpRequest) -> rawws.EventStream:
        started.set()
        await made.wait()
        return rawws.EventStream(source)

    async with served(on("/", endpoint)) as (server, peer), set_at_end(made):
        await peer.write(get())
        await started.wait()
        peer.reset()
        await eventually(lambda: not server.settings.connections)
        made.set()
        await eventually(lambda: source.closed)
    assert (source.begun, source.closed) == (0, 1)


async def test_the_iterator_of_a_head_request_is_closed() -> None:
    source = Source()
    async with served(on("/", lambda _: rawws.EventStream(source))) as (_, peer):
        await peer.write(get("/", "Connection: close", method="HEAD"))
        await peer.read_to_end()
        await eventually(lambda: source.closed)
    assert (source.begun, source.closed) == (0, 1)


@pytest.mark.parametrize("how", ["close", "fail", "too much"])
async def test_the_iterator_of_a_stream_that_ends_before_its_response_is_closed(how: str) -> None:
    source = Source()
    stream = rawws.EventStream(source)
    if how == "close":
        stream.close()
    elif how == "fail":
        stream.fail(1013, "too slow")
    else:
        with pytest.raises(rawws.LocalProtocolError):
            stream.send("x" * (2 << 20))
    await eventually(lambda: source.closed)
    assert (source.begun, source.closed) == (0, 1)


async def test_the_iterator_of_a_stream_that_ends_before_its_first_step_is_closed() -> None:
    source = Source()

    def endpoint(_: rawws.HttpRequest) -> rawws.EventStream:
        stream = rawws.EventStream(source)
        asyncio.get_running_loop().call_soon(stream.close)
        return stream

    async with served(on("/", endpoint)) as (_, peer):
        await peer.write(get())
        await eventually(lambda: source.closed)
    assert (source.begun, source.closed) == (0, 1)


async def test_an_iterator_that_fails_when_it_is_closed_is_logged(logged: Logged) -> None:
    source = Source(fails=True)
    async with streaming(lambda _: rawws.EventStream(source)) as (stream, peer):
        await eventually(lambda: source.begun)
        peer.close()
        await stream.wait_closed()
        await eventually(lambda: source.closed)
    logged.take("closing the iterator of an event stream failed", KeyError)


async def test_retry_goes_out_with_the_first_event_of_an_iterator_and_alone_where_none_is_there() -> None:
    async def one() -> AsyncIterator[str]:
        yield "one"
        yield "two"

    async with streaming(lambda _: rawws.EventStream(one(), retry=7)) as (_, peer):
        expected = chunk(b"retry: 7\ndata: one\n\n") + chunk(b"data: two\n\n") + b"0\r\n\r\n"
        assert await until(peer, b"0\r\n\r\n") == expected
    async with streaming(lambda _: rawws.EventStream(retry=7)) as (stream, peer):
        assert await until(peer, b"7\n\n\r\n") == chunk(b"retry: 7\n\n")
        stream.send("one")
        assert await until(peer, b"one\n\n\r\n") == chunk(b"data: one\n\n")
    async with streaming(lambda _: rawws.EventStream(Source(), retry=7, keepalive=0.05)) as (_, peer):
        assert await until(peer, b":\n\n\r\n") == chunk(b"retry: 7\n:\n\n")


async def test_an_iterator_that_never_waits_leaves_turns_to_others() -> None:
    turns, seen = 0, []

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def numbers() -> AsyncIterator[str]:
        for number in range(1000):
            seen.append(turns)
            yield str(number)

    task = asyncio.create_task(others())
    async with streaming(lambda _: rawws.EventStream(numbers())) as (stream, peer):
        data = await until(peer, b"0\r\n\r\n")
        assert data.count(b"data: ") == 1000
        assert stream.closed
    task.cancel()
    # After each 64 events, the others had a turn.
    assert len(set(seen)) >= 1000 // 64
    assert max(seen.count(turn) for turn in set(seen)) <= 64


async def test_a_comment_is_due_when_the_silence_is_as_long_as_keepalive_and_not_later() -> None:
    async with streaming(lambda _: rawws.EventStream(keepalive=10.0)) as (stream, peer):
        assert stream._exchange is not None
        socket: Any = stream._exchange.socket
        with still() as clock:
            stream.send("x")
            assert await until(peer, b"\n\n\r\n") == chunk(b"data: x\n\n")
            clock.now += 6
            stream.expire()
            assert socket.deadline == clock.now + 4
            clock.now += 4
            stream.expire()
            assert await until(peer, b"\n\n\r\n") == chunk(b":\n\n")
            assert socket.deadline == clock.now + 10


async def test_a_client_that_read_nothing_between_two_looks_is_let_go_at_the_second() -> None:
    stream = rawws.EventStream(keepalive=1000.0)
    async with slow(lambda _: stream) as (server, peer):
        await eventually(lambda: stream._exchange)
        while stream.buffered < 80_000:
            stream.send("x" * 3000)
            await asyncio.sleep(0)
        stream.expire()
        await until_less(stream, peer)
        stream.expire()
        assert (stream.closed, server.stats().slow) == (False, 0)
        stream.expire()
        assert (stream.closed, server.stats().slow) == (True, 1)


async def until_less(stream: rawws.EventStream, peer: Peer) -> None:
    """Read until less waits than before."""
    before = stream.buffered
    while stream.buffered == before:
        assert await peer.read(4096)
        await asyncio.sleep(0)
