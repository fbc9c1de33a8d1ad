"""`rawws.events`: what it asks, what it takes for a stream, when it comes back and where it goes on."""

from __future__ import annotations

import asyncio
import gc
import inspect
import itertools
import random
import re
import socket
import ssl
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import rawws
from rawws.client.options import EventsOptions
from rawws.protocol.http11 import Request
from rawws_sse import EventTooLarge
from tests.client.peers import descriptors, http_proxy, socks_proxy, tls
from tests.client.sources import HEAD, Act, Source, answer, chunk, source, stream
from tests.processes import ROOT
from tests.server.peers import eventually

NO_CONTENT = answer(b"HTTP/1.1 204 No Content\r\n\r\n")


def events(url: str, **options: Any) -> rawws.events:
    """Return a feed that waits for nothing but the `retry` of its server, and for little without it."""
    feed = rawws.events(url, **{"reconnect_delays": lambda: itertools.repeat(0.0), **options})
    feed.retry = 0.01
    return feed


async def taken(feed: rawws.events) -> list[str | None]:
    return [event.data async for event in feed]


async def failure(act: Act, **options: Any) -> tuple[Source, Any]:
    """Return what a feed raises whose server does this, once it has closed its connection."""
    async with source(act) as server:
        before = descriptors()
        try:
            came = await taken(events(server.url, **options))
        except Exception as error:
            await eventually(lambda: descriptors() <= before)
            return server, error
        pytest.fail(f"it did not fail, {came} came")


# -- the request


async def test_the_request_is_the_one_of_the_standard() -> None:
    async with source(NO_CONTENT) as server:
        headers = {"Cookie": "a=1", "X-Token": "t"}
        feed = events(f"{server.url}?a=b#part", last_event_id="7", additional_headers=headers)
        assert await taken(feed) == []
        (request,) = server.requests
        assert request.method == "GET"
        assert request.path == "/feed?a=b"
        assert list(request.headers.raw_items()) == [
            ("Host", f"127.0.0.1:{server.port}"),
            ("Accept", "text/event-stream"),
            ("Accept-Encoding", "identity"),
            ("Cache-Control", "no-store"),
            ("Connection", "close"),
            ("Last-Event-ID", "7"),
            ("User-Agent", f"rawws/{rawws.__version__}"),
            ("Cookie", "a=1"),
            ("X-Token", "t"),
        ]


async def test_without_an_id_there_is_no_last_event_id_and_a_user_in_the_url_is_basic_authentication() -> None:
    async with source(NO_CONTENT) as server:
        await taken(events(f"http://me:pw@127.0.0.1:{server.port}", user_agent_header=None))
        (request,) = server.requests
        assert "Last-Event-ID" not in request.headers
        assert "User-Agent" not in request.headers
        assert request.headers["Authorization"] == "Basic bWU6cHc="


@pytest.mark.parametrize(
    ("options", "kind", "match"),
    [
        ({"last_event_id": "a\nb"}, rawws.LocalProtocolError, "the value of the header Last-Event-ID .* octet 0x0a"),
        ({"additional_headers": {"accept": "*/*"}}, rawws.LocalProtocolError, "the header 'accept' cannot be added"),
        ({"additional_headers": {"X": "\n"}}, rawws.LocalProtocolError, "the value of the header X"),
        ({"open_timeout": 0}, ValueError, "open_timeout is 0"),
        ({"read_timeout": -1}, ValueError, "read_timeout is -1"),
        ({"max_size": 1.5}, TypeError, "max_size is float"),
        ({"nonsense": 1}, TypeError, "nonsense"),
    ],
)
def test_what_cannot_be_is_an_error_of_the_call(options: dict[str, Any], kind: type[Exception], match: str) -> None:
    with pytest.raises(kind, match=match):
        rawws.events("http://a.example/", **options)


@pytest.mark.parametrize("url", ["ws://a.example/", "a.example", "http://", "http://a.example/\n"])
def test_a_url_that_is_none_is_an_invalid_uri(url: str) -> None:
    with pytest.raises(rawws.InvalidURI):
        rawws.events(url)


