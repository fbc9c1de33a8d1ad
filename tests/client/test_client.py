"""The client's connection: the two styles, its limits, its timers, and that a cancelled `recv` loses nothing."""

from __future__ import annotations

import asyncio
import gc
import random
from typing import Any

import pytest

import rawws
from rawws.net.socket import AsyncSocket, shared
from tests.client.peers import accepted, echo, scripted
from tests.server.peers import Logged, eventually, serve

CANCELLATIONS = 10_000


def uri(server: rawws.Server) -> str:
    return f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


def swept() -> set[AsyncSocket]:
    """The connections that the keepalive of the clients in this loop looks after."""
    keepalive = shared(asyncio.get_running_loop()).clients
    assert keepalive is not None
    return keepalive.connections


class Recorder(rawws.Handler):
    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_open(self, ws: rawws.WebSocket) -> None:
        self.events.append("open")
        ws.send("one")

    def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
        self.events.append(message)
        if message == "one":
            ws.send(b"two")

    def on_close(self, _ws: rawws.WebSocket, code: int, reason: str) -> None:
        self.events.append((code, reason))


# -- the styles


async def test_a_connection_is_closed_at_the_end_of_the_block() -> None:
    async with serve(echo) as server:
        async with rawws.connect(uri(server)) as ws:
            await ws.send("hi")
            assert await ws.recv() == "hi"
            assert await ws.ping() > 0
        assert (ws.close_code, ws.ready_state) == (1000, rawws.State.CLOSED)
        with pytest.raises(rawws.ConnectionClosedOK):
            await ws.recv()


async def test_a_connection_may_be_awaited_and_closed_by_hand() -> None:
    async with serve(echo) as server:
        ws = await rawws.connect(uri(server))
        await ws.close(4000, "mine")
        assert ws.close_code == 4000


async def test_a_connect_may_be_used_again() -> None:
    async with serve(echo) as server:
        connecting = rawws.connect(uri(server))
        for _ in range(3):
            async with connecting as ws:
                await ws.send("hi")
                assert await ws.recv() == "hi"


async def test_callbacks_get_what_comes() -> None:
    handler = Recorder()
    async with serve(echo) as server:
        ws = await rawws.connect(uri(server), handler=handler)
        await eventually(lambda: len(handler.events) == 3)
        await ws.close(4001, "bye")
        assert handler.events == ["open", "one", b"two", (4001, "bye")]


async def test_callbacks_get_what_came_with_the_response() -> None:
    handler = Recorder()
    async with scripted(lambda request: accepted(request) + b"\x81\x02hi") as server:
        ws = await rawws.connect(server.uri, handler=handler)
        assert handler.events == ["open", "hi"]
        ws.abort()
        await ws.wait_closed()
        assert handler.events[-1] == (1006, "")


async def test_callbacks_come_back_too() -> None:
    async def once(ws: rawws.WebSocket) -> None:
        await ws.recv()

    handler = Recorder()
    async with serve(once) as server:
        rounds = 0
        async for ws in rawws.connect(uri(server), handler=handler, reconnect_delays=lambda: iter([0.0] * 9)):
            await ws.wait_closed()
            rounds += 1
            if rounds == 3:
                break
    assert handler.events == ["open", (1000, "")] * 3


@pytest.mark.parametrize("name", ["on_open", "on_message"])
async def test_a_callback_that_raises_ends_its_connection_and_is_logged_once(name: str, logged: Logged) -> None:
    class Faulty(rawws.Handler):
        pass

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    setattr(Faulty, name, fail)
    async with scripted(lambda request: accepted(request) + b"\x81\x02hi\x88\x02\x03\xf3", ends=True) as server:
        ws = await rawws.connect(server.uri, handler=Faulty())
        await ws.wait_closed()
        assert ws.connection.close_sent == (1011, "internal error")
    logged.take("connection handler failed: GET /", ZeroDivisionError, "rawws.client")


# -- limits and timers


async def test_a_message_over_max_size_closes_with_1009() -> None:
    async with serve(echo, max_size=None) as server, rawws.connect(uri(server), max_size=100) as ws:
        await ws.send("x" * 100)
        assert await ws.recv() == "x" * 100
        await ws.send("x" * 101)
        with pytest.raises(rawws.ConnectionClosedError, match="sent 1009"):
            await ws.recv()


async def test_a_server_that_reads_too_slowly_is_left_with_1013_where_nobody_waits() -> None:
    async with scripted(accepted) as server:
        ws = await rawws.connect(server.uri, hard_limit=1 << 16, compression=None)
        server.transports[0].pause_reading()
        with pytest.raises(rawws.ConnectionClosedError, match=r"sent 1013 .slow consumer"):
            await send_on(ws)
        ws.abort()
        await ws.wait_closed()


async def send_on(ws: rawws.WebSocket) -> None:
    """Send without waiting for the buffer."""
    for _ in range(1000):
        ws.send(bytes(1 << 16))
        await asyncio.sleep(0)


async def test_a_server_that_does_not_answer_the_close_is_left_after_close_timeout() -> None:
    async with scripted(accepted) as server:
        ws = await rawws.connect(server.uri, close_timeout=0.1)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await ws.close()
        # It has its time first; a clock may be a tick behind.
        assert loop.time() - begun > 0.09
        assert ws.close_code == 1006


