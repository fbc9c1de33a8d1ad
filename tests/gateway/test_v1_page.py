"""The page about the HTTP API of a gateway tells the truth: its programs run, and its tables have what there is."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from typing import Any, Final

import httpx2
import pytest

from tests.gateway.own_running import everything, own, token_file
from tests.gateway.running import PATIENCE, SECRET, gateway
from tests.gateway.test_pusher_protocol import greeted
from tests.gateway.v1_running import server
from tests.processes import ROOT
from tests.server.peers import eventually

pytestmark = pytest.mark.usefixtures("patient")

PAGE: Final = (ROOT / "docs/run/gateway-api.md").read_text(encoding="utf-8")
FILE: Final = token_file().replace('id = "3"', 'id = "1"')


def block(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def rows() -> list[tuple[str, str, Any, str]]:
    """Return what the tables ask for: the method, the path, the body, None for none, and the answer."""
    found = []
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        asked = re.fullmatch(r"`(GET|POST) (/[^`]*)`", cells[0]) if cells else None
        if asked is not None:
            bodies = re.findall("`(.*?)`", cells[1]) if len(cells) == 3 else []
            found.append((asked[1], asked[2], json.loads(bodies[0]) if bodies else None, cells[-1].strip("`")))
    return found


def names_in(told: str) -> set[str]:
    """Return the members of an answer as it stands there, whose parts may be left out."""
    outer = re.sub(r"\[.*\]|: \{.*\}(?=.)", "", told[1:-1])
    return set(re.findall(r'"(\w+)":', outer))


async def test_the_command_of_the_page_publishes() -> None:
    async with gateway(FILE) as running:
        clients = [await greeted(running) for _ in range(2)]
        for each in clients:
            await each.subscribe("room")
        command, url, *words = shlex.split(block("sh").replace("SECRET", SECRET).replace("8765", str(running.port)))
        given = dict(zip(words[::2], words[1::2], strict=True))
        name, _, value = given["-H"].partition(": ")
        assert (command, set(given)) == ("curl", {"-H", "-d"})
        async with httpx2.AsyncClient(timeout=PATIENCE) as client:
            told = (await client.post(url, content=given["-d"], headers={name: value})).json()
        shown = json.loads(block("text"))
        assert (set(told), told["reached"]) == (set(shown), shown["reached"])
        assert set(told["cursors"]) == set(shown["cursors"])
        assert (await clients[0].said())["data"] == "Hello"


async def test_the_program_of_the_page_publishes_once() -> None:
    program: dict[str, Any] = {}
    exec(compile(block("python"), "gateway-api.md", "exec"), program)
    async with gateway(FILE) as running:
        client = await greeted(running)
        await client.subscribe("room")
        transport = httpx2.post

        def post(url: str, **given: Any) -> httpx2.Response:
            return transport(url.replace("8765", str(running.port)), timeout=PATIENCE, **given)

        program["httpx2"] = type("Client", (), {"post": staticmethod(post)})
        cursors = {await asyncio.to_thread(program["publish"], SECRET, "room", {"n": 1}, "order-7") for _ in range(2)}
        assert len(cursors) == 1
        assert await client.said() == {"event": "said", "channel": "room", "data": {"n": 1}}
        await client.quiet()


async def test_what_the_tables_ask_for_is_answered_as_they_say() -> None:
    async with gateway(FILE) as running, server(running, "1") as asking:
        asked = 0
        for method, path, body, told in rows():
            client = await greeted(running)
            async with own(running.port, everything("ann"), "1") as ann:
                await ann.ask(subscribe="room")
                [ident] = [each.id.socket_id for each in running.gateway.connections.values() if each.face == "own"]
                answer = await asking.answer(method, path[1:].replace("CONNECTION", ident).replace("USER", "ann"), body)
                assert answer.status_code == 200, (path, answer.text)
                if told != "the same, of the channel `#server-to-user-USER":
                    assert names_in(told) <= set(answer.json()), path
                asked += 1
            await client.ws.close()
            await eventually(lambda: not running.gateway.connections)
        assert asked == 15


@pytest.mark.parametrize("status", [400, 401, 403, 409, 410, 413, 429, 503])
def test_each_status_of_an_error_stands_there(status: int) -> None:
    assert re.search(rf"^\| {status} \| `", PAGE, re.MULTILINE)