# -- the stream


async def test_events_come_with_their_fields() -> None:
    async with source(
        stream(b"event: add\ndata: one\ndata: two\nid: 7\n\n: comment\n\ndata\xc3\xa9\n\n", b"data: \xc3\xa9\n\n")
    ) as server:
        feed = events(server.url, reconnect=False)
        first, second = [event async for event in feed]
        assert (first.data, first.event, first.id) == ("one\ntwo", "add", "7")
        assert second.data == "é"
        assert feed.last_event_id == "7"
        assert feed.response is not None
        assert (feed.response.status_code, feed.response.headers["Content-Type"]) == (200, "text/event-stream")


DATA = b"data: 1\n\ndata: 2\n\ndata: 3\n\ndata: not whole\n"
BODIES = {
    "until the end": HEAD + DATA,
    "with a length": HEAD[:-2] + b"Content-Length: %d\r\n\r\n" % len(DATA) + DATA + b"data: behind it\n\n",
    "in chunks": HEAD[:-2]
    + b"Transfer-Encoding: chunked\r\n\r\n"
    + b"".join(chunk(DATA[at : at + 4]) for at in range(0, len(DATA), 4))
    + b"0\r\n\r\ndata: behind it\n\n",
    "after interim responses": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3 + HEAD + DATA,
    "in HTTP/1.0": HEAD.replace(b"1.1", b"1.0") + DATA,
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("size", [1, 7, 100_000], ids=lambda size: f"{size} at once")
async def test_events_come_the_same_in_whatever_way_the_body_does(body: bytes, size: int) -> None:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    # The server holds what has another end.
    hold = b"Content-Length" in body or b"chunked" in body
    async with source(stream(*pieces, head=b"", hold=hold)) as server:
        assert await taken(events(server.url, reconnect=False)) == ["1", "2", "3"]


@pytest.mark.parametrize(
    "content_type",
    ["text/event-stream", "text/event-stream; charset=utf-8", "TEXT/Event-Stream ;x", "text/event-stream;"],
)
async def test_a_content_type_may_have_parameters(content_type: str) -> None:
    head = HEAD.replace(b"text/event-stream", content_type.encode())
    async with source(stream(b"data: 1\n\n", head=head)) as server:
        assert await taken(events(server.url, reconnect=False)) == ["1"]


@pytest.mark.parametrize(
    ("field", "match"),
    [
        (b"Content-Type: text/html; charset=utf-8\r\n", "the server answered with 'text/html; charset=utf-8', needed"),
        (b"Content-Type: text/event-streams\r\n", "with 'text/event-streams', needed is 'text/event-stream'"),
        (b"Content-Type: text/event-stream\r\n" * 2, "with 'text/event-stream, text/event-stream', needed"),
        (b"", "the server answered without a Content-Type, needed is 'text/event-stream'"),
        (
            b"Content-Type: text/event-stream\r\nContent-Encoding: gzip\r\n",
            "the events are in the coding 'gzip', asked for was none",
        ),
    ],
)
async def test_what_is_no_event_stream_is_an_error_that_says_what_came(field: bytes, match: str) -> None:
    server, error = await failure(answer(b"HTTP/1.1 200 OK\r\n" + field + b"\r\ndata: 1\n\n", hold=True))
    assert match in str(error)
    assert type(error) is rawws.InvalidContentType
    assert error.response.status == error.status == 200
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [101, 201, 205, 206, 300, 304, 400, 401, 403, 404, 410])
async def test_a_refusal_is_raised_with_its_body(status: int) -> None:
    head = f"HTTP/1.1 {status} Such a Day\r\nContent-Type: text/plain\r\n".encode()
    length = b"" if status in {101, 304} else b"Content-Length: 8\r\n"
    server, error = await failure(answer(head + length + b"\r\nno more\n", hold=True))
    assert type(error) is rawws.InvalidStatus
    assert error.status == status
    said = "" if status in {101, 304} else ": 'no more'"
    kind = ", but with 'text/plain'" if status in {101, 304} else ""
    reason = f"the server answered 'Such a Day' and not with an event stream{said}{kind}"
    assert str(error) == f"{reason} (HTTP status {status})"
    assert error.response.body == (b"" if status in {101, 304} else b"no more\n")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"Content-Length: 9\r\n\r\nhalf", b"half"),
        (b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", b"half"),
        (b"Transfer-Encoding: chunked\r\n\r\nnonsense", b""),
        (b"\r\n" + b"x" * 100_000, b"x" * 16384),
    ],
)
@pytest.mark.parametrize("hold", [True, False])
async def test_of_the_body_of_a_refusal_as_much_is_taken_as_comes_soon(
    data: bytes, body: bytes, hold: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rawws.client.events.BODY_WAIT", 0.2)
    _, error = await failure(answer(b"HTTP/1.1 404 No\r\n" + data, hold=hold))
    assert error.response.body == body


# -- coming back


@pytest.mark.parametrize(
    "trouble",
    [
        answer(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"),
        answer(b"HTTP/1.1 502 Oh\r\n\r\n"),
        answer(b"HTTP/1.1 503 Oh\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n"),
        answer(b"HTTP/1.1 429 Oh\r\nContent-Length: 0\r\n\r\n"),
        answer(b"HTTP/1.1 408 Oh\r\nContent-Length: 0\r\n\r\n"),
        answer(b""),
        answer(b"HTTP/1.1 200 O"),
        answer(b"220 smtp.example\r\n", hold=True),
        answer(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 9, hold=True),
        answer(HEAD),
        answer(HEAD[:-2] + b"Content-Length: 9\r\n\r\nhalf"),
        answer(HEAD[:-2] + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", hold=True),
    ],
)
async def test_what_may_heal_is_tried_again(trouble: Act) -> None:
    told: list[tuple[str, float]] = []
    async with source(trouble, trouble, stream(b"id: 1\ndata: 1\n\n"), NO_CONTENT) as server:
        feed = events(server.url, on_retry=lambda error, seconds: told.append((str(error), seconds)))
        assert await taken(feed) == ["1"]
        assert server.ids == [None, None, None, "1"]
    assert [seconds for _, seconds in told] == [0.01] * 3
    assert told[0] == told[1]
    assert told[2] == ("the server ended the stream", 0.01)


async def test_a_server_that_is_not_there_is_tried_again() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = probe.getsockname()[1]
    told: list[Exception] = []
    async with events(f"http://127.0.0.1:{number}", on_retry=lambda error, _: told.append(error)) as feed:
        waiting = asyncio.ensure_future(anext(feed))
        await eventually(lambda: len(told) >= 3)
        assert all(isinstance(error, ConnectionRefusedError) for error in told)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_it_goes_on_behind_the_last_event_that_came_whole() -> None:
    cut = b"id: 2\ndata: 2\n\nid: 3\ndata: cut"
    async with source(stream(b"id: 1\ndata: 1\n\n", cut), stream(b"id: 3\ndata: 3\n\n"), NO_CONTENT) as server:
        feed = events(server.url)
        assert await taken(feed) == ["1", "2", "3"]
        assert server.ids == [None, "2", "3"]


async def test_an_id_stays_until_another_comes_also_over_connections_without_one() -> None:
    acts = [
        stream(b"id: 1\ndata: 1\n\n"),
        stream(b"data: 2\n\n"),
        stream(b"id\ndata: 3\n\n"),
        stream("id: grün \ndata: 4\n\n".encode()),
        NO_CONTENT,
    ]
    async with source(*acts) as server:
        feed = events(server.url)
        assert await taken(feed) == ["1", "2", "3", "4"]
        assert server.ids == [None, "1", "1", None, "grün".encode().decode("latin-1")]
        assert feed.last_event_id == "grün "


async def test_last_event_id_is_that_of_the_event_that_was_handed_over() -> None:
    data = b"id: 1\ndata: 1\n\nid: 2\ndata: 2\n\ndata: 3\n\nid: 4\n\n"
    async with source(answer(HEAD + data, hold=True)) as server, events(server.url, last_event_id="0") as feed:
        seen = [(feed.last_event_id, (await anext(feed)).data, feed.last_event_id) for _ in range(3)]
        assert seen == [("0", "1", "1"), ("1", "2", "2"), ("2", "3", "4")]


async def test_an_id_that_no_header_can_carry_is_an_error_that_names_it() -> None:
    async with source(stream(b"id: a\x01b\ndata: 1\n\n")) as server:
        feed = events(server.url)
        assert (await anext(feed)).data == "1"
        with pytest.raises(rawws.LocalProtocolError, match=r"Last-Event-ID is .*0x01 is not allowed"):
            await anext(feed)
        with pytest.raises(StopAsyncIteration):
            await anext(feed)


async def until_it_waits(feed: rawws.events, condition: Callable[[], object]) -> None:
    """Ask for an event that does not come, until something is so."""
    asking = asyncio.ensure_future(anext(feed))
    await eventually(condition)
    # It has a moment for what it is not to do.
    await asyncio.wait([asking], timeout=0.05)
    assert not asking.done()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_the_server_says_how_long_to_wait() -> None:
    waits: list[float] = []
    pieces = [b"retry: 20\n\ndata: 1\n\n", b"retry: 30\ndata: 2\n\n", b"retry: " + b"9" * 5000 + b"\ndata: 3\n\n"]
    async with source(*(stream(piece) for piece in pieces)) as server:
        feed = rawws.events(
            server.url,
            reconnect_delays=lambda: itertools.repeat(0.005),
            on_retry=lambda _, seconds: waits.append(seconds),
        )
        assert feed.retry == 3.0
        async with feed:
            for _ in range(3):
                await anext(feed)
            assert feed.retry == 3600
            await until_it_waits(feed, lambda: len(waits) == 3)
    assert waits == pytest.approx([0.025, 0.035, 3600.005])


async def test_retry_after_is_waited_for() -> None:
    waits: list[float] = []
    busy = answer(b"HTTP/1.1 503 Busy\r\nRetry-After: 77\r\nContent-Length: 0\r\n\r\n")
    async with source(busy) as server, events(server.url, on_retry=lambda _, wait: waits.append(wait)) as feed:
        await until_it_waits(feed, lambda: waits)
        assert waits == [77.0]
        assert len(server.requests) == 1


async def test_the_waits_grow_from_failure_to_failure_and_begin_anew_after_an_event() -> None:
    waits: list[float] = []
    acts = [answer(b""), answer(HEAD), answer(b""), stream(b"data: 1\n\n"), answer(HEAD), NO_CONTENT]
    async with source(*acts) as server:
        feed = events(
            server.url,
            reconnect_delays=lambda: iter([0.01, 0.02, 0.03, 0.04]),
            on_retry=lambda _, seconds: waits.append(seconds),
        )
        feed.retry = 0.0
        assert await taken(feed) == ["1"]
    assert waits == [0.01, 0.02, 0.03, 0.01, 0.02]


async def test_a_stream_that_lived_for_long_was_a_good_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawws.client.events.STABLE", 0.0)
    async with source(answer(HEAD), answer(HEAD), answer(HEAD), NO_CONTENT) as server:
        assert await taken(events(server.url, reconnect_delays=lambda: iter([0.0]))) == []
        assert len(server.requests) == 4


async def test_where_the_waits_end_the_last_error_is_raised() -> None:
    refusals = [answer(b"HTTP/1.1 %d Oh\r\nContent-Length: 0\r\n\r\n" % status) for status in (500, 502, 503, 504)]
    async with source(*refusals) as server:
        with pytest.raises(rawws.InvalidStatus) as caught:
            await taken(events(server.url, reconnect_delays=lambda: iter([0.0, 0.0])))
        assert caught.value.status == 503
        assert len(server.requests) == 3


async def test_waits_without_a_choice_are_drawn_at_random_on_top_of_retry() -> None:
    waits: list[float] = []
    async with source(answer(b"")) as server:
        feed = rawws.events(server.url, on_retry=lambda _, seconds: waits.append(seconds))
        async with feed:
            await until_it_waits(feed, lambda: waits)
    (wait,) = waits
    assert 3.0 <= wait <= 4.0


async def test_without_reconnect_the_end_is_the_end_and_an_error_is_raised() -> None:
    async with source(stream(b"data: 1\n\n")) as server:
        assert await taken(events(server.url, reconnect=False)) == ["1"]
        assert len(server.requests) == 1
    server, error = await failure(answer(b"HTTP/1.1 503 Busy\r\n\r\n"), reconnect=False)
    assert error.status == 503
    assert len(server.requests) == 1
    server, error = await failure(answer(HEAD[:-2] + b"Content-Length: 9\r\n\r\nhalf"), reconnect=False)
    assert str(error) == "the connection ended in the body, of 9 bytes, after 4 bytes"


async def test_what_on_retry_raises_is_raised() -> None:
    def stop(error: Exception, seconds: float) -> None:
        raise ZeroDivisionError

    async with source(answer(b"")) as server:
        with pytest.raises(ZeroDivisionError):
            await taken(events(server.url, on_retry=stop))


def cut_up(rng: random.Random, count: int) -> Act:
    """Serve `count` events with ids from the one that was asked for, in pieces, and break off anywhere."""

    async def act(_: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request) -> None:
        begin = int(request.headers.get("Last-Event-ID", "0"))
        if begin == count:
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            return
        data = b"".join(b"id: %d\ndata: %d\n\n" % (number, number) for number in range(begin + 1, count + 1))
        chunked = rng.random() < 0.5
        head = HEAD[:-2] + b"Transfer-Encoding: chunked\r\n\r\n" if chunked else HEAD
        sent = head + b"".join(chunk(data[at : at + 50]) for at in range(0, len(data), 50)) if chunked else head + data
        sent = sent[: rng.randrange(len(sent))]
        while sent:
            size = rng.randrange(1, 100)
            writer.write(sent[:size])
            sent = sent[size:]
            if rng.random() < 0.2:
                await asyncio.sleep(0)
        if rng.random() < 0.3:
            await writer.drain()
            writer.transport.abort()

    return act


@pytest.mark.parametrize("seed", range(20))
async def test_over_connections_that_break_anywhere_no_event_is_lost_or_comes_twice(seed: int) -> None:
    async with source(cut_up(random.Random(seed), 40)) as server:
        feed = events(server.url)
        feed.retry = 0.0
        assert await taken(feed) == [str(number) for number in range(1, 41)]
        assert len(server.requests) > 2


# -- redirects


def redirect(location: str, status: int = 302) -> Act:
    return answer(f"HTTP/1.1 {status} Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed_each_time_anew(status: int) -> None:
    acts = [redirect("/new?x=1#part", status), stream(b"id: 1\ndata: 1\n\n"), redirect("other", status), NO_CONTENT]
    async with source(*acts) as server:
        assert await taken(events(server.url, additional_headers={"Cookie": "a=1"})) == ["1"]
        assert [request.path for request in server.requests] == ["/feed", "/new?x=1", "/feed", "/other"]
        assert server.ids == [None, None, "1", "1"]
        assert all(request.headers["Cookie"] == "a=1" for request in server.requests)


async def test_what_may_be_a_secret_is_not_sent_to_another_origin() -> None:
    async with source(NO_CONTENT) as other, source(redirect(other.url)) as server:
        headers = {"Cookie": "a=1", "Authorization": "Bearer x", "X-Api-Key": "y"}
        await taken(events(server.url, additional_headers=headers))
        (request,) = other.requests
        assert not {"cookie", "authorization", "x-api-key"} & set(request.headers)


async def test_a_redirect_loop_ends_with_an_error_that_says_so() -> None:
    server, error = await failure(redirect("/feed"))
    assert "the server redirects over 10 times" in str(error)
    assert type(error) is rawws.SecurityError
    assert len(server.requests) == 11


@pytest.mark.parametrize("location", ["ws://127.0.0.1/", "ftp://x/", "http://x:99999/"])
async def test_a_redirect_to_what_is_no_http_is_not_followed(location: str) -> None:
    _, error = await failure(redirect(location))
    assert f"the server redirects to '{location}': the URI is" in str(error)
    assert type(error) is rawws.InvalidStatus


async def test_a_redirect_from_https_to_http_is_not_followed() -> None:
    part = tls("127.0.0.1")
    async with source(NO_CONTENT) as plain, source(redirect(plain.url), ssl=part.server) as server:
        with pytest.raises(rawws.SecurityError, match=r"from https to 'http://127.*', which is not secret"):
            await taken(events(server.url, ssl=part.client))
        assert plain.requests == []


# -- time


async def test_a_silent_server_is_left_after_open_timeout() -> None:
    server, error = await failure(answer(b"HTTP/1.1 200", hold=True), open_timeout=0.5, reconnect=False)
    assert type(error) is TimeoutError
    assert str(error) == f"no answer from 127.0.0.1:{server.port} within 0.5 s"


async def test_a_stream_that_falls_silent_is_left_after_read_timeout_and_comments_count() -> None:
    told: list[str] = []

    async def comment(_: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(HEAD)
        for _number in range(12):
            await asyncio.sleep(0.1)
            writer.write(b":\n\n")
        writer.write(b"id: 1\ndata: 1\n\n")
        await asyncio.sleep(3600)

    async with source(comment, NO_CONTENT) as server:
        feed = events(server.url, read_timeout=1, on_retry=lambda error, _: told.append(str(error)))
        assert await taken(feed) == ["1"]
        assert server.ids == [None, "1"]
        assert told == [f"nothing came from 127.0.0.1:{server.port} for 1 s"]


async def test_the_operating_system_looks_after_a_peer_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with source(stream(b"data: 1\n\n", hold=True)) as server, events(server.url) as feed:
        await anext(feed)
        assert feed._stream is not None
        sock = feed._stream.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        assert [sock.getsockopt(socket.IPPROTO_TCP, option) for option in options] == [30, 10, 3]


# -- the end


async def test_a_loop_that_is_left_closes_its_connection() -> None:
    async with source(stream(b"data: 1\n\n", hold=True)) as server:
        before = descriptors()
        async for event in events(server.url):
            assert event.data == "1"
            break
        await eventually(lambda: server.ended == 1 and descriptors() <= before)


async def test_a_block_that_is_left_closes_its_connection_also_by_an_exception() -> None:
    async with source(stream(b"data: 1\n\n", hold=True)) as server:
        with pytest.raises(ZeroDivisionError):
            async with events(server.url) as feed:
                async for _ in feed:
                    raise ZeroDivisionError
        await eventually(lambda: server.ended == 1)
        with pytest.raises(StopAsyncIteration):
            await anext(feed)
        await feed.aclose()


@pytest.mark.parametrize(
    ("act", "whole"),
    [(stream(hold=True), True), (answer(b"", hold=True), False), (answer(HEAD[:20], hold=True), False)],
)
async def test_a_task_that_is_cancelled_closes_its_connection(act: Act, whole: bool) -> None:
    async with source(act) as server:
        before = descriptors()
        feed = events(server.url)
        task = asyncio.ensure_future(taken(feed))
        # The last two have no whole head of a response, and wait for it from when they asked.
        await eventually(partial(getattr, feed, "response") if whole else lambda: server.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task, feed
        gc.collect()
        await eventually(lambda: server.ended == 1 and descriptors() <= before)


async def test_a_cancelled_anext_loses_no_event_and_the_next_one_goes_on() -> None:
    rng = random.Random(7)

    async def act(_: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request) -> None:
        begin = int(request.headers.get("Last-Event-ID", "0"))
        writer.write(HEAD)
        for number in range(begin + 1, 101):
            writer.write(b"id: %d\ndata: %d\n\n" % (number, number))
            await writer.drain()
            if rng.random() < 0.5:
                await asyncio.sleep(0.002)
            if rng.random() < 0.1:
                return

    came: list[str | None] = []
    cancelled = 0
    async with source(act) as server, events(server.url) as feed:
        while len(came) < 100:
            try:
                async with asyncio.timeout(rng.random() * 0.004):
                    came.append((await anext(feed)).data)
            except TimeoutError:
                cancelled += 1
    assert came == [str(number) for number in range(1, 101)]
    assert cancelled > 10


async def test_aclose_lets_a_task_go_that_waits_for_an_event() -> None:
    async with source(stream(b"data: 1\n\n", hold=True)) as server:
        feed = events(server.url, open_timeout=2)
        got: list[str | None] = []

        async def take() -> None:
            async for event in feed:
                got.append(event.data)

        task = asyncio.ensure_future(take())
        await eventually(lambda: got)
        await feed.aclose()
        await task
        assert got == ["1"]
        await eventually(lambda: server.ended == 1)


async def test_aclose_lets_a_task_go_that_waits_for_the_next_attempt_or_connects() -> None:
    told: list[float] = []
    async with source(answer(b""), answer(b"", hold=True)) as server:
        feed = events(server.url, on_retry=lambda _, seconds: told.append(seconds))
        feed.retry = 3600.0
        task = asyncio.ensure_future(taken(feed))
        await eventually(lambda: told)
        await feed.aclose()
        assert await task == []
        feed = events(server.url, open_timeout=2)
        task = asyncio.ensure_future(taken(feed))
        await eventually(lambda: len(server.requests) == 2)
        await feed.aclose()
        assert await task == []


async def test_two_tasks_cannot_wait_for_the_same_event() -> None:
    async with source(stream(hold=True)) as server, events(server.url) as feed:
        first = asyncio.ensure_future(anext(feed))
        await eventually(lambda: server.requests)
        with pytest.raises(rawws.LocalProtocolError, match="another task waits for the next event already"):
            await anext(feed)
        first.cancel()
        await asyncio.wait([first])


async def test_a_slow_consumer_makes_the_server_wait() -> None:
    sent = 0

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request) -> None:
        nonlocal sent
        writer.transport.set_write_buffer_limits(0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        writer.write(HEAD)
        while True:
            writer.write(b"data: %s\n\n" % (b"x" * 10_000))
            await writer.drain()
            sent += 10_000

    async with source(flood) as server, events(server.url) as feed:
        await anext(feed)
        level = -1
        while level != sent:
            level = sent
            await asyncio.sleep(0.2)
        # What the kernel holds of a loopback connection, and two reads of ours.
        assert sent < 8 << 20
        for _ in range(1000):
            await anext(feed)
        await eventually(lambda: sent > level)


@pytest.mark.parametrize("hold", [True, False])
@pytest.mark.parametrize("before", [b"", b"data: 1\n\n"])
async def test_an_event_over_max_size_is_an_error(before: bytes, hold: bool) -> None:
    server, error = await failure(answer(HEAD + before + b"data: " + b"x" * 2000, hold=hold), max_size=1000)
    assert type(error) is EventTooLarge
    assert str(error) == "an event is over 1000 bytes, the limit"
    assert len(server.requests) == 1


async def test_an_event_that_breaks_off_over_max_size_is_an_error_too() -> None:
    taken_one = asyncio.Event()

    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request) -> None:
        writer.write(HEAD + b"data: 1\n\ndata: " + b"x" * 2000)
        await taken_one.wait()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with source(reset) as server:
        feed = events(server.url, max_size=1000)
        assert (await anext(feed)).data == "1"
        taken_one.set()
        await eventually(lambda: server.ended)
        with pytest.raises(EventTooLarge):
            await anext(feed)


# -- other ways


@pytest.mark.parametrize("left", ["by the client", "by its server", "by a fault"])
async def test_a_closure_alert_is_sent_whoever_ends_the_stream(left: str) -> None:
    part = tls("127.0.0.1")
    heard: list[bytes | str] = []

    def serve(listening: socket.socket) -> None:
        sock, _ = listening.accept()
        with part.server.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False) as client:
            client.recv(4096)
            client.sendall(HEAD[:-2] + b"Transfer-Encoding: chunked\r\n\r\n" + chunk(b"data: 1\n\n"))
            if left == "by its server":
                client.sendall(b"0\r\n\r\n")
            elif left == "by a fault":
                client.sendall(b"nonsense\r\n")
            # Without the alert this raises SSLEOFError.
            heard.append(client.recv(4096))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        served = asyncio.ensure_future(asyncio.to_thread(serve, listening))
        url = f"https://127.0.0.1:{listening.getsockname()[1]}/"
        feed = events(url, ssl=part.client, reconnect=False)
        if left == "by the client":
            assert (await anext(feed)).data == "1"
            await feed.aclose()
        elif left == "by its server":
            assert await taken(feed) == ["1"]
        else:
            with pytest.raises(rawws.InvalidMessage):
                await taken(feed)
        await served
    assert heard == [b""]


async def test_tls_is_spoken_with_https_and_the_certificate_is_checked() -> None:
    part = tls("127.0.0.1")
    async with source(stream(b"data: 1\n\n"), ssl=part.server) as server:
        assert await taken(events(server.url, ssl=part.client, reconnect=False)) == ["1"]
        with pytest.raises(ssl.SSLCertVerificationError):
            await taken(events(server.url))
        with pytest.raises(ssl.SSLCertVerificationError):
            await taken(events(server.url, ssl=part.client, server_hostname="a.example"))


async def test_a_unix_socket_is_reached_by_its_path(tmp_path: Path) -> None:
    async with source(stream(b"data: 1\n\n"), path=tmp_path / "s") as server:
        assert await taken(events("http://a.example/x", path=str(tmp_path / "s"), reconnect=False)) == ["1"]
        assert server.requests[0].headers["Host"] == "a.example"


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("kind", ["http", "https", "socks5h"])
async def test_a_proxy_is_gone_through(kind: str, secure: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    outside, part = tls(), tls("127.0.0.1")
    monkeypatch.setattr("rawws.client.proxies.default_context", lambda: outside.client)
    proxies = {"http": http_proxy(), "https": http_proxy(ssl=outside.server), "socks5h": socks_proxy()}
    async with (
        source(stream(b"data: 1\n\n"), ssl=part.server if secure else None) as server,
        proxies[kind] as proxy,
    ):
        options = {"proxy": f"{kind}://localhost:{proxy.port}", "reconnect": False}
        if secure:
            options["ssl"] = part.client
        assert await taken(events(server.url, **options)) == ["1"]
        assert len(proxy.asked) == 1


async def test_local_addr_is_where_it_connects_from() -> None:
    async with source(stream(b"data: 1\n\n")) as server:
        await taken(events(server.url, local_addr=("127.0.0.3", 0), reconnect=False))
        assert server.writers[0].get_extra_info("peername")[0] == "127.0.0.3"


# -- the page


def test_the_page_lists_every_option_with_its_default() -> None:
    page = (ROOT / "docs" / "use" / "events.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", page, re.MULTILINE))
    parameters = inspect.signature(EventsOptions).parameters
    assert listed == {
        name: parameter.default.__name__ if callable(parameter.default) else repr(parameter.default)
        for name, parameter in parameters.items()
    }


def test_the_page_names_attributes_that_there_are() -> None:
    page = (ROOT / "docs" / "use" / "events.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`feed\.(\w+)`", page))
    assert named == {"last_event_id", "retry", "response"}
    feed = rawws.events("http://a.example/")
    assert [getattr(feed, name) for name in ("last_event_id", "retry", "response")] == ["", 3.0, None]
