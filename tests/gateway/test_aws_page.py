"""The page about API Gateway tells the truth: its file is right, its function runs, its tables are the code's."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
import pytest

import rawws
from rawws.gateway.config import ApiConfig, ApiLimits, ApiRoute, AuthorizerConfig
from rawws.gateway.loading import read_config
from tests.gateway.aws_running import aws_gateway, event_of
from tests.gateway.backends import backend
from tests.processes import LOOPBACK, ROOT, Process, free_port
from tests.server.peers import eventually

PAGE = (ROOT / "docs/run/api-gateway.md").read_text(encoding="utf-8")
SECRET = "local-secret-7f3a"


def block(language: str, name: str = "") -> str:
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
    [text] = [each for each in found if f"# {name}\n" in each] if name else found
    return re.sub(r"^ {3}", "", text, flags=re.MULTILINE)


async def test_a11_the_function_is_a_chat_of_three_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    program: dict[str, Any] = {"__name__": "function"}
    done: list[str] = []

    async def invoke(request: rawws.HttpRequest) -> dict[str, Any]:
        event = event_of(request)
        result: dict[str, Any] = await asyncio.to_thread(program["handler"], event, None)
        done.append(event["requestContext"]["routeKey"])
        return result

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    async with backend(invoke) as running:
        text = block("toml").replace("http://127.0.0.1:9000", running.url)
        async with aws_gateway(text) as gateway:
            for line in block("ini").splitlines():
                name, _, value = line.partition("=")
                monkeypatch.setenv(
                    name, value.replace("8765", str(gateway.port)).replace("the secret of that key", SECRET)
                )
            # The session that boto3 makes for all has read another environment.
            monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
            exec(compile(block("python", "function.py"), "api-gateway.md", "exec"), program)
            async with gateway.connect() as one, gateway.connect() as two:
                async with gateway.connect() as three:
                    for ws in (one, two, three):
                        await ws.send('{"action":"joinroom","room":"a"}')
                    # Nothing is answered without a route response: what was done shows at the backend.
                    await eventually(lambda: done == ["joinroom"] * 3)
                    for ws in (one, two, three):
                        text = f"from {id(ws)}"
                        await ws.send(json.dumps({"action": "sendmessage", "room": "a", "text": text}))
                        assert {await each.recv() for each in (one, two, three)} == {text}
                await eventually(lambda: len(done) == 7)
                await two.send('{"action":"sendmessage","room":"a","text":"left"}')
                assert [await one.recv(), await two.recv()] == ["left", "left"]
            await eventually(lambda: done.count("$disconnect") == 3)
    assert program["rooms"] == {"a": set()}


def test_the_server_that_needs_no_docker_runs_the_function(tmp_path: Path) -> None:
    at = free_port()
    (tmp_path / "function.py").write_text(block("python", "function.py"), encoding="utf-8")
    (tmp_path / "emulator.py").write_text(block("python", "emulator.py").replace("9000", str(at)), encoding="utf-8")
    env = {"AWS_DEFAULT_REGION": "local", "AWS_ENDPOINT_URL_APIGATEWAYMANAGEMENTAPI": "http://127.0.0.1:1"}
    with Process([sys.executable, "-W", "error", "emulator.py"], cwd=tmp_path, listens=at, env=env):
        event = {"requestContext": {"connectionId": "a", "routeKey": "joinroom"}, "body": '{"room": "b"}'}
        [url] = set(re.findall(r"http://127\.0\.0\.1:9000(\S+)\"", block("toml")))
        asked = Request(f"http://{LOOPBACK}:{at}{url}", json.dumps(event).encode(), method="POST")
        with urlopen(asked, timeout=60) as answer:
            assert json.loads(answer.read()) == {"statusCode": 200}


@pytest.mark.parametrize("table", [ApiConfig, ApiLimits, ApiRoute, AuthorizerConfig])
def test_every_key_of_the_file_is_in_a_table(table: type[Any]) -> None:
    told = {name for row in re.findall(r"^\| (`.*) \|$", PAGE, re.MULTILINE) for name in re.findall(r"\w+", row)}
    for field in dataclasses.fields(table):
        assert field.name in told | {"routes"}, field.name


def test_the_limits_are_those_that_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    [api] = read_config(block("toml")).apis
    told = next(row for row in PAGE.splitlines() if row.startswith("| `limits` |"))
    for value in dataclasses.astuple(api.limits):
        assert str(int(value)) in told
    assert {f"{each.timeout:g}" for each in api.routes} == {"29"}
