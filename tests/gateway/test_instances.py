"""Several instances act as one: by a real Redis, and as workers of one port."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Final, NamedTuple, final

import pusher
import pytest

from tests.backplanes.engines import RedisEngine
from tests.cli.commands import port
from tests.gateway.instances import instances
from tests.gateway.own_running import everything, token_file
from tests.gateway.running import APP, KEY, PATIENCE, SECRET, member, node

# The steps of the first random walk, and how many there are.
SEED, STEPS = 7, 500
LIBRARY: Final = pusher.Pusher(app_id=APP, key=KEY, secret=SECRET)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    engine = RedisEngine(tmp_path_factory.mktemp("redis"))
    yield engine.url
    engine.end()


@final
class Application(ThreadingHTTPServer):
    """An application that is told what happens, in a thread; `told` has the events."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Told)
        self.told: SimpleQueue[dict[str, str]] = SimpleQueue()


@final
class Told(BaseHTTPRequestHandler):
    """A request of a hook."""

    def do_POST(self) -> None:
        assert isinstance(self.server, Application)
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        read = LIBRARY.validate_webhook(self.headers["X-Pusher-Key"], self.headers["X-Pusher-Signature"], body)
        for event in read["events"]:
            self.server.told.put(event)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def application() -> Iterator[Application]:
    """Run an application."""
    with Application() as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@final
class Two(NamedTuple):
    """The ports of two instances, and what their hooks told."""

    ports: tuple[int, int]
    told: SimpleQueue[dict[str, str]]


@pytest.fixture(scope="module", params=["redis", "workers"])
def running(request: pytest.FixtureRequest, redis: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """Run two instances."""
    with two(tmp_path_factory.mktemp("gateway"), redis if request.param == "redis" else "workers") as found:
        yield found


@pytest.fixture
def ports(running: Two) -> tuple[int, int]:
    """Return the ports of two instances: those of workers are one."""
    return running.ports


@contextmanager
def two(folder: Path, backplane: str) -> Iterator[Two]:
    with application() as app:
        hook = f'[[app.hook]]\nurl = "http://127.0.0.1:{app.server_port}/"\nevents = ["*"]'
        text = token_file(hook, head=f'[gateway]\nbackplane = "{backplane}"')
        count, options = (1, ["--workers", "2"]) if backplane == "workers" else (2, [])
        with instances(folder, text, count, *options) as processes:
            yield Two((port(processes[0]), port(processes[-1])), app.told)


def test_all_kinds_of_channels_work_over_two_instances(running: Two) -> None:
    asyncio.run(node("channels.mjs", *running.ports))


def test_rawws_js_and_echo_hear_one_channel_in_one_order_and_a_cut_connection_misses_nothing(running: Two) -> None:
    asyncio.run(node("own.mjs", *running.ports, token=everything("ann")))


def test_all_know_who_is_there_whatever_comes_and_goes(ports: tuple[int, int]) -> None:
    asyncio.run(node("crowd.mjs", *ports, seed=SEED, steps=STEPS))


def test_hooks_are_told_once_of_what_two_instances_have(running: Two) -> None:
    def told_until(*last: str) -> list[str]:
        names: list[str] = []
        while not set(last) <= set(names):
            event = running.told.get(timeout=PATIENCE)
            if event.get("channel") == "presence-hooks":
                names.append(event["name"])
        return names

    async def main() -> None:
        members = [await member(each, "presence-hooks", "ann") for each in running.ports]
        names = await asyncio.to_thread(told_until, "channel_occupied", "member_added")
        for each in members:
            await each.close()
        # Whatever was told twice came before.
        names += await asyncio.to_thread(told_until, "channel_vacated", "member_removed")
        assert sorted(names) == ["channel_occupied", "channel_vacated", "member_added", "member_removed"]

    asyncio.run(main())


def test_counts_are_those_of_all_instances(ports: tuple[int, int]) -> None:
    api = pusher.Pusher(app_id=APP, key=KEY, secret=SECRET, ssl=False, host="127.0.0.1", port=ports[1])
    assert api.channels_info() == {"channels": {}}
