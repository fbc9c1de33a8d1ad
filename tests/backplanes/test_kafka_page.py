"""The page about Kafka tells the truth: its programs run, and its table matches the code."""

from __future__ import annotations

import inspect
import json
import re
import sys
from pathlib import Path

import pytest

import rawws
from rawws.backplanes.kafka import KafkaBackplane
from rawws.backplanes.kafka_client import KafkaClient, kafka_servers
from tests.backplanes.engine_kafka import KafkaEngine, produce
from tests.backplanes.test_documentation import talk
from tests.processes import LOOPBACK, ROOT, Process, free_port
from tests.server.peers import run

PAGE = (ROOT / "docs" / "run" / "kafka.md").read_text(encoding="utf-8")


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for name, text in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL):
        found[name] = tmp_path / name
        found[name].write_text(text, encoding="utf-8")
    assert len(found) == PAGE.count("```python")
    return found


def test_the_page_lists_every_option_with_its_default() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", PAGE, re.MULTILINE))
    parameters = inspect.signature(KafkaBackplane.__init__).parameters
    assert listed == {name: repr(each.default) for name, each in parameters.items() if name != "self"}


def test_its_program_runs_twice_and_acts_as_one(programs: dict[str, Path], tmp_path: Path) -> None:
    engine = KafkaEngine(tmp_path)
    ports = [free_port(), free_port()]
    commands = re.findall(r"^python (chat\.py) 800\d kafka://127\.0\.0\.1:9092$", PAGE, re.MULTILINE)
    first, second = (
        [sys.executable, str(programs[name]), str(port), engine.url] for name, port in zip(commands, ports, strict=True)
    )
    with Process(first, listens=ports[0]), Process(second, listens=ports[1]):
        heard = run(talk(ports))
    assert heard[-1] == "Hi"


def test_what_a_program_says_to_kafka_reaches_the_clients_that_it_is_for(
    programs: dict[str, Path], tmp_path: Path
) -> None:
    engine, port = KafkaEngine(tmp_path), free_port()

    async def say() -> list[str]:
        client = KafkaClient(kafka_servers(engine.url), 20.0, None)
        await client.connect([])
        for topic in ("orders", "news"):
            await client.create(topic, 1, {})
        with Process([sys.executable, str(programs["orders.py"]), str(port), engine.url], listens=port):
            async with rawws.connect(f"ws://{LOOPBACK}:{port}/", subprotocols=["rawws.v1"]) as ws:
                for number, topic in enumerate(("orders:ann", "news")):
                    await ws.send(json.dumps({"id": number, "subscribe": topic}))
                    await ws.recv()
                await produce(client, "orders", b'{"customer": "ann", "n": 1}')
                await produce(client, "news", b"hello")
                heard = [str(await ws.recv()) for _ in range(2)]
        await client.close()
        return heard

    told = {each["topic"]: each["data"] for each in map(json.loads, run(say(), 120))}
    assert told == {"orders:ann": '{"customer":"ann","n":1}', "news": "hello"}
