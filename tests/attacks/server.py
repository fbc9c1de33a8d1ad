"""The servers that are attacked: ours with one of everything, and peers, each with an echo and its own defaults."""
# mypy: disable-error-code="import-not-found, misc, unused-ignore"

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import tempfile
from pathlib import Path
from typing import Any, final

HOST = "127.0.0.1"
FILE_SIZE = 8 << 20
# None of the limits of memory is changed here; what lasts ten seconds elsewhere is over in one, to be seen.
SHORT: dict[str, Any] = {"open_timeout": 1, "close_timeout": 1, "keep_alive_timeout": 1}

# The port of our server where connections begin with a PROXY header.
PROXIED: list[int] = []
# That of our server in TLS.
SECURED: list[Any] = []


def announce(sockets: Any) -> None:
    """Say where the server listens, as the tests wait for it."""
    print(f"listening on {HOST}:{next(iter(sockets)).getsockname()[1]}", flush=True)


def rawws_routes(folder: Path) -> Any:
    """Return the endpoints of our server."""
    import rawws  # noqa: PLC0415 - each server loads its own library
    from rawws.backplanes.memory import Engine, MemoryBackplane  # noqa: PLC0415

    # A hub with an engine, where one topic holds what no backplane wrote.
    engine = Engine()
    joined = rawws.Hub(
        authorize=lambda client, action, topic: True,
        history=rawws.History(total=1 << 20),
        backplane=MemoryBackplane(engine),
    )
    bad: Any = engine.stored("bad")
    bad.offset, bad.held = 1, None
    routes, hub = (
        rawws.Routes(),
        rawws.Hub(authorize=lambda client, action, topic: True, history=rawws.History(total=1 << 20)),
    )
    (folder / "large").write_bytes(bytes(FILE_SIZE))

    @final
    class Callbacks(rawws.Handler):
        def on_message(self, ws: Any, message: str | bytes) -> None:
            ws.send(message)

    @routes.websocket("/")
    async def echo(ws: Any) -> None:
        async for message in ws:
            await ws.send(message)

    @routes.get("/events")
    async def events(request: Any) -> Any:
        stream = rawws.EventStream()
        tick(stream)
        return stream

    def tick(stream: Any) -> None:
        for _ in range(64):
            if stream.closed:
                return
            stream.send("x" * 1024)
        asyncio.get_running_loop().call_later(0.01, tick, stream)

    @routes.get("/large")
    async def large(request: Any) -> Any:
        return rawws.Response.file(folder / "large")

    @routes.get("/facts")
    async def facts(request: Any) -> Any:
        tasks = len(asyncio.all_tasks())
        return rawws.Response(
            200,
            json.dumps(
                {
                    "tasks": tasks,
                    "connections": len(request.server.settings.connections),
                    "names": len(engine.topics),
                    "proxied": PROXIED[0],
                    "secured": SECURED[0].sockets[0].getsockname()[1],
                    "handshakes": len(SECURED[0].settings.connections),
                }
            ),
        )

    @routes.post("/body")
    async def body(request: Any) -> Any:
        return rawws.Response(200, str(len(request.body)))

    routes.websocket("/callbacks")(Callbacks())

    async def decide(_client: Any, _action: str, topic: str) -> bool:
        if topic == "slow":
            await asyncio.sleep(1)
        return True

    def allow(_client: Any, _action: str, _topic: str) -> bool:
        return True

    @final
    class Listener:
        """One of a crowd, which takes whatever comes."""

        congested, hard_limit = False, 1 << 20

        def send(self, publication: Any) -> None:
            pass

        def follow(self, subscriber: Any) -> None:
            pass

        unfollow = follow

        def fail(self, code: int, reason: str) -> None:
            raise AssertionError(reason)

    room = rawws.Hub(authorize=allow, history=None)
    for _ in range(1000):
        room.subscribe(Listener(), "present", join={"name": "x" * 100})
        room.subscribe(Listener(), "watched", watch=True)
    routes.websocket("/room")(rawws.HubHandler(room))
    routes.websocket("/room/coroutine")(room.serve)
    routes.post("/room")(room.post)
    kept = rawws.Hub(authorize=allow, history=rawws.History(total=8 << 20))
    routes.websocket("/kept")(rawws.HubHandler(kept))
    matching = rawws.Hub(
        authorize=allow, authorize_pattern=lambda client, pattern: True, history=rawws.History(total=1 << 20)
    )
    routes.websocket("/patterns")(rawws.HubHandler(matching))
    full = rawws.Hub(authorize=lambda client, action, topic: True)
    for number in range(64):
        full.publish(f"t{number}", "\x01" * 165_000)
    routes.get("/history")(full.poll)
    routes.websocket("/hub")(hub.serve)
    routes.websocket("/joined")(rawws.HubHandler(joined))
    routes.get("/joined/poll")(joined.poll)
    routes.get("/joined/stream")(joined.stream)
    routes.post("/joined")(joined.post)
    routes.websocket("/undecided")(rawws.HubHandler(rawws.Hub(authorize=decide, history=None)))
    routes.get("/poll")(lambda request: hub.poll(request, "chat"))
    return routes


