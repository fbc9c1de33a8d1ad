"""The page about rawws.js at a gateway tells the truth: its files are right, and its programs do what it says."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

import rawws
from rawws.gateway.config import CallsConfig, JwtConfig
from rawws.gateway.loading import read_config
from tests.gateway.backends import backend
from tests.gateway.own_running import own
from tests.gateway.running import PATIENCE, gateway
from tests.processes import ROOT, find_node

PAGE: Final = (ROOT / "docs/run/own-face.md").read_text(encoding="utf-8")
KEY: Final = "k" * 32


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_SECRET", "secret")
    monkeypatch.setenv("JWT_KEY", KEY)


def program(number: int) -> dict[str, Any]:
    found: dict[str, Any] = {"__name__": "application"}
    exec(compile(blocks("python")[number], "own-face.md", "exec"), found)
    return found


async def test_the_page_of_the_page_hears_what_it_says_with_the_token_of_the_page(tmp_path: Path) -> None:
    token = program(0)["token_of"]("ann", KEY)
    async with gateway(blocks("toml")[0]) as running:
        url = f"127.0.0.1:{running.port}"
        [text] = blocks("js")
        lines = text.replace("127.0.0.1:8765", url).splitlines()
        assert lines[0] == f'import {{ connect }} from "http://{url}/connect/1/rawws.js";'
        lines[0] = f'import {{ connect }} from "{ROOT}/rawws/topics/js/rawws.js";'
        lines.insert(1, f"globalThis.fetch = async () => ({{ text: async () => {json.dumps(token)} }});")
        (tmp_path / "page.mjs").write_text("\n".join([*lines, "setTimeout(() => hub.close(), 0);"]))
        process = await asyncio.create_subprocess_exec(
            find_node(), str(tmp_path / "page.mjs"), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        try:
            async with asyncio.timeout(PATIENCE):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert output == b"hello\n"
        async with own(running.port, token, "1") as ann:
            assert (await ann.ask(publish="news", data="x"))["error"] == "refused"


async def test_the_application_of_the_page_says_who_comes_in() -> None:
    client = program(1)["app"].test_client()

    def answer(request: rawws.HttpRequest) -> rawws.Response:
        told = client.post(request.path.removeprefix("/backend"), data=request.body, content_type="application/json")
        return rawws.Response(told.status_code, told.data, content_type="application/json")

    async with backend(answer) as asked:
        async with gateway(
            blocks("toml")[2].replace("http://127.0.0.1:3000", asked.url) + "  timeout = 29\n"
        ) as running:
            async with own(running.port, "", "1", additional_headers={"Cookie": "session=a-session"}) as ann:
                assert "cursor" in await ann.ask(subscribe="room-1")
                assert (await ann.ask(subscribe="other"))["error"] == "refused"
                await ann.ask(publish="room-1", data="hello")
                assert (await ann.ask(history="room-1"))["publications"][0]["data"] == "HELLO"
            async with own(running.port, "", "1") as eve:
                assert await eve.ended() == (4401, "sign in first")


@pytest.mark.parametrize(("head", "kind", "number"), [("jwt", JwtConfig, 1), ("calls", CallsConfig, 2)])
def test_the_tables_have_the_keys_and_the_defaults_that_there_are(head: str, kind: type[Any], number: int) -> None:
    [app] = read_config(blocks("toml")[number]).apps
    rows = re.findall(rf"^\| `{head}` \| default \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    names = {name for row in rows[0].splitlines() for name in re.findall("`(.*?)`", row.split("|")[1])}
    assert names == {field.name for field in dataclasses.fields(kind)}
    made = app.jwt if kind is JwtConfig else app.calls
    assert isinstance(made, kind)
    if isinstance(made, CallsConfig):
        assert made.timeout == 3.0
    else:
        assert (made.jwks_age, made.leeway) == (600, 0)
