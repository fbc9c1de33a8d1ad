"""A cluster of three NATS servers, one of which is killed while hubs at two of them publish."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rawws.backplanes.nats import NatsBackplane
from rawws.topics import History, Hub
from tests.backplanes.handlers import Reader
from tests.processes import LOOPBACK, Process, find_installed, free_port
from tests.server.peers import Logged, eventually

CONFIG = """
server_name: s{number}
listen: {host}:{port}
jetstream {{ store_dir: "{folder}/{number}", sync_interval: always }}
cluster {{ name: C, listen: {host}:{route}, routes: [{routes}] }}
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[Process]]:
    ports, routes = [free_port() for _ in range(3)], [free_port() for _ in range(3)]
    others = ", ".join(f'"nats://{LOOPBACK}:{route}"' for route in routes)
    with ExitStack() as stack:
        found = []
        for number, (port, route) in enumerate(zip(ports, routes, strict=True)):
            path = tmp_path / f"{number}.conf"
            words = {"number": number, "host": LOOPBACK, "port": port, "route": route}
            path.write_text(CONFIG.format(folder=tmp_path, routes=others, **words), encoding="utf-8")
            process = Process([find_installed("nats-server"), "-c", path], listens=port)
            found.append(stack.enter_context(process))
        yield found


async def test_a_server_of_a_cluster_that_is_killed_costs_nothing_that_was_accepted(
    cluster: list[Process], logged: Logged
) -> None:
    urls = [f"nats://{LOOPBACK}:{process.port}" for process in cluster]
    one, two = (
        Hub(
            backplane=NatsBackplane(",".join(servers), keeps=True, replicas=3, lease=3.0),
            history=History(count=1000),
        )
        for servers in (urls, urls[::-1])
    )
    async with one, two:
        # They elect who leads, until when nothing is answered.
        for number, hub in enumerate((one, two)):
            hub.publish("begun", str(number))
        await eventually(lambda: not any(hub.degraded or hub.stats().unsent for hub in (one, two)))
        readers = [Reader(), Reader()]
        await one.subscribe(readers[0], "a", join="me")
        await two.subscribe(readers[1], "a")
        for number in range(150):
            one.publish("a", f"1-{number}")
            two.publish("a", f"2-{number}")
            await asyncio.sleep(0.005)
            if number == 50:
                os.kill(cluster[0].pid, signal.SIGKILL)
        await eventually(lambda: not any(hub.degraded or hub.stats().unsent for hub in (one, two)))
        late = Reader()
        await two.subscribe(late, "a", since="earliest")
        # The hub may be asked before all that was given a place came back to it.
        await eventually(lambda: len(late.got) >= 300)
        assert sorted(map(str, late.got)) == sorted(f"{hub}-{number}" for hub in (1, 2) for number in range(150))
        for name in ("1-", "2-"):
            mine = [str(each) for each in late.got if str(each).startswith(name)]
            assert mine == [f"{name}{number}" for number in range(150)]
        await eventually(lambda: len(two.presence("a")) == 1)
        assert one.stats().lost == two.stats().lost == 0
        for reader in readers:
            assert reader.lost_at or sorted(map(str, reader.got)) == sorted(map(str, late.got))
    for text in ("the backplane is away", "the backplane is back", "NATS does not renew the lease"):
        logged.take_all(text, sum(text in each for each in logged.left()))
