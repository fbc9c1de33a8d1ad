"""A gateway that does not begin, or is cancelled while it begins or ends, leaves nothing open behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, final

import pytest

import rawws
from rawws.backplanes.redis import RedisBackplane
from rawws.gateway.loading import read_config
from rawws.gateway.main import face_routes, gateway_options, new_gateway
from rawws.gateway.model import Admission, Gateway
from rawws.topics import shared
from tests.backplanes.engines import RedisEngine
from tests.cli.commands import run
from tests.gateway.running import app_file
from tests.processes import free_port
from tests.server.cuts import Cut, Leftovers, in_its_turn
from tests.server.peers import Logged

# A hook has it begin all that there is to begin: the state of all instances, a queue, and a client for backends.
TEXT = app_file('[[app.hook]]\nurl = "http://127.0.0.1:1/"', head="[gateway]\ndrain = 0")


@pytest.fixture
def redis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisEngine]:
    """Join the gateways that are made from now on by a Redis, as `rawws gateway` does."""
    engine = RedisEngine(tmp_path)
    prefixes = ("rawws-3", "rawws", "rawws-2")
    joined = shared.SharedBackplane(lambda number: RedisBackplane(engine.url, prefix=prefixes[number % 3]))
    monkeypatch.setattr(shared, "shared", joined)
    yield engine
    engine.end()


@final
class StubFace:
    """A face that says what is done to it; it does not begin, or does not end, where that is an error."""

    name = "stub"

    def __init__(
        self, name: str, told: list[str], *, starts: Exception | None = None, ends: Exception | None = None
    ) -> None:
        self.told = told
        self.label = name
        self.starts = starts
        self.ends = ends

    def routes(self) -> Iterable[rawws.Route]:
        return ()

    def server_routes(self) -> Iterable[rawws.Route]:
        return ()

    def admit(self, ws: rawws.WebSocket, request: rawws.Request) -> Admission:
        return None

    def subprotocol(self, ws: rawws.WebSocket, offered: list[str]) -> str | None:
        return None

    async def start(self) -> None:
        self.told.append(f"start {self.label}")
        if self.starts is not None:
            raise self.starts

    async def close(self) -> None:
        self.told.append(f"close {self.label}")
        if self.ends is not None:
            raise self.ends


def with_hubs_told(gateway: Gateway, told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the hubs of a gateway, too, say that they are closed."""

    def telling(name: str, close: Callable[[], Any]) -> Callable[[], Any]:
        def tell() -> Any:
            told.append(f"close {name}")
            return close()

        return tell

    for name in ("main", "cache", "control"):
        hub = getattr(gateway, name)
        monkeypatch.setattr(hub, "close", telling(name, hub.close))


async def test_a_face_that_does_not_begin_has_all_be_closed_that_began_and_its_error_is_raised(
    monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    made = new_gateway(read_config(TEXT))
    told: list[str] = []
    with_hubs_told(made, told, monkeypatch)
    made.faces = [
        StubFace("first", told),
        StubFace("second", told, ends=ZeroDivisionError("it does not end")),
        StubFace("third", told, starts=ImportError("it needs something")),
        StubFace("fourth", told),
    ]
    with pytest.raises(ImportError, match="it needs something"):
        await made.__aenter__()
    begun, ended = ["start first", "start second", "start third"], ["close third", "close second", "close first"]
    assert told == [*begun, *ended, "close main", "close cache", "close control"]
    logged.take("could not close all that it had opened", ZeroDivisionError, "rawws.gateway")


async def test_an_engine_that_cannot_serve_the_registry_leaves_nothing_open(redis: RedisEngine, logged: Logged) -> None:
    redis.ask("SET", "rawws-3:{instances}:place", "of another program")
    left = Leftovers()
    with left.heard():
        with pytest.raises(rawws.TopicError, match="instances"):
            await new_gateway(read_config(TEXT)).__aenter__()
        await left.check()
    logged.take("cannot serve all of the topic 'instances'", None, "rawws.topics")


def test_the_command_says_why_it_does_not_begin(redis: RedisEngine, tmp_path: Path) -> None:
    redis.ask("SET", "chat-3:{instances}:place", "of another program")
    (tmp_path / "gateway.toml").write_text(app_file(head=f'[gateway]\nbackplane = "{redis.url}"\nprefix = "chat"'))
    told = run(tmp_path, "gateway", "gateway.toml", "--port", "0")
    assert (told.returncode, told.stdout) == (1, "")
    last = told.stderr.splitlines()[-1]
    assert "the gateway cannot begin: the topic 'instances' is unavailable" in last


async def test_a_gateway_without_what_asks_backends_leaves_nothing_open(
    redis: RedisEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, left = read_config(TEXT), Leftovers()
    monkeypatch.setitem(__import__("sys").modules, "httpx2", None)
    with left.heard():
        with pytest.raises(ImportError, match="the gateway needs httpx2"):
            await new_gateway(config).__aenter__()
        await left.check()


async def test_a_port_that_is_in_use_leaves_nothing_open(redis: RedisEngine) -> None:
    port = free_port()
    async with rawws.serve(rawws.Handler(), "127.0.0.1", port):
        left = Leftovers()
        with left.heard():
            made = new_gateway(read_config(TEXT))
            with pytest.raises(OSError, match="in use"):
                async with made, rawws.serve(face_routes(made), "127.0.0.1", port, **gateway_options(made)):
                    pass
            await left.check()


@pytest.mark.parametrize("ends", [False, True], ids=["begins", "ends"])
@in_its_turn
async def test_a_gateway_that_is_cancelled_wherever_it_waits_leaves_nothing_open(
    redis: RedisEngine, late: bool, ends: bool
) -> None:
    left = Leftovers()
    with left.heard():
        for at in count(1):
            made, cut = new_gateway(read_config(TEXT)), Cut(at, late=late)
            if ends:
                await made.__aenter__()
            doing = asyncio.ensure_future(cut.run(made.__aexit__() if ends else made.__aenter__()))
            await asyncio.wait([doing])
            if not ends and not doing.cancelled():
                assert doing.result() is made
                await made.__aexit__()
            await left.check(at)
            if not cut.is_made:
                break
    assert at > 3
