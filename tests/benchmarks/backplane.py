"""`python -m tests.benchmarks.backplane`: publications of 64 bytes from one server to another through a Redis.

A redis-server runs on one core beside the server that publishes; the server that hears is this process, on another.
Up to 256 publications are in flight. Reported are those that arrive in a second, each at its place, beside what
`redis-benchmark` says in the same round of PUBLISH alone, with as many in flight.
"""

import asyncio
import functools
import os
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.processes import find_program, free_port

from .process import ServerProcess
from .rounds import HOST, Program, cores, interleave, measure_server, options

MODULE: Final = f"{__package__}.backplane"
TEXT: Final = "x" * 64
IN_FLIGHT: Final = 256


def url() -> str:
    """Return where the Redis is."""
    return os.environ["RAWWS_BENCHMARK_REDIS"]


async def rawws(port: int, seconds: float) -> None:
    """Publish for so long as somebody is connected."""
    import rawws  # noqa: PLC0415
    from rawws.backplanes.redis import RedisBackplane  # noqa: PLC0415

    hub = rawws.Hub(backplane=RedisBackplane(url()))

    async def feed(ws: rawws.WebSocket) -> None:
        await ws.recv()
        until = time.monotonic() + seconds
        waiting = []
        while time.monotonic() < until:
            waiting.append(hub.publish("feed", TEXT))
            if len(waiting) >= IN_FLIGHT:
                for outcome in waiting[: IN_FLIGHT // 2]:
                    await outcome
                del waiting[: IN_FLIGHT // 2]
        for outcome in waiting:
            assert (await outcome).accepted
        await ws.send(str(hub.stats().published))

    async with hub, rawws.serve(feed, HOST, port) as server:
        await server.serve_forever()


SERVERS: Final[dict[str, Program]] = {"rawws": rawws}


class Counter:
    """A subscriber that counts, and notes when the last one came."""

    congested = False
    hard_limit = 1 << 20

    def __init__(self) -> None:
        self.count = 0
        self.at = 0.0

    def send(self, _publication: object) -> None:
        self.count += 1
        self.at = time.perf_counter()

    def follow(self, member: object) -> None:
        """Nothing is to be told."""

    unfollow = follow

    def fail(self, code: int, reason: str) -> None:
        raise AssertionError((code, reason))


async def hear(port: int) -> float:
    """Return how many publications a second came from the server at a port."""
    import rawws  # noqa: PLC0415
    from rawws.backplanes.redis import RedisBackplane  # noqa: PLC0415

    counter = Counter()
    async with rawws.Hub(backplane=RedisBackplane(url())) as hub, rawws.connect(f"ws://{HOST}:{port}/") as ws:
        await hub.subscribe(counter, "feed")
        began = time.perf_counter()
        await ws.send("begin")
        expected = int(await ws.recv())
        while counter.count < expected:  # noqa: ASYNC110 - that a counter wakes somebody would be measured
            await asyncio.sleep(0.01)
        assert hub.stats().declared == 0
        return counter.count / (counter.at - began)


def weigh(server: ServerProcess) -> float:
    """Return the rate of one round of rawws."""
    import uvloop  # noqa: PLC0415

    return uvloop.run(hear(server.port))


def redis_benchmark(port: int, seconds: float) -> float:
    """Return the publications a second that `redis-benchmark` counts, with nobody who hears them."""
    program = find_program("redis-benchmark", "apt-get install redis-tools")
    count = int(100_000 * max(seconds, 0.5))
    command = [
        program,
        "-p",
        str(port),
        "-q",
        "-n",
        str(count),
        "-c",
        "1",
        "-P",
        str(IN_FLIGHT),
        "PUBLISH",
        "feed",
        TEXT,
    ]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(re.findall(r"([\d.]+) requests per second", text)[-1])


def main() -> None:
    given = options(MODULE, __doc__, SERVERS, rounds=3, seconds=2.0)
    _, last = cores()
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        program = find_program("redis-server", "apt-get install redis-server")
        command = [program, "--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no", "--dir", folder]
        os.environ["RAWWS_BENCHMARK_REDIS"] = f"redis://{HOST}:{port}"
        redis = subprocess.Popen(["taskset", "-c", str(last), *command], stdout=subprocess.DEVNULL, cwd=Path(folder))
        try:
            time.sleep(0.3)
            measures = {
                "rawws": functools.partial(measure_server, MODULE, "rawws", last, weigh),
                "redis-benchmark": functools.partial(redis_benchmark, port, given.seconds),
            }
            rounds = interleave(measures, given.rounds, lambda name: measures[name]())
        finally:
            redis.terminate()
            redis.wait()
    print("publications a second")
    for name, found in rounds.items():
        print(f"{name:20}{statistics.median(found):12,.0f}")
    ratio = statistics.median(rounds["rawws"]) / statistics.median(rounds["redis-benchmark"])
    print(f"rawws / redis-benchmark: {ratio:.2f}")


if __name__ == "__main__":
    main()
