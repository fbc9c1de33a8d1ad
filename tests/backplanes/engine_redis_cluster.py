"""A Redis Cluster of three masters, which all tests of a worker share: it takes seconds to form.

Each test has a prefix of its own. Those that kill it have it started again when they end.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import shutil
import signal
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, final

import redis as client

from rawws.backplanes import session
from rawws.backplanes.redis_cluster import RedisClusterBackplane
from rawws.backplanes.redis_slots import SLOTS, slot_of
from rawws.topics.backplane import Backplane
from tests.processes import LOOPBACK, PATIENCE, Process, eventually, find_program, free_port

__all__ = ["RedisCluster", "RedisClusterEngine", "RedisProcess", "shared"]

KEEPING = ("--appendonly", "yes", "--appendfsync", "always")


@final
class RedisProcess:
    """A server of a cluster on free ports, with a folder of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port, self.bus = free_port(), free_port()
        self.folder = folder / str(self.port)
        self.folder.mkdir(parents=True)
        program = find_program("redis-server", "apt-get install redis-server")
        where = [
            "--port",
            str(self.port),
            "--cluster-port",
            str(self.bus),
            "--bind",
            LOOPBACK,
            "--dir",
            str(self.folder),
        ]
        cluster = [
            "--cluster-enabled",
            "yes",
            # On a busy machine, a server may say nothing for a second, and its replica take its place.
            "--cluster-node-timeout",
            "5000",
            "--cluster-require-full-coverage",
            "no",
        ]
        self.command = [program, *where, *cluster, "--save", "", "--cluster-replica-validity-factor", "0"]
        self.command += ["--repl-diskless-sync-delay", "0", *options]
        self.process: Process | None = None
        self.start()
        self.ident = self.ask("CLUSTER", "MYID").decode()

    def start(self) -> None:
        self.process = Process(self.command, listens=self.port)

    def kill(self, *, forget: bool = False) -> None:
        if self.process is not None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.process.stop()
            self.process = None
        if forget:
            # It remembers the cluster, and none of its data.
            shutil.rmtree(self.folder / "appendonlydir", ignore_errors=True)

    def ask(self, *words: str | int) -> Any:
        """Ask the Redis itself, and have what it says as it is."""
        connection: Any = client.Connection(host=LOOPBACK, port=self.port, protocol=2)  # type: ignore[no-untyped-call]
        try:
            connection.send_command(*words)
            return connection.read_response(disable_decoding=True)
        finally:
            connection.disconnect()

    def is_ok(self) -> bool:
        """Tell whether it serves, and knows a living master of each slot."""
        with contextlib.suppress(client.BusyLoadingError):
            info = self.ask("CLUSTER", "INFO")
            return b"cluster_state:ok" in info and b"cluster_slots_ok:%d\r" % SLOTS in info
        return False


@final
class RedisCluster:
    """Masters that share all slots, and as many replicas as are asked for."""

    def __init__(self, folder: Path, masters: int = 3, replicas: int = 0, options: tuple[str, ...] = KEEPING) -> None:
        self.servers = [RedisProcess(folder, *options) for _ in range(masters + replicas)]
        first, *others = self.servers
        for number, server in enumerate(self.servers[:masters]):
            server.ask("CLUSTER", "ADDSLOTSRANGE", number * SLOTS // masters, (number + 1) * SLOTS // masters - 1)
            server.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in others:
            first.ask("CLUSTER", "MEET", LOOPBACK, server.port, server.bus)
        eventually(lambda: all(server.is_ok() for server in self.servers))
        for number, server in enumerate(self.servers[masters:]):
            server.ask("CLUSTER", "REPLICATE", self.servers[number % masters].ident)
        eventually(lambda: all(b"master_link_status:up" in each.ask("INFO") for each in self.servers[masters:]))

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{LOOPBACK}:{server.port}" for server in self.servers)

    def at(self, topic: str) -> RedisProcess:
        """Return the server that has the slot of a topic, as one says that runs."""
        slot = slot_of(topic)
        for first, last, master, *_ in next(each for each in self.servers if each.process).ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(server for server in self.servers if server.port == master[1])
        raise AssertionError(topic)

    def kill(self, *, forget: bool = False) -> None:
        for server in self.servers:
            server.kill(forget=forget)

    def start(self) -> None:
        for server in self.servers:
            if server.process is None:
                server.start()

    def wait(self) -> None:
        """Wait until all serve."""
        eventually(lambda: all(server.is_ok() for server in self.servers))


@cache
def shared() -> RedisCluster:
    """Return the cluster of this process, which ends with it."""
    folder = Path(tempfile.mkdtemp(prefix="rawws-cluster-"))
    cluster = RedisCluster(folder)

    def end() -> None:
        cluster.kill()
        shutil.rmtree(folder)

    atexit.register(end)
    return cluster


@final
class RedisClusterEngine:
    """The cluster, for one test."""

    def __init__(self, _folder: Path, **arguments: Any) -> None:
        self.cluster = shared()
        self.prefix = f"t{secrets.token_hex(4)}"
        self.arguments = arguments
        self.killed = False
        # A master that was started takes two seconds to serve: it is tried again soon behind that.
        self._wait, session.LONGEST_WAIT = session.LONGEST_WAIT, 0.3

    @property
    def url(self) -> str:
        return self.cluster.url

    def backplane(self) -> Backplane:
        return RedisClusterBackplane(self.url, prefix=self.prefix, **{"timeout": PATIENCE, **self.arguments})

    def kill(self, *, forget: bool = False) -> None:
        self.cluster.kill(forget=forget)
        self.killed = True

    def start(self) -> None:
        self.cluster.start()

    def spoil(self, topic: str) -> None:
        self.cluster.at(topic).ask("SET", f"{self.prefix}:{{{topic}}}:place", "of another program")

    def mend(self, topic: str) -> None:
        self.cluster.at(topic).ask("DEL", f"{self.prefix}:{{{topic}}}:place")

    def names(self) -> int:
        keys = [key for server in self.cluster.servers for key in server.ask("KEYS", f"{self.prefix}:*")]
        return sum(not key.endswith(b":servers") for key in keys)

    def end(self) -> None:
        session.LONGEST_WAIT = self._wait
        if self.killed:
            self.cluster.start()
            self.cluster.wait()
