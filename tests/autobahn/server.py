"""The echo server that Autobahn talks to: `rawws.serve` with its default limits, save `max_size`.

It listens on a free loopback port and prints what it is and where. With `--peer` another library serves instead, so
that its result can be compared with ours.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    # A peer: the style of its handler in, the port that it listens on and its description out.
    Peer = Callable[[str], AbstractAsyncContextManager[tuple[int, str]]]

HOST: Final = "127.0.0.1"

# The largest message of the suite (9.1.6, 9.2.6) is 16 MiB, our default limit 1 MiB.
MAX_SIZE: Final = 2**24


@contextlib.asynccontextmanager
async def rawws_peer(style: str, *, http2: bool = False, engine: Any = None) -> AsyncIterator[tuple[int, str]]:
    """Serve with this project: a coroutine for each connection, or one object with callbacks."""
    import rawws  # noqa: PLC0415 - a comparison runs where the project itself may not be built
    from rawws import _twins, _version  # noqa: PLC0415
    from tests.engine import ENGINE, choose  # noqa: PLC0415

    choose()

    async def echo(ws: rawws.WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    class Echo(rawws.Handler):
        def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
            ws.send(message)

    handler = Echo() if style == "callback" else echo
    async with rawws.serve(handler, HOST, 0, max_size=MAX_SIZE, http2=http2 or None, engine=engine) as server:
        spoken = ", over HTTP/2" if http2 else ""
        spoken += f", engine {engine or ENGINE}"
        yield server.sockets[0].getsockname()[1], f"rawws {_version.__version__}, {_twins.running()}, {style}{spoken}"


@contextlib.asynccontextmanager
async def websockets_peer(_style: str) -> AsyncIterator[tuple[int, str]]:
    """Serve with `websockets`."""
    from websockets.asyncio.server import ServerConnection, serve  # noqa: PLC0415

    async def echo(ws: ServerConnection) -> None:
        async for message in ws:
            await ws.send(message)

    async with serve(echo, HOST, 0, max_size=MAX_SIZE) as server:
        yield next(iter(server.sockets)).getsockname()[1], f"websockets {version('websockets')}"


@contextlib.asynccontextmanager
async def aiohttp_peer(_style: str) -> AsyncIterator[tuple[int, str]]:
    """Serve with `aiohttp`."""
    import aiohttp  # noqa: PLC0415
    from aiohttp import web  # noqa: PLC0415

    async def echo(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(max_msg_size=MAX_SIZE)
        await ws.prepare(request)
        async for message in ws:
            if message.type is aiohttp.WSMsgType.TEXT:
                await ws.send_str(message.data)
            elif message.type is aiohttp.WSMsgType.BINARY:
                await ws.send_bytes(message.data)
        return ws

    app = web.Application()
    app.router.add_get("/", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0).start()
        yield runner.addresses[0][1], f"aiohttp {aiohttp.__version__}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def uvicorn_peer(_style: str) -> AsyncIterator[tuple[int, str]]:
    """Serve with `uvicorn` and the class of this project for `--ws`."""
    import uvicorn  # noqa: PLC0415

    from rawws import _twins, _version  # noqa: PLC0415

    async def echo(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({**event, "type": "websocket.send"})

    ws = "rawws.integrations.uvicorn:WebSocketProtocol"
    server = uvicorn.Server(
        uvicorn.Config(echo, HOST, 0, ws=ws, ws_max_size=MAX_SIZE, lifespan="off", log_level="warning")
    )
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn tells nobody
        await asyncio.sleep(0.01)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield port, f"rawws {_version.__version__}, {_twins.running()}, in uvicorn {uvicorn.__version__}"
    finally:
        server.should_exit = True
        await serving


PEERS: Final[dict[str, Peer]] = {
    "rawws": rawws_peer,
    "websockets": websockets_peer,
    "aiohttp": aiohttp_peer,
    "uvicorn": uvicorn_peer,
}


async def serve(peer: str, style: str, *, http2: bool, engine: str | None) -> None:
    """Serve until the process is ended."""
    serving = rawws_peer(style, http2=http2, engine=engine) if peer == "rawws" else PEERS[peer](style)
    async with serving as (port, description):
        print(f"{description}, {type(asyncio.get_running_loop()).__module__.partition('.')[0]} loop")
        print(f"listening on {HOST}:{port}", flush=True)
        await asyncio.get_running_loop().create_future()


def main() -> None:
    """Read the options and serve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", choices=PEERS, default="rawws", help="the library that serves")
    parser.add_argument(
        "--style", choices=("coroutine", "callback"), default="coroutine", help="of the handler of rawws"
    )
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop", help="the event loop")
    parser.add_argument("--engine", choices=("asyncio", "epoll"), help="of the sockets of rawws")
    parser.add_argument("--http2", action="store_true", help="have rawws speak HTTP/2 too, without TLS")
    options = parser.parse_args()
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if options.loop == "uvloop":
        import uvloop  # noqa: PLC0415 - only where it is asked for

        factory = uvloop.new_event_loop
    with contextlib.suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(options.peer, options.style, http2=options.http2, engine=options.engine))


if __name__ == "__main__":
    main()