async def test_a_server_that_does_not_end_tcp_is_left_after_close_timeout() -> None:
    # The Close frame comes with the response; after the client's own, the server should end TCP, and does not.
    async with scripted(lambda request: accepted(request) + b"\x88\x02\x03\xe8") as server:
        ws = await rawws.connect(server.uri, close_timeout=0.1)
        async with asyncio.timeout(60):
            await ws.wait_closed()
        assert ws.close_code == 1000


async def test_a_silent_server_is_left_after_ping_timeout() -> None:
    async with scripted(accepted) as server:
        ws = await rawws.connect(server.uri, ping_interval=0.1, ping_timeout=0.1, close_timeout=0.1)
        with pytest.raises(rawws.ConnectionClosedError, match=r"sent 1011 .keepalive ping timeout"):
            await ws.recv()
        await ws.wait_closed()


async def test_pings_measure_the_latency() -> None:
    async with serve(echo) as server, rawws.connect(uri(server), ping_interval=0.05) as ws:
        await eventually(lambda: ws.latency > 0)


async def test_all_clients_in_a_loop_share_one_timer_and_keep_their_own_times() -> None:
    async with serve(echo) as server, scripted(accepted) as silent:
        slow = [await rawws.connect(uri(server), ping_interval=None) for _ in range(20)]
        fast = await rawws.connect(silent.uri, ping_interval=0.1, ping_timeout=0.1)
        assert len({id(ws.settings.keepalive) for ws in (*slow, fast)}) == 1
        assert swept() == {*slow, fast}
        await eventually(lambda: fast.close_code or fast.connection.phase)
        assert all(ws.ready_state is rawws.State.OPEN for ws in slow)
        for ws in (*slow, fast):
            ws.abort()
        await asyncio.gather(*(ws.wait_closed() for ws in (*slow, fast)))
        assert not swept()
        last = await rawws.connect(uri(server))
        assert last.settings.keepalive is not fast.settings.keepalive  # which sweeps as often as `fast` needed
        await last.close()


async def test_a_connection_that_nobody_holds_goes_on() -> None:
    # asyncio holds its transport, and that its protocol: a callback style client need not hold anything.
    handler = Recorder()
    async with serve(echo) as server:
        await rawws.connect(uri(server), handler=handler)
        gc.collect()
        await eventually(lambda: len(handler.events) == 3)
        (ws,) = swept()
        assert isinstance(ws, rawws.WebSocket)
        await ws.close()


# -- what is on the wire


async def test_every_frame_is_masked_with_a_key_of_its_own() -> None:
    received = bytearray()

    async with scripted(accepted) as server:
        ws = await rawws.connect(server.uri)
        protocol: Any = server.transports[0].get_protocol()
        for _ in range(600):
            ws.send("x")
        ws.ping(b"")
        await eventually(lambda: len(protocol.data) > 601 * 6)
        received += protocol.data.partition(b"\r\n\r\n")[2]
        ws.abort()
        await ws.wait_closed()
    keys = []
    while received:
        length = received[1] & 0x7F
        assert received[1] & 0x80
        keys.append(bytes(received[2:6]))
        del received[: 6 + length]
    assert len(keys) == 601
    # Of 601 keys of 32 bits, two are the same once in 24,000 runs.
    assert len(set(keys)) >= 600


# -- a cancelled recv


async def test_recv_cancelled_10_000_times_loses_no_message() -> None:
    dice = random.Random(4)
    peers: list[rawws.WebSocket] = []

    async def remember(ws: rawws.WebSocket) -> None:
        peers.append(ws)
        await ws.wait_closed()

    async with serve(remember) as server, rawws.connect(uri(server), compression=None) as ws:
        await eventually(lambda: peers)
        sent = cancelled = 0
        got: list[int] = []
        while cancelled < CANCELLATIONS:
            task = asyncio.ensure_future(receive(ws, dice.random() < 0.5))
            for _ in range(dice.randrange(4)):
                # Bursts are rare enough that most calls wait when the cancellation comes.
                if dice.random() < 0.2:
                    for _ in range(dice.randrange(1, 4)):
                        peers[0].send(str(sent))
                        sent += 1
                await asyncio.sleep(0)
            task.cancel()
            try:
                got.append(int(await task))
            except asyncio.CancelledError:
                cancelled += 1
        while len(got) < sent:
            got.append(int(await ws.recv()))
        assert got == list(range(sent))
        assert sent > 1000


async def receive(ws: rawws.WebSocket, iterate: bool) -> str | bytes:
    """Receive one message in either way."""
    return await (ws.__anext__() if iterate else ws.recv())


async def test_a_timeout_around_recv_loses_no_message() -> None:
    async def count(ws: rawws.WebSocket) -> None:
        for number in range(50):
            await ws.send(str(number))
            await asyncio.sleep(0.001)

    async with serve(count) as server, rawws.connect(uri(server)) as ws:
        got: list[int] = []
        while len(got) < 50:
            try:
                async with asyncio.timeout(0.0005):
                    got.append(int(await ws.recv()))
            except TimeoutError:
                pass
        assert got == list(range(50))
