"""`python -m tests.benchmarks.fanout`: publications of 64 bytes to 1,000 subscribers over WebSocket.

Each server is a fresh process on one core, the subscribers are sockets in this process on another. A message from one
of them makes the server publish 1, or 16, messages in one turn of its loop; the next one follows when all subscribers
have all of them. Reported are the medians of the rounds: CPU of the server process per delivery, and ratios.
"""
# mypy: disable-error-code="import-not-found, import-untyped, misc"

import contextlib
import functools
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
    dial,
    interleave,
    measure_server,
    medians,
    options,
    repeat,
    reset,
    verdict,
)
from .scenarios import SCENARIOS, frame

MODULE: Final = f"{__package__}.fanout"
TEXT: Final = "x" * 64
# In flight: what one delivery may cost, as a multiple of what it costs the other.
GOALS: Final = ((1, "picows", 1.0), (16, "picows", 0.12), (16, "websockets", 0.10))


async def rawws(port: int, _seconds: float) -> None:
    import rawws  # noqa: PLC0415
    from rawws.topics import Hub  # noqa: PLC0415

    hub = Hub()

    class Feed(rawws.Handler):
        def on_open(self, ws: rawws.WebSocket) -> None:
            hub.subscribe(ws, "feed")

        def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
            for _ in range(int(message)):
                hub.publish("feed", TEXT)

    async with rawws.serve(Feed(), HOST, port, compression=None, ping_interval=None) as server:
        await server.serve_forever()


async def picows(port: int, _seconds: float) -> None:
    import picows  # noqa: PLC0415

    transports: list[picows.WSTransport] = []
    payload = TEXT.encode()

    class Feed(picows.WSListener):
        def on_ws_connected(self, transport: picows.WSTransport) -> None:
            transports.append(transport)

        def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
            transports.remove(transport)

        def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
            for _ in range(int(frame.get_payload_as_bytes())):
                for each in transports:
                    each.send(picows.WSMsgType.TEXT, payload)

    server = await picows.ws_create_server(lambda _request: Feed(), HOST, port, backlog=1024)
    await server.serve_forever()


async def websockets(port: int, _seconds: float) -> None:
    from websockets import ConnectionClosed  # noqa: PLC0415
    from websockets.asyncio.server import broadcast, serve  # noqa: PLC0415

    async def feed(ws: Any) -> None:
        # The subscribers go without a Close.
        with contextlib.suppress(ConnectionClosed):
            async for message in ws:
                for _ in range(int(message)):
                    broadcast(server.connections, TEXT)

    async with serve(feed, HOST, port, compression=None, ping_interval=None, backlog=1024) as server:
        await server.serve_forever()


SERVERS: Final[dict[str, Program]] = {
    "rawws": rawws,
    "picows": picows,
    "websockets": websockets,
}


@final
class Subscribers:
    """The sockets of all subscribers; the first one asks to publish."""

    def __init__(self, port: int, count: int) -> None:
        self.socks: dict[int, socket.socket] = {}
        self.epoll = select.epoll()
        for _ in range(count):
            sock = dial(port, SCENARIOS["echo-1"])
            self.socks[sock.fileno()] = sock
            self.epoll.register(sock, select.EPOLLIN)
        self.asking = next(iter(self.socks.values()))

    def expect(self, count: int, model: bytes) -> None:
        """Be woken when all of so many publications are there."""
        for sock in self.socks.values():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count * len(model))

    def publish(self, count: int, model: bytes) -> None:
        """Have so many messages published; return when all have them."""
        self.asking.sendall(frame(0x81, str(count).encode(), b"mask"))
        whole = model * count
        missing = len(self.socks)
        deadline = time.monotonic() + PATIENCE
        while missing:
            for fd, _ in self.epoll.poll(0):
                data = self.socks[fd].recv(len(whole))
                assert len(data) == len(whole) and data.startswith(model[:2]), data
                missing -= 1
            assert time.monotonic() < deadline, f"{missing} subscribers wait for {count} publications"

    def first(self) -> bytes:
        """Have one message published, and return the frame in which it comes."""
        self.asking.sendall(frame(0x81, b"1", b"mask"))
        time.sleep(0.3)
        frames = {sock.recv(65536) for sock in self.socks.values()}
        found = frames.pop()
        assert not frames and TEXT.encode() in found, (found, frames)
        return found

    def close(self) -> None:
        reset(self.socks.values())
        self.epoll.close()


def weigh(server: ServerProcess, count: int, seconds: float) -> dict[int, float]:
    """Return the CPU per delivery in microseconds of one round of one server, by the publications in flight."""
    subscribers = Subscribers(server.port, count)

    def publish(flight: int, model: bytes) -> int:
        return repeat(seconds, lambda _: subscribers.publish(flight, model)) * flight * count

    costs = {}
    for flight in (1, 16):
        model = subscribers.first()
        subscribers.expect(flight, model)
        for _ in range(3):
            subscribers.publish(flight, model)
        costs[flight] = cpu_per(server, functools.partial(publish, flight, model))
        subscribers.expect(1, b"x")
    subscribers.close()
    return costs


def main() -> None:
    given = options(MODULE, __doc__, SERVERS, rounds=3, seconds=2.0, subscribers=1000)
    _, last = cores()
    rounds = interleave(
        SERVERS,
        given.rounds,
        lambda name: measure_server(MODULE, name, last, lambda server: weigh(server, given.subscribers, given.seconds)),
    )
    costs = medians(rounds)
    print(f"{'CPU us per delivery':20}" + "".join(f"{f'{flight} in flight':>16}{'x':>7}" for flight in (1, 16)))
    for name, row in costs.items():
        cells = [f"{row[flight]:16.3f}{row[flight] / costs['rawws'][flight]:7.2f}" for flight in row]
        print(f"{name:20}" + "".join(cells))
    for flight, other, goal in GOALS:
        ratio = costs["rawws"][flight] / costs[other][flight]
        verdict(f"{flight:2} in flight, rawws / {other}", ratio, goal)


if __name__ == "__main__":
    main()
