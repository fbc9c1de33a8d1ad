"""`python -m tests.benchmarks.hub`: what compression costs a fan-out, and what slow subscribers cost the others.

Each server is a fresh process on one core, the subscribers are sockets in this process on another. The first part
publishes 2 KiB of JSON to 10,000 subscribers, with permessage-deflate (one set of parameters) and without, one after
the other: CPU of the server process per delivery. The second part publishes 1 KiB to 1,000 subscribers 100 times a
second, in turns with and without two more that never read: the time from a publication to its arrival at each of the
others, 99th percentile. Reported are the medians of the rounds, and ratios.
"""
# mypy: disable-error-code="import-not-found, import-untyped, misc"

import functools
import json
import random
import select
import socket
import statistics
import time
from typing import Final, final

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
    options,
    repeat,
    reset,
    verdict,
)
from .scenarios import SCENARIOS, frame, message

MODULE: Final = f"{__package__}.hub"
ROWS: Final = [message(SCENARIOS["deflate"], number).decode() for number in range(16)]
# The second part: publications a second, of so many characters, in so many turns.
RATE: Final = 100
SIZE: Final = 1024
TURNS: Final = 6
GOALS: Final = (("deflate / plain, CPU per delivery", 1.3), ("two stalled / none, p99", 1.2))


async def serve(port: int, compression: str | None) -> None:
    import rawws  # noqa: PLC0415

    # The stalled ones shall stay.
    hub = rawws.Hub(history=None, policy=rawws.Policy("drop_oldest"))

    class Feed(rawws.Handler):
        def on_open(self, ws: rawws.WebSocket) -> None:
            hub.subscribe(ws, "feed")

        def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
            hub.publish("feed", message)

    async with rawws.serve(Feed(), HOST, port, compression=compression, ping_interval=None) as server:
        await server.serve_forever()


async def plain(port: int, _seconds: float) -> None:
    await serve(port, None)


async def deflate(port: int, _seconds: float) -> None:
    await serve(port, "deflate")


SERVERS: Final[dict[str, Program]] = {"plain": plain, "deflate": deflate}


@final
class Subscribers:
    """The sockets of all subscribers; the first one publishes."""

    def __init__(self, port: int, count: int, scenario: str) -> None:
        self.epoll = select.epoll()
        self.scenario = SCENARIOS[scenario]
        self.port = port
        self.socks: dict[int, socket.socket] = {}
        for _ in range(count):
            sock = self.dial()
            self.socks[sock.fileno()] = sock
            self.epoll.register(sock, select.EPOLLIN)
        self.asking = next(iter(self.socks.values()))

    def dial(self, room: int = 0) -> socket.socket:
        # 28,000 ports are there for each address.
        return dial(self.port, self.scenario, source=f"127.0.0.{2 + len(self.socks) // 5000}", room=room)

    def publish(self, text: str) -> list[float]:
        """Publish, and return after which time each subscriber had it."""
        began = time.perf_counter()
        self.asking.sendall(frame(0x81, text.encode(), b"mask"))
        times: list[float] = []
        parts: dict[int, int] = {}
        while len(times) < len(self.socks):
            for fd, _ in self.epoll.poll(0):
                data = self.socks[fd].recv(65536)
                assert data, "a subscriber was closed"
                # A frame of 126 to 65,535 bytes has its length in octets 2 and 3; it comes in one piece, or in a few.
                missing = parts.pop(fd, None)
                left = (4 + int.from_bytes(data[2:4], "big") if missing is None else missing) - len(data)
                assert left >= 0
                if left:
                    parts[fd] = left
                else:
                    times.append(time.perf_counter() - began)
            assert time.perf_counter() - began < PATIENCE, f"{len(times)} subscribers have it"
        return times

    def close(self) -> None:
        reset(self.socks.values())
        self.epoll.close()


def cost(server: ServerProcess, name: str, count: int, seconds: float) -> float:
    """Return the CPU per delivery in microseconds."""
    subscribers = Subscribers(server.port, count, "deflate" if name == "deflate" else "echo-1")

    def publish(number: int) -> None:
        subscribers.publish(ROWS[number % len(ROWS)])

    publish(0)
    found = cpu_per(server, lambda: repeat(seconds, publish) * count)
    subscribers.close()
    return found


def delays(server: ServerProcess, count: int, seconds: float) -> dict[str, float]:
    """Return the 99th percentiles of the time of a delivery in milliseconds, without and with two that never read."""
    subscribers = Subscribers(server.port, count, "echo-1")
    text = json.dumps([random.random() for _ in range(SIZE)])[:SIZE]
    times: dict[str, list[float]] = {"none": [], "two": []}
    for turn in range(TURNS):
        kind = ("none", "two")[turn % 2]
        stalled = [subscribers.dial(room=4096) for _ in range(2 * (turn % 2))]
        if stalled:
            # Until their buffers and the kernel's are full.
            for _ in range(1000):
                subscribers.publish(text)
        due = time.perf_counter()
        for _ in range(max(1, round(RATE * seconds / TURNS))):
            due += 1 / RATE
            time.sleep(max(0.0, due - time.perf_counter()))
            times[kind] += subscribers.publish(text)
        reset(stalled)
        time.sleep(0.2)
    subscribers.close()
    return {kind: statistics.quantiles(found, n=100)[98] * 1000 for kind, found in times.items()}


def main() -> None:
    given = options(MODULE, __doc__, SERVERS, rounds=3, seconds=6.0, subscribers=10000, crowd=1000)
    _, last = cores()
    costs = interleave(
        SERVERS,
        given.rounds,
        lambda name: measure_server(
            MODULE, name, last, lambda server: cost(server, name, given.subscribers, given.seconds)
        ),
    )
    medians = {name: statistics.median(found) for name, found in costs.items()}
    for name, found in medians.items():
        print(f"{name:10}{found:10.3f} us of CPU per delivery to {given.subscribers} subscribers")
    weigh = functools.partial(delays, count=given.crowd, seconds=given.seconds)
    [rounds] = interleave(["plain"], given.rounds, lambda name: measure_server(MODULE, name, last, weigh)).values()
    late = {kind: statistics.median(each[kind] for each in rounds) for kind in rounds[0]}
    for kind, found in late.items():
        print(f"{kind:5} stalled{found:10.3f} ms until 99 % have it")
    ratios = (medians["deflate"] / medians["plain"], late["two"] / late["none"])
    for (what, goal), ratio in zip(GOALS, ratios, strict=True):
        verdict(what, ratio, goal)


if __name__ == "__main__":
    main()
