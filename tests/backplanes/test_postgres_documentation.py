"""docs/run/postgresql.md tells the truth: its programs, commands and SQL run, and its tables match the code."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from rawws.backplanes.postgres import PostgresBackplane
from tests.backplanes.engine_postgres import PostgresEngine, find_postgres
from tests.backplanes.handlers import Reader, hubs
from tests.backplanes.test_documentation import talk
from tests.processes import ROOT, Process, free_port
from tests.server.peers import eventually, run

PAGE: Final = (ROOT / "docs" / "run" / "postgresql.md").read_text(encoding="utf-8")
SQL: Final = re.findall(r"```postgresql\n(.*?)```", PAGE, re.DOTALL)
[INIT] = re.findall(r"^rawws backplane init .*$", PAGE, re.MULTILINE)

# As those of `ONCE`.
ON_ONE_LOOP = True


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[PostgresEngine]:
    made = PostgresEngine(tmp_path)
    made.ask("create role app login")
    made.ask("grant create on database postgres to app")
    made.ask("grant create on schema public to app")
    yield made
    made.ask("drop owned by app cascade")
    made.ask("drop role app")
    made.end()


def test_the_page_lists_every_option_with_its_default() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", PAGE, re.MULTILINE))
    parameters = inspect.signature(PostgresBackplane.__init__).parameters
    assert listed == {name: repr(each.default) for name, each in parameters.items() if name != "self"}


def test_its_program_runs_twice_and_acts_as_one(engine: PostgresEngine, tmp_path: Path) -> None:
    [program] = re.findall(r"```python\n(# chat\.py\n.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "chat.py"
    path.write_text(program, encoding="utf-8")
    ports = [free_port(), free_port()]
    url = engine.url.replace("tester", "app")
    first, second = ([sys.executable, str(path), str(port), url] for port in ports)
    with Process(first, listens=ports[0]), Process(second, listens=ports[1]):
        heard = run(talk(ports))
    assert heard[-1] == "Hi"


def test_the_command_makes_what_the_role_of_the_servers_needs(engine: PostgresEngine) -> None:
    engine.ask("revoke create on database postgres from app")
    _, *words = INIT.replace("postgresql://admin@127.0.0.1/app", engine.url).split()
    for _ in range(2):
        with Process([sys.executable, "-m", "rawws", *words]) as process:
            assert process.result(20) == "rawws is there\n"

    async def use() -> None:
        async with hubs(engine) as (one, two):
            reader = Reader()
            await two.subscribe(reader, "a")
            assert (await one.publish("a", "x")).accepted
            await eventually(lambda: reader.got == ["x"])

    engine.server.role = "app"
    try:
        run(use())
    finally:
        engine.server.role = "tester"


async def psql(engine: PostgresEngine, sql: str) -> str:
    """Run SQL as a shell does."""
    url = engine.url.replace("tester", "app")
    words = ("-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-c", sql, url)
    process = await asyncio.create_subprocess_exec(
        find_postgres("psql"), *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    return out.decode().strip()


async def test_its_sql_publishes_to_all_subscribers_and_to_those_who_come_back(engine: PostgresEngine) -> None:
    engine.server.role = "app"
    try:
        async with hubs(engine) as (one, two):
            readers = [Reader(), Reader()]
            await one.subscribe(readers[0], "chat")
            await two.subscribe(readers[1], "chat")
            first = await one.publish("chat", "from a hub")
            assert await psql(engine, SQL[0]) == ""
            assert await psql(engine, SQL[1]) == first.cursor.removesuffix(":1") + ":2"
            assert (await psql(engine, SQL[2])).endswith(":3")
            wanted = ["from a hub", "Hello", '{"price": 17}']
            await eventually(lambda: all(reader.got == wanted for reader in readers))
            back = Reader()
            assert (await two.subscribe(back, "chat", since=first.cursor)).recovered
            assert back.got == wanted[1:]
            _, found, _ = two.recall("chat", since=first.cursor)
            assert [(each.key, each.event, each.is_json) for each in found] == [
                (None, None, False),
                ("item 7", "price", True),
            ]
            orders = Reader()
            await one.subscribe(orders, "orders")
            assert await psql(engine, SQL[3]) == ""
            await eventually(lambda: orders.got)
            assert json.loads(str(orders.got[0])) == {"id": 1, "state": "new"}
            # What is rolled back was never published.
            await psql(engine, "begin; update orders set state = 'lost'; rollback; update orders set state = 'paid'")
            await eventually(lambda: len(orders.got) == 2)
            assert json.loads(str(orders.got[1])) == {"id": 1, "state": "paid"}
            assert [hub.stats().declared for hub in (one, two)] == [0, 0]
    finally:
        engine.server.role = "tester"


async def test_text_and_bytes_arrive_as_what_they_are_where_no_hub_was_yet_it_is_an_error(
    engine: PostgresEngine,
) -> None:
    await PostgresBackplane.initialize(engine.url)
    with pytest.raises(asyncpg.PostgresError, match="no hub was here yet"):
        engine.ask("select rawws.publish('a', 'x')")
    async with hubs(engine, 1) as (hub,):
        reader = Reader()
        await hub.subscribe(reader, "é/a b:{c}%~_.-€😀")
        messages = ["", "é€😀", b"", b"\x00\xff", "x" * 100_000, b"\xff" * 100_000]
        for message in messages:
            kind = "text" if isinstance(message, str) else "bytea"
            engine.ask(f"select rawws.publish($1, $2::{kind})", "é/a b:{c}%~_.-€😀", message)
        await eventually(lambda: reader.got == messages)


async def test_what_cannot_be_is_refused_with_a_reason(engine: PostgresEngine) -> None:
    async with hubs(engine, 1) as (hub,):
        await hub.publish("a", "begun")
        for arguments, reason in [
            ("'', 'x'", "the topic must have 1 to 255 printable bytes of UTF-8"),
            ("null, 'x'", "the topic must have"),
            (r"E'a\n', 'x'", "the topic must have"),
            ("repeat('é', 128), 'x'", "the topic must have"),
            ("'~rawws/control', 'x'", "the topic must have"),
            ("'a', null::text", "the message is null"),
            ("'a', 'x', repeat('é', 128)", "the key must have up to 255 bytes of UTF-8"),
            ("'a', 'x', event => ''", "the event must have 1 to 255 printable bytes of UTF-8"),
            (r"'a', 'x', event => E'\t'", "the event must have"),
        ]:
            with pytest.raises(asyncpg.PostgresError, match=reason):
                engine.ask(f"select rawws.publish({arguments})")
        assert engine.ask("select rawws.publish('a', 'x')").endswith(":2")
