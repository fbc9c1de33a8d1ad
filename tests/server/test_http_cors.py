"""Pages of other origins: refused, or allowed to read what is answered (WHATWG Fetch 3.3)."""

from __future__ import annotations

import re
from typing import Any

import pytest

import rawws
from tests.server.answers import ask, get
from tests.server.peers import serve

ALLOW = "access-control-allow-origin"
CREDENTIALS = "access-control-allow-credentials"
PAGE = "https://example.com"


def table(seen: list[str] | None = None) -> rawws.Routes:
    routes = rawws.Routes()

    @routes.get("/events")
    def events(_: rawws.HttpRequest) -> rawws.EventStream:
        stream = rawws.EventStream()
        stream.close()
        return stream

    @routes.get("/poll")
    def poll(_: rawws.HttpRequest) -> rawws.LongPoll:
        held = rawws.LongPoll()
        held.respond("x")
        return held

    @routes.get("/")
    @routes.post("/")
    def page(asked: rawws.HttpRequest) -> str:
        (seen if seen is not None else []).append(asked.method)
        return "x"

    return routes


async def answer(origins: Any, *fields: str, target: str = "/", method: str = "GET") -> Any:
    async with serve(table(), origins=origins) as server:
        [found] = await ask(server, get(target, *fields, method=method), [method])
        return found


@pytest.mark.parametrize("origins", [None, [PAGE], [PAGE, None], "*", []])
@pytest.mark.parametrize("fields", [(), ("Origin: http://localhost",), ("Origin: http://LOCALHOST:80",)])
async def test_what_is_no_page_and_the_own_page_need_no_permission(origins: Any, fields: tuple[str, ...]) -> None:
    found = await answer(origins, *fields)
    assert (found.status, ALLOW in found.headers) == (200, False)


@pytest.mark.parametrize("target", ["/", "/events", "/poll"])
@pytest.mark.parametrize(
    "origins", [[PAGE], PAGE, [re.compile(r"https://.*\.com")], ["*", PAGE], ["https://EXAMPLE.com"]]
)
async def test_an_origin_that_is_listed_may_read_it_with_cookies(origins: Any, target: str) -> None:
    found = await answer(origins, f"Origin: {PAGE}", target=target)
    assert found.status == 200
    assert (found.headers[ALLOW], found.headers[CREDENTIALS], found.headers["vary"]) == (PAGE, "true", "Origin")


@pytest.mark.parametrize("target", ["/", "/events", "/poll"])
@pytest.mark.parametrize("origins", ["*", ["*", "https://other.example"]])
async def test_with_a_star_any_origin_may_read_it_without_cookies(origins: Any, target: str) -> None:
    found = await answer(origins, f"Origin: {PAGE}", target=target)
    assert (found.status, found.headers[ALLOW], CREDENTIALS in found.headers) == (200, "*", False)


@pytest.mark.parametrize("target", ["/", "/events", "/poll"])
@pytest.mark.parametrize("origins", [None, [], ["https://other.example"], [None], [re.compile("https://example")]])
@pytest.mark.parametrize("origin", [PAGE, "null", "https://localhost"])
async def test_other_origins_are_refused(origins: Any, target: str, origin: str) -> None:
    found = await answer(origins, f"Origin: {origin}", target=target)
    assert (found.status, ALLOW in found.headers) == (403, False)


async def test_a_refused_page_reaches_no_endpoint() -> None:
    seen: list[str] = []
    async with serve(table(seen)) as server:
        data = get("/", f"Origin: {PAGE}", "Content-Type: text/plain", method="POST", body=b"x")
        [found] = await ask(server, data, ["POST"])
        assert (found.status, seen) == (403, [])


async def test_the_null_origin_must_be_listed() -> None:
    found = await answer(["null"], "Origin: null")
    assert (found.status, found.headers[ALLOW]) == (200, "null")


async def test_two_origins_are_a_400() -> None:
    found = await answer([PAGE], f"Origin: {PAGE}", f"Origin: {PAGE}")
    assert found.status == 400


async def test_where_it_depends_on_the_origin_caches_are_told() -> None:
    assert (await answer([PAGE])).headers["vary"] == "Origin"
    assert "vary" not in (await answer(None)).headers


PREFLIGHT = (f"Origin: {PAGE}", "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: x-token")


async def test_a_preflight_is_answered() -> None:
    found = await answer([PAGE], *PREFLIGHT, method="OPTIONS")
    assert found.status == 204
    assert found.headers[ALLOW] == PAGE
    assert found.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS, POST"
    assert found.headers["access-control-allow-headers"] == "x-token"
    assert int(found.headers["access-control-max-age"]) > 0


async def test_a_preflight_of_another_origin_is_refused() -> None:
    found = await answer(None, *PREFLIGHT, method="OPTIONS")
    assert found.status == 403
    assert not [name for name in found.headers if name.startswith("access-control")]


async def test_a_page_that_may_read_it_may_read_the_refusal_too() -> None:
    found = await answer([PAGE], f"Origin: {PAGE}", method="PUT")
    assert (found.status, found.headers[ALLOW]) == (405, PAGE)
