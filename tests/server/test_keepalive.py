"""Keepalive: who is silent is closed, who is only slow is not, and one timer serves all connections."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import math
import socket
from functools import partial
from typing import Any

import pytest

import rawws
from rawws import clock
from rawws.net import keepalive
from rawws.net.kernel import send_queue
from rawws.net.settings import Settings
from rawws.net.socket import AsyncSocket
from rawws.protocol.connection import Ping, Pong
from rawws.protocol.handshake import accept, check_upgrade
from rawws.protocol.http11 import HeadReader, parse_request
from tests.server.peers import Logged, Peer, connected, eventually, held, serve
from tests.topics.receivers import still


class Holding(rawws.Handler):
    """Leaves the connection to the test."""


SILENCE = (1011, "keepalive ping timeout: nothing came for 0.2 s")


async def test_pings_go_out_at_every_interval_and_measure_the_latency() -> None:
    async with held(ping_interval=0.05, ping_timeout=5) as (ws, peer):
        payloads = set()
        for _ in range(4):
            event = await peer.event()
            assert isinstance(event, Ping)
            payloads.add(event.payload)
            await peer.flush()
        assert len(payloads) == 4
        await eventually(lambda: ws.latency > 0)


async def test_without_an_interval_no_ping_goes_out_and_silence_is_no_fault() -> None:
    async with held(ping_interval=None, ping_timeout=0.05) as (ws, peer):
        await asyncio.sleep(0.3)
        await ws.send("first")
        assert await peer.event() == "first"


async def test_without_a_timeout_pings_go_out_and_silence_is_no_fault() -> None:
    async with held(ping_interval=0.05, ping_timeout=None) as (ws, peer):
        await asyncio.sleep(0.3)
        assert ws.ready_state is rawws.State.OPEN
        assert isinstance(await peer.event(), Ping)


async def test_a_silent_peer_is_closed_with_1011_and_a_reason() -> None:
    async with held(ping_interval=0.05, ping_timeout=0.2, close_timeout=0.2) as (ws, peer):
        assert await peer.closed() == SILENCE
        await ws.wait_closed()
        assert ws.close_code == 1006


async def test_a_connection_without_messages_is_closed_with_1001_whatever_its_pings_say() -> None:
    async with held(ping_interval=0.02, ping_timeout=5) as (ws, peer):
        ws.limit(idle_timeout=0.3)
        began = clock.monotonic()
        assert await peer.closed() == (1001, "idle timeout: no message came for 0.3 s")
        assert clock.monotonic() - began >= 0.3


@pytest.mark.usefixtures("steady")
async def test_messages_and_what_an_application_counts_as_such_keep_a_connection() -> None:
    async with held(ping_interval=0.02, ping_timeout=5) as (ws, peer):
        ws.limit(idle_timeout=1)
        began = clock.monotonic()
        while clock.monotonic() - began < 1.2:
            await peer.send("still here")
            await asyncio.sleep(0.2)
            ws.touch()
            await asyncio.sleep(0.2)
        assert ws.ready_state is rawws.State.OPEN
        assert await peer.closed() == (1001, "idle timeout: no message came for 1 s")


async def test_one_connection_may_have_limits_of_its_own() -> None:
    async with held() as (ws, peer):
        ws.limit(max_size=8, max_frame_size=4, text_only=True)
        await peer.send("four")
        assert await ws.recv() == "four"
        await peer.send(b"four")
        assert await peer.closed() == (1003, "the message is binary, allowed is text")
    async with held(ping_interval=0.02) as (ws, peer):
        ws.limit(max_lifetime=0.2)
        assert await peer.closed() == (1001, "max_lifetime is over, connect again")


async def test_a_limit_that_is_none_is_refused() -> None:
    async with held() as (ws, _):
        for limits in ({"idle_timeout": 0}, {"max_lifetime": -1.0}, {"max_size": -1}):
            with pytest.raises(ValueError, match="allowed are"):
                ws.limit(**limits)


async def test_a_handler_learns_from_recv_that_its_peer_was_silent() -> None:
    errors: list[rawws.ConnectionClosedError] = []

    async def handler(ws: rawws.WebSocket) -> None:
        try:
            await ws.recv()
        except rawws.ConnectionClosedError as error:
            errors.append(error)

    async with serve(handler, ping_interval=0.05, ping_timeout=0.2, close_timeout=0.2) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.shake_hands()
        await eventually(lambda: errors)
        peer.close()
    assert errors[0].sent == SILENCE
    assert errors[0].rcvd is None


@pytest.mark.usefixtures("steady")
async def test_a_peer_that_answers_stays() -> None:
    async with held(ping_interval=0.03, ping_timeout=0.1) as (ws, peer):
        for _ in range(12):
            assert isinstance(await peer.event(), Ping)
            await peer.flush()
        assert ws.ready_state is rawws.State.OPEN


async def test_a_peer_in_the_middle_of_a_large_message_is_not_silent() -> None:
    """Its Pong can only come when the message is through."""
    with still() as time:
        async with held(ping_interval=10, ping_timeout=20) as (ws, peer):
            await peer.write(b"\x82\xfe\x03\xe8\x00\x00\x00\x00")
            for _ in range(20):
                came = ws.bytes_received
                await peer.write(bytes(50))
                await eventually(lambda came=came: ws.bytes_received > came)  # type: ignore[misc]
                time.now += 5
                ws.on_sweep(time.now)
            assert await ws.recv() == bytes(1000)
            # From here on nothing comes, and that is noticed.
            for _ in range(8):
                time.now += 5
                ws.on_sweep(time.now)
            assert ws.ready_state is not rawws.State.OPEN


@pytest.mark.usefixtures("steady")
async def test_a_peer_that_reads_slowly_what_waits_for_it_is_not_silent() -> None:
    """The Ping waits behind it, so no Pong can come."""
    async with held(slow=True, ping_interval=0.05, ping_timeout=0.2, hard_limit=None) as (ws, peer):
        ws.send(bytes(500_000))
        for _ in range(40):
            await peer.read(4096)
            await asyncio.sleep(0.02)
        assert ws.buffered > 0
        assert ws.ready_state is rawws.State.OPEN


@pytest.mark.usefixtures("steady")
async def test_a_peer_that_reads_slowly_what_the_kernel_holds_is_not_silent() -> None:
    """All was written, and the Ping waits behind it in the kernel, or for room there."""
    async with serve(Holding(), ping_interval=0.05, ping_timeout=0.2) as server:
        async with connected(server, receive_buffer=4096) as peer:
            (ws,) = server.connections
            for _ in range(8):
                await ws.send(bytes(60_000))
            await eventually(lambda: ws.buffered == 0)
            for _ in range(50):
                assert await peer.read(4096)
                await asyncio.sleep(0.02)
            assert ws.buffered < 1000
            assert ws.ready_state is rawws.State.OPEN


@pytest.mark.usefixtures("steady")
async def test_a_server_that_reads_slowly_what_the_kernel_holds_is_not_silent() -> None:
    """The same for a client."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listening.setblocking(False)
        url = f"ws://127.0.0.1:{listening.getsockname()[1]}/"
        options: Any = {"proxy": None, "compression": None, "ping_interval": 0.05, "ping_timeout": 0.2}
        connecting = asyncio.ensure_future(rawws.connect(url, close_timeout=0.2, **options)._connect())
        sock, _ = await loop.sock_accept(listening)
        with sock:
            reader = HeadReader()
            while not reader.receive(await loop.sock_recv(sock, 4096)):
                pass
            request = parse_request(reader.head)
            await loop.sock_sendall(sock, accept(request, check_upgrade(request)).serialize(b""))
            ws = await connecting
            for _ in range(8):
                await ws.send(bytes(60_000))
            await eventually(lambda: ws.buffered == 0)
            for _ in range(50):
                assert await loop.sock_recv(sock, 4096)
                await asyncio.sleep(0.02)
            assert ws.buffered < 1000
            assert ws.ready_state is rawws.State.OPEN
            ws.abort()
            await ws.wait_closed()


