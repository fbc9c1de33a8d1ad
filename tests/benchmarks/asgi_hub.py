"""`python -m tests.benchmarks.asgi_hub`: a message to 1,000 WebSockets of a Starlette, by a loop of sends and by a hub.

`loop` is Starlette's own way: `send_text` to each of a set, on uvicorn as it is installed. `hub` is `hub.publish` on
the same uvicorn, `hub-ours` on one with our class for `--ws`, `hub-rawws` on our server. Each server is a fresh process
on one core, the subscribers are sockets in this process on another. One of them sends 1 KiB of JSON, and the next one
follows when all have it. Reported are the medians of the rounds: CPU of the server process per delivery, and ratios.
"""
# mypy: disable-error-code="import-not-found, import-untyped"

import functools
import statistics
from typing import Any, Final

from .hub import Subscribers
from .process import ServerProcess
from .rounds import HOST, Program, cores, cpu_per, interleave, measure_server, options, repeat, verdict

MODULE: Final = f"{__package__}.asgi_hub"
TEXT: Final = '{"pair": "EURUSD", "bid": 1.08431}'.ljust(1024)
GOALS: Final = (("hub", 0.5), ("hub-ours", 0.3), ("hub-rawws", 0.3))


def application(*, by_hub: bool) -> Any:
    """Return a Starlette that sends what one says to all."""
    from starlette.applications import Starlette  # noqa: PLC0415
    from starlette.routing import WebSocketRoute  # noqa: PLC0415
    from starlette.websockets import WebSocket, WebSocketDisconnect  # noqa: PLC0415

    import rawws  # noqa: PLC0415

    hub = rawws.Hub(history=None)
    everybody: set[WebSocket] = set()

    async def subscribe(ws: WebSocket) -> None:
        await ws.accept()
        hub.subscribe(ws, "feed")
        async for text in ws.iter_text():
            hub.publish("feed", text)

    async def keep(ws: WebSocket) -> None:
        await ws.accept()
        everybody.add(ws)
        try:
            while True:
                text = await ws.receive_text()
                for other in everybody:
                    await other.send_text(text)
        except WebSocketDisconnect:
            everybody.discard(ws)

    return Starlette(routes=[WebSocketRoute("/{path:path}", subscribe if by_hub else keep)])


async def in_uvicorn(app: Any, ws: str, port: int) -> None:
    import uvicorn  # noqa: PLC0415

    config = uvicorn.Config(
        app, HOST, port, http="httptools", ws=ws, ws_ping_interval=None, ws_per_message_deflate=False,
        log_level="critical", access_log=False,
    )  # fmt: skip
    await uvicorn.Server(config).serve()


async def by_loop(port: int, _seconds: float) -> None:
    await in_uvicorn(application(by_hub=False), "auto", port)


async def by_hub(port: int, _seconds: float) -> None:
    await in_uvicorn(application(by_hub=True), "auto", port)


async def by_hub_on_ours(port: int, _seconds: float) -> None:
    await in_uvicorn(application(by_hub=True), "rawws.integrations.uvicorn:WebSocketProtocol", port)


async def by_hub_on_rawws(port: int, _seconds: float) -> None:
    from rawws.integrations import asgi  # noqa: PLC0415

    app = application(by_hub=True)
    async with asgi.serve(app, HOST, port, compression=None, ping_interval=None) as server:
        await server.serve_forever()


SERVERS: Final[dict[str, Program]] = {
    "loop": by_loop,
    "hub": by_hub,
    "hub-ours": by_hub_on_ours,
    "hub-rawws": by_hub_on_rawws,
}


def cost(server: ServerProcess, count: int, seconds: float) -> float:
    """Return the CPU per delivery in microseconds."""
    subscribers = Subscribers(server.port, count, "echo-1")
    subscribers.publish(TEXT)
    found = cpu_per(server, lambda: repeat(seconds, lambda _: subscribers.publish(TEXT)) * count)
    subscribers.close()
    return found


def main() -> None:
    given = options(MODULE, __doc__, SERVERS, rounds=3, seconds=4.0, subscribers=1000)
    _, last = cores()
    weigh = functools.partial(cost, count=given.subscribers, seconds=given.seconds)
    rounds = interleave(SERVERS, given.rounds, lambda name: measure_server(MODULE, name, last, weigh))
    figures = {name: statistics.median(found) for name, found in rounds.items()}
    for name, found in figures.items():
        spread = (max(rounds[name]) - min(rounds[name])) / found
        print(f"{name:10}{found:10.2f} us of CPU per delivery to {given.subscribers} subscribers, spread {spread:.0%}")
    for name, goal in GOALS:
        verdict(f"{name} / loop", figures[name] / figures["loop"], goal)


if __name__ == "__main__":
    main()
