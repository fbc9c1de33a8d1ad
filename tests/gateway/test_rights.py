"""A gateway by a Redis whose user may do no more than docs/run/redis.md says: that is enough, and needed."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import rawws
from rawws.cli.joining import JoinedHubs
from rawws.topics import shared
from tests.backplanes.engine_redis_cluster import shared as cluster_of_all
from tests.backplanes.engines import RedisEngine
from tests.backplanes.test_redis_rights import MANY, ONE, PAGE, PASSWORD, url_of, words
from tests.cli.commands import start
from tests.gateway.own_running import JWT, everything, own
from tests.gateway.push_running import app_server, push_file
from tests.gateway.running import Running, app_file, gateway, member, pair
from tests.gateway.test_hook_clients import signed_in
from tests.gateway.test_pusher_protocol import greeted
from tests.gateway.v1_running import server
from tests.integrations.push_doubles import push_double
from tests.server.peers import eventually

[MORE] = re.findall(r"^(ACL SETUSER rawws ~.*)$", PAGE, re.MULTILINE)
# What is asked for, and may be refused.
OPTIONAL: Final = {"config|get", "client|setinfo", "function|load"}
# It has the instances share what they know; of that it is told nothing.
HOOK: Final = '[[app.hook]]\nurl = "http://127.0.0.1:1/"\nevents = ["client_event"]'


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisEngine]:
    """Give a Redis whose user has the rights of a hub."""
    engine = RedisEngine(tmp_path)
    engine.ask(*words(ONE))
    yield engine
    engine.end()


@pytest.fixture
def join(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Give what joins the gateways that are made from then on, as `rawws gateway` does."""

    def do(url: str, prefix: str) -> None:
        monkeypatch.setattr(shared, "shared", None)
        hubs = JoinedHubs(url, None, prefix=prefix)
        shared.share(shared.SharedBackplane(lambda number: hubs._make((number - 1) % 3 + 1)))

    return do


async def use(one: Running, other: Running) -> None:
    """Have both instances do what needs the engine: each of the three hubs, and what is held by them."""
    for each, their in ((one, other), (other, one)):
        await eventually(lambda: each.gateway.registry.others() == [their.gateway.instance], 60)  # noqa: B023
    ann = await member(one.port, "presence-room", "ann")
    ben = await signed_in(other.port, "ben")
    async with server(one) as asked, own(other.port, everything("eve")) as eve:
        await asked.until("channels/presence-room", members=1, connections=1)
        place = (await eve.ask(subscribe="room", join=None, watch=True))["cursor"]
        await asked.post("publish", {"channel": "room", "data": "1"}, key="once")
        while (await eve.hear()).get("data") != "1":
            pass
        assert (await asked.get("channels/room/history", since=place))["recovered"]
        await asked.post("publish", {"channel": "cache-news", "data": "2"})
        reader = await greeted(other)
        await reader.subscribe("cache-news")
        assert (await reader.said())["data"] == "2"
        [connection] = (await asked.get("connections", user="eve"))["connections"]
        await asked.post(f"connections/{connection['connection']}/send", {"data": "3"})
        await asked.post("users/ann/send", {"data": "4"})
        assert await asked.post("users/ben/disconnect") == {"count": 1}
        for ws in (ann, reader.ws):
            await ws.close()
    with pytest.raises(rawws.ConnectionClosed):
        while True:
            await ben.recv()


def refused(ask: Callable[..., Any]) -> set[str]:
    """Return the commands, keys and channels that a Redis refused to its user, but for what no program needs."""
    entries = [str(entry).lower() for entry in ask("ACL", "LOG")]
    named = {re.findall(r"'object'[,:] b?'(.*?)'", entry.replace("b'object'", "'object'"))[0] for entry in entries}
    return named - OPTIONAL


async def test_what_the_page_lists_is_enough_for_a_gateway(
    redis: RedisEngine, tmp_path: Path, join: Callable[[str, str], None]
) -> None:
    redis.ask(*words(MORE))
    url = url_of(redis)
    join(url, "rawws")
    async with push_double(plain=True) as (double, _):
        text = push_file(tmp_path, double, head=f'[gateway]\nbackplane = "{url}"\ndrain = 0')
        text = text.replace("client_events", f"{JWT}\nclient_events") + HOOK
        async with pair(text) as (one, other), app_server(one.port) as asked:
            await use(one, other)
            for token in ("device:1", "device:2"):
                assert (await asked.register(token=token)).status == 200
            assert (await asked.push("ann")).body == {"users": 1}
            await eventually(lambda: len(double.pushed) == 1, 60)
            assert (await asked.ask("DELETE", "/devices/phone")).status == 200
    assert refused(redis.ask) == set()


async def test_what_the_page_lists_for_a_cluster_is_enough_for_a_gateway_with_a_prefix(
    join: Callable[[str, str], None],
) -> None:
    cluster = cluster_of_all()
    prefix = f"t{secrets.token_hex(4)}"
    for node in cluster.servers:
        for command in (MANY, MORE):
            node.ask(*words(command.replace("~rawws", f"~{prefix}").replace("&rawws", f"&{prefix}")))
        node.ask("ACL", "LOG", "RESET")
    join(cluster.url.replace("//", f"//rawws:{PASSWORD}@"), prefix)
    async with pair(app_file(f"{JWT}\n{HOOK}", head="[gateway]\ndrain = 0")) as (one, other):
        await use(one, other)
    assert [refused(node.ask) for node in cluster.servers] == [set()] * len(cluster.servers)
    for node in cluster.servers:
        node.ask("ACL", "DELUSER", "rawws")


@pytest.mark.parametrize("right", [word for word in words(MORE) if word[0] in "~&"])
def test_keys_and_channels_that_a_gateway_may_not_touch_are_named(
    redis: RedisEngine, tmp_path: Path, right: str
) -> None:
    redis.ask(*[word for word in words(MORE) if word != right])
    (tmp_path / "gateway.toml").write_text(app_file(head=f'[gateway]\nbackplane = "{url_of(redis)}"'))
    # A backplane sees its own part of a channel's name alone, and names that.
    named = rf"which this gives: ACL SETUSER \.\.\. .*{re.escape(right[:-1])}.*\n"
    with start(tmp_path, "gateway", "gateway.toml", "--port", "0") as process:
        process.wait_for(lambda output: re.search(named, output) is not None, "it names the right")
        assert PASSWORD not in process.output


async def test_a_right_that_devices_need_is_named(redis: RedisEngine, tmp_path: Path) -> None:
    async with push_double(plain=True) as (double, _):
        text = push_file(tmp_path, double, head=f'[gateway]\nbackplane = "{url_of(redis)}"')
        async with gateway(text) as running, app_server(running.port) as asked:
            for right, reason in (
                ("multi", "EXEC without MULTI"),
                ("exec", "no permissions to run the 'exec' command"),
            ):
                redis.ask(*words(MORE))
                redis.ask("ACL", "SETUSER", "rawws", f"-{right}")
                answer = await asked.register()
                assert (answer.status, reason in answer.body["reason"]) == (503, True)
