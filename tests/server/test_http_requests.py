"""What an endpoint gets of a request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import rawws
from rawws.net.parameters import Query
from tests.server.answers import ask, get, on
from tests.server.peers import serve


async def seen(look: Callable[[rawws.HttpRequest], Any], data: bytes, **options: Any) -> Any:
    """Return what an endpoint finds in a request."""
    found: list[Any] = []

    def endpoint(asked: rawws.HttpRequest) -> None:
        found.append(look(asked))

    routes = rawws.Routes([rawws.Route("/{rest:path}", endpoint, ["GET", "POST"])])
    async with serve(routes, **options) as server:
        [answer] = await ask(server, data)
        assert answer.status == 204
    return found[0]


async def test_the_parts_of_a_request() -> None:
    def look(asked: rawws.HttpRequest) -> Any:
        assert repr(asked) == "<rawws.HttpRequest POST /a%20b/c?x=1>"
        assert isinstance(asked.head, rawws.Request)
        host, _ = asked.remote_address
        return asked.method, asked.path, asked.headers["X-Name"], asked.body, host, asked.scheme, asked.head.path

    assert await seen(look, get("/a%20b/c?x=1", "X-Name: y", method="POST", body=b"\xff")) == (
        "POST", "/a b/c", "y", b"\xff", "127.0.0.1", "http", "/a%20b/c?x=1",
    )  # fmt: skip


async def test_the_query_gives_the_first_value_and_all() -> None:
    def look(asked: rawws.HttpRequest) -> Any:
        query = asked.query
        assert query.get("none") is None
        assert "none" not in query
        with pytest.raises(KeyError):
            query["none"]
        return query["a"], query.get_all("a"), dict(query), len(query), query.get_all("none")

    assert await seen(look, get("/x?a=1&b=%C3%A9+&a=2&c=&d")) == (
        "1", ["1", "2"], {"a": "1", "b": "é ", "c": "", "d": ""}, 4, [],
    )  # fmt: skip
    assert repr(Query("a=1")) == "Query({'a': ['1']})"


async def test_cookies_are_read_and_what_are_none_are_left_out() -> None:
    assert await seen(lambda asked: asked.cookies, get("/x", 'Cookie: a=1; b="x y"')) == {"a": "1", "b": "x y"}
    odd = get("/x", 'Cookie: a(b)=1=2; c; =d; e=; f="', "Cookie: g=1; g=2")
    assert await seen(lambda asked: asked.cookies, odd) == {"a(b)": "1=2", "e": "", "f": '"', "g": "1"}
    assert await seen(lambda asked: asked.cookies, get("/x", "Cookie: ;;=;")) == {}
    assert await seen(lambda asked: asked.cookies, get("/x")) == {}


async def test_the_last_event_id_is_utf8() -> None:
    data = get("/x", "Last-Event-ID: 7-?").replace(b"?", "é".encode())
    assert await seen(lambda asked: asked.last_event_id, data) == "7-é"
    assert await seen(lambda asked: asked.last_event_id, get("/x")) == ""


async def test_the_body_as_text_and_as_json() -> None:
    body = '{"a": "é"}'.encode()
    data = get("/x", method="POST", body=body)
    assert await seen(lambda asked: (asked.text(), asked.json()), data) == (body.decode(), {"a": "é"})


@pytest.mark.parametrize(
    ("read", "body", "reason"),
    [
        (rawws.HttpRequest.text, b"a\xff", "the body is not UTF-8: invalid start byte at byte 1\n"),
        (rawws.HttpRequest.json, b"\xff", "the body is not UTF-8: invalid start byte at byte 0\n"),
        (rawws.HttpRequest.json, b"{", "the body is not JSON: "),
        (rawws.HttpRequest.json, b"[" * 100_000, "the body is not JSON: "),
        (rawws.HttpRequest.json, b"", "the body is not JSON: "),
    ],
)
async def test_a_body_that_is_not_what_the_endpoint_wants_is_a_400(
    read: Callable[[rawws.HttpRequest], Any], body: bytes, reason: str
) -> None:
    async with serve(on("/", read, "POST")) as server:
        [answer] = await ask(server, get(method="POST", body=body), ["POST"])
        assert answer.status == 400
        assert answer.body.decode().startswith(reason)
