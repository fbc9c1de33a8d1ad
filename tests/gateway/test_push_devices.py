"""Devices, in memory and in a real Redis: of one user each, of a user so many, and whatever another program wrote."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import redis as client

from rawws.gateway import push_devices
from rawws.gateway.push_devices import DevicesAway, DeviceStore, MemoryDevices, RedisDevices, device_store
from rawws.integrations.push import PushDevice
from tests.backplanes.engines import RedisEngine
from tests.processes import free_port

KINDS = pytest.mark.parametrize("kind", ["memory", "redis"])


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisEngine]:
    found = RedisEngine(tmp_path_factory.mktemp("redis"))
    yield found
    found.end()


@asynccontextmanager
async def store(kind: str, engine: RedisEngine) -> AsyncIterator[DeviceStore]:
    """Give devices, none of which is there yet."""
    if kind == "redis":
        with client.Redis.from_url(engine.url) as writer:
            writer.flushall()
    found = device_store("none" if kind == "memory" else engine.url, "test")
    try:
        yield found
    finally:
        await found.close()


def device(ident: str, user: str = "ann", token: str = "t", since: float = 0.0) -> PushDevice:
    return PushDevice(ident, "fcm", token, user, since)


@KINDS
async def test_a_device_is_one_of_one_user_of_one_app(kind: str, engine: RedisEngine) -> None:
    async with store(kind, engine) as devices:
        await devices.put("1", device("a"))
        await devices.put("1", device("b", since=1.0))
        await devices.put("2", device("a", token="other"))
        assert await devices.of_user("1", "ann") == [device("a"), device("b", since=1.0)]
        assert await devices.of_user("2", "ann") == [device("a", token="other")]
        assert await devices.of_user("1", "nobody") == []
        await devices.put("1", device("a", "ben", since=2.0))
        assert await devices.of_user("1", "ann") == [device("b", since=1.0)]
        assert await devices.of_user("1", "ben") == [device("a", "ben", since=2.0)]
        assert await devices.get("1", "a") == device("a", "ben", since=2.0)
        assert await devices.get("1", "none") is None


@KINDS
async def test_a_device_is_forgotten_as_it_was_and_not_as_it_is(kind: str, engine: RedisEngine) -> None:
    async with store(kind, engine) as devices:
        await devices.put("1", device("a", token="new"))
        assert not await devices.remove("1", "a", "old")
        assert await devices.get("1", "a") is not None
        assert await devices.remove("1", "a", "new")
        assert not await devices.remove("1", "a")
        assert await devices.of_user("1", "ann") == []


@KINDS
async def test_of_a_user_so_many_are_kept_and_the_first_goes(kind: str, engine: RedisEngine) -> None:
    async with store(kind, engine) as devices:
        for number in range(23):
            await devices.put("1", device(f"d{number}", since=float(number)))
        assert [each.id for each in await devices.of_user("1", "ann")] == [f"d{number}" for number in range(3, 23)]
        assert await devices.get("1", "d2") is None


async def test_memory_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push_devices, "MOST_IN_MEMORY", 2)
    devices = MemoryDevices()
    for ident in ("a", "b", "b"):
        await devices.put("1", device(ident))
    with pytest.raises(DevicesAway, match="2 devices are kept in memory, the limit"):
        await devices.put("1", device("c"))


async def test_what_another_program_wrote_is_no_device(engine: RedisEngine) -> None:
    async with store("redis", engine) as devices:
        with client.Redis.from_url(engine.url) as writer:
            for ident, text in (("a", "junk"), ("b", "[]"), ("c", '{"id": "c"}'), ("d", "5")):
                writer.hset("test:push:1", ident, text)
                writer.zadd("test:push:1:ann", {ident: 0})
                assert await devices.get("1", ident) is None
        assert await devices.of_user("1", "ann") == []
        await devices.put("1", device("a"))
        assert await devices.of_user("1", "ann") == [device("a")]


async def test_a_redis_that_is_away_says_so_without_a_secret() -> None:
    devices = RedisDevices(f"redis://:secret@127.0.0.1:{free_port()}/0", "test")
    with pytest.raises(DevicesAway, match="the devices cannot be asked for") as caught:
        await devices.get("1", "a")
    assert "secret" not in str(caught.value)
    await devices.close()
