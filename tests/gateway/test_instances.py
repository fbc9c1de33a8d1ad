"""Several instances act as one: by a real Redis, and as workers of one port."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pusher
import pytest

from tests.backplanes.engines import RedisEngine
from tests.cli.commands import port
from tests.gateway.instances import instances
from tests.gateway.running import APP, KEY, SECRET, app_file, node

# The steps of the first random walk, and how many there are.
SEED, STEPS = 7, 500


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    engine = RedisEngine(tmp_path_factory.mktemp("redis"))
    yield engine.url
    engine.end()


@pytest.fixture(scope="module", params=["redis", "workers"])
def ports(
    request: pytest.FixtureRequest, redis: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[int, int]]:
    """Run two instances, and return their ports: those of workers are one."""
    with two(tmp_path_factory.mktemp("gateway"), redis if request.param == "redis" else "workers") as found:
        yield found


@contextmanager
def two(folder: Path, backplane: str) -> Iterator[tuple[int, int]]:
    text = app_file(head=f'[gateway]\nbackplane = "{backplane}"')
    count, options = (1, ["--workers", "2"]) if backplane == "workers" else (2, [])
    with instances(folder, text, count, *options) as running:
        yield port(running[0]), port(running[-1])


def test_all_kinds_of_channels_work_over_two_instances(ports: tuple[int, int]) -> None:
    asyncio.run(node("channels.mjs", *ports))


def test_all_know_who_is_there_whatever_comes_and_goes(ports: tuple[int, int]) -> None:
    asyncio.run(node("crowd.mjs", *ports, seed=SEED, steps=STEPS))


def test_counts_are_those_of_all_instances(ports: tuple[int, int]) -> None:
    api = pusher.Pusher(app_id=APP, key=KEY, secret=SECRET, ssl=False, host="127.0.0.1", port=ports[1])
    assert api.channels_info() == {"channels": {}}