async def test_a_window_that_opens_tells_that_a_program_reads_what_its_kernel_acknowledged_long_ago() -> None:
    async with held(slow=True, ping_interval=None) as (ws, peer):
        assert ws.transport is not None
        look = partial(send_queue, ws.transport)
        narrow = look().window // 4
        while look().window > narrow:
            acked = look().acked
            await ws.send(bytes(100))
            await eventually(lambda acked=acked: look().acked > acked)  # type: ignore[misc]
            # That the kernel of the peer has it, and has less room, says nothing of its program.
            assert not ws.makes_progress()
        reading = asyncio.create_task(peer.read_to_end())
        await eventually(lambda: look().window > narrow)
        assert ws.makes_progress()
        assert look().held == 0
        ws.abort()
        await reading


async def test_a_peer_that_stands_still_with_what_its_kernel_has_is_dropped() -> None:
    """Its kernel acknowledges our messages and Pings until it has no more room."""
    async with serve(Holding(), ping_interval=0.05, ping_timeout=0.2, close_timeout=0.2) as server:
        async with connected(server):
            (ws,) = server.connections
            while ws.ready_state is rawws.State.OPEN:
                ws.send(bytes(100))
                await asyncio.sleep(0.02)
            await ws.wait_closed()
            assert ws.close_code == 1006


