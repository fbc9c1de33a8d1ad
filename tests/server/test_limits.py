"""Limits: too many connections and too fast clients are refused, or wait; the others notice nothing."""

from __future__ import annotations

import asyncio
import resource
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import rawws
from rawws import clock
from rawws.net.rate import RateLimiter
from rawws.protocol.deflate import Compression, DeflateParameters
from rawws.server.admission import ADDRESSES, REFUSALS, AdmissionControl, most_connections
from tests.server.answers import ask, asked, get, on
from tests.server.peers import Peer, eventually, held, request, serve
from tests.topics.receivers import still


async def echo(ws: rawws.WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


def port_of(server: Any) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


async def refused(server: Any) -> bytes:
    """Return all that a new connection gets."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
    try:
        writer.write(request())
        return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_a_connection_over_max_connections_gets_503_with_retry_after_and_the_others_go_on() -> None:
    async with serve(echo, max_connections=2) as server:
        uri = f"ws://127.0.0.1:{port_of(server)}/"
        async with rawws.connect(uri) as first, rawws.connect(uri):
            answer = await refused(server)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nRetry-After: 5\r\n" in answer
            await first.send("unharmed")
            assert await first.recv() == "unharmed"
            assert server.stats().refusals == {503: 1}
        await eventually(lambda: not server.settings.connections)
        async with rawws.connect(uri) as third:
            await third.send("room again")
            assert await third.recv() == "room again"


async def test_connections_far_over_max_connections_are_cut_and_hold_nothing() -> None:
    async with serve(echo, max_connections=1) as server:
        async with rawws.connect(f"ws://127.0.0.1:{port_of(server)}/") as first:
            peers = [await Peer.reach(server.sockets[0].getsockname()) for _ in range(100)]
            await eventually(lambda: server.counters.accepted == 101)
            await eventually(lambda: len(server.settings.connections) <= 1 + REFUSALS)
            assert server.counters.refusals[503] >= REFUSALS
            await first.send("unharmed")
            assert await first.recv() == "unharmed"
            for peer in peers:
                peer.close()


async def test_an_address_with_too_many_connections_gets_429_until_one_is_gone() -> None:
    async with serve(echo, max_connections_per_address=1) as server:
        uri = f"ws://127.0.0.1:{port_of(server)}/"
        async with rawws.connect(uri):
            answer = await refused(server)
            assert answer.startswith(b"HTTP/1.1 429 ")
            assert b"\r\nRetry-After: 5\r\n" in answer
            assert b"127.0.0.1 has 1 connections, the limit for one address" in answer
            async with rawws.connect(uri, local_addr=("127.0.0.2", 0)) as other:
                await other.send("another address")
                assert await other.recv() == "another address"
        await eventually(lambda: not server.settings.connections)
        # Of addresses that are gone, nothing is remembered.
        assert not server.context.admission._counts
        async with rawws.connect(uri) as again:
            await again.send("again")
            assert await again.recv() == "again"


async def test_connections_by_a_trusted_proxy_are_counted_for_the_clients_that_it_names() -> None:
    async with serve(echo, max_connections_per_address=1, trusted_proxies=["127.0.0.1"]) as server:
        uri = f"ws://127.0.0.1:{port_of(server)}/"
        first = {"X-Forwarded-For": "192.0.2.1"}
        async with rawws.connect(uri, additional_headers=first):
            async with rawws.connect(uri, additional_headers={"X-Forwarded-For": "192.0.2.2"}):
                with pytest.raises(rawws.InvalidStatus, match="has 1 connections"):
                    await rawws.connect(uri, additional_headers=first)


async def test_a_connection_of_a_proxy_counts_once_for_the_client_of_its_last_request() -> None:
    routes = on("/", lambda asked: asked.remote_address[0])
    async with serve(routes, max_connections_per_address=1, trusted_proxies=["127.0.0.1"]) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        for client in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
            await peer.write(get("/", f"X-Forwarded-For: {client}"))
            [answer] = await asked(peer)
            assert answer.body == client.encode()
        first, second = (get("/", f"X-Forwarded-For: 192.0.2.{n}", "Connection: close") for n in (1, 2))
        assert [(await ask(server, data))[0].status for data in (first, second)] == [200, 429]
        peer.close()


async def test_a_proxy_on_a_unix_socket_that_names_nobody_counts_for_nobody(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    options: dict[str, Any] = {"max_connections_per_address": 1, "trusted_proxies": ["unix"]}
    async with rawws.unix_serve(on("/", lambda _: "in"), path, **options):
        first, second = [await Peer.reach(path) for _ in range(2)]
        named, nameless = get("/", "X-Forwarded-For: 192.0.2.1"), get()
        for peer, data in ((first, named), (first, nameless), (second, named), (first, nameless)):
            await peer.write(data)
            [answer] = await asked(peer)
            assert (answer.status, answer.body) == (200, b"in")
        await first.write(named)
        assert (await first.answer())[0].status == 429
        first.close()
        second.close()


async def test_one_of_several_connections_of_an_address_that_ends_makes_room_for_one() -> None:
    async with serve(echo, max_connections_per_address=2) as server:
        uri = f"ws://127.0.0.1:{port_of(server)}/"
        async with rawws.connect(uri):
            for _ in range(2):
                async with rawws.connect(uri):
                    assert b" 429 " in await refused(server)
                await eventually(lambda: len(server.settings.connections) == 1)


async def test_a_unix_socket_has_no_limit_for_an_address(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    async with rawws.unix_serve(echo, path, max_connections_per_address=1):
        async with rawws.unix_connect(path, "ws://localhost/"), rawws.unix_connect(path, "ws://localhost/") as second:
            await second.send("in")
            assert await second.recv() == "in"


async def test_an_address_that_shakes_hands_too_fast_gets_429_and_may_come_back() -> None:
    with still() as clock:
        async with serve(echo, handshake_rate=0.5) as server:
            uri = f"ws://127.0.0.1:{port_of(server)}/"
            for _ in range(5):
                async with rawws.connect(uri):
                    pass
            answer = await refused(server)
            clock.now += 2
            async with rawws.connect(uri):
                pass
        assert answer.startswith(b"HTTP/1.1 429 ")
        assert b"\r\nRetry-After: 2\r\n" in answer
        assert b"127.0.0.1 begins connections too fast, allowed are 0.5 a second" in answer


@pytest.mark.parametrize("kind", ["coroutine", "callbacks"])
async def test_a_client_over_message_rate_waits_and_loses_nothing(kind: str) -> None:
    class Callbacks(rawws.Handler):
        def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
            ws.send(message)

    async with serve(echo if kind == "coroutine" else Callbacks(), message_rate=50) as server:
        async with rawws.connect(f"ws://127.0.0.1:{port_of(server)}/") as ws:
            began = time.monotonic()
            for number in range(100):
                await ws.send(str(number))
            assert [await ws.recv() for _ in range(100)] == [str(number) for number in range(100)]
            # The first second's worth comes at once, the other 50 take a second.
            assert time.monotonic() - began >= 0.9


async def test_a_client_over_byte_rate_waits_and_loses_nothing() -> None:
    async with serve(echo, byte_rate=1_000_000) as server:
        async with rawws.connect(f"ws://127.0.0.1:{port_of(server)}/", compression=None) as ws:
            began = time.monotonic()
            for number in range(20):
                await ws.send(bytes([number]) * 100_000)
            assert [(await ws.recv())[:1] for _ in range(20)] == [bytes([number]) for number in range(20)]
            assert time.monotonic() - began >= 0.7


async def test_bytes_are_counted_as_they_came_whatever_messages_they_are() -> None:
    with still():
        async with held(byte_rate=1024) as (ws, peer):
            # Each takes 128 with its header: the ninth is over the limit, and nothing is read behind it.
            for number in range(9):
                await peer.send(f"{number:0122}")
                assert await ws.recv() == f"{number:0122}"
            await peer.send("behind")
            waiting = asyncio.ensure_future(ws.recv())
            done, _ = await asyncio.wait([waiting], timeout=0.1)
            assert not done
            waiting.cancel()
            ws.abort()


async def test_a_client_that_waits_for_its_rate_can_be_closed() -> None:
    async with serve(echo, message_rate=1, close_timeout=5) as server:
        async with rawws.connect(f"ws://127.0.0.1:{port_of(server)}/") as ws:
            for number in range(100):
                await ws.send(str(number))
            assert await ws.recv() == "0"
            for connection in server.connections:
                connection.close(1001)
            with pytest.raises(rawws.ConnectionClosed):
                while True:
                    await ws.recv()
            assert ws.close_code == 1001


async def test_a_client_over_its_rate_holds_no_other_up() -> None:
    async with serve(echo, message_rate=10) as server:
        uri = f"ws://127.0.0.1:{port_of(server)}/"
        # Until its rate allows the server to read its Close, nobody waits.
        async with rawws.connect(uri, close_timeout=0.1) as fast, rawws.connect(uri) as slow:
            for number in range(1000):
                await fast.send(str(number))
            assert await fast.recv() == "0"
            await slow.send("in time")
            assert await slow.recv() == "in time"


async def test_over_max_compression_memory_context_takeover_is_not_agreed_on() -> None:
    keeps = Compression(server_no_context_takeover=False, client_no_context_takeover=False)
    async with serve(echo, compression=keeps, max_compression_memory=1) as server:
        offer = request("Sec-WebSocket-Extensions: permessage-deflate")
        heads = []
        peers = []
        for _ in range(2):
            peer = await Peer.reach(server.sockets[0].getsockname())
            await peer.write(offer)
            heads.append(await head_of(peer))
            peers.append(peer)
        assert b"no_context_takeover" not in heads[0]
        assert b"server_no_context_takeover; client_no_context_takeover" in heads[1]
        for peer in peers:
            peer.close()
        await eventually(lambda: server.admission.memory == 0)


async def head_of(peer: Peer) -> bytes:
    """Return the head of a response."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += await peer.loop.sock_recv(peer.sock, 1000)
    return data


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("max_connections", 0, "max_connections is 0, allowed are numbers above 0 and None"),
        ("max_connections", 1.5, "max_connections is float, allowed are numbers above 0 and None"),
        ("max_connections_per_address", -1, "max_connections_per_address is -1, allowed are"),
        ("handshake_rate", "1", "handshake_rate is str, allowed are numbers above 0 and None"),
        ("message_rate", 0, "message_rate is 0, allowed are"),
        ("byte_rate", -0.5, "byte_rate is -0.5, allowed are"),
        ("max_compression_memory", 0, "max_compression_memory is 0, allowed are"),
    ],
)
def test_a_limit_that_is_none_is_refused(option: str, value: object, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        rawws.serve(echo, "127.0.0.1", 0, **{option: value})  # type: ignore[arg-type]


def test_the_first_handshake_of_an_address_is_in_time_at_any_hour_and_the_second_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(1000):
        admission = AdmissionControl(None, 0.03)
        monkeypatch.setattr(clock, "monotonic", lambda: number * 7.77)  # noqa: B023 - called in this turn
        client = SimpleNamespace(remote_address=("192.0.2.1", 1))
        admission.shake_hands(client)
        with pytest.raises(rawws.HttpError):
            admission.shake_hands(client)


def test_what_is_remembered_of_addresses_is_bounded() -> None:
    admission = AdmissionControl(None, 0.001)
    for number in range(ADDRESSES + 1000):
        admission.shake_hands(
            SimpleNamespace(remote_address=(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1))
        )
    assert len(admission._seen) == ADDRESSES
    admission = AdmissionControl(None, 1e9)
    for number in range(1000):
        admission.shake_hands(SimpleNamespace(remote_address=(f"10.0.{number >> 8}.{number & 255}", 1)))
    assert len(admission._seen) < 10


def test_where_descriptors_are_not_counted_connections_are_not_either(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (most_connections() or 1) > 0
    monkeypatch.setitem(sys.modules, "resource", None)
    assert most_connections() is None


@pytest.mark.parametrize(("descriptors", "most"), [(1000, 936), (1280, 1216), (1300, 1235), (65, 1), (64, 1)])
def test_of_the_descriptors_64_are_left_or_a_twentieth(
    monkeypatch: pytest.MonkeyPatch, descriptors: int, most: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    assert most_connections() == most


def test_a_pace_is_even_after_a_second_at_once() -> None:
    limiter = RateLimiter(10, 0)
    assert not limiter.account(10, 1 << 30)
    assert limiter.account(1, 0)
    assert 0 < limiter.resume_at - time.monotonic() <= 0.1


def test_what_a_rate_refuses_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1e6
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    limiter = RateLimiter(10, 0)
    assert [limiter.take() for _ in range(13)] == [True] * 10 + [False] * 3
    now += 0.2
    assert [limiter.take() for _ in range(3)] == [True, True, False]
    assert [limiter.take(burst=2.0) for _ in range(11)] == [True] * 10 + [False]
    now += 3600
    assert sum(limiter.take() for _ in range(100)) == 10


def test_of_a_slow_rate_one_is_allowed_after_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    limiter = RateLimiter(0.1, 0)
    assert [limiter.take(), limiter.take()] == [True, False]
    now += 9.9
    assert not limiter.take()
    now += 0.1
    assert limiter.take()


def test_memory_of_compressors_is_that_of_zlib() -> None:
    admission = AdmissionControl(None, None)
    admission.hold("both", DeflateParameters(False, False), 8)
    assert admission.memory == 2**17 + 2**17 + 2**15 + 7168
    admission.hold("none", DeflateParameters(), 8)
    admission.leave("none")
    admission.leave("both")
    assert admission.memory == 0


async def test_a_client_over_its_rate_is_read_again_when_its_time_has_come_and_not_before() -> None:
    loop = asyncio.get_running_loop()
    with still() as clock:
        async with held(message_rate=1, ping_interval=None) as (ws, peer):
            await peer.send(*"abcde")
            # A second's worth, and the first that is over it.
            assert [await ws.recv(), await ws.recv()] == ["a", "b"]
            for due in "cde":
                receiving = asyncio.create_task(ws.recv())
                for seconds, comes in ((0.5, False), (0.25, False), (0.25, True)):
                    clock.now += seconds
                    # As the timer does, outside of any task.
                    loop.call_soon(ws.on_sweep, clock.now)
                    for _ in range(3):
                        await asyncio.sleep(0)
                    assert receiving.done() is comes
                assert await receiving == due
