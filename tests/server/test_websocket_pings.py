"""Pings and Pongs: latency, what answers what, and that a flood of them is no growth (RFC 6455 5.5.2, 5.5.3)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import rawws
from rawws.protocol.connection import Ping, Pong
from tests.server.answers import get, on
from tests.server.peers import Logged, Peer, connected, eventually, held, narrow, request, serve
from tests.topics.receivers import still


async def test_ping_gives_the_latency_in_seconds() -> None:
    async with held() as (ws, peer):
        assert ws.latency == 0
        task = asyncio.ensure_future(ws.ping())
        event = await peer.event()
        assert isinstance(event, Ping)
        assert len(event.payload) == 4
        await asyncio.sleep(0.05)
        await peer.flush()
        latency = await task
        # Loops round the time of a sleep to milliseconds.
        assert latency > 0.045
        assert ws.latency == latency


@pytest.mark.parametrize(
    ("data", "payload"),
    [
        ("ü", "ü".encode()),
        (b"data", b"data"),
        (bytearray(b"a"), b"a"),
        (memoryview(b"m"), b"m"),
        (b"", b""),
        ("x" * 125, b"x" * 125),
    ],
)
async def test_ping_and_pong_carry_their_data(data: Any, payload: bytes) -> None:
    async with held() as (ws, peer):
        ws.ping(data)
        ws.pong(data)
        assert await peer.event() == Ping(payload)
        assert await peer.event() == Pong(payload)


async def test_ping_acts_without_await_and_measures_all_the_same() -> None:
    async with held() as (ws, peer):
        waiting = ws.ping(b"one")
        assert await peer.event() == Ping(b"one")
        await peer.flush()
        await eventually(lambda: ws.latency > 0)
        assert await waiting == ws.latency


async def test_the_pong_of_a_later_ping_answers_the_earlier_ones() -> None:
    async with held() as (ws, peer):
        tasks = [asyncio.ensure_future(ws.ping(f"{number}")) for number in range(3)]
        await asyncio.sleep(0)
        peer.connection.pong(b"1")
        await peer.flush()
        first, second = await asyncio.gather(*tasks[:2])
        assert first >= second
        assert not tasks[2].done()
        peer.connection.pong(b"2")
        await peer.flush()
        await tasks[2]


async def test_a_ping_with_data_that_waits_already_is_refused() -> None:
    async with held() as (ws, peer):
        waiting = ws.ping(b"same")
        with pytest.raises(rawws.LocalProtocolError, match="b'same' waits for its pong already"):
            ws.ping("same")
        assert await peer.event() == Ping(b"same")
        await peer.flush()
        await waiting
        ws.ping(b"same")


async def test_a_pong_that_comes_in_the_same_tick_of_the_clock_is_an_answer_after_no_time() -> None:
    with still():
        async with held() as (ws, peer):
            waiting = asyncio.ensure_future(ws.ping())
            assert isinstance(await peer.event(), Ping)
            await peer.flush()
            assert await waiting == 0.0


class Broken:
    """Counts nothing."""

    def observe(self, seconds: float) -> None:
        raise ZeroDivisionError


async def test_a_fault_of_this_side_is_logged_and_ends_its_own_connection_only(logged: Logged) -> None:
    async with serve(rawws.Handler()) as server, connected(server) as one, connected(server) as other:
        await eventually(lambda: len(server.connections) == 2)
        server.counters.round_trips = Broken()  # type: ignore[assignment]
        [ws] = [each for each in server.connections if each.remote_address == one.sock.getsockname()]
        ws.ping()
        assert isinstance(await one.event(), Ping)
        await one.flush()
        assert await one.closed() == (1011, "internal error")
        logged.take("connection handler failed", ZeroDivisionError)
        await other.start_close()
        assert await other.finish() == (1000, "")


@pytest.mark.parametrize("name", ["ping", "pong"])
async def test_control_frames_over_125_bytes_are_refused(name: str) -> None:
    async with held() as (ws, peer):
        for data in ("x" * 126, "ü" * 63):
            with pytest.raises(rawws.LocalProtocolError, match="payload is 126 bytes, limit 125"):
                getattr(ws, name)(data)
        with pytest.raises(TypeError, match="data is int, allowed are str, bytes"):
            getattr(ws, name)(1)
        await ws.send("next")
        assert await peer.event() == "next"


@pytest.mark.parametrize("end", ["close", "start_close"])
async def test_ping_that_waits_raises_when_the_connection_ends(end: str) -> None:
    async with held() as (ws, peer):
        task = asyncio.ensure_future(ws.ping())
        not_awaited = ws.ping()
        await asyncio.sleep(0)
        result = getattr(peer, end)()
        if result is not None:
            await result
            peer.close()
        with pytest.raises(rawws.ConnectionClosed):
            await task
        with pytest.raises(rawws.ConnectionClosed):
            await not_awaited


async def test_ping_that_was_cancelled_leaves_the_others_alone() -> None:
    async with held() as (ws, peer):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ws.ping(b"slow"), 0.02)
        task = asyncio.ensure_future(ws.ping(b"next"))
        await asyncio.sleep(0)
        while await peer.event() != Ping(b"next"):
            pass
        await peer.flush()
        await task


async def test_unsolicited_pongs_are_ignored() -> None:
    async with held() as (ws, peer):
        task = asyncio.ensure_future(ws.ping(b"mine"))
        await asyncio.sleep(0)
        for payload in (b"", b"yours", b"mine "):
            peer.connection.pong(payload)
        await peer.send("message")
        assert await ws.recv() == "message"
        assert not task.done()
        assert ws.latency == 0
        peer.connection.pong(b"mine")
        await peer.flush()
        await task


async def test_pings_are_answered_while_the_handler_does_something_else() -> None:
    async with held() as (_, peer):
        for payload in (b"", b"one", b"x" * 125):
            peer.connection.ping(payload)
            await peer.flush()
            assert await peer.event() == Pong(payload)


async def test_pings_within_a_fragmented_message_are_answered_at_once() -> None:
    async with held() as (ws, peer):
        await peer.fragment(1, b"a")
        peer.connection.ping(b"between")
        await peer.flush()
        assert await peer.event() == Pong(b"between")
        await peer.fragment(0, b"b", final=True)
        assert await ws.recv() == "ab"


async def test_pings_are_answered_in_order_with_what_is_sent() -> None:
    async with held() as (_, peer):
        for number in range(100):
            peer.connection.ping(f"{number}".encode())
        await peer.flush()
        assert [await peer.event() for _ in range(100)] == [Pong(f"{number}".encode()) for number in range(100)]


async def test_a_flood_of_pings_to_a_peer_that_does_not_read_is_answered_by_the_last() -> None:
    """600,000 of them grew peers by 70 to 126 MB."""
    async with held(slow=True) as (ws, peer):
        for number in range(60_000):
            peer.connection.ping(f"{number}".encode())
        data = b"".join(peer.connection.take_data())
        largest = 0
        for at in range(0, len(data), 20_000):
            await peer.write(data[at : at + 20_000])
            await asyncio.sleep(0)
            largest = max(largest, ws.buffered)
        assert largest < 400_000
        answered = 0
        event = None
        while event != Pong(b"59999"):
            event = await peer.event()
            assert isinstance(event, Pong)
            answered += 1
        assert answered < 60_000


async def test_a_ping_that_was_answered_by_the_pong_of_a_later_one_is_remembered_no_more() -> None:
    async with held() as (ws, peer):
        for payload in (b"0", b"1", b"2"):
            ws.ping(payload)
        peer.connection.pong(b"1")
        await peer.flush()
        await eventually(lambda: ws.latency)
        # Its data may be used again, and that of the one that waits may not.
        ws.ping(b"0")
        last = ws.ping(b"1")
        with pytest.raises(rawws.LocalProtocolError, match="waits for its pong already"):
            ws.ping(b"2")
        peer.connection.pong(b"1")
        await peer.flush()
        await asyncio.ensure_future(last)
        for payload in (b"0", b"1", b"2"):
            ws.ping(payload)


async def test_a_pong_that_was_held_back_goes_out_when_the_peer_has_read_though_nothing_else_is_sent() -> None:
    async with held(slow=True, ping_interval=None) as (ws, peer):
        while not ws.congested:
            ws.send(bytes(10_000))
            await asyncio.sleep(0)
        before = ws.bytes_received
        for payload in (b"first", b"last"):
            peer.connection.ping(payload)
        await peer.flush()
        # Of each, six bytes are the head of the frame.
        await eventually(lambda: ws.bytes_received == before + 6 + len(b"first") + 6 + len(b"last"))
        event: Any = b""
        while isinstance(event, bytes):
            event = await peer.event()
        assert event == Pong(b"last")
        # From here on they are answered at once.
        await eventually(lambda: not ws.congested)
        for payload in (b"one", b"two"):
            peer.connection.ping(payload)
        await peer.flush()
        assert [await peer.event() for _ in range(2)] == [Pong(b"one"), Pong(b"two")]


async def test_pongs_are_held_back_of_a_peer_that_read_too_slowly_before_it_was_a_websocket() -> None:
    routes = on("/", lambda _: bytes(60_000))
    routes.websocket("/ws")(rawws.Handler())
    async with rawws.serve(routes, sock=narrow()) as server:
        peer = await Peer.reach(server.sockets[0].getsockname(), 2048)
        await peer.write(get())
        await eventually(lambda: sum(ws.buffered for ws in server.settings.connections) > 30_000)
        await peer.write(get() + request(line="GET /ws HTTP/1.1"))
        await eventually(lambda: server.connections)
        [ws] = server.connections
        assert ws.congested
        for payload in (b"first", b"last"):
            peer.connection.ping(payload)
        await peer.flush()
        await peer.heard_by(ws)
        data = b""
        while not data.endswith(b"last"):
            data += await peer.read()
        assert data.count(bytes(60_000)) == 2
        assert b"first" not in data
        peer.close()
