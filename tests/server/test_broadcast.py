"""`broadcast`: one message to many connections, none of which can spoil it for the others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import rawws
from rawws.protocol.deflate import Compression
from tests.server.peers import connected, eventually, serve


async def wait(ws: rawws.WebSocket) -> None:
    await ws.wait_closed()


async def test_a_broadcast_reaches_every_open_connection() -> None:
    async with serve(wait) as server, connected(server) as one, connected(server) as two:
        await eventually(lambda: len(server.connections) == 2)
        rawws.broadcast(server.connections, "hi")
        rawws.broadcast(iter(server.connections), bytearray(b"all"))
        for peer in (one, two):
            assert [await peer.message(), await peer.message()] == ["hi", b"all"]


async def test_a_broadcast_is_compressed_by_each_connection_that_keeps_its_window() -> None:
    keeps = Compression(server_no_context_takeover=False, client_no_context_takeover=False)
    async with serve(wait, compression=keeps) as server:
        uri = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with rawws.connect(uri, compression=keeps) as one, rawws.connect(uri, compression=None) as two:
            await eventually(lambda: len(server.connections) == 2)
            for text in ("compressible " * 100, "compressible " * 101):
                rawws.broadcast(server.connections, text)
                assert await one.recv() == await two.recv() == text


async def test_those_that_close_are_skipped() -> None:
    async with serve(wait) as server, connected(server) as one, connected(server) as two:
        await eventually(lambda: len(server.connections) == 2)
        gone, here = sorted(server.connections, key=lambda ws: ws.remote_address != one.sock.getsockname())
        gone.close(1000)
        connections = [gone, here]
        rawws.broadcast(connections, "hi")
        assert await two.message() == "hi"
        assert await one.finish() == (1000, "")
        await gone.wait_closed()
        rawws.broadcast(connections, "again")
        assert await two.message() == "again"


async def test_one_that_reads_too_slowly_is_closed_and_delays_no_other() -> None:
    async with (
        serve(wait, hard_limit=1 << 17, close_timeout=0.2) as server,
        connected(server, receive_buffer=4096) as slow,
        connected(server) as fast,
    ):
        await eventually(lambda: len(server.connections) == 2)
        connections = set(server.connections)
        count = 0
        while len(server.connections) == 2 and all(ws.connection.phase == 0 for ws in connections):
            rawws.broadcast(connections, bytes(1 << 16))
            assert await fast.message() == bytes(1 << 16)
            count += 1
            assert count < 1000
        rawws.broadcast(connections, "on")
        assert await fast.message() == "on"
        slow.close()
        await eventually(lambda: len(server.connections) == 1)


@pytest.mark.parametrize("message", [None, 7, ["a"], {"a": 1}])
async def test_what_is_no_message_raises_and_nothing_is_sent(message: Any) -> None:
    async with serve(wait) as server, connected(server) as peer:
        await eventually(lambda: server.connections)
        with pytest.raises(TypeError, match=r"message is .*, allowed are str, bytes"):
            rawws.broadcast(server.connections, message)
        rawws.broadcast(server.connections, "only this")
        assert await peer.message() == "only this"
        await asyncio.sleep(0)
