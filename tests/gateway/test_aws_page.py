"""The page about API Gateway tells the truth: its file is right, its function runs, its tables are the code's."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from typing import Any

import boto3
import pytest

import rawws
from rawws.gateway.config import ApiConfig, ApiLimits, ApiRoute, AuthorizerConfig
from rawws.gateway.loading import read_config
from tests.gateway.aws_running import aws_gateway, event_of
from tests.gateway.backends import backend
from tests.processes import ROOT
from tests.server.peers import eventually

PAGE = (ROOT / "docs/run/api-gateway.md").read_text(encoding="utf-8")
SECRET = "local-secret-7f3a"


def block(language: str) -> str:
    [found] = re.findall(rf"^ *```{language}\n(.*?)^ *```$", PAGE, re.MULTILINE | re.DOTALL)
    return re.sub(r"^ {3}", "", found, flags=re.MULTILINE)


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
            exec(compile(block("python"), "api-gateway.md", "exec"), program)
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
