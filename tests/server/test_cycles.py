"""Cycles: what ended is not left to the garbage collector, with its messages, on either twin."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

import rawws
from tests.server.peers import connected, eventually, narrow


def kept_connections(before: set[int]) -> list[Any]:
    """Return the connections of now that were not there before."""
    found = [thing for thing in gc.get_objects() if isinstance(thing, rawws.WebSocket)]
    return [thing for thing in found if id(thing) not in before]


async def receiving(ws: rawws.WebSocket) -> None:
    await ws.recv()


async def iterating(ws: rawws.WebSocket) -> None:
    async for _ in ws:
        pass


async def streaming(ws: rawws.WebSocket) -> None:
    async for _ in ws.recv_streaming():
        pass


async def sending(ws: rawws.WebSocket) -> None:
    while True:
        await ws.send(bytes(100_000))


async def sending_apart(ws: rawws.WebSocket) -> None:
    while True:
        await asyncio.create_task(ws.send(bytes(100_000)))


@pytest.mark.parametrize("engine", ["epoll", "asyncio"])
@pytest.mark.parametrize("handler", [receiving, iterating, streaming, sending, sending_apart])
async def test_a_handler_that_is_cancelled_leaves_nothing_to_the_garbage_collector(engine: str, handler: Any) -> None:
    gc.collect()
    before = set(map(id, kept_connections(set())))
    gc.disable()
    try:
        options: dict[str, Any] = {"engine": engine, "sock": narrow()}
        async with rawws.serve(handler, **options) as server, connected(server):
            await eventually(lambda: [ws for ws in server.connections if ws.task is not None])
            for _ in range(10):
                await asyncio.sleep(0)
            assert len(kept_connections(before)) == 1
            server.abort()
            await eventually(lambda: kept_connections(before) == [])
    finally:
        gc.enable()
