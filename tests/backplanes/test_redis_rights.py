"""A Redis whose user may do little, as those have who rent one: what docs/run/redis.md lists is enough, and needed."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from rawws.backplanes.redis import RedisBackplane
from rawws.backplanes.redis_cluster import RedisClusterBackplane
from rawws.topics import History
from rawws.topics.backplane import Backplane, PresenceEntry
from tests.backplanes.engine_redis_cluster import shared
from tests.backplanes.engines import RedisEngine
from tests.backplanes.handlers import Told
from tests.processes import LOOPBACK, ROOT
from tests.server.peers import eventually

PAGE: Final = (ROOT / "docs" / "run" / "redis.md").read_text(encoding="utf-8")
ONE, MANY = re.findall(r"^(ACL SETUSER rawws on (?:.*\\\n)*.*)$", PAGE, re.MULTILINE)
PASSWORD: Final = re.findall(r">(\S+)", ONE)[0]


def words(command: str) -> list[str]:
    return command.replace("\\\n", " ").split()


def rights(command: str) -> list[str]:
    return [word for word in words(command) if word.startswith("+")]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[RedisEngine]:
    made = RedisEngine(tmp_path)
    yield made
    made.end()


def url_of(engine: RedisEngine, password: str = PASSWORD) -> str:
    return f"redis://rawws:{password}@{LOOPBACK}:{engine.port}"


def opened(backplane: Backplane) -> Told:
    told = Told(backplane)
    backplane.open("one", History(), told)
    return told


async def use(told: Told) -> None:
    """Do all that the contract has, and see that nothing is refused."""
    one = told.backplane
    await one.follow("a")
    place = await one.publish("a", "1", None, 1)
    await one.publish("a", "1", None, 1)
    assert (await one.history("a", place)).recovered
    one.join("a", "x", "null")
    one.join("a", "y", "null")
    one.leave("a", "y")
    assert await one.presence("a") == [PresenceEntry("one", "x", "null")]
    one.unfollow("a")
    await eventually(lambda: told.messages == ["1"])
    assert (told.reasons, [reason for _, reason in told.doubts if reason]) == ([], [])


async def test_what_the_page_lists_is_enough(engine: RedisEngine) -> None:
    engine.ask(*words(ONE))
    told = opened(RedisBackplane(url_of(engine)))
    await eventually(lambda: told.backs)
    await use(told)
    await told.backplane.close()


async def test_what_the_page_lists_for_a_cluster_is_enough() -> None:
    cluster = shared()
    for server in cluster.servers:
        server.ask(*words(MANY))
    url, prefix = cluster.url.replace("//", f"//rawws:{PASSWORD}@"), f"rawws:{secrets.token_hex(4)}"
    told = opened(RedisClusterBackplane(url, prefix=prefix))
    await eventually(lambda: told.backs)
    await use(told)
    await told.backplane.close()
    for server in cluster.servers:
        server.ask("ACL", "SETUSER", "rawws", "-cluster|slots")
    told = opened(RedisClusterBackplane(url, prefix=prefix))
    await eventually(lambda: told.reasons)
    assert "cluster|slots" in told.reasons[0]
    await told.backplane.close()
    for server in cluster.servers:
        server.ask("ACL", "DELUSER", "rawws")


async def test_each_right_that_is_missing_is_named_and_needs_no_restart(engine: RedisEngine) -> None:
    for right in rights(ONE):
        engine.ask(*[word for word in words(ONE) if word != right])
        told = opened(RedisBackplane(url_of(engine)))
        await eventually(lambda: told.reasons)  # noqa: B023 - it is over before the next one
        assert right.removeprefix("+") in told.reasons[0]
        assert PASSWORD not in told.reasons[0]
        engine.ask("ACL", "SETUSER", "rawws", right)
        # It would come by itself, a little later.
        backplane: Any = told.backplane
        backplane.restart("its rights have changed")
        await eventually(lambda: told.backs)  # noqa: B023
        assert len(told.reasons) == 1
        await told.backplane.close()


@pytest.mark.parametrize("pattern", ["~rawws:*", "&rawws:*"])
async def test_keys_and_channels_that_may_not_be_touched_are_named(engine: RedisEngine, pattern: str) -> None:
    engine.ask(*[word for word in words(ONE) if word != pattern])
    told = opened(RedisBackplane(url_of(engine)))
    await eventually(lambda: told.reasons)
    assert pattern.replace("&rawws:*", "&rawws:0:*") in told.reasons[0]
    given = rights(told.reasons[0])
    assert len(given) == len(set(given)) > 1
    await told.backplane.close()


async def test_a_wrong_password_is_said_and_not_shown(engine: RedisEngine) -> None:
    engine.ask(*words(ONE))
    told = opened(RedisBackplane(url_of(engine, "wrong")))
    await eventually(lambda: told.reasons)
    assert told.reasons[0].startswith("the Redis does not take the user and the password of the URL: ")
    await told.backplane.close()
