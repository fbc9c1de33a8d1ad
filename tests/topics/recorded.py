"""Dialogues of rawws.v1, kept as JSON lines, to be said again to each hub to come.

`python -m tests.topics.recorded >FILE` says SCRIPT to the hub that is here, and writes what it answered. A file that is
kept is never recorded again: it says what the clients of that time said and heard.
"""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import AsyncExitStack
from typing import Any

from rawws.topics import History, Hub
from tests.topics.dialogue import Client, client, served
from tests.topics.test_http import feed, fetch, post

__all__ = ["Dialogue"]

# What is random: epochs, and the ids of those present.
TOKEN = re.compile(r"(?<![\w-])~?[\w-]{12}(?![\w-])")
# `hear`, `answer` and `events` are filled in by what records it.
SCRIPT: list[dict[str, Any]] = [
    {"who": "one", "say": {"id": 1, "subscribe": "chat"}},
    {"who": "one", "hear": None},
    {"who": "two", "say": {"id": 1, "publish": "chat", "data": "Grüße", "key": "k"}},
    {"who": "two", "hear": None},
    {"who": "one", "hear": None},
    {"who": "two", "say": {"publish": "chat", "base64": "AP8="}},
    {"who": "one", "hear": None},
    {"publish": ["chat", "from the server"]},
    {"who": "one", "hear": None},
    # Who comes and goes.
    {"who": "one", "say": {"id": 2, "subscribe": "room", "join": {"name": "Ann"}, "watch": True}},
    {"who": "one", "hear": None},
    {"who": "two", "say": {"id": 2, "subscribe": "room", "join": ["Bob", 1.5, None, True]}},
    {"who": "two", "hear": None},
    {"who": "one", "hear": None},
    {"who": "one", "say": {"id": 3, "presence": "room"}},
    {"who": "one", "hear": None},
    {"post": {"id": 4, "presence": "room"}},
    {"who": "two", "say": {"id": 3, "unsubscribe": "room"}},
    {"who": "two", "hear": None},
    {"who": "one", "hear": None},
    # Coming back.
    {"who": "two", "say": {"id": 4, "subscribe": "chat", "since": "earliest"}},
    *[{"who": "two", "hear": None}] * 4,
    {"who": "two", "say": {"id": 5, "unsubscribe": "chat"}},
    {"who": "two", "hear": None},
    {"who": "two", "say": {"id": 6, "subscribe": "chat", "since": "0123456789ab:5"}},
    {"who": "two", "hear": None},
    {"who": "two", "say": {"id": 0, "unsubscribe": "ping 0.123"}},
    {"who": "two", "hear": None},
    # Over HTTP.
    {"get": "/poll?topic=chat"},
    {"get": "/poll?topic=chat&since=earliest"},
    {"get": "/poll?topic=chat&since=x&timeout=0"},
    {"get": "/poll?topic=secret"},
    {"post": {"id": 7, "publish": "chat", "data": "by a post"}},
    {"who": "one", "hear": None},
    {"who": "two", "hear": None},
    {"post": {"publish": "secret", "data": "x"}},
    {"post": {"subscribe": "chat"}},
    {"stream": "/stream?topic=chat&topic=room&since=earliest", "events": 5},
    # Mistakes.
    *[
        step
        for said in (
            {"id": 8, "subscribe": "secret"},
            {"id": 8, "subscribe": ""},
            {"id": 8, "subscribe": "chat"},
            {"id": 8, "subscribe": "a", "sinc": "x"},
            {"id": 8, "subscribe": "a", "since": "x"},
            {"id": 8, "publish": "a"},
            {"id": 8, "publish": "a", "data": "x", "base64": ""},
            {"id": 8, "publish": "a", "data": "x" * 1001},
            {"id": 8, "publish": "a", "data": "x", "key": "x" * 256},
            {"id": 8, "publish": "a", "data": {"x": 1}},
            {"id": 8, "publish": "a", "data": "x", "user": "ann"},
            {"id": 8, "fly": "a"},
            {"subscribe": "a", "watch": 1},
            {"id": True, "subscribe": "a"},
        )
        for step in ({"who": "one", "say": said}, {"who": "one", "hear": None})
    ],
    {"who": "three", "say": {"id": 1, "subscribe": "room", "watch": True}},
    {"who": "three", "hear": None},
    {"leave": "one"},
    {"who": "three", "hear": None},
]


