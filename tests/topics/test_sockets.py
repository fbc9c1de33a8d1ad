"""The hub and true connections: raw WebSockets, slow ones, dying ones, and many of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import tracemalloc
from collections.abc import AsyncIterator

import pytest

import rawws
from rawws.topics import History, Hub, Publication
from rawws.topics.core import HubCore
from rawws.topics.history import Notice
from rawws.topics.rawws_v1 import PROTOCOL
from rawws.topics.rules import ClientRules
from rawws.topics.subscribers import ClientProtocol
from tests.server.peers import Peer, connected, eventually, narrow, serve
from tests.topics.receivers import Receiver

DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover"


@contextlib.asynccontextmanager
async def subscribed(
    hub: Hub, count: int, *fields: str, slow: int = 0, topics: tuple[str, ...] = ("t",)
) -> AsyncIterator[list[Peer]]:
    """Give so many peers whose WebSockets are subscribed; the first ones read into the smallest buffers."""

    async def handler(ws: rawws.WebSocket) -> None:
        for topic in topics:
            hub.subscribe(ws, topic)
        await ws.wait_closed()

    async with rawws.serve(handler, sock=narrow(), close_timeout=0.2) if slow else serve(handler) as server:
        async with contextlib.AsyncExitStack() as stack:
            peers = [
                await stack.enter_async_context(connected(server, *fields, receive_buffer=2048 if number < slow else 0))
                for number in range(count)
            ]
            await eventually(lambda: hub.stats().subscribers == count)
            yield peers
        await eventually(lambda: hub.stats().subscribers == 0)


@pytest.mark.parametrize("fields", [(), (DEFLATE,)], ids=["plain", "deflate"])
async def test_text_and_binary_reach_all_as_they_are(fields: tuple[str, ...]) -> None:
    hub = Hub()
    async with subscribed(hub, 3, *fields) as peers:
        sent = ["Grüße", b"\x00\xff", "", "x" * 5000, bytes(70_000)]
        for message in sent:
            assert hub.publish("t", message).delivered == 3
        for peer in peers:
            assert [await peer.message() for _ in sent] == sent


async def test_several_publications_of_one_turn_leave_in_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    async with subscribed(hub, 2, topics=("a", "b")) as peers:
        for number in range(16):
            hub.publish("ab"[number % 2], str(number))
        for peer in peers:
            # A peer that waits for the whole of it is woken once.
            data = await peer.read(65536)
            peer.connection.receive(data)
            assert [peer.connection.next_event() for _ in range(16)] == [*map(str, range(16))]


async def test_two_stalled_subscribers_do_not_stop_the_others_and_get_closed() -> None:
    hub = Hub()
    async with subscribed(hub, 6, slow=2) as peers:
        message = "x" * 20_000
        sent = 0
        while hub.stats().closed < 2:
            hub.publish("t", message)
            sent += 1
            for peer in peers[2:]:
                assert await peer.message() == message
            assert sent < 1000
        assert hub.stats().subscribers == 4
        for peer in peers[:2]:
            got = 0
            while (event := await peer.event()) == message:
                got += 1
            assert event is None or (isinstance(event, rawws.Close) and event.code == 1013)
            assert got < sent
        assert hub.publish("t", "on").delivered == 4


async def test_one_that_reads_on_gets_everything_in_order() -> None:
    hub = Hub()
    async with subscribed(hub, 2, slow=1, topics=("a", "b")) as (slow, fast):
        sent = [f"{number} " + "x" * 5000 for number in range(100)]
        queued = 0
        for number, message in enumerate(sent):
            queued += hub.publish("ab"[number % 2], message).queued
            await asyncio.sleep(0)
        assert queued > 0
        assert [await fast.message() for _ in sent] == sent
        assert [await slow.message() for _ in sent] == sent
        assert hub.stats().waiting == 0


async def test_block_waits_for_a_slow_connection_or_its_end() -> None:
    hub = Hub(policy="block")
    async with subscribed(hub, 2, slow=2) as (reads, dies):

        async def publish() -> None:
            for _ in range(60):
                await hub.publish("t", "x" * 10_000)

        publishing = asyncio.create_task(publish())
        await eventually(lambda: hub.stats().waiting > 0)
        published = hub.stats().published
        await asyncio.sleep(0.05)
        assert hub.stats().published == published < 60
        dies.reset()
        for _ in range(60):
            assert await reads.message() == "x" * 10_000
        await publishing


async def test_a_dying_connection_leaves_every_hub_and_no_trace() -> None:
    one, two = Hub(), Hub(history=None)
    made: list[rawws.WebSocket] = []

    async def handler(ws: rawws.WebSocket) -> None:
        made.append(ws)
        for topic in ("a", "b", "c"):
            one.subscribe(ws, topic)
            two.subscribe(ws, topic)
        await ws.wait_closed()

    async with serve(handler) as server:
        for end in (Peer.reset, Peer.close):
            async with connected(server) as peer:
                await eventually(lambda: two.stats().subscriptions == 3)
                end(peer)
                await eventually(lambda: two.stats().subscriptions == one.stats().subscriptions == 0)
        async with connected(server) as peer:
            await eventually(lambda: two.stats().subscriptions == 3)
            await peer.start_close()
            await peer.closed()
            await eventually(lambda: one.stats().subscribers == two.stats().subscribers == 0)
        assert two.stats().topics == 0
        with pytest.raises(rawws.ConnectionClosed):
            one.subscribe(made[-1], "a")
        assert one.stats().subscribers == 0


async def test_one_that_is_closing_is_found_out_by_the_next_publication() -> None:
    hub = Hub()
    made: list[rawws.WebSocket] = []

    async def handler(ws: rawws.WebSocket) -> None:
        made.append(ws)
        hub.subscribe(ws, "t")
        await ws.wait_closed()

    async with serve(handler) as server, connected(server):
        await eventually(lambda: hub.stats().subscribers)
        made[0].close()
        outcome = hub.publish("t", "late")
        assert (outcome.delivered, outcome.closed) == (0, 1)
        assert hub.stats().subscribers == 0
        with pytest.raises(rawws.ConnectionClosed):
            hub.subscribe(made[0], "t")


async def test_another_client_protocol_says_publications_and_notices_in_its_own_words_and_makes_each_once() -> None:
    made: list[Publication] = []

    def render(publication: Publication) -> str:
        made.append(publication)
        if isinstance(publication, Notice):
            return f"{publication.event} {publication.present and publication.present.info}"
        return f"say {publication.topic} {publication.message!r}"

    protocols = [PROTOCOL, ClientProtocol("shout", render)]
    hub = HubCore(History(), "disconnect", 10, 1 << 20, None, ClientRules(), None, protocols)

    async def handler(ws: rawws.WebSocket) -> None:
        hub.subscribe(ws, "a", watch=True)
        await ws.wait_closed()

    async with serve(handler, subprotocols=["shout", "rawws.v1", "none"]) as server:
        async with (
            connected(server, "Sec-WebSocket-Protocol: shout") as one,
            connected(server, "Sec-WebSocket-Protocol: shout") as two,
            connected(server, "Sec-WebSocket-Protocol: rawws.v1") as envelopes,
            connected(server, "Sec-WebSocket-Protocol: none") as raw,
        ):
            await eventually(lambda: hub.stats().subscribers == 4)
            cursor = hub.publish("a", "x").cursor
            hub.subscribe(Receiver(), "a", join="me")
            for peer in (one, two):
                assert await peer.message() == "say a 'x'"
                assert await peer.message() == "join me"
            assert json.loads(await envelopes.message()) == {"topic": "a", "cursor": cursor, "data": "x"}
            [joined] = hub.members("a")
            assert await raw.message() == "x"
            for peer in (envelopes, raw):
                assert json.loads(await peer.message()) == {"topic": "a", "join": {"id": joined.id, "info": "me"}}
            assert len(made) == 2
        await eventually(lambda: hub.stats().subscribers == 1)


async def test_memory_returns_to_its_start() -> None:
    hub = Hub(history=History(count=10, age=0.0))

    async def handler(ws: rawws.WebSocket) -> None:
        for number in range(20):
            hub.subscribe(ws, f"{number}", since="earliest")
        await ws.wait_closed()

    async def once() -> None:
        async with connected(server) as peer:
            await eventually(lambda: hub.stats().subscriptions == 20)
            for number in range(20):
                hub.publish(f"{number}", "x" * 100)
            for _ in range(20):
                await peer.message()
        await eventually(lambda: hub.stats().topics == 0)

    async with serve(handler) as server:
        for _ in range(5):
            await once()
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(20):
                await once()
            gc.collect()
            grown = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
    # One round holds over 100 KiB.
    assert grown < 20_000
