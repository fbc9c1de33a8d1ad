"""Programs of users, for mypy and pyright, both strict, and not to be run: the lines that say `ignore` are wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import assert_type

import rawws
import rawws.sync


async def handler(ws: rawws.WebSocket) -> None:
    assert_type(await ws.recv(), str | bytes)
    assert_type(await ws.recv(decode=True), str)
    assert_type(await ws.recv(decode=False), bytes)
    async for message in ws:
        assert_type(message, str | bytes)
    async for part in ws.recv_streaming():
        assert_type(part, str | bytes)
    latency: float = await ws.ping()
    await ws.send(f"{latency}")
    latency = await (await ws.ping("as in websockets"))
    ws.send(123)  # type: ignore[arg-type]
    ws.recv()  # type: ignore[unused-coroutine]


async def sends(ws: rawws.WebSocket, parts: AsyncIterator[str]) -> None:
    ws.send("at once, and nobody waits")
    ws.ping(b"so this")
    ws.pong()
    ws.close(rawws.CloseCode.GOING_AWAY, "and this")
    for data in ("text", b"binary", bytearray(4), memoryview(b"view")):
        await ws.send(data)
    await ws.send(["an", "iterable"])
    await ws.send((b"of", memoryview(b"octets")))
    await ws.send(parts)
    assert_type(await ws.send("text", text=False, compress=True), None)
    assert_type(await ws.close(), None)
    ws.send(None)  # type: ignore[arg-type]
    ws.send([1])  # type: ignore[list-item]
    ws.send("text", compres=True)  # type: ignore[call-arg]
    ws.ping(1)  # type: ignore[arg-type]
    ws.close("1000")  # type: ignore[arg-type]


async def tasks(ws: rawws.WebSocket) -> None:
    received = asyncio.create_task(ws.recv())
    sent = asyncio.create_task(ws.send("a task"))
    assert_type(await received, str | bytes)
    assert_type(await sent, None)
    assert_type(await asyncio.wait_for(ws.recv(decode=True), 1), str)
    async with asyncio.TaskGroup() as group:
        group.create_task(ws.send("another"))
    await asyncio.gather(ws.send("two"), ws.ping())


def facts(ws: rawws.WebSocket) -> str:
    assert_type(ws.close_code, int | None)
    assert_type(ws.close_reason, str | None)
    assert_type(ws.subprotocol, str | None)
    assert_type(ws.ready_state, rawws.State)
    address = ws.remote_address
    if isinstance(address, tuple):
        assert_type(address[0], str)
        assert_type(address[1], int)
    elif address is not None:
        assert_type(address, str)
    host: str = ws.remote_address[0]  # type: ignore[index]
    return f"{host}, {ws.request.path if ws.request else ''}"


class Echo(rawws.Handler):
    def on_open(self, ws: rawws.WebSocket) -> None:
        ws.state.count = 0

    def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
        ws.state.count += 1
        ws.send(message)


class Wrong(rawws.Handler):
    def on_message(self, ws: rawws.WebSocket, message: int) -> None:  # type: ignore[override]
        ws.send("")


def to_many(connections: set[rawws.WebSocket], stream: rawws.EventStream) -> None:
    stream.send("at once")
    stream.send(rawws.Event("data", event="tick"))
    stream.send(b"octets")  # type: ignore[arg-type]
    rawws.broadcast(connections, "text")
    rawws.broadcast(connections, b"binary")
    rawws.broadcast([*connections, stream], "both")
    rawws.broadcast(connections, 1)  # type: ignore[arg-type]
    rawws.broadcast(["nobody"], "text")  # type: ignore[list-item]


async def main() -> None:
    async with rawws.serve(handler, "127.0.0.1", 0, hard_limit=3) as server:
        for ws in server.connections:
            assert_type(ws, rawws.WebSocket)
    rawws.serve("nonsense", "127.0.0.1", 0)  # type: ignore[arg-type]
    rawws.serve(Echo, "127.0.0.1", 0)  # type: ignore[arg-type]
    rawws.serve(handler, "127.0.0.1", 0, hard_limt=3)  # type: ignore[call-arg]
    rawws.serve(handler, "127.0.0.1", 0, hard_limit="3")  # type: ignore[arg-type]
    rawws.run(handler, "127.0.0.1", 8765, pong_timeout=1)  # type: ignore[call-arg]
    async with rawws.connect("ws://127.0.0.1", compression=None, user_agent_header="a program") as ws:
        assert_type(ws, rawws.WebSocket)
    async for ws in rawws.connect("ws://127.0.0.1"):
        assert_type(ws, rawws.WebSocket)
    rawws.connect("ws://127.0.0.1", prot=3)  # type: ignore[call-arg]
    rawws.connect("ws://127.0.0.1", max_size="1 MiB")  # type: ignore[arg-type]


def without_asyncio() -> None:
    with rawws.sync.connect("ws://x", open_timeout=1) as ws:
        assert_type(ws.recv(timeout=1), str | bytes)
        assert_type(ws.recv(decode=True), str)
        assert_type(ws.recv(1, decode=False), bytes)
        ws.send(["an", "iterable"])
        ws.send(7)  # type: ignore[arg-type]
        assert_type(ws.ping(), float)
        for message in ws:
            assert_type(message, str | bytes)
    rawws.sync.connect("ws://x", open_timout=1)  # type: ignore[call-arg]
    assert_type(rawws.sync.publish("http://x", "a", {"b": 1}, key="k"), str)
    rawws.sync.publish("http://x", "a", "b")  # type: ignore[call-arg]
    with rawws.sync.HubClient("ws://x", transports=["poll"], token=lambda: "t") as hub:
        assert_type(hub.publish("a", {"b": 1}, timeout=1), str)
        for publication in hub.subscribe("a", since="earliest"):
            assert_type(publication.message, str | bytes)
        with hub.subscribe("a") as subscription:
            assert_type(subscription.recv(1).cursor, str)
    rawws.sync.HubClient("ws://x", transport="poll")  # type: ignore[call-arg]
