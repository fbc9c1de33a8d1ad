"""A Redis that sentinels look after: who is the master is asked for anew, and nothing is lost that is not told."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, final

import pytest
import redis as client

from rawws.backplanes.redis import RedisBackplane
from rawws.topics import History, Hub
from tests.backplanes.handlers import Reader, Told
from tests.processes import LOOPBACK, Process, find_program, free_port
from tests.processes import eventually as until
from tests.server.peers import Logged, eventually

# The one of the Redis and that of the sentinels have characters that a URL has to encode.
PASSWORD, SENTINEL_PASSWORD = "open@sesame", "close&sesame"

ON_ONE_LOOP = True


@final
class Watched:
    """A master with a replica, and three sentinels, of which two agree that a master is down after three seconds."""

    def __init__(self, folder: Path) -> None:
        program = find_program("redis-server", "apt-get install redis-server")
        self.ports = [free_port(), free_port()]
        self.servers: dict[int, Process] = {}
        for port in self.ports:
            own = folder / str(port)
            own.mkdir()
            options = ["--port", port, "--bind", LOOPBACK, "--dir", own, "--save", "", "--appendonly", "yes"]
            options += ["--appendfsync", "always", "--requirepass", PASSWORD, "--masterauth", PASSWORD]
            options += ["--repl-diskless-sync-delay", 0]
            if port != self.ports[0]:
                options += ["--replicaof", f"{LOOPBACK} {self.ports[0]}"]
            self.servers[port] = Process([program, *map(str, options)], listens=port)
        until(lambda: "master_link_status:up" in self.info(self.ports[1]))
        # Each has a name, and knows the replica and the others from the beginning: they look for them each ten seconds.
        self.sentinels = [free_port() for _ in range(3)]
        named = {port: f"{port:040x}" for port in self.sentinels}
        self.watchers: list[Process] = []
        for port in self.sentinels:
            own = folder / f"sentinel-{port}"
            own.mkdir()
            lines = [
                f"port {port}",
                f"bind {LOOPBACK}",
                f"dir {own}",
                f"requirepass {SENTINEL_PASSWORD}",
                f"sentinel sentinel-pass {SENTINEL_PASSWORD}",
                f"sentinel myid {named[port]}",
                f"sentinel monitor mymaster {LOOPBACK} {self.ports[0]} 2",
                f"sentinel auth-pass mymaster {PASSWORD}",
                # On a busy machine, one that lives may say nothing for a second.
                "sentinel down-after-milliseconds mymaster 3000",
                "sentinel failover-timeout mymaster 2000",
                f"sentinel known-replica mymaster {LOOPBACK} {self.ports[1]}",
                *[
                    f"sentinel known-sentinel mymaster {LOOPBACK} {each} {named[each]}"
                    for each in named
                    if each != port
                ],
            ]
            (own / "sentinel.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
            self.watchers.append(Process([program, own / "sentinel.conf", "--sentinel"], listens=port))
        until(lambda: all(self.known(port) == ("1", "2") for port in self.sentinels))

    @property
    def url(self) -> str:
        hosts = ",".join(f"{LOOPBACK}:{port}" for port in self.sentinels)
        return f"redis+sentinel://:open%40sesame@{hosts}/mymaster?sentinel_password=close%26sesame"

    def info(self, port: int) -> str:
        with client.Redis(host=LOOPBACK, port=port, password=PASSWORD) as connection:
            return "\n".join(f"{name}:{value}" for name, value in connection.info("replication").items())

    def known(self, port: int) -> tuple[str, str]:
        with client.Redis(host=LOOPBACK, port=port, password=SENTINEL_PASSWORD) as connection:
            state: Any = connection.execute_command("SENTINEL MASTER", "mymaster")
            return str(state["num-slaves"]), str(state["num-other-sentinels"])

    def ask_sentinel(self, number: int, *words: str) -> Any:
        with client.Redis(host=LOOPBACK, port=self.sentinels[number], password=SENTINEL_PASSWORD) as connection:
            return connection.execute_command(*words)

    def kill(self, port: int) -> None:
        os.kill(self.servers[port].pid, signal.SIGKILL)
        self.servers.pop(port).stop()

    def end(self) -> None:
        for process in [*self.watchers, *self.servers.values()]:
            process.stop()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    yield made
    made.end()


async def test_a_failover_under_load_costs_nothing_that_is_not_told(watched: Watched, logged: Logged) -> None:
    history = History(count=10_000)
    one, two = (Hub(backplane=watched.url, history=history) for _ in range(2))
    async with one, two:
        readers = [Reader(), Reader()]
        for hub, reader in zip((one, two), readers, strict=True):
            await hub.subscribe(reader, "a")
        # One that cannot be reached is no reason to stay away.
        watched.watchers.pop(0).stop()
        count = 0

        async def publish() -> None:
            nonlocal count
            while True:
                one.publish("a", str(count))
                count += 1
                await asyncio.sleep(0.002)

        publishing = asyncio.create_task(publish())
        await eventually(lambda: len(readers[1].got) > 100)
        watched.kill(watched.ports[0])
        await eventually(lambda: one.stats().degraded and two.stats().degraded)
        await eventually(lambda: not one.stats().degraded and not two.stats().degraded)
        publishing.cancel()
        last = await one.publish("a", "last")
        assert last.accepted
        await eventually(lambda: all(reader.got[-1] == "last" for reader in readers))
        for reader in readers:
            # The replica may not have had the last of what its master answered.
            assert reader.lost_at
            # Whoever had what is lost comes later, and has all be told again.
            numbers = [count if text == "last" else int(text) for text in reader.got]
            parts = [numbers[begin:end] for begin, end in pairwise([0, *reader.lost_at, len(numbers)])]
            assert all(part == sorted(set(part)) for part in parts)
        # The publisher's own readers are told of all that was published, those of others from the loss on.
        assert len({*readers[0].got}) == count + 1
        assert one.stats().lost == 0
    logged.take_all("the backplane is away", 2)
    logged.take_all("the backplane is back", 2)


async def test_a_master_that_is_changed_while_it_lives_is_left(watched: Watched) -> None:
    told = Told(RedisBackplane(watched.url, lease=1.0))
    told.backplane.open("one", History(), told)
    await eventually(lambda: told.backs)
    first = await told.backplane.publish("a", "1", None, 1)
    await asyncio.to_thread(watched.ask_sentinel, 1, "SENTINEL", "FAILOVER", "mymaster")
    await eventually(lambda: told.backs == 2)
    second = await told.backplane.publish("a", "2", None, 2)
    assert second.epoch != first.epoch
    assert "role:master" in watched.info(watched.ports[1])
    await told.backplane.close()


async def test_what_is_wrong_with_a_url_is_said_without_its_passwords(watched: Watched) -> None:
    for old, new, reason in (
        ("/mymaster", "/yours", "knows no such master"),
        ("close%26sesame", "no", "invalid username-password pair"),
        ("open%40sesame", "no", "the Redis does not take the user and the password of the URL"),
    ):
        told = Told(RedisBackplane(watched.url.replace(old, new)))
        told.backplane.open("one", History(), told)
        await eventually(lambda: told.reasons)  # noqa: B023 - it is over before the next one
        assert reason in told.reasons[0]
        assert PASSWORD not in told.reasons[0]
        assert SENTINEL_PASSWORD not in told.reasons[0]
        await told.backplane.close()


async def test_sentinels_that_are_all_away_are_no_reason_to_leave_a_master(watched: Watched) -> None:
    told = Told(RedisBackplane(watched.url, lease=0.4))
    told.backplane.open("one", History(), told)
    await eventually(lambda: told.backs)
    for watcher in watched.watchers:
        watcher.stop()
    backplane: Any = told.backplane
    beaten = asyncio.Event()
    beat = backplane._beat

    async def heard() -> bool:
        beaten.set()
        return bool(await beat())

    backplane._beat = heard
    for _ in range(3):
        beaten.clear()
        await beaten.wait()
    assert (told.reasons, told.backs) == ([], 1)
    await told.backplane.close()
