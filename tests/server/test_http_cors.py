"""Pages of other origins: refused, or allowed to read what is answered (WHATWG Fetch 3.3)."""

from __future__ import annotations

import re
from typing import Any

import pytest

import rawws
from tests.server.answers import ask, asked, get
from tests.server.peers import Peer, eventually, request, serve

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


@pytest.mark.parametrize(
    ("target", "fields", "method", "status"),
    [
        ("/nowhere", (), "GET", 404),
        ("/nowhere", (), "HEAD", 404),
        ("/nowhere", (), "OPTIONS", 404),
        ("/nowhere%ff", (), "GET", 400),
        ("/nowhere", PREFLIGHT[1:], "OPTIONS", 204),
        ("/", ("Expect: wonders",), "GET", 417),
        ("/", ("Content-Length: 2000000",), "POST", 413),
        ("/", ("Upgrade: websocket", "Sec-WebSocket-Version: 12"), "GET", 200),
        ("/chat", (), "GET", 426),
        ("/chat", ("Upgrade: websocket", "Connection: upgrade", "Sec-WebSocket-Version: 13"), "GET", 400),
        ("/hook/401", (), "GET", 401),
        ("/hook/200", (), "GET", 200),
        ("/hook/raise", (), "GET", 403),
        ("/hook/own", (), "GET", 200),
        ("/own", (), "GET", 200),
    ],
)
@pytest.mark.parametrize(("origins", "allowed"), [([PAGE], PAGE), ("*", "*"), (None, None)])
async def test_every_answer_to_a_listed_origin_may_be_read_and_no_answer_to_another(
    target: str, fields: tuple[str, ...], method: str, status: int, origins: Any, allowed: str | None
) -> None:
    own = rawws.Response(200, "x", {"Access-Control-Allow-Origin": PAGE})

    def hook(_ws: rawws.WebSocket, asked: rawws.Request) -> rawws.Response | None:
        name = asked.path.removeprefix("/hook/")
        if name == "raise":
            raise rawws.HttpError(403, "no")
        return None if name == asked.path else own if name == "own" else rawws.Response(int(name), "x")

    async def chat(ws: rawws.WebSocket) -> None:
        await ws.wait_closed()

    routes = table()
    routes.websocket("/chat")(chat)
    routes.get("/own")(lambda _: own)
    async with serve(routes, origins=origins, process_request=hook) as server:
        [found] = await ask(server, get(target, f"Origin: {PAGE}", *fields, method=method), [method])
    if target.endswith("/own") and (allowed or "hook" in target):
        # Who grants access without the server is believed, and says it once.
        assert (found.status, found.headers[ALLOW]) == (200, PAGE)
        return
    assert found.headers.get(ALLOW) == allowed
    assert found.status == status or (allowed is None and found.status == 403)
    if status == 204 and allowed:
        assert found.headers["access-control-allow-methods"] == "OPTIONS, POST"


async def test_an_answer_of_a_server_that_ends_may_be_read_too() -> None:
    async with serve(table(), origins=[PAGE]) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.write(get("/", f"Origin: {PAGE}")[:-2])
        await eventually(lambda: server.settings.connections)
        server.stop_listening()
        await peer.write(b"\r\n")
        [found] = await asked(peer)
        assert (found.status, found.headers[ALLOW]) == (503, PAGE)
        peer.close()


# -- pages whose Origin is missing


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize(
    ("origins", "method", "status"),
    [
        # Images, links, and what asks before it asks.
        (None, "GET", 200), (None, "HEAD", 200), (None, "OPTIONS", 204), ([PAGE, None], "GET", 200),
        # What changes something is that of a page that nobody knows.
        (None, "POST", 403), ([PAGE, None], "POST", 403), ([], "POST", 403), (["null"], "POST", 200),
        ("*", "POST", 200),
    ],
)  # fmt: skip
async def test_what_a_page_of_another_origin_changes_needs_permission_also_without_an_origin(
    origins: Any, method: str, status: int, site: str
) -> None:
    found = await answer(origins, f"Sec-Fetch-Site: {site}", method=method)
    assert found.status == status
    if status == 403:
        assert f"Origin is absent and Sec-Fetch-Site '{site}', allowed are ".encode() in found.body


@pytest.mark.parametrize("site", ["same-origin", "none", "wonders"])
async def test_the_own_page_and_the_user_may_change_something(site: str) -> None:
    assert (await answer(None, f"Sec-Fetch-Site: {site}", method="POST")).status == 200


async def test_a_websocket_of_another_page_is_refused_also_without_an_origin() -> None:
    async def echo(ws: rawws.WebSocket) -> None:
        await ws.wait_closed()

    for site, status in (("cross-site", 403), ("same-origin", 101)):
        async with serve(echo) as server:
            peer = await Peer.reach(server.sockets[0].getsockname())
            await peer.write(request(f"Sec-Fetch-Site: {site}"))
            assert (await peer.response()).status == status
            peer.close()


@pytest.mark.parametrize(
    ("origins", "allowed"),
    [(None, "'http://localhost'"), ([PAGE], f"'{PAGE}', 'http://localhost'")],
)
async def test_the_403_of_a_page_names_the_own_origin_and_those_that_are_listed(origins: Any, allowed: str) -> None:
    found = await answer(origins, "Origin: https://other.example")
    assert found.body.decode() == f"Origin is 'https://other.example', allowed are {allowed}\n"


@pytest.mark.parametrize("method", ["", "a b", "GET, POST", "a/b"])
async def test_a_preflight_that_names_no_method_is_none(method: str) -> None:
    fields = (f"Origin: {PAGE}", f"Access-Control-Request-Method: {method}")
    found = await answer([PAGE], *fields, target="/nowhere", method="OPTIONS")
    assert (found.status, found.headers[ALLOW]) == (404, PAGE)
