"""Namespaces: clients of several tenants of one hub, none of whom can name a topic of another."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

import rawws
from rawws.topics import Hub
from rawws.topics.cursors import CursorError, join_cursors, namespaced
from tests.server.answers import ask, get
from tests.server.peers import Peer, eventually
from tests.topics.dialogue import Client, served
from tests.topics.receivers import Receiver
from tests.topics.test_http import feed, fetch

V1: Final = "Sec-WebSocket-Protocol: rawws.v1"


def tenant(client: Any) -> str:
    return str(client.query.get("tenant", ""))


def hub_of(asked: list[tuple[str, str]] | None = None, **options: Any) -> Hub:
    def authorize(_client: Any, action: str, topic: str) -> bool:
        if asked is not None:
            asked.append((action, topic))
        return True

    return Hub(authorize=authorize, namespace=tenant, **options)


@asynccontextmanager
async def reach(server: rawws.Server, name: str) -> AsyncIterator[Client]:
    peer = await Peer.reach(server.sockets[0].getsockname())
    try:
        await peer.shake_hands(V1, line=f"GET /ws?tenant={name} HTTP/1.1")
        yield Client(peer)
    finally:
        peer.close()


@pytest.mark.parametrize("callbacks", [True, False])
async def test_a_client_neither_says_nor_hears_its_namespace(callbacks: bool) -> None:
    asked: list[tuple[str, str]] = []
    hub = hub_of(asked)
    async with (
        served(hub, callbacks=callbacks) as server,
        reach(server, "a") as ours,
        reach(server, "b") as theirs,
    ):
        begun = await ours.ask(subscribe="b/chat", id=1, join={"name": "Ann"}, watch=True)
        await theirs.ask(subscribe="chat", id=1)
        assert (await ours.ask(publish="b/chat", data="hello"))["topic"] == "b/chat"
        place = hub.publish("a/b/chat", "more").cursor
        assert await ours.hear() == {"topic": "b/chat", "cursor": place, "data": "more"}
        hub.publish("b/chat", "theirs")
        assert (await theirs.hear())["data"] == "theirs"
        # A joined cursor has the names that the client knows.
        found = await ours.ask(history="b/chat", since=join_cursors({"b/chat": begun["cursor"]}), id=2)
        assert [each["topic"] for each in found["publications"]] == ["b/chat", "b/chat"]
        assert (await ours.ask(presence="b/chat", id=3))["count"] == 1
        assert await ours.ask(unsubscribe="b/chat", id=4) == {"id": 4}
        assert hub.subscribers("a/b/chat") == 0
        refused = await ours.ask(subscribe="*", pattern=True, id=5)
        assert refused["error"] == "refused"
    assert set(asked) == {("subscribe", "a/b/chat"), ("publish", "a/b/chat"), ("subscribe", "b/chat")}


async def test_streams_polls_and_posts_have_the_names_and_the_cursors_without_it() -> None:
    hub = hub_of()
    async with served(hub) as server:
        async with feed(server, "/stream?tenant=a&topic=chat&topic=x") as stream:
            assert [(await stream.data())["topic"] for _ in range(2)] == ["chat", "x"]
            first = hub.publish("a/chat", "one")
            event = await stream.next()
            assert (json.loads(event.data or ""), (event.id or "").split("&")[0]) == (
                {"topic": "chat", "cursor": first.cursor, "data": "one"},
                f"chat={first.cursor}",
            )
        hub.publish("a/chat", "two")
        hub.publish("b/chat", "theirs")
        async with feed(server, "/stream?tenant=a&topic=chat&topic=x", f"Last-Event-ID: {event.id}") as stream:
            told = [await stream.data() for _ in range(3)]
            assert [each["recovered"] for each in told[:2]] == [True, True]
            assert told[2]["data"] == "two"
        status, answer = await fetch(server, f"/poll?tenant=a&topic=chat&timeout=0&since=chat%3D{first.cursor}")
        assert (status, [each["data"] for each in answer["publications"]]) == (200, ["two"])
        assert answer["cursor"].startswith("chat=")
        body = json.dumps({"history": "chat", "limit": 1}).encode()
        [posted] = await ask(server, get("/?tenant=a", "Connection: close", method="POST", body=body), ["POST"])
        assert json.loads(posted.body)["publications"][0]["topic"] == "chat"
        assert (await fetch(server, "/poll?tenant=a&pattern=*&timeout=0"))[0] == 403


async def test_what_the_application_has_a_client_subscribed_to_outside_is_named_in_full() -> None:
    hub = hub_of()
    async with served(hub) as server, reach(server, "a") as ours:
        [ws] = [each async for each in connections(server)]
        hub.subscribe(ws, "news")
        hub.subscribe(ws, "a/*", pattern=True)
        hub.publish("news", "x")
        assert (await ours.hear())["topic"] == "news"
        hub.unsubscribe(ws, "a/*", pattern=True, reason="over")
        assert (await ours.hear())["pattern"] == "a/*"


async def connections(server: rawws.Server) -> Any:
    await eventually(lambda: server.connections)
    for each in server.connections:
        yield each


def test_a_cursor_that_is_too_long_is_refused_as_one_without_a_namespace() -> None:
    assert namespaced("x" * 20000 + "=", "a/") == "x" * 20000 + "="
    assert namespaced("5f:1", "a/") == "5f:1"
    assert namespaced("chat=5f:1&b%20c=6f:2", "a b/") == "a%20b/chat=5f:1&a%20b/b%20c=6f:2"
    with pytest.raises(CursorError):
        rawws.topics.cursors.cursors_of(namespaced("&" * 8000 + "=", "a/"), ["a/x"])


def test_a_namespace_has_no_patterns() -> None:
    with pytest.raises(ValueError, match="authorize_pattern is beside namespace, allowed is one"):
        hub_of(authorize_pattern=lambda _client, _pattern: True)


async def test_an_observer_is_told_of_each_subscription_and_of_its_end() -> None:
    told: list[tuple[str, str]] = []

    class Observer:
        def subscribed(self, subscription: rawws.topics.Subscription) -> None:
            told.append(("in", subscription.topic))

        def unsubscribed(self, subscription: rawws.topics.Subscription) -> None:
            told.append(("out", subscription.topic))

    hub = Hub()
    hub.observer = Observer()
    receiver = Receiver()
    hub.subscribe(receiver, "a")
    hub.subscribe(receiver, "b")
    hub.unsubscribe(receiver, "a")
    hub.unsubscribe(receiver)
    assert told == [("in", "a"), ("in", "b"), ("out", "a"), ("out", "b")]
