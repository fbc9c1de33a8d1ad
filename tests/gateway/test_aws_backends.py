"""Backends that fail in each way at once, while the clients of all of them speak: a healthy route answers as ever."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import rawws
from rawws.gateway.aws import AwsFace
from tests.attacks.watch import memory
from tests.cli.commands import port, start
from tests.gateway.aws_running import aws_gateway, chat_api, event_of
from tests.gateway.backends import BAD_BACKENDS, backend, bad_backend
from tests.server.peers import Logged, eventually

# More than a connection may have waiting.
MESSAGES = 24
# Until all that is made once is there; then what is watched, some 200 messages a backend. Of memory, 5 % and what glibc
# has in its arenas may come and go.
WARM, ROUNDS, SLACK = 3, 8, 2 << 20
ROUTE = """
[[api.route]]
key = "{}"
url = "{}"
timeout = 0.1
response = true
"""


def echo(request: rawws.HttpRequest) -> dict[str, Any]:
    return {"statusCode": 200, "body": event_of(request)["body"]}


async def test_o4_backends_that_fail_cost_the_clients_of_others_nothing_and_nothing_is_kept(logged: Logged) -> None:
    async with AsyncExitStack() as stack:
        good = await stack.enter_async_context(backend(echo))
        text = chat_api(good.url, "good", route="response = true")
        bad = {kind: await stack.enter_async_context(bad_backend(answer)) for kind, (answer, _) in BAD_BACKENDS.items()}
        text += "".join([ROUTE.format(kind, each.url) for kind, each in bad.items()])
        gateway = await stack.enter_async_context(aws_gateway(text))
        clients = {kind: await stack.enter_async_context(gateway.connect()) for kind in ("good", *bad)}

        async def talk(kind: str, ws: rawws.WebSocket) -> list[str]:
            for number in range(MESSAGES):
                await ws.send(json.dumps({"action": kind, "number": number}))
            return [str(await ws.recv()) for _ in range(MESSAGES)]

        healthy, *failed = await asyncio.gather(*(talk(kind, ws) for kind, ws in clients.items()))
        assert [json.loads(answer)["number"] for answer in healthy] == list(range(MESSAGES))
        for answers in failed:
            assert [json.loads(answer)["message"] for answer in answers] == ["Internal server error"] * MESSAGES
        # All are still there; nothing is under way; what fails is left alone.
        assert len(gateway.gateway.connections) == len(clients)
        [face] = [each for each in gateway.gateway.faces if isinstance(each, AwsFace)]
        assert face.outgoing is not None
        targets = face.outgoing.targets
        assert set(targets) == {good.url, *(each.url for each in bad.values())}
        assert not any(target.calls for target in targets.values())
        assert {url for url, target in targets.items() if target.breaker.state} == set(targets) - {good.url}
        await eventually(lambda: not face._tasks)
    logged.take_all("of chat failed", MESSAGES * len(bad))


async def test_o4_what_fails_takes_no_more_memory_the_longer_it_fails_and_a_healthy_route_serves_all(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as stack:
        good = await stack.enter_async_context(backend(echo))
        text = chat_api(good.url, "good", route="response = true")
        for kind, (answer, _) in BAD_BACKENDS.items():
            text += ROUTE.format(kind, (await stack.enter_async_context(bad_backend(answer))).url)
        (tmp_path / "gateway.toml").write_text(text)
        process = stack.enter_context(start(tmp_path, "gateway", "gateway.toml", "--port", "0"))
        at = f"ws://127.0.0.1:{port(process)}/prod"
        clients = [(kind, await stack.enter_async_context(rawws.connect(at))) for kind in ("good", *BAD_BACKENDS)]

        async def talk(kind: str, ws: rawws.WebSocket) -> None:
            for number in range(MESSAGES):
                await ws.send(json.dumps({"action": kind, "number": number}))
            told = [json.loads(await ws.recv()) for _ in range(MESSAGES)]
            if kind == "good":
                assert [each["number"] for each in told] == list(range(MESSAGES))
            else:
                assert {each["message"] for each in told} == {"Internal server error"}

        async def rounds(count: int) -> int:
            for _ in range(count):
                await asyncio.gather(*(talk(kind, ws) for kind, ws in clients))
            return memory(process, "VmRSS")

        before = await rounds(WARM)
        after = await rounds(ROUNDS)
        assert after - before < before // 20 + SLACK, (before, after)
