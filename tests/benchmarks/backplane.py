"""`python -m tests.benchmarks.backplane [ENGINE ...]`: publications of 64 bytes by an engine, from server to server.

The engine runs on one core beside the server that publishes; the server that hears is this process, on another.
Reported are three figures of each engine: how many arrive in a second with 256 in flight, each at its place; with 300 a
second, how long one is on its way from server to server, half of them and 99 % of them at most; and how long a server
waits that publishes one at a time. In the same rounds the benchmark that comes with the engine is run, if it has one.
"""

import asyncio
import functools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.backplanes.engines import SERVERS, RedisEngine, ServerEngine

from .engine_benchmarks import IN_FLIGHT, OWN, SIZE
from .process import ServerProcess
from .rounds import HOST, Program, cores, interleave, measure_server, options

MODULE: Final = f"{__package__}.backplane"
CALM: Final = 1 / 300  # seconds from one to the next

BENCHED: Final[dict[str, Callable[[Path], ServerEngine]]] = {
    # As `redis-server` runs where nothing is said but that it keeps nothing, and as one that writes before it answers.
    "redis-memory": lambda folder: RedisEngine(folder, "--appendonly", "no"),
    **SERVERS,
}


class Found(NamedTuple):
    """What one round found: publications a second, and seconds."""

    rate: float
    half: float
    most: float
    alone: float


def stamped() -> str:
    """Return a message that says when it was published: the clock is that of all processes."""
    return str(time.monotonic_ns()).ljust(SIZE, ".")


async def publish(port: int, _: float) -> None:
    """Publish as one that is connected says: many, calmly, or one at a time; tell it how many there were."""
    import rawws  # noqa: PLC0415

    hub = rawws.Hub(backplane=os.environ["RAWWS_BENCHMARK_ENGINE"])

    async def many(until: float) -> None:
        waiting = []
        while time.monotonic() < until:
            waiting.append(hub.publish("feed", stamped()))
            if len(waiting) >= IN_FLIGHT:
                for outcome in waiting[: IN_FLIGHT // 2]:
                    await outcome
                del waiting[: IN_FLIGHT // 2]
        for outcome in waiting:
            assert (await outcome).accepted

    async def calm(until: float) -> None:
        while time.monotonic() < until:
            hub.publish("feed", stamped())
            await asyncio.sleep(CALM)

    async def alone(until: float) -> None:
        while time.monotonic() < until:
            assert (await hub.publish("feed", stamped())).accepted

    ways: dict[str, Callable[[float], Coroutine[Any, Any, None]]] = {"many": many, "calm": calm, "alone": alone}

    async def feed(ws: rawws.WebSocket) -> None:
        async for asked in ws:
            way, seconds = str(asked).split()
            before = hub.stats().published
            began = time.monotonic()
            await ways[way](began + float(seconds))
            took = time.monotonic() - began
            await ws.send(f"{hub.stats().published - before} {took}")

    async with hub, rawws.serve(feed, HOST, port) as server:
        await server.serve_forever()


PROGRAMS: Final[dict[str, Program]] = {"publish": publish}


class Hearer:
    """A subscriber that notes how long each was on its way, and when the last one came."""

    congested = False
    hard_limit = 1 << 20

    def __init__(self) -> None:
        self.delays: list[int] = []
        self.at = 0.0

    def send(self, publication: Any) -> None:
        self.delays.append(time.monotonic_ns() - int(publication.message.rstrip(".")))
        self.at = time.perf_counter()

    def follow(self, member: object) -> None:
        """Nothing is to be told."""

    unfollow = follow

    def fail(self, code: int, reason: str) -> None:
        raise AssertionError((code, reason))


async def hear(url: str, seconds: float, port: int) -> Found:
    """Return what one round found."""
    import rawws  # noqa: PLC0415

    hearer = Hearer()
    async with rawws.Hub(backplane=url) as hub, rawws.connect(f"ws://{HOST}:{port}/") as ws:
        await hub.subscribe(hearer, "feed")

        async def ask(way: str) -> tuple[int, float]:
            hearer.delays.clear()
            await ws.send(f"{way} {seconds}")
            count, took = str(await ws.recv()).split()
            while len(hearer.delays) < int(count):  # noqa: ASYNC110 - that it wakes somebody would be measured
                await asyncio.sleep(0.01)
            return int(count), float(took)

        began = time.perf_counter()
        count, _ = await ask("many")
        rate = count / (hearer.at - began)
        await ask("calm")
        delays = statistics.quantiles(hearer.delays, n=100)
        count, took = await ask("alone")
        assert hub.stats().declared == 0
        return Found(rate, delays[49] / 1e9, delays[98] / 1e9, took / count)


def weigh(url: str, seconds: float, server: ServerProcess) -> Found:
    """Return what one round of rawws found."""
    import uvloop  # noqa: PLC0415

    return uvloop.run(hear(url, seconds, server.port))


def measure(name: str, seconds: float, cpu: int) -> tuple[Found, float]:
    """Return what one round found, and what the engine's own benchmark says; 0 where it has none."""
    with tempfile.TemporaryDirectory() as folder:
        mine = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {cpu})
        engine = BENCHED[name](Path(folder))
        os.sched_setaffinity(0, mine)
        os.environ["RAWWS_BENCHMARK_ENGINE"] = engine.url
        try:
            found = measure_server(MODULE, "publish", cpu, functools.partial(weigh, engine.url, seconds))
            own = OWN.get(engine.url.partition(":")[0])
            return found, 0.0 if own is None else own(engine.url, seconds)
        finally:
            engine.end()


def main() -> None:
    words = [word for word in sys.argv[1:] if word in BENCHED]
    sys.argv = [word for word in sys.argv if word not in BENCHED]
    given = options(MODULE, f"{__doc__}\nEngines: {', '.join(BENCHED)}.", PROGRAMS, rounds=3, seconds=2.0)
    _, last = cores()
    rounds = interleave(words or BENCHED, given.rounds, lambda name: measure(name, given.seconds, last))
    print(f"{'':16}{'a second':>10}{'its own':>10}{'ratio':>7}{'half, ms':>10}{'99 %, ms':>10}{'alone, ms':>11}")
    for name, cells in rounds.items():
        rate, half, most, alone = (statistics.median(found[index] for found, _ in cells) for index in range(4))
        own = statistics.median(told for _, told in cells)
        shown = f"{own:10,.0f}{rate / own:7.2f}" if own else f"{'-':>10}{'-':>7}"
        print(f"{name:16}{rate:10,.0f}{shown}{half * 1000:10.2f}{most * 1000:10.2f}{alone * 1000:11.2f}")


if __name__ == "__main__":
    main()
