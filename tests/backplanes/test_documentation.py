"""The page about many servers tells the truth: its program runs, and its tables match the code."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

import rawws
from rawws.backplanes.redis import RedisBackplane
from rawws.backplanes.redis_cluster import RedisClusterBackplane
from rawws.topics import HubStats
from rawws.topics.backplane_urls import SCHEMES
from tests.backplanes.engines import RedisEngine
from tests.processes import LOOPBACK, ROOT, Process, free_port
from tests.server.peers import run

PAGE = (ROOT / "docs" / "run" / "scaling.md").read_text(encoding="utf-8")
REDIS = (ROOT / "docs" / "run" / "redis.md").read_text(encoding="utf-8")


def test_the_page_lists_every_option_with_its_default() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", REDIS, re.MULTILINE))
    assert listed == defaults(RedisBackplane)
    of_cluster = defaults(RedisClusterBackplane)
    assert {**listed, "url": of_cluster["url"]} == {**of_cluster, "sharded": "False"}


def defaults(made: type) -> dict[str, str]:
    parameters = inspect.signature(made).parameters
    return {name: repr(each.default) for name, each in parameters.items()}


def test_its_options_are_what_the_classes_take() -> None:
    [program] = re.findall(r"```python\n(# options\.py\n.*?)```", REDIS, re.DOTALL)
    made: dict[str, rawws.Hub] = {}
    exec(program, made)
    assert isinstance(made["one"], rawws.Hub)
    assert isinstance(made["many"], rawws.Hub)


def test_each_scheme_of_its_table_is_one() -> None:
    listed = set(re.findall(r"`([\w+]+)://", REDIS))
    assert {scheme for scheme in SCHEMES if scheme.startswith(("redis", "unix"))} == listed


def test_the_page_lists_what_is_counted_of_a_backplane() -> None:
    listed = re.findall(r"^\| `(\w+)` \| [a-z]", PAGE, re.MULTILINE)
    assert listed == [name for name in HubStats._fields if name in HubStats._field_defaults]


async def talk(ports: list[int]) -> list[str | bytes]:
    first, second = (rawws.connect(f"ws://{LOOPBACK}:{port}/") for port in ports)
    async with first as ann, second as bob:
        await ann.send("Hello")
        assert await ann.recv() == "Hello"
        await bob.send("Hi")
        return [await bob.recv(), await ann.recv()]


def test_its_program_runs_twice_and_acts_as_one(tmp_path: Path) -> None:
    [program] = re.findall(r"```python\n(# chat\.py\n.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "chat.py"
    path.write_text(program, encoding="utf-8")
    engine = RedisEngine(tmp_path)
    ports = [free_port(), free_port()]
    first, second = ([sys.executable, str(path), str(port), engine.url] for port in ports)
    with Process(first, listens=ports[0]), Process(second, listens=ports[1]):
        heard = run(talk(ports))
    assert heard[-1] == "Hi"
    engine.end()
