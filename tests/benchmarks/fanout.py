"""`python -m tests.benchmarks.fanout`: publications of 64 bytes to 1,000 subscribers over WebSocket.

Each server is a fresh process on one core, the subscribers are sockets in this process on another. A message from one
of them makes the server publish 1, or 16, messages in one turn of its loop; the next one follows when all subscribers
have all of them. Reported are the medians of the rounds: CPU of the server process per delivery, and ratios.
"""
# mypy: disable-error-code="import-not-found, import-untyped, misc"

import argparse
import contextlib
import os
import select
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, final

from .process import ROOT, free_port
from .scenarios import ACCEPT, SCENARIOS, frame, upgrade

HOST: Final = "127.0.0.1"
TEXT: Final = "x" * 64
# In flight: what one delivery may cost, as a multiple of what it costs the other.
GOALS: Final = ((1, "picows", 1.0), (16, "picows", 0.12), (16, "websockets", 0.10))
PATIENCE: Final = 20.0


async def rawws(port: int) -> None:
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


async def picows(port: int) -> None:
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


async def websockets(port: int) -> None:
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


SERVERS: Final[dict[str, Callable[[int], Coroutine[Any, Any, None]]]] = {
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
        request = upgrade(SCENARIOS["echo-1"], port)
        for _ in range(count):
            sock = socket.create_connection((HOST, port))
            sock.settimeout(PATIENCE)
            sock.sendall(request)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                data = sock.recv(65536)
                assert data, head
                head += data
            assert ACCEPT.encode() in head, head
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
        for sock in self.socks.values():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        self.epoll.close()


def measure(name: str, count: int, seconds: float, cpu: int) -> dict[int, float]:
    """Return the CPU per delivery in microseconds of one round of one server, by the publications in flight."""
    port = free_port()
    command = [sys.executable, "-m", f"{__package__}.fanout", "--serve", name, "--port", str(port), "--cpu", str(cpu)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            while True:
                with socket.socket() as probe:
                    if not probe.connect_ex((HOST, port)):
                        break
                assert process.poll() is None and time.monotonic() < deadline, f"{name} did not start"
                time.sleep(0.05)
            subscribers = Subscribers(port, count)
            costs = {}
            for flight in (1, 16):
                model = subscribers.first()
                subscribers.expect(flight, model)
                for _ in range(3):
                    subscribers.publish(flight, model)
                published, until = 0, time.monotonic() + seconds
                before = time.clock_gettime_ns(~process.pid << 3 | 2)
                while time.monotonic() < until:
                    subscribers.publish(flight, model)
                    published += flight
                spent = time.clock_gettime_ns(~process.pid << 3 | 2) - before
                costs[flight] = spent / 1000 / published / count
                subscribers.expect(1, b"x")
            subscribers.close()
            return costs
        finally:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.fanout", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--serve", choices=SERVERS, help="be this server; the benchmark does it by itself")
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--cpu", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        import uvloop  # noqa: PLC0415

        os.sched_setaffinity(0, {given.cpu})
        uvloop.run(SERVERS[given.serve](given.port))
        return
    first, *_, last = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {first})
    rounds: dict[str, list[dict[int, float]]] = {name: [] for name in SERVERS}
    for number in range(given.rounds):
        for name, found in rounds.items():
            print(f"\r\033[Kround {number + 1}/{given.rounds}: {name}", end="", file=sys.stderr, flush=True)
            found.append(measure(name, given.subscribers, given.seconds, last))
    print(file=sys.stderr)
    medians = {
        name: {flight: statistics.median(cell[flight] for cell in found) for flight in found[0]}
        for name, found in rounds.items()
    }
    print(f"{'CPU us per delivery':20}" + "".join(f"{f'{flight} in flight':>16}{'x':>7}" for flight in (1, 16)))
    for name, row in medians.items():
        cells = [f"{row[flight]:16.3f}{row[flight] / medians['rawws'][flight]:7.2f}" for flight in row]
        print(f"{name:20}" + "".join(cells))
    for flight, other, goal in GOALS:
        ratio = medians["rawws"][flight] / medians[other][flight]
        verdict = "met" if ratio <= goal else "MISSED"
        print(f"{verdict:8}{flight:2} in flight, rawws / {other}: {ratio:.3f}, goal {goal:.2f}")


if __name__ == "__main__":
    main()