async def test_a_peer_that_neither_reads_nor_sends_is_dropped() -> None:
    async with held(slow=True, ping_interval=0.05, ping_timeout=0.2, close_timeout=0.2) as (ws, _):
        ws.send(bytes(500_000))
        await ws.wait_closed()
        assert ws.close_code == 1006


@pytest.mark.usefixtures("steady")
async def test_a_peer_whose_messages_the_handler_does_not_take_is_not_silent() -> None:
    """The server does not read then, so it cannot see a Pong; that is no fault of the peer."""
    async with held(ping_interval=0.05, ping_timeout=0.2) as (ws, peer):
        sending = asyncio.create_task(
            peer.write(b"\x82\xfe\x03\xe8\x00\x00\x00\x00".join([b"", *[bytes(1000)] * 20_000]))
        )
        await asyncio.sleep(0.8)
        assert ws.ready_state is rawws.State.OPEN
        for _ in range(20_000):
            assert await ws.recv() == bytes(1000)
        await sending


@pytest.mark.usefixtures("steady")
async def test_after_a_pause_of_the_handler_a_silent_peer_is_noticed_again() -> None:
    async with held(ping_interval=0.05, ping_timeout=0.2, close_timeout=0.2) as (ws, peer):
        await peer.send(*[bytes(1000)] * 100)
        await asyncio.sleep(0.4)
        assert ws.ready_state is rawws.State.OPEN
        for _ in range(100):
            await ws.recv()
        assert await peer.closed() == SILENCE


async def test_one_connection_that_fails_is_logged_and_the_others_are_looked_after(logged: Logged) -> None:
    class Broken:
        lost = False

        def on_sweep(self, now: float) -> None:
            connections.discard(self)
            raise ZeroDivisionError

    async with held(ping_interval=0.05, ping_timeout=5) as (ws, peer):
        connections: set[Any] = ws.settings.connections
        connections.add(Broken())
        await eventually(lambda: connections == {ws})
        for _ in range(2):
            assert isinstance(await peer.event(), Ping)
            await peer.flush()
    logged.take("the keepalive of a connection failed", ZeroDivisionError)


def timers() -> int:
    """Return how many timers there are: each is an object of the loop."""
    gc.collect()
    return sum(type(thing).__name__ == "TimerHandle" and not thing.cancelled() for thing in gc.get_objects())


async def test_one_timer_and_no_task_serve_all_connections() -> None:
    async with serve(rawws.Handler(), ping_interval=0.05, ping_timeout=5) as server:
        address = server.sockets[0].getsockname()
        before = timers()
        peers = [await Peer.reach(address) for _ in range(40)]
        for peer in peers[:30]:
            await peer.shake_hands()
        # That of the test's guard may be counted twice for a moment, when it is over and the next one is there.
        await eventually(lambda: timers() - before <= 1)
        # That of the test, and that of its guard.
        assert len(asyncio.all_tasks()) == 2
        for peer in peers[:30]:
            assert isinstance(await peer.event(), Ping)
        for peer in peers:
            peer.close()


async def test_traffic_of_the_server_alone_does_not_do_without_pings() -> None:
    async with held(ping_interval=0.05, ping_timeout=5) as (ws, peer):
        event = None
        while not isinstance(event, Ping):
            await ws.send("x")
            event = await peer.event()


