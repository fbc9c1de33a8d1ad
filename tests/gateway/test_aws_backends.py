"""Backends that fail in each way at once, while the clients of all of them speak: a healthy route answers as ever."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import rawws
from rawws.gateway.aws import AwsFace
from tests.gateway.aws_running import aws_gateway, chat_api, event_of
from tests.gateway.backends import BAD_BACKENDS, backend, bad_backend
from tests.server.peers import Logged, eventually

# More than a connection may have waiting.
MESSAGES = 24
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
