"""Routes: paths to endpoints, and what is said where there is none."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rawws
from tests.server.answers import ask, get, on, served
from tests.server.peers import Peer, eventually, request, serve


async def chat(ws: rawws.WebSocket) -> None:
    await ws.send(f"{dict(ws.path_params)}")
    await ws.wait_closed()


def name(asked: rawws.HttpRequest) -> dict[str, str]:
    return dict(asked.path_params)


# -- defining


@pytest.mark.parametrize(
    "path",
    ["", "x", "/a?b", "/a#b", "/{", "/}", "/{a}}", "/{}", "/{1}", "/{a-b}", "/{a}/{a}", "/x{a}", "/{a}x", "/{a}{b}",
     "/{a:path}/x", "/{a:int}", "/{a:}", "/{{a}}", 7, None],
)  # fmt: skip
def test_a_path_that_is_none_is_refused_where_it_is_said(path: Any) -> None:
    with pytest.raises(ValueError, match="the path"):
        rawws.Routes([rawws.Route(path, name)])


@pytest.mark.parametrize(
    "path", ["/", "/a", "/a/", "/é", "/{a}", "/a/{b}/c/{d}", "/{a:path}", "/{a}/{b:path}", "/a.b~c"]
)
def test_a_path_may_have_parameters(path: str) -> None:
    rawws.Routes([rawws.Route(path, name)])


@pytest.mark.parametrize("methods", ["GET", (), ["get"], ["G T"], [""], ["CONNECT"], [7]])
def test_methods_that_are_none_are_refused(methods: Any) -> None:
    with pytest.raises(ValueError, match="method"):
        rawws.Routes([rawws.Route("/", name, methods)])


@pytest.mark.parametrize(
    ("one", "two", "message"),
    [
        (rawws.Route("/a", name), rawws.Route("/a", name), "/a has an endpoint for GET already"),
        (rawws.Route("/{a}", name), rawws.Route("/{a}", name), "has an endpoint for GET already"),
        (rawws.Route("/{a}", name), rawws.Route("/{b}", name, ["POST"]), "another route names them"),
        (rawws.Route("/a", chat, websocket=True), rawws.Route("/a", chat, websocket=True), "for WebSockets already"),
    ],
)
def test_what_is_said_twice_is_refused(one: rawws.Route, two: rawws.Route, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rawws.Routes([one, two])


@pytest.mark.parametrize(
    ("route", "message"),
    [
        (("/", name), "routes has a tuple"),
        (rawws.Route("/", "x"), "the endpoint of / is str"),
        (rawws.Route("/", lambda: "x"), r"the endpoint of / takes \(\), it is called with \(request\)"),
        (rawws.Route("/", rawws.Handler, websocket=True), "handler is the class Handler"),
        (rawws.Route("/", None, websocket=True), "handler is NoneType"),
    ],
)
def test_an_endpoint_that_is_none_is_refused(route: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        rawws.Routes([route])


def test_a_decorator_returns_the_endpoint() -> None:
    routes = rawws.Routes()
    assert routes.get("/a")(name) is name
    assert routes.post("/a")(name) is name
    assert routes.route("/b", ["PUT", "PATCH"])(name) is name
    assert routes.websocket("/c")(chat) is chat
    handler = rawws.Handler()
    assert routes.websocket("/d")(handler) is handler


# -- finding


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("/users/ada", {"id": "ada"}),
        ("/users/a%20b%2Bc%C3%A9?x=/y", {"id": "a b+cé"}),
        ("/users/me", {}),
        ("/users/%6De", {}),
        ("/files/a/b/c.txt", {"rest": "a/b/c.txt"}),
        ("/files/a/", {"rest": "a/"}),
        ("/%C3%A9%C3%A9", {}),
        ("/caf%C3%A9/x%2Ey", {"id": "x.y"}),
        ("/a/b/c", {"one": "b", "two": "c"}),
    ],
)
async def test_a_path_finds_its_endpoint_and_its_parameters(target: str, found: dict[str, str]) -> None:
    paths = ["/users/{id}", "/users/me", "/files/{rest:path}", "/éé", "/café/{id}", "/a/{one}/{two}"]
    async with serve(rawws.Routes([rawws.Route(path, name) for path in paths])) as server:
        [answer] = await ask(server, get(target))
        assert (answer.status, answer.body.decode()) == (200, rawws.Response.json(found).body.decode())


@pytest.mark.parametrize(
    "target",
    ["/", "/users", "/users/", "/users/a/b", "/users//", "/Users/me", "/users/me/", "/users/a%2Fb", "/users/..",
     "/users/%2e%2E", "/users/.", "/users/a%5Cb", "/users/a%00b", "/files/", "/files//etc/passwd", "/files/../x",
     "/files/a/../../x", "/files/%2e%2e/x", "/files/..%2Fx", "/files/%2Fetc", "/files/a//b", "/files/a%5C..%5Cb",
     "/files/a/./b", "/files/./"],
)  # fmt: skip
async def test_other_paths_are_404(target: str) -> None:
    async with serve(
        rawws.Routes([rawws.Route(path, name) for path in ("/users/{id}", "/files/{rest:path}")])
    ) as server:
        [answer] = await ask(server, get(target))
        assert (answer.status, answer.body) == (404, b"there is nothing at this path\n")


async def test_a_path_that_is_no_utf8_is_400() -> None:
    async with serve(on("/{a}", name)) as server:
        [answer] = await ask(server, get("/a%FF"))
        assert answer.status == 400


@given(st.text(alphabet="ab./\\%\0é2eEF5cC", max_size=20))
def test_a_parameter_never_leads_out_of_its_place(path: str) -> None:
    routes = rawws.Routes([rawws.Route("/one/{a}", name), rawws.Route("/all/{a:path}", name)])
    for prefix in ("/one/", "/all/"):
        try:
            _, found = routes.find(prefix + path)
        except rawws.HttpError:
            continue
        value = found["a"]
        assert not value.startswith("/")
        assert not {".", ".."}.intersection(value.split("/"))
        assert not set("\\\0").intersection(value)
        assert prefix == "/all/" or "/" not in value


# -- methods


def table() -> rawws.Routes:
    routes = rawws.Routes()
    routes.get("/both")(lambda _: "got")
    routes.post("/both")(lambda asked: asked.body)
    routes.websocket("/both")(chat)
    routes.websocket("/chat/{room}")(chat)
    routes.post("/post")(lambda _: "posted")
    routes.route("/own", ["OPTIONS", "HEAD"])(lambda asked: rawws.Response(200, "", {"X-Method": asked.method}))
    return routes


@pytest.mark.parametrize(
    ("method", "target", "status", "allow"),
    [
        ("PUT", "/both", 405, "GET, HEAD, OPTIONS, POST"),
        ("HEAD", "/both", 200, None),
        ("GET", "/post", 405, "OPTIONS, POST"),
        ("HEAD", "/post", 405, "OPTIONS, POST"),
        ("OPTIONS", "/post", 204, "OPTIONS, POST"),
        ("OPTIONS", "/both", 204, "GET, HEAD, OPTIONS, POST"),
        ("OPTIONS", "/none", 404, None),
        ("OPTIONS", "*", 204, "OPTIONS"),
        ("OPTIONS", "/own", 200, None),
        ("HEAD", "/own", 200, None),
        ("GET", "/own", 405, "HEAD, OPTIONS"),
        ("get", "/both", 405, "GET, HEAD, OPTIONS, POST"),
        ("GET", "/chat/a", 426, None),
        ("POST", "/chat/a", 405, "GET"),
    ],
)
async def test_a_method_is_answered_or_told_which_are(method: str, target: str, status: int, allow: str | None) -> None:
    async with serve(table()) as server:
        [answer] = await ask(server, get(target, method=method), ["HEAD" if method == "HEAD" else "GET"])
        assert (answer.status, answer.headers.get("allow")) == (status, allow)


# -- WebSocket


async def test_a_websocket_knows_the_parameters_of_its_path() -> None:
    async with served(table()) as (_, peer):
        await peer.shake_hands(line="GET /chat/a%20b?x=1 HTTP/1.1")
        assert await peer.message() == "{'room': 'a b'}"


async def test_without_routes_there_are_no_parameters() -> None:
    async with serve(chat) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.shake_hands(line="GET /chat/a HTTP/1.1")
        assert await peer.message() == "{}"
        peer.close()


async def test_one_path_may_be_a_page_and_a_websocket() -> None:
    async with served(table()) as (_, peer):
        await peer.write(get("/both"))
        assert (await peer.response()).status == 200
        await peer.shake_hands(line="GET /both HTTP/1.1")
        assert await peer.message() == "{}"


@pytest.mark.parametrize("field", ["Upgrade: h2c", "Upgrade: websocket"])
async def test_an_upgrade_that_is_not_to_be_had_is_ignored(field: str) -> None:
    async with serve(on("/", lambda _: "plain")) as server:
        answers = await ask(server, request(field) + get(), ["GET", "GET"])
        assert [answer.body for answer in answers] == [b"plain", b"plain"]


async def test_a_websocket_path_without_an_upgrade_says_what_it_needs() -> None:
    async with serve(table()) as server:
        [answer] = await ask(server, get("/chat/a"))
        assert (answer.status, answer.headers["upgrade"]) == (426, "websocket")


async def test_each_route_has_its_own_handler() -> None:
    class Shout(rawws.Handler):
        def __init__(self, end: str) -> None:
            self.end = end
            self.closed: list[int] = []

        def on_open(self, ws: rawws.WebSocket) -> None:
            ws.send(f"open{self.end}")

        def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
            ws.send(f"{message!s}{self.end}")

        def on_close(self, ws: rawws.WebSocket, code: int, reason: str) -> None:
            self.closed.append(code)

    routes = rawws.Routes()
    one, two = routes.websocket("/one")(Shout("!")), routes.websocket("/two")(Shout("?"))

    @routes.websocket("/three")
    async def three(ws: rawws.WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    async with serve(routes) as server:
        peers = [await Peer.reach(server.sockets[0].getsockname()) for _ in range(3)]
        for peer, path in zip(peers, ("/one", "/two", "/three"), strict=True):
            await peer.shake_hands(line=f"GET {path} HTTP/1.1")
            await peer.send("hi")
        assert [await peers[0].message(), await peers[0].message()] == ["open!", "hi!"]
        assert [await peers[1].message(), await peers[1].message()] == ["open?", "hi?"]
        assert await peers[2].message() == "hi"
        assert len(server.connections) == 3
        for peer in peers:
            await peer.start_close(4000)
            await peer.finish()
            peer.close()
        await eventually(lambda: not server.settings.connections)
    assert [one.closed, two.closed] == [[4000], [4000]]


async def test_a_route_may_come_while_the_server_runs() -> None:
    routes = rawws.Routes()
    async with serve(routes) as server:
        [answer] = await ask(server, get("/late"))
        assert answer.status == 404
        routes.get("/late")(lambda _: "here")
        [answer] = await ask(server, get("/late"))
        assert answer.body == b"here"


async def test_an_encoded_slash_is_none_between_the_segments_of_an_exact_path() -> None:
    async with serve(on("/a/b", lambda _: "/a/b")) as server:
        for target, status in (("/a/b", 200), ("/%61/b", 200), ("/a%2Fb", 404), ("/a%2fb/c", 404), ("/a/b%2Fc", 404)):
            [answer] = await ask(server, get(target))
            assert (target, answer.status) == (target, status)
            assert status == 404 or answer.body == b"/a/b"


@pytest.mark.parametrize("path", ["/@connections/{name}", "/%40connections/{name}"])
async def test_an_at_sign_is_one_character_however_it_is_written(path: str) -> None:
    async with serve(on(unquote(path), lambda request: request.path_params["name"])) as server:
        for target in ("/@connections/a%3D", "/%40connections/a=", "/%40c%6fnnections/a%3d"):
            [answer] = await ask(server, get(target))
            assert (target, answer.status, answer.body) == (target, 200, b"a=")
        # What is encoded twice is not decoded twice, and a slash stays in its segment.
        for target, status in (
            ("/%2540connections/a", 404),
            ("/@connections/a%2Fb", 404),
            ("/@connections/%2540", 200),
        ):
            [answer] = await ask(server, get(target))
            assert (target, answer.status) == (target, status)
            assert status == 404 or answer.body == b"%40"


def test_those_are_cancelled_with_their_clients_whose_routes_say_so_and_no_others() -> None:
    routes = rawws.Routes()
    routes.route("/put", ["PUT", "PATCH"], cancel=True)(name)
    routes.route("/put", ["DELETE"])(name)
    routes.get("/get", cancel=True)(name)
    routes.post("/get")(name)
    routes.route("/head", ["HEAD"])(name)
    routes.get("/head", cancel=True)(name)
    routes.post("/post", cancel=True)(name)
    found = {path: routes.find(path)[0].cancelled for path in ("/put", "/get", "/head", "/post")}
    assert found == {"/put": {"PUT", "PATCH"}, "/get": {"GET", "HEAD"}, "/head": {"GET"}, "/post": {"POST"}}