async def test_traffic_of_the_peer_alone_does_not_do_without_pings() -> None:
    async with held(ping_interval=0.05, ping_timeout=5) as (ws, peer):
        heard = asyncio.create_task(peer.event())
        while not heard.done():
            await peer.send("x")
            assert await ws.recv() == "x"
        assert isinstance(await heard, Ping)


async def test_traffic_of_both_sides_does_without_pings_until_one_of_them_is_quiet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keepalive, "SWEEP", 3600.0)
    async with held(ping_interval=None, ping_timeout=None, open_timeout=None, close_timeout=None) as (ws, peer):
        # From here on, the test is the clock.
        ws.settings.ping_interval = 20.0
        now = float(math.ceil(clock.monotonic()))

        async def look(seconds: float, *, hears: bool = True, says: bool = True) -> None:
            """Have something come and go, or not, and look so many seconds after the last look."""
            nonlocal now
            now += seconds
            if hears:
                await peer.send("x")
                assert await ws.recv() == "x"
            if says:
                ws.send("y")
                # What came before it, a Ping for example, would stand here.
                assert await peer.event() == "y"
            ws.on_sweep(now)

        async def pinged() -> None:
            before = ws.latency
            assert isinstance(await peer.event(), Ping)
            await peer.flush()
            # The Pong is traffic of the peer.
            await eventually(lambda: ws.latency != before)
            await look(0, hears=False)

        for _ in range(4):
            await look(10)
        for _ in range(2):
            for seconds in (10, 9.5, 0.5):
                await look(seconds, hears=False)
            await pinged()
        for _ in range(4):
            await look(10)
        for seconds in (10, 9.5, 0.5):
            await look(seconds, says=False)
        await pinged()


async def test_how_long_a_ping_may_wait_is_counted_from_what_came_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepalive, "SWEEP", 3600.0)
    async with held(ping_interval=None, ping_timeout=None, open_timeout=None, close_timeout=None) as (ws, peer):
        ws.settings.ping_timeout = 20.0
        ws.ping(b"unanswered")
        assert await peer.event() == Ping(b"unanswered")
        peer.connection.take_data()
        now = float(math.ceil(clock.monotonic())) + 15
        await peer.send("x")
        assert await ws.recv() == "x"
        ws.on_sweep(now)
        for seconds, state in ((19.5, rawws.State.OPEN), (20.0, rawws.State.CLOSING)):
            ws.on_sweep(now + seconds)
            assert ws.ready_state is state
        assert await peer.closed() == (1011, "keepalive ping timeout: nothing came for 20 s")


async def test_a_peer_for_which_too_much_waits_when_its_ping_is_due_is_closed_for_that(
    monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    monkeypatch.setattr(keepalive, "SWEEP", 3600.0)
    options: dict[str, Any] = dict.fromkeys(("ping_interval", "ping_timeout", "open_timeout", "close_timeout"))
    async with held(slow=True, hard_limit=100_000, **options) as (ws, peer):
        ws.settings.ping_interval = 20.0
        ws.send(bytes(500_000))
        await eventually(lambda: ws.congested)
        now = float(math.ceil(clock.monotonic()))
        for seconds, state in ((0, rawws.State.OPEN), (20, rawws.State.CLOSING)):
            ws.on_sweep(now + seconds)
            assert ws.ready_state is state
        assert await peer.event() == bytes(500_000)
        assert await peer.closed() == (1013, "slow consumer: over 100000 bytes wait to be sent")
        peer.close()
    assert logged.left() == []


async def test_pings_wait_for_their_own_time_whoever_sent_them_and_however_long_it_was_quiet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keepalive, "SWEEP", 3600.0)
    options: dict[str, Any] = dict.fromkeys(("ping_interval", "ping_timeout", "open_timeout", "close_timeout"))
    with still() as time:
        async with held(**options) as (ws, peer):
            ws.settings.ping_interval = 20.0
            ws.on_sweep(time.now)
            for seconds in (20, 19.5, 0.5):
                time.now += seconds
                ws.on_sweep(time.now)
                ws.on_sweep(time.now)
                ws.pong(b"mark")
                # One Ping an interval, answered or not.
                if seconds != 19.5:
                    assert isinstance(await peer.event(), Ping)
                assert await peer.event() == Pong(b"mark")
        async with held(**options) as (ws, peer):
            ws.settings.ping_timeout = 20.0
            ws.on_sweep(time.now)
            time.now += 100
            ws.ping(b"late")
            assert await peer.event() == Ping(b"late")
            for seconds, state in ((19.5, rawws.State.OPEN), (0.5, rawws.State.CLOSING)):
                time.now += seconds
                ws.on_sweep(time.now)
                assert ws.ready_state is state


