"""Publishing without a hub, as docs/run/redis.md shows it: a shell and redis-cli, at a real Redis."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import redis as client

from rawws.topics import History
from tests.backplanes.engines import RedisEngine, Started
from tests.backplanes.handlers import Reader, hubs
from tests.processes import LOOPBACK, ROOT, find_program
from tests.server.peers import Logged, eventually

PAGE: Final = (ROOT / "docs" / "run" / "redis.md").read_text(encoding="utf-8")
[COMMAND] = re.findall(r"^redis-cli EVAL .*$", PAGE, re.MULTILINE)
ODD: Final = "é/a b:{c}%~_.-€😀"


@pytest.fixture(params=["PUBLISH", "SPUBLISH"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisEngine]:
    find_program("redis-cli", "apt-get install redis-tools")
    made = RedisEngine(tmp_path, sharded=request.param == "SPUBLISH")
    yield made
    made.end()


async def shell(engine: RedisEngine, *words: str) -> str:
    """Run the command of the page in a shell, with these words for a topic and a message."""
    command = COMMAND.replace("redis-cli", f"redis-cli -p {engine.port}").removesuffix(" chat 'Hello'")
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", f'{command} "$@"', "sh", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    return out.decode().strip()


def evaluate(engine: RedisEngine, *words: str | bytes) -> list[bytes | int]:
    """Publish as another program does: its cursor."""
    with client.Redis(host=LOOPBACK, port=engine.port) as connection:
        found: list[bytes | int] = connection.execute_command(
            "EVAL", connection.hget("rawws:hub", "publish"), 0, "rawws", *words
        )
        return found


async def test_a_shell_publishes_to_all_subscribers_and_to_those_who_come_back(engine: RedisEngine) -> None:
    async with hubs(engine) as (one, two):
        readers = [Reader(), Reader()]
        await one.subscribe(readers[0], ODD)
        await two.subscribe(readers[1], ODD)
        first = await one.publish(ODD, "from a hub")
        said = await shell(engine, ODD, "from a shell: Grüße 😀")
        epoch, offset = said.split()
        assert f"{epoch}:{offset}" == first.cursor.removesuffix(":1") + ":2"
        assert (await two.publish(ODD, "from another")).cursor.endswith(":3")
        wanted = ["from a hub", "from a shell: Grüße 😀", "from another"]
        await eventually(lambda: all(reader.got == wanted for reader in readers))
        back = Reader()
        subscription = await two.subscribe(back, ODD, since=first.cursor)
        assert (back.got, subscription.recovered) == (wanted[1:], True)
        # Where no hub was yet, and nobody listens.
        assert (await shell(engine, "new", "x")).split()[1] == "1"
        late = Reader()
        assert (await one.subscribe(late, "new", since="earliest")).recovered
        assert late.got == ["x"]
        assert [hub.stats().declared for hub in (one, two)] == [0, 0]


async def test_what_is_no_text_is_binary_and_a_key_is_kept(engine: RedisEngine) -> None:
    texts = ["", "a", "\x00", "é", "€", "\ud7ff\ue000", "\U00010000\U0010ffff", "\x7f\x80\u07ff\u0800\uffff"]
    octets = [b"\x80", b"\xc3", b"\xc0\x80", b"\xe0\x9f\xbf", b"\xed\xa0\x80", b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80"]
    octets += [b"\xf5\x80\x80\x80", b"\xc3a\xa9", b"\xe2\x82", b"\xc3\xc3\xa9", b"\xc3\xa9\xa9", b"a\xff"]
    async with hubs(engine, 1, history=History(count=100)) as (hub,):
        reader = Reader()
        await hub.subscribe(reader, "a")
        messages: list[str | bytes] = [*texts, *octets]
        for message in messages:
            evaluate(engine, "a", message)
        await eventually(lambda: reader.got == messages)
        evaluate(engine, "a", "with a key", "é")
        await eventually(lambda: reader.got[-1] == "with a key")
        _, publications, _ = hub.recall("a", since="earliest")
        assert publications[-1].key == "é"
        assert publications[0].key is None


async def test_an_event_and_json_are_named_behind_the_key_which_may_be_empty(engine: RedisEngine) -> None:
    async with hubs(engine, 1) as (hub,):
        reader = Reader()
        await hub.subscribe(reader, "a")
        said: list[tuple[str, ...]] = [
            ("1", "k", "move"),
            ("2", "", 'a "b\\ é%,'),
            ("[3]", "", "", "json"),
            ("4", "k", "", ""),
            ('"5"', "", "e", "json"),
        ]
        for words in said:
            evaluate(engine, "a", *words)
        await eventually(lambda: len(reader.got) == len(said))
        _, found, _ = hub.recall("a", since="earliest")
        assert [(each.message, each.key, each.event, each.is_json) for each in found] == [
            ("1", "k", "move", False),
            ("2", None, 'a "b\\ é%,', False),
            ("[3]", None, None, True),
            ("4", "k", None, False),
            ('"5"', None, "e", True),
        ]


async def test_no_more_is_held_than_by_a_hub(engine: RedisEngine) -> None:
    async with hubs(engine, 1, history=History(count=3)) as (hub,):
        await hub.publish("another", "reached")
        for number in range(5):
            evaluate(engine, "a", str(number))
        reader = Reader()
        await hub.subscribe(reader, "a", since="earliest")
        assert reader.got == ["2", "3", "4"]
        with client.Redis(host=LOOPBACK, port=engine.port) as connection:
            assert connection.xlen("rawws:{a}:log") == 3
            assert 0 < connection.pttl("rawws:{a}:log") <= 300_000
            # One field for all of them, however many programs there are.
            assert [name for name in connection.hkeys("rawws:{a}:place") if name.startswith(b"s ")] == [b"s -"]


async def test_what_cannot_be_is_refused_with_a_reason(engine: RedisEngine) -> None:
    async with hubs(engine, 1) as (hub,):
        await hub.publish("a", "begun")
        for words, reason in [
            ((), "allowed are a prefix, a topic, a message, a key"),
            (("a",), "allowed are a prefix, a topic, a message, a key"),
            (
                ("a", "x", "key", "e", "json", "more"),
                "allowed are a prefix, a topic, a message, a key, an event and json",
            ),
            (("a", "x", "", 128 * "é"), "the event must have 1 to 255 printable bytes of UTF-8, or be empty"),
            (("a", "x", "", "e\n"), "the event must have"),
            (("a", "x", "", b"\xff"), "the event must have"),
            (("a", "1", "", "e", "text"), "the last may be 'json', where the message is that"),
            (("a", "{", "", "e", "json"), "the last may be 'json'"),
            (("a", b"\xff", "", "e", "json"), "the last may be 'json'"),
            (("", "x"), "the topic must have 1 to 255 printable bytes of UTF-8"),
            (("a\n", "x"), "the topic must have"),
            ((b"\xff", "x"), "the topic must have"),
            ((128 * "é", "x"), "the topic must have"),
            (("a", "x", 128 * "é"), "the key must have up to 255 bytes of UTF-8"),
            (("a", "x", b"\xff"), "the key must have"),
        ]:
            with pytest.raises(client.ResponseError, match=reason):
                evaluate(engine, *words)
        with client.Redis(host=LOOPBACK, port=engine.port) as connection:
            script = connection.hget("rawws:hub", "publish")
            with pytest.raises(client.ResponseError, match="no hub with this prefix was here yet"):
                connection.execute_command("EVAL", script, 0, "other", "a", "x")
        assert evaluate(engine, "a", "x")[1] == 2


async def test_behind_a_restart_that_lost_nothing_a_hub_goes_on_and_an_outsider_is_never_taken_for_one(
    engine: RedisEngine, logged: Logged
) -> None:
    async with hubs(engine, 1) as (hub,):
        reader = Reader()
        await hub.subscribe(reader, "a")
        before = await hub.publish("a", "1")
        engine.kill()
        await eventually(lambda: hub.degraded)
        engine.start()
        await eventually(lambda: not hub.degraded)
        evaluate(engine, "a", "2")
        await eventually(lambda: reader.got == ["1", "2"])
        back = Reader()
        assert (await hub.subscribe(back, "a", since=before.cursor)).recovered
        assert back.got == ["2"]
    logged.take_all("the backplane is away", 1)
    logged.take_all("the backplane is back", 1)
    # No hub is here now.
    engine.kill()
    engine.start()
    evaluate(engine, "a", "3")
    async with hubs(engine, 1) as (hub,):
        late = Reader()
        subscription = await hub.subscribe(late, "a", since=before.cursor)
        assert (late.got, subscription.recovered) == ([], False)


async def test_a_redis_that_is_full_refuses_it_and_the_next_one_has_the_next_place(
    started: Started, tmp_path: Path
) -> None:
    engine = started(tmp_path, "--appendonly", "no")
    async with hubs(engine, 1) as (hub,):
        await hub.publish("a", "x")
        with client.Redis(host=LOOPBACK, port=engine.port) as connection:
            connection.config_set("maxmemory", 1)
            with pytest.raises(client.ResponseError, match="maxmemory"):
                evaluate(engine, "a", "x")
            connection.config_set("maxmemory", 0)
        assert evaluate(engine, "a", "x")[1] == 2
