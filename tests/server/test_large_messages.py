"""Large messages with compression: others have their turns while one is inflated and deflated, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

import rawws
from rawws.net.deflating import PIECE_SIZE
from rawws.net.prepared import PreparedMessage
from rawws.protocol.connection import Pong
from rawws.protocol.deflate import STEP, Compression, DeflateJob
from tests.server.peers import connected, eventually, held, serve

DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover"
TAKEOVER = Compression(server_no_context_takeover=False, client_no_context_takeover=False)
LARGE = b"".join(b"%d," % (number * number) for number in range(400_000))
# In one turn of the loop there are at most so many of these, of all connections together.
PER_TURN = 5


def uri_of(server: rawws.Server) -> str:
    return f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def turns_until(work: asyncio.Future[Any]) -> int:
    count = 0
    while not work.done():
        await asyncio.sleep(0)
        count += 1
    return count


@pytest.mark.parametrize("compression", ["deflate", TAKEOVER])
async def test_a_large_message_is_echoed_in_many_turns_in_which_others_are_served(compression: Any) -> None:
    async def echo(ws: rawws.WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    options = {"compression": compression, "max_size": None}
    async with serve(echo, **options) as server, rawws.connect(uri_of(server), **options) as ws:
        async with rawws.connect(uri_of(server)) as other:

            async def large() -> list[str | bytes]:
                await ws.send(LARGE)
                ws.send("behind")
                await ws.send(LARGE.decode())
                return [await ws.recv() for _ in range(3)]

            work = asyncio.ensure_future(large())
            echoes = 0
            while not work.done():
                await other.send("small")
                assert await other.recv() == "small"
                echoes += 1
            assert work.result() == [LARGE, "behind", LARGE.decode()]
            # Done at once, each of the four is deflated and inflated in one turn.
            assert echoes > 4 * len(LARGE) / STEP / PER_TURN / 4


async def test_callbacks_take_large_messages_in_turns_and_what_follows_in_order() -> None:
    got: list[str | bytes] = []

    class Handler(rawws.Handler):
        def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
            got.append(message)
            ws.send(message)

    async with serve(Handler(), max_size=None) as server, connected(server, DEFLATE) as peer:
        peer.connection.send(LARGE, True)
        peer.connection.ping(b"behind")
        peer.connection.send("last")
        peer.connection.close()
        octets = b"".join(peer.connection.take_data())
        writing = asyncio.ensure_future(peer.write(octets))
        await eventually(lambda: len(got) == 2)
        await writing
        assert got == [LARGE, "last"]
        events = []
        while (event := await peer.event()) is not None:
            events.append(event)
        # A Pong need not wait for a message that is still compressed, and the Close does.
        assert events == [Pong(b"behind"), LARGE, "last", rawws.Close(1000, "")]


async def test_inflating_takes_as_many_turns_as_there_are_pieces() -> None:
    async with held(DEFLATE, max_size=None) as (ws, peer):
        peer.connection.send(bytes(40 * PIECE_SIZE), True)
        receiving = asyncio.ensure_future(ws.recv())
        await peer.flush()
        assert await turns_until(receiving) > 40 / PER_TURN
        assert receiving.result() == bytes(40 * PIECE_SIZE)


async def test_what_is_streamed_is_inflated_in_turns_too() -> None:
    async with held(DEFLATE, max_size=None) as (ws, peer):
        peer.connection.send(bytes(40 * PIECE_SIZE), True)
        await peer.flush()
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.ensure_future(tick())
        sizes = [len(part) async for part in ws.recv_streaming()]
        ticking.cancel()
        assert (sum(sizes), max(sizes)) == (40 * PIECE_SIZE, PIECE_SIZE)
        assert ticks > 40 / PER_TURN


@pytest.mark.parametrize("end", ["abort", "reset", "close"])
async def test_an_end_in_the_middle_leaves_nothing(end: str) -> None:
    async with held(DEFLATE, max_size=None) as (ws, peer):
        peer.connection.send(bytes(40 * PIECE_SIZE), True)
        await peer.flush()
        sending = asyncio.ensure_future(ws.send(LARGE))
        await eventually(lambda: ws.connection.messages.inflating and ws.connection.backlog is not None)
        if end == "abort":
            ws.abort()
        elif end == "reset":
            peer.reset()
        else:
            closing = ws.close()
            assert ws.connection.backlog is not None
            # What is inflated still goes by, and is given to nobody.
            assert await peer.event() == LARGE
            assert await peer.finish() == (1000, "")
            await closing
            await sending
        if end != "close":
            with pytest.raises(rawws.ConnectionClosed):
                await sending
        await ws.wait_closed()
        assert ws.connection.backlog is None
        assert not ws.connection.messages.inflating


async def test_a_send_that_is_cancelled_is_sent_all_the_same() -> None:
    async with held(DEFLATE) as (ws, peer):
        sending = asyncio.ensure_future(ws.send(LARGE))
        await asyncio.sleep(0)
        sending.cancel()
        assert await peer.message() == LARGE
        with contextlib.suppress(asyncio.CancelledError):
            await sending
        assert sending.cancelled()


async def test_who_closes_with_messages_in_the_queue_hears_the_close_of_a_peer_that_sends_much() -> None:
    async with held(DEFLATE, max_size=None, close_timeout=600) as (ws, peer):
        await peer.send("never taken")
        await eventually(ws.has_message)
        peer.connection.send(bytes(40 * PIECE_SIZE), True)
        await peer.flush()
        await eventually(lambda: ws.connection.messages.inflating)
        closing = ws.close()
        assert await peer.finish() == (1000, "")
        await closing


async def test_what_one_awaits_is_not_held_against_another() -> None:
    """A large message that somebody awaits is over `hard_limit` when it is written: a send of another finds it so."""
    noise = b"".join(index.to_bytes(4, "big") for index in range(2 << 18))
    async with held(DEFLATE, hard_limit=65536) as (ws, peer):
        sending = asyncio.ensure_future(ws.send(noise))
        await eventually(lambda: ws.connection.backlog is not None)
        ws.send("not awaited")
        await eventually(lambda: ws.connection.backlog is None)
        for _ in range(10):
            ws.send("nor are these")
            await asyncio.sleep(0)
        assert await peer.message() == noise
        assert await peer.message() == "not awaited"
        await sending


async def test_drain_waits_for_what_is_compressed_and_parts_wait_behind() -> None:
    async def parts() -> Any:
        for part in ("f", "g"):
            yield part

    async with held(DEFLATE) as (ws, peer):
        ws.send(LARGE)
        ws.send(["d", "e"])
        fragments = asyncio.ensure_future(ws.send(parts()))
        await ws.drain()
        assert ws.connection.backlog is None
        await fragments
        assert [await peer.message() for _ in range(3)] == [LARGE, "de", "fg"]


async def test_a_broadcast_is_compressed_once_for_all_and_in_turns() -> None:
    connections: list[rawws.WebSocket] = []

    async def handler(ws: rawws.WebSocket) -> None:
        connections.append(ws)
        await ws.wait_closed()

    async with serve(handler) as server, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(rawws.connect(uri_of(server), max_size=None)) for _ in range(3)]
        await eventually(lambda: len(connections) == 3)
        prepared = PreparedMessage(LARGE.decode())
        receiving = asyncio.gather(*(client.recv() for client in clients))
        for ws in connections:
            ws.send_prepared(prepared)
            ws.send_prepared(PreparedMessage("behind"))
        (job,) = (prepared.compressed(ws.connection.deflate) for ws in connections[:1] if ws.connection.deflate)
        assert isinstance(job, DeflateJob)
        assert await turns_until(receiving) > len(LARGE) / STEP / PER_TURN
        assert receiving.result() == [LARGE.decode()] * 3
        assert [await client.recv() for client in clients] == ["behind"] * 3
        assert job.octets is not None
        # And it is not for who comes later.
        connections[0].send_prepared(prepared)
        assert await clients[0].recv() == LARGE.decode()
        rawws.broadcast(connections, LARGE)
        assert [await client.recv() for client in clients] == [LARGE] * 3