async def test_nothing_is_looked_at_over_a_tenth_late_and_nothing_where_nobody_is() -> None:
    settings = Settings(asyncio.get_running_loop(), logging.getLogger("rawws.server"))
    settings.ping_interval = 5.0
    timer = keepalive.Keepalive(settings)
    assert timer._interval == 0.5
    for seconds, interval in ((2.0, 0.2), (30.0, 0.2), (0.5, 0.05)):
        timer.tighten_interval(seconds)
        assert timer._interval == interval
    timer.start()
    first = timer._handle
    timer.start()
    assert timer._handle is first
    await eventually(lambda: timer._handle is None)
    settings.ping_interval = settings.ping_timeout = settings.open_timeout = settings.close_timeout = 0.0
    assert keepalive.Keepalive(settings)._interval == 1.0


class Late:
    """What is on sockets whose deadline is over: counts how often each is told."""

    lasts = False
    kind = "http"

    def __init__(self) -> None:
        self.told = 0

    def begin(self, socket: AsyncSocket) -> None: ...

    def receive(self, data: bytes) -> None: ...

    def receive_eof(self) -> bool:
        return False

    def lose(self) -> None: ...

    def expire(self) -> None:
        self.told += 1

    def shut_down(self) -> None: ...


def sockets(settings: Settings, count: int) -> list[tuple[AsyncSocket, Late]]:
    """Return that many sockets of these settings, and what is on them."""
    made = []
    for _ in range(count):
        late = Late()
        connection = AsyncSocket(settings.shared, late)
        connection.deadline = 1e-9
        settings.connections.add(connection)
        made.append((connection, late))
    return made


async def test_the_sweep_of_many_connections_is_cut_into_slices_and_tells_each_once() -> None:
    settings = Settings(asyncio.get_running_loop(), logging.getLogger("test"))
    timer = keepalive.Keepalive(settings)
    made = sockets(settings, 20_001)
    timer.tighten_interval(1.6)
    timer.start()
    slices = [0]
    while slices[-1] < 15_000:
        await asyncio.sleep(0)
        slices.append(sum(late.told for _, late in made))
    # Who comes is told in the next sweep, who goes is not told any more.
    ((_, newcomer),) = sockets(settings, 1)
    gone = [(connection, late) for connection, late in made if not late.told][:100]
    for connection, _ in gone:
        connection.connection_lost(None)
        settings.connections.discard(connection)
    while slices[-1] < 19_901:
        await asyncio.sleep(0)
        slices.append(sum(late.told for _, late in made))
    assert max(after - before for before, after in itertools.pairwise(slices)) == 20_001 // keepalive.SLICES + 1
    assert slices[-1] == 19_901
    assert [late.told for _, late in gone] == [0] * 100
    assert newcomer.told == 0
    for _, late in made:
        late.told = 0
    for connection, _ in made:
        connection.deadline = 1e-9
    await eventually(lambda: newcomer.told == 1)
    settings.connections.clear()


async def test_few_connections_are_swept_in_one_go_and_a_timer_without_any_ends() -> None:
    settings = Settings(asyncio.get_running_loop(), logging.getLogger("test"))
    timer = keepalive.Keepalive(settings)
    made = sockets(settings, keepalive.SLICE)
    timer.tighten_interval(0.1)
    timer.start()
    await eventually(lambda: made[0][1].told)
    assert {late.told for _, late in made} == {1}
    held_by = gc.get_referrers(made[0][0])
    assert not any(isinstance(holder, list) for holder in held_by)
    settings.connections.clear()
    await eventually(lambda: timer._handle is None)