class Dialogue:
    """What is said to a hub, step by step; `known` has what is random as it is called now."""

    def __init__(self, stack: AsyncExitStack, *, callbacks: bool = False) -> None:
        def authorize(_client: Any, _action: str, topic: str) -> bool:
            return topic != "secret"

        self.hub = Hub(authorize=authorize, history=History(count=5), max_size=1000)
        self.callbacks = callbacks
        self.stack = stack
        self.known: dict[str, str] = {}
        self.clients: dict[str, tuple[AsyncExitStack, Client]] = {}

    async def start(self) -> None:
        self.server = await self.stack.enter_async_context(served(self.hub, callbacks=self.callbacks))

    async def client(self, name: str) -> Client:
        if name not in self.clients:
            stack = await self.stack.enter_async_context(AsyncExitStack())
            self.clients[name] = stack, await stack.enter_async_context(client(self.server))
        return self.clients[name][1]

    async def take(self, step: dict[str, Any]) -> dict[str, Any]:
        """Take a step, and return it with what came of it."""
        if "say" in step:
            await (await self.client(step["who"])).say(**self.now(step["say"]))
        elif "who" in step:
            return {**step, "hear": await (await self.client(step["who"])).hear()}
        elif "publish" in step:
            self.hub.publish(*step["publish"])
        elif "leave" in step:
            await self.clients[step["leave"]][0].aclose()
        elif "post" in step:
            status, answer = await post(self.server, json.dumps(self.now(step["post"])))
            return {**step, "status": status, "answer": answer}
        elif "get" in step:
            status, answer = await fetch(self.server, self.now(step["get"]))
            return {**step, "status": status, "answer": answer}
        else:
            async with feed(self.server, step["stream"]) as events:
                count = step["events"] if isinstance(step["events"], int) else len(step["events"])
                found = [await events.next() for _ in range(count)]
            return {**step, "events": [[event.event, event.id, json.loads(event.data or "null")] for event in found]}
        return step

    def now(self, said: Any) -> Any:
        """Return what is said with what is random as it is now."""
        text = TOKEN.sub(lambda token: self.known.get(token[0], token[0]), json.dumps(said))
        return json.loads(text)

    def check(self, wanted: Any, found: Any) -> None:
        """Check that what came has all that was recorded; an object may have more, and a reason may be another."""
        if isinstance(wanted, dict):
            assert isinstance(found, dict)
            assert wanted.keys() <= found.keys(), (wanted, found)
            for name, value in wanted.items():
                if name != "reason":
                    self.check(value, found[name])
        elif isinstance(wanted, list):
            assert len(wanted) == len(found), (wanted, found)
            for one, other in zip(wanted, found, strict=True):
                self.check(one, other)
        elif isinstance(wanted, str):
            assert TOKEN.sub("?", wanted) == TOKEN.sub("?", found), (wanted, found)
            for one, other in zip(TOKEN.findall(wanted), TOKEN.findall(found), strict=True):
                assert self.known.setdefault(one, other) == other, (wanted, found, self.known)
        else:
            assert wanted == found, (wanted, found)


async def record() -> None:
    """Print what comes of SCRIPT."""
    async with AsyncExitStack() as stack:
        dialogue = Dialogue(stack)
        await dialogue.start()
        for step in SCRIPT:
            print(json.dumps(await dialogue.take(step), ensure_ascii=False))


if __name__ == "__main__":
    asyncio.run(record())
