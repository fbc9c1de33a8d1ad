"""`python -m tests.benchmarks.sse`: one event to 1,000 event streams, and what an idle stream costs.

Each server is a fresh process on one core, the subscribers are sockets in this process on another. A request to
/publish makes the server send one event to all streams; the next one follows when all subscribers have the first.
Reported are the medians of the rounds: CPU of the server process per delivery, memory per idle stream, ratios to rawws.
"""
# mypy: disable-error-code="import-not-found, import-untyped"

import asyncio
import select
import socket
import time
from typing import Any, Final, final

from .process import ServerProcess
from .rounds import (
    HOST,
    PATIENCE,
    Program,
    cores,
    cpu_per,
    interleave,
    measure_server,
    medians,
    options,
    repeat,
    reset,
    verdict,
)

MODULE: Final = f"{__package__}.sse"
DATA: Final = '{"pair": "EURUSD", "bid": 1.08431, "ask": 1.08433, "at": 1789}'
WARM: Final = 32
GOALS: Final = (("cpu_us", "sse-starlette", 0.25), ("cpu_us", "aiohttp-sse", 0.4))
MEMORY_GOAL: Final = 6144


async def rawws(port: int, _seconds: float) -> None:
    import rawws  # noqa: PLC0415

    routes = rawws.Routes()
    streams: set[rawws.EventStream] = set()

    @routes.get("/events")
    def events(request: Any) -> rawws.EventStream:
        stream = rawws.EventStream(on_close=streams.discard, keepalive=None)
        streams.add(stream)
        return stream

    @routes.get("/publish")
    def publish(request: Any) -> None:
        rawws.broadcast(streams, rawws.Event(DATA))

    async with rawws.serve(routes, HOST, port) as server:
        await server.serve_forever()


async def starlette(port: int, _seconds: float) -> None:
    import uvicorn  # noqa: PLC0415
    from sse_starlette import EventSourceResponse, ServerSentEvent  # noqa: PLC0415
    from starlette.applications import Starlette  # noqa: PLC0415
    from starlette.responses import Response  # noqa: PLC0415
    from starlette.routing import Route  # noqa: PLC0415

    queues: set[asyncio.Queue[Any]] = set()

    async def follow(queue: asyncio.Queue[Any]) -> Any:
        try:
            while True:
                yield await queue.get()
        finally:
            queues.discard(queue)

    async def events(request: Any) -> Any:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        queues.add(queue)
        return EventSourceResponse(follow(queue), ping=3600)

    async def publish(request: Any) -> Any:
        event = ServerSentEvent(data=DATA)
        for queue in queues:
            queue.put_nowait(event)
        return Response(status_code=204)

    app = Starlette(routes=[Route("/events", events), Route("/publish", publish)])
    config = uvicorn.Config(app, HOST, port, http="httptools", log_level="error", access_log=False)
    await uvicorn.Server(config).serve()


async def aiohttp(port: int, _seconds: float) -> None:
    from aiohttp import web  # noqa: PLC0415
    from aiohttp_sse import sse_response  # noqa: PLC0415

    streams: set[Any] = set()

    async def events(request: Any) -> Any:
        async with sse_response(request) as stream:
            streams.add(stream)
            try:
                await stream.wait()
            finally:
                streams.discard(stream)
        return stream

    async def publish(request: Any) -> Any:
        for stream in tuple(streams):
            await stream.send(DATA)
        return web.Response(status=204)

    app = web.Application()
    app.add_routes([web.get("/events", events), web.get("/publish", publish)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, port).start()
    await asyncio.Event().wait()


SERVERS: Final[dict[str, Program]] = {
    "rawws": rawws,
    "sse-starlette": starlette,
    "aiohttp-sse": aiohttp,
}


@final
class Subscribers:
    """The sockets of all subscribers, and one that asks to publish."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.socks: dict[int, socket.socket] = {}
        self.epoll = select.epoll()
        self.asking = socket.create_connection((HOST, port))

    def open(self, count: int) -> None:
        """Open this many more."""
        for _ in range(count):
            sock = socket.create_connection((HOST, self.port))
            sock.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
            self.socks[sock.fileno()] = sock
            self.epoll.register(sock, select.EPOLLIN)
        heads: dict[int, bytes] = {}
        new = list(self.socks)[-count:]
        deadline = time.monotonic() + PATIENCE
        while len(heads) < count or not all(head.endswith(b"\r\n\r\n") for head in heads.values()):
            for fd, _ in self.epoll.poll(0.1):
                heads[fd] = heads.get(fd, b"") + self.socks[fd].recv(65536)
            assert time.monotonic() < deadline, f"only {len(heads)} of {count} streams began"
        assert all(b" 200 " in heads[fd].partition(b"\r\n")[0] for fd in new)

    def publish(self) -> None:
        """Have one event published; return when all have it."""
        self.asking.sendall(b"GET /publish HTTP/1.1\r\nHost: localhost\r\n\r\n")
        got: dict[int, bytes] = {}
        missing = len(self.socks)
        deadline = time.monotonic() + PATIENCE
        while missing:
            for fd, _ in self.epoll.poll(0):
                data = got[fd] = got.get(fd, b"") + self.socks[fd].recv(65536)
                # The end of the event, and of the chunk around it.
                missing -= DATA.encode() in data and data.endswith((b"\n\r\n", b"\n\n\r\n"))
            assert time.monotonic() < deadline, f"{missing} streams wait for their event"
        answer = self.asking.recv(65536)
        assert b" 204 " in answer.partition(b"\r\n")[0], answer

    def close(self) -> None:
        reset([*self.socks.values(), self.asking])
        self.epoll.close()


def weigh(server: ServerProcess, count: int, seconds: float) -> dict[str, float]:
    """Return the figures of one round of one server."""
    subscribers = Subscribers(server.port)
    subscribers.open(WARM)
    subscribers.publish()
    time.sleep(0.3)
    before = server.memory()
    subscribers.open(count - WARM)
    time.sleep(0.3)
    each = (server.memory() - before) / (count - WARM)
    for _ in range(3):
        subscribers.publish()

    cost = cpu_per(server, lambda: repeat(seconds, lambda _: subscribers.publish()) * count)
    subscribers.close()
    return {"cpu_us": cost, "memory": each}


def main() -> None:
    given = options(MODULE, __doc__, SERVERS, rounds=3, seconds=2.0, streams=1000)
    _, last = cores()
    rounds = interleave(
        SERVERS,
        given.rounds,
        lambda name: measure_server(MODULE, name, last, lambda server: weigh(server, given.streams, given.seconds)),
    )
    figures = medians(rounds)
    print(f"{'':16}{'CPU us/delivery':>16}{'x':>7}{'KiB/stream':>12}{'x':>7}{'spread':>8}")
    base = figures["rawws"]
    for name, row in figures.items():
        costs = [cell["cpu_us"] for cell in rounds[name]]
        spread = (max(costs) - min(costs)) / row["cpu_us"]
        ratios = [row[key] / base[key] for key in ("cpu_us", "memory")]
        print(
            f"{name:16}{row['cpu_us']:16.2f}{ratios[0]:7.2f}{row['memory'] / 1024:12.2f}{ratios[1]:7.2f}{spread:8.0%}"
        )
    for key, other, goal in GOALS:
        verdict(f"rawws / {other}", base[key] / figures[other][key], goal)
    verdict("memory of an idle stream, KiB", base["memory"] / 1024, MEMORY_GOAL / 1024)


if __name__ == "__main__":
    main()