def select(_: Any, offered: list[str]) -> str | None:
    """Speak rawws.v1 with those who do; the echo speaks nothing."""
    return "rawws.v1" if "rawws.v1" in offered else None


async def rawws_server(options: dict[str, Any]) -> None:
    """Serve everything there is."""
    import trustme  # noqa: PLC0415

    import rawws  # noqa: PLC0415
    from tests.engine import choose  # noqa: PLC0415

    choose()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert(HOST).configure_cert(tls)
    with tempfile.TemporaryDirectory() as folder:
        routes = rawws_routes(Path(folder))
        behind = rawws.serve(routes, HOST, 0, proxy_protocol=True, trusted_proxies=[HOST], **SHORT)
        serving = rawws.serve(routes, HOST, 0, select_subprotocol=select, http2=True, **SHORT, **options)
        secure = rawws.serve(routes, HOST, 0, ssl=tls, **SHORT)
        async with behind as proxied, secure as secured, serving as server:
            PROXIED.append(proxied.sockets[0].getsockname()[1])
            SECURED.append(secured)
            announce(server.sockets)
            await server.serve_forever()


async def websockets_server(_: dict[str, Any]) -> None:
    """Serve an echo with websockets."""
    from websockets.asyncio.server import serve  # noqa: PLC0415

    async def echo(ws: Any) -> None:
        async for message in ws:
            await ws.send(message)

    async with serve(echo, HOST, 0) as server:
        announce(server.sockets)
        await server.serve_forever()


async def picows_server(_: dict[str, Any]) -> None:
    """Serve an echo with picows."""
    import picows  # noqa: PLC0415

    @final
    class Echo(picows.WSListener):
        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            transport.send(frame.msg_type, frame.get_payload_as_bytes())

    server = await picows.ws_create_server(lambda _: Echo(), HOST, 0)
    announce(server.sockets)
    await server.serve_forever()


async def aiohttp_server(_: dict[str, Any]) -> None:
    """Serve an echo with aiohttp."""
    from aiohttp import WSMsgType, web  # noqa: PLC0415

    async def echo(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                await ws.send_str(message.data)
            else:
                await ws.send_bytes(message.data)
        return ws

    app = web.Application()
    app.router.add_get("/", echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, HOST, 0)
    await site.start()
    announce(site._server.sockets)  # type: ignore[union-attr]
    await asyncio.Event().wait()


SERVERS = {
    "rawws": rawws_server,
    "websockets": websockets_server,
    "picows": picows_server,
    "aiohttp": aiohttp_server,
}

if __name__ == "__main__":
    from rawws.net.loops import loop_factory

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(SERVERS[sys.argv[1]](json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}))
