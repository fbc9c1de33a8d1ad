"""What a handler receives: `recv`, `async for`, `recv_streaming`, and that none of them loses a message."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import rawws
from rawws.protocol.connection import Ping, Pong
from tests.server.peers import Peer, connected, eventually, held, serve, set_at_end

DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover"

# Ways to make a task; the eager one is there from Python 3.12 on.
FACTORIES: dict[str, Any] = {
    "default": None,
    # What asyncio falls back to where its C module is missing; it calls `send` where that one calls `__next__`.
    "python": lambda loop, coroutine, **options: asyncio.tasks._PyTask(  # type: ignore[attr-defined]
        coroutine, loop=loop, **{name: value for name, value in options.items() if name != "eager_start"}
    ),
}
if hasattr(asyncio, "eager_task_factory"):

    def eager(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        """Make an eager task. uvloop 0.23 says so itself (`eager_start`), which asyncio's own factory does not take."""
        options["eager_start"] = True
        return asyncio.Task(coroutine, loop=loop, **options)

    FACTORIES["eager"] = eager


async def echo(ws: rawws.WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


# -- recv and async for


async def test_text_is_str_and_binary_is_bytes() -> None:
    async with serve(echo) as server, connected(server) as peer:
        await peer.send("grüße", b"\x00\xff", "", b"")
        assert [await peer.message() for _ in range(4)] == ["grüße", b"\x00\xff", "", b""]


async def test_async_for_ends_where_the_peer_closed_as_agreed() -> None:
    ends: list[str] = []

    async def handler(ws: rawws.WebSocket) -> None:
        async for _ in ws:
            pass
        ends.append("ended")

    async with serve(handler) as server:
        for code in (1000, 1001):
            async with connected(server) as peer:
                await peer.start_close(code)
                await peer.finish()
    assert ends == ["ended", "ended"]


@pytest.mark.parametrize("code", [1002, 1008, 1011, 3000, 4999])
async def test_async_for_raises_where_the_peer_closed_on_an_error(code: int) -> None:
    raised: list[rawws.ConnectionClosedError] = []

    async def handler(ws: rawws.WebSocket) -> None:
        try:
            async for _ in ws:
                pass
        except rawws.ConnectionClosedError as error:
            raised.append(error)

    async with serve(handler) as server, connected(server) as peer:
        await peer.start_close(code, "why")
        await peer.finish()
    assert [(error.code, error.reason, error.rcvd) for error in raised] == [(code, "why", rawws.Close(code, "why"))]


async def test_recv_after_the_close_gives_what_is_queued_first() -> None:
    async with held() as (ws, peer):
        peer.connection.send("one")
        peer.connection.send("two")
        await peer.start_close(1000, "bye")
        assert await peer.closed() == (1000, "bye")
        await eventually(lambda: ws.ready_state is rawws.State.CLOSED)
        assert [await ws.recv(), await ws.recv()] == ["one", "two"]
        for _ in range(2):
            with pytest.raises(rawws.ConnectionClosedOK) as closed:
                await ws.recv()
            assert closed.value.rcvd == rawws.Close(1000, "bye")
            assert closed.value.rcvd_then_sent is True


async def test_recv_after_an_end_without_close_raises_connection_closed_error() -> None:
    async with held() as (ws, peer):
        await peer.send("one")
        peer.close()
        await eventually(lambda: ws.ready_state is rawws.State.CLOSED)
        assert await ws.recv() == "one"
        with pytest.raises(rawws.ConnectionClosedError, match="without a close frame") as closed:
            await ws.recv()
        assert closed.value.code == 1006


async def test_messages_and_the_close_in_one_segment_are_all_answered() -> None:
    async with serve(echo) as server, connected(server) as peer:
        for number in range(5):
            peer.connection.send(f"{number}")
        await peer.start_close(1000, "done")
        assert [await peer.event() for _ in range(6)] == ["0", "1", "2", "3", "4", rawws.Close(1000, "done")]


@pytest.mark.parametrize("binary", [True, False])
async def test_decode_changes_the_kind_of_a_message(binary: bool) -> None:
    received: list[str | bytes] = []

    async def handler(ws: rawws.WebSocket) -> None:
        received.extend([await ws.recv(decode=True), await ws.recv(decode=False), await ws.recv()])

    message = "ü".encode() if binary else "ü"
    async with serve(handler) as server, connected(server) as peer:
        await peer.send(message, message, message)
        assert await peer.finish() == (1000, "")
    assert received == ["ü", "ü".encode(), message]


# -- cancellation


async def test_recv_cancelled_at_random_moments_loses_nothing() -> None:
    """The moments are chosen by a seed: before, with and after the arrival of a message, in many combinations."""
    chance = random.Random(6455)
    received: list[Any] = []
    count = 400

    async def handler(ws: rawws.WebSocket) -> None:
        while len(received) < count:
            task = asyncio.ensure_future(ws.recv())
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            if chance.random() < 0.5:
                task.cancel()
            try:
                received.append(await task)
            except asyncio.CancelledError:
                pass

    async with serve(handler) as server, connected(server) as peer:
        for number in range(count):
            await peer.send(f"{number}")
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
        assert await peer.finish() == (1000, "")
    assert received == [f"{number}" for number in range(count)]


async def wait_for(ws: rawws.WebSocket, seconds: float) -> str | bytes:
    return await asyncio.wait_for(ws.recv(), seconds)


async def timeout(ws: rawws.WebSocket, seconds: float) -> str | bytes:
    async with asyncio.timeout(seconds):
        return await ws.recv()


@pytest.mark.parametrize("way", [wait_for, timeout])
async def test_recv_that_timed_out_loses_nothing(
    way: Callable[[rawws.WebSocket, float], Awaitable[str | bytes]],
) -> None:
    """The message is sent when the timeout is about due, so that both happen in one turn of the loop now and then."""
    received: list[str | bytes] = []
    timeouts = 0
    count = 60

    async def handler(ws: rawws.WebSocket) -> None:
        nonlocal timeouts
        while len(received) < count:
            try:
                received.append(await way(ws, 0.002))
            except TimeoutError:
                timeouts += 1

    async with serve(handler) as server, connected(server) as peer:
        for number in range(count):
            await peer.send(f"{number}")
            await asyncio.sleep(0.002)
        assert await peer.finish() == (1000, "")
    assert received == [f"{number}" for number in range(count)]
    assert timeouts


async def test_a_timeout_of_recv_raises_timeout_error_and_the_connection_goes_on() -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        for way in (wait_for, timeout):
            with pytest.raises(TimeoutError):
                await way(ws, 0.02)
            await ws.send("late")
        await ws.send(await ws.recv())

    async with serve(handler) as server, connected(server) as peer:
        assert [await peer.message(), await peer.message()] == ["late", "late"]
        await peer.send("in time")
        assert await peer.message() == "in time"


async def test_cancelling_the_handlers_task_reaches_its_recv() -> None:
    held: list[asyncio.Task[Any] | None] = []
    seen: list[BaseException] = []

    async def handler(ws: rawws.WebSocket) -> None:
        held.append(asyncio.current_task())
        try:
            await ws.recv()
        except asyncio.CancelledError as error:
            seen.append(error)
            raise

    async with serve(handler) as server, connected(server) as peer:
        await eventually(lambda: held)
        task = held[0]
        assert task is not None
        assert task.cancel("enough")
        assert await peer.finish() is not None
        assert task.cancelled()
    assert [str(error) for error in seen] == ["enough"]


async def test_a_message_that_comes_between_cancel_and_its_effect_stays_in_the_queue() -> None:
    async with held() as (ws, peer):
        for number in range(50):
            task = asyncio.ensure_future(ws.recv())
            await asyncio.sleep(0)
            await peer.send(f"{number}")
            task.cancel()
            try:
                message = await task
            except asyncio.CancelledError:
                message = await ws.recv()
            assert message == f"{number}"


# -- tasks


async def test_recv_works_in_tasks_task_groups_and_gather() -> None:
    received: list[Any] = []

    async def handler(ws: rawws.WebSocket) -> None:
        received.append(await asyncio.create_task(ws.recv()))
        received.extend(await asyncio.gather(ws.recv(), asyncio.sleep(0, "slept")))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(ws.recv())
        received.append(task.result())
        done, _ = await asyncio.wait([asyncio.ensure_future(ws.recv())])
        received.append(done.pop().result())
        received.append(await asyncio.shield(ws.recv()))

    async with serve(handler) as server, connected(server) as peer:
        for message in "abcde":
            await peer.send(message)
            await eventually(lambda message=message: message in received)  # type: ignore[misc]
        assert await peer.finish() == (1000, "")
    assert received == ["a", "b", "slept", "c", "d", "e"]


async def test_a_task_that_waits_in_recv_has_a_repr() -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        task = asyncio.create_task(ws.recv())
        await asyncio.sleep(0)
        assert "Task pending" in repr(task)
        assert task.get_stack() == []
        await ws.send(await task)

    async with serve(handler) as server, connected(server) as peer:
        await peer.send("hello")
        assert await peer.message() == "hello"


async def test_a_failing_sibling_in_a_task_group_cancels_recv_and_loses_nothing() -> None:
    received: list[Any] = []

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("sibling")

    async def handler(ws: rawws.WebSocket) -> None:
        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(ws.recv())
                group.create_task(fail())
        await ws.send("ready")
        received.append(await ws.recv())

    async with serve(handler) as server, connected(server) as peer:
        assert await peer.message() == "ready"
        await peer.send("kept")
        assert await peer.finish() == (1000, "")
    assert received == ["kept"]


async def test_a_second_task_in_recv_is_refused_and_the_first_gets_its_message() -> None:
    refused: list[str] = []

    async def iterate(ws: rawws.WebSocket) -> None:
        async for _ in ws:
            pass

    async def stream(ws: rawws.WebSocket) -> None:
        async for _ in ws.recv_streaming():
            pass

    async def handler(ws: rawws.WebSocket) -> None:
        first = asyncio.create_task(ws.recv())
        await asyncio.sleep(0)
        attempts: list[Callable[[], object]] = [ws.recv, functools.partial(ws.recv, decode=True)]
        for attempt in attempts:
            with pytest.raises(rawws.LocalProtocolError, match="another task waits in recv already"):
                attempt()
        for task in (asyncio.create_task(iterate(ws)), asyncio.create_task(stream(ws))):
            with pytest.raises(rawws.LocalProtocolError) as error:
                await task
            refused.append(str(error.value))
        await ws.send("ready")
        await ws.send(await first)
        await ws.send(await ws.recv())

    async with serve(handler) as server, connected(server) as peer:
        assert await peer.message() == "ready"
        await peer.send("first")
        await peer.send("second")
        assert await peer.message() == "first"
        assert await peer.message() == "second"
    assert refused == ["another task waits in recv already, allowed is one at a time"] * 2


async def test_of_two_tasks_made_at_once_of_recv_one_is_refused() -> None:
    async with held() as (ws, peer):
        tasks = [asyncio.create_task(ws.recv()) for _ in range(2)]
        await asyncio.sleep(0)
        await peer.send("hello")
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [str, rawws.LocalProtocolError]


@pytest.mark.parametrize("factory", FACTORIES)
async def test_every_task_factory_serves(factory: str) -> None:
    """With eager tasks a handler runs until its first wait before the handshake's own step is over."""
    asyncio.get_running_loop().set_task_factory(FACTORIES[factory])

    async def handler(ws: rawws.WebSocket) -> None:
        await asyncio.create_task(ws.send(await asyncio.create_task(ws.recv())))
        assert await asyncio.create_task(ws.ping()) > 0
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ws.recv(), 0.01)
        # `recv` is the first, while no message can come: an eager task of it would be done before it is cancelled.
        acts: list[Callable[[], Any]] = [ws.recv, ws.ping, lambda: ws.send("x")]
        for act in acts:
            task = asyncio.create_task(act())
            task.cancel()
            await asyncio.wait([task])
        async for message in ws:
            await ws.send(message)

    async def process_request(ws: rawws.WebSocket, request: rawws.Request) -> None:
        await asyncio.sleep(0)

    for option in (None, process_request):
        async with serve(handler, process_request=option) as server:
            peer = await Peer.reach(server.sockets[0].getsockname())
            message = b"\x81\x82\x00\x00\x00\x00hi"
            await peer.shake_hands(then=message)
            assert await peer.message() == "hi"
            assert isinstance(await peer.event(), Ping)
            await peer.flush()
            assert await peer.message() == "x"
            await peer.send("there", "again")
            assert [await peer.message(), await peer.message()] == ["there", "again"]
            await peer.start_close()
            assert await peer.finish() == (1000, "")
            peer.close()


async def test_debug_mode_has_nothing_to_say(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    # What the machine is slow at is not the subject.
    loop.slow_callback_duration = 60
    async with serve(echo) as server, connected(server) as peer:
        for number in range(20):
            await peer.send(f"{number}")
            assert await peer.message() == f"{number}"
        await peer.start_close()
        assert await peer.finish() == (1000, "")
    assert not [record for record in caplog.records if record.name == "asyncio" and record.levelname != "DEBUG"]


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="nobody")


async def test_the_handler_keeps_its_task_and_its_context_across_messages() -> None:
    seen: list[tuple[str, bool]] = []

    async def handler(ws: rawws.WebSocket) -> None:
        task = asyncio.current_task()
        name = await ws.recv()
        assert isinstance(name, str)
        VARIABLE.set(name)
        async for _ in ws:
            seen.append((VARIABLE.get(), asyncio.current_task() is task))

    async with serve(handler) as server, connected(server) as one, connected(server) as two:
        await one.send("one")
        await two.send("two")
        for number in range(6):
            await (two if number % 2 else one).send("x")
            await eventually(lambda number=number: len(seen) == number + 1)  # type: ignore[misc]
        for peer in (one, two):
            await peer.start_close()
            await peer.finish()
    assert seen == [("one", True), ("two", True)] * 3
    assert VARIABLE.get() == "nobody"


async def test_messages_that_come_together_are_received_in_order_without_a_turn_between() -> None:
    """A burst does not starve the others: it is bounded by the read, and here one read has them all."""
    received: list[Any] = []

    async def handler(ws: rawws.WebSocket) -> None:
        async for message in ws:
            received.append(message)

    async with serve(handler) as server, connected(server) as peer:
        await peer.send(*[f"{number}" for number in range(1000)])
        await peer.start_close()
        await peer.finish()
    assert received == [f"{number}" for number in range(1000)]


# -- recv_streaming


async def stream_all(ws: rawws.WebSocket) -> None:
    """Answer each message with its parts, in brackets."""
    while True:
        parts = [part async for part in ws.recv_streaming()]
        await ws.send("".join(f"[{part!r}]" for part in parts if part))


async def test_parts_arrive_before_the_message_is_complete() -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        async for part in ws.recv_streaming():
            await ws.send(part)
        await ws.send("end")

    async with serve(handler) as server, connected(server) as peer:
        await peer.fragment(2, b"one")
        assert await peer.message() == b"one"
        await peer.fragment(0, b"two")
        assert await peer.message() == b"two"
        await peer.fragment(0, b"three", final=True)
        assert [await peer.message(), await peer.message()] == [b"three", "end"]


async def test_parts_of_one_large_frame_arrive_before_it_is_complete() -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        size = 0
        async for part in ws.recv_streaming():
            size += len(part)
            await ws.send(f"{size}")

    payload = bytes(100_000)
    peer_frame = b"\x82\xff" + len(payload).to_bytes(8, "big") + bytes(4) + payload
    async with serve(handler) as server, connected(server) as peer:
        await peer.write(peer_frame[:50_000])
        first = await peer.message()
        assert 0 < int(first) < 50_000
        await peer.write(peer_frame[50_000:])
        last = first
        while int(last) < 100_000:
            last = await peer.message()
        assert last == "100000"


@pytest.mark.parametrize("kind", [1, 2])
@pytest.mark.parametrize("fragments", [False, True])
async def test_a_message_that_is_half_here_can_be_streamed(kind: int, fragments: bool) -> None:
    """What came of it while nobody streamed is its first part."""
    async with held() as (ws, peer):
        payload = b"x" * 300_000
        if fragments:
            await peer.fragment(kind, payload[:200_000])
        else:
            data = bytes([0x80 | kind]) + b"\xff" + len(payload).to_bytes(8, "big") + bytes(4) + payload
            await peer.write(data[:200_014])
        await peer.heard_by(ws)
        parts: list[Any] = []

        async def stream() -> None:
            parts.extend([part async for part in ws.recv_streaming()])

        task = asyncio.create_task(stream())
        await eventually(lambda: ws.stream)
        if fragments:
            await peer.fragment(0, payload[200_000:], final=True)
        else:
            await peer.write(data[200_014:])
        await task
        assert parts[0][:0].join(parts) == (payload.decode() if kind == 1 else payload)
        await peer.send("next")
        assert await ws.recv() == "next"


async def test_a_stream_given_up_before_its_first_part_is_received_whole_though_it_is_large() -> None:
    async with held(max_size=250_000) as (ws, peer):
        for last, size in ((b"b", 199_999), (b"c", 100_000)):
            task = asyncio.create_task(anext(ws.recv_streaming()))
            await asyncio.sleep(0)
            task.cancel()
            await peer.fragment(2, b"a" * 100_000)
            await eventually(lambda: ws.full)
            receiving = asyncio.create_task(ws.recv())
            await asyncio.sleep(0)
            for _ in range(size // 100_000):
                await peer.fragment(0, b"a" * 50_000)
            await peer.fragment(0, last, final=True)
            assert await receiving == b"a" * (100_000 + size // 100_000 * 50_000) + last
            await asyncio.gather(task, return_exceptions=True)


async def test_a_stream_given_up_before_its_first_part_is_held_to_max_size() -> None:
    async with held(max_size=250_000) as (ws, peer):
        task = asyncio.create_task(anext(ws.recv_streaming()))
        await asyncio.sleep(0)
        task.cancel()
        await peer.fragment(2, bytes(200_000))
        await eventually(lambda: ws.full)
        receiving = asyncio.create_task(ws.recv())
        await asyncio.sleep(0)
        await peer.fragment(0, bytes(100_000))
        close = await peer.finish()
        assert close is not None
        assert close[0] == 1009
        with pytest.raises(rawws.ConnectionClosedError):
            await receiving
        await asyncio.gather(task, return_exceptions=True)


async def test_a_streamed_message_may_be_larger_than_max_size() -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        size = 0
        async for part in ws.recv_streaming():
            size += len(part)
        await ws.send(f"{size}")

    async with serve(handler, max_size=1000) as server, connected(server) as peer:
        await peer.fragment(2, bytes(900))
        for _ in range(9):
            await peer.fragment(0, bytes(900))
        await peer.fragment(0, b"", final=True)
        assert await peer.message() == "9000"


async def test_a_compressed_streamed_message_is_held_to_max_size() -> None:
    async with serve(stream_all, max_size=1000) as server, connected(server, DEFLATE) as peer:
        await peer.send(bytes(1001), compress=True)
        close = await peer.finish()
        assert close is not None
        assert close[0] == 1009


async def test_text_is_streamed_in_whole_characters() -> None:
    received: list[str | bytes] = []

    async def handler(ws: rawws.WebSocket) -> None:
        received.extend([part async for part in ws.recv_streaming()])

    text = "a€😀z"
    async with serve(handler) as server, connected(server) as peer:
        octets = text.encode()
        for at in range(len(octets)):
            await peer.fragment(0 if at else 1, octets[at : at + 1])
            await asyncio.sleep(0.002)
        await peer.fragment(0, b"", final=True)
        assert await peer.finish() == (1000, "")
    assert "".join(part for part in received if isinstance(part, str)) == text
    assert {type(part) for part in received} == {str}


@pytest.mark.parametrize("decode", [None, True, False])
async def test_streamed_text_can_be_had_as_bytes(decode: bool | None) -> None:
    async with (
        serve(
            lambda ws: collect(ws, decode)  # a handler may be any callable that returns a coroutine
        ) as server,
        connected(server) as peer,
    ):
        await peer.fragment(1, b"h\xc3")
        await peer.fragment(0, b"\xbc", final=True)
        assert await peer.message() == ("hü".encode() if decode is False else "hü")


async def collect(ws: rawws.WebSocket, decode: bool | None) -> None:
    parts: list[Any] = [part async for part in ws.recv_streaming(decode)]
    await ws.send(parts[0][:0].join(parts))


async def test_a_binary_message_streamed_as_text_keeps_characters_whole() -> None:
    async with serve(lambda ws: collect(ws, True)) as server, connected(server) as peer:
        await peer.fragment(2, b"h\xc3")
        [ws] = server.connections
        await peer.heard_by(ws)
        await peer.fragment(0, b"\xbc", final=True)
        assert await peer.message() == "hü"


async def test_a_part_without_a_whole_character_is_none() -> None:
    async with serve(lambda ws: collect(ws, True)) as server, connected(server) as peer:
        for number, octet in enumerate("€".encode()):
            await peer.fragment(0 if number else 2, bytes([octet]), final=number == 2)
            if number < 2:
                [ws] = server.connections
                await peer.heard_by(ws)
        assert await peer.message() == "€"


async def test_a_compressed_message_is_streamed() -> None:
    async with serve(lambda ws: collect(ws, None)) as server, connected(server, DEFLATE) as peer:
        await peer.send("hello " * 100, compress=True)
        assert await peer.message() == "hello " * 100


async def test_a_message_that_is_queued_already_is_streamed_as_one_part() -> None:
    async with held() as (ws, peer):
        await peer.send("one", "two")
        await peer.heard_by(ws)
        assert await ws.recv() == "one"
        assert [part async for part in ws.recv_streaming()] == ["two"]


async def test_what_is_left_of_a_streamed_message_is_skipped() -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        async for part in ws.recv_streaming():
            await ws.send(part)
            break
        await ws.send(await ws.recv())
        async for part in ws.recv_streaming():
            await ws.send(part)
            break
        async for part in ws.recv_streaming():
            await ws.send(part)

    async with serve(handler) as server, connected(server) as peer:
        for name in ("a", "b"):
            await peer.fragment(1, f"{name}1".encode())
            assert await peer.message() == f"{name}1"
            await peer.fragment(0, b"skipped")
            await peer.fragment(0, b"skipped too", final=True)
            await peer.send(f"{name}2")
            assert await peer.message() == f"{name}2"
        assert await peer.finish() == (1000, "")


async def test_a_broken_off_stream_of_parts_that_are_queued_is_skipped() -> None:
    go_on = asyncio.Event()

    async def handler(ws: rawws.WebSocket) -> None:
        async for part in ws.recv_streaming():
            await ws.send(part)
            await go_on.wait()
            break
        await ws.send(await ws.recv())

    async with serve(handler) as server, connected(server) as peer, set_at_end(go_on):
        await peer.fragment(1, b"first")
        assert await peer.message() == "first"
        await peer.fragment(0, b"skipped")
        await peer.fragment(0, b"skipped too", final=True)
        await peer.send("next")
        [ws] = server.connections
        await peer.heard_by(ws)
        go_on.set()
        assert await peer.message() == "next"


async def test_a_stream_cancelled_before_its_first_part_loses_nothing() -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                async for _ in ws.recv_streaming():
                    pass
        await ws.send("ready")
        await go_on.wait()
        await ws.send(await ws.recv())

    go_on = asyncio.Event()
    async with serve(handler) as server, connected(server) as peer, set_at_end(go_on):
        assert await peer.message() == "ready"
        await peer.fragment(1, b"wh")
        await peer.fragment(0, b"ole", final=True)
        [ws] = server.connections
        await peer.heard_by(ws)
        go_on.set()
        assert await peer.message() == "whole"


async def test_a_stream_given_up_before_its_first_part_is_received_whole_when_that_comes() -> None:
    async with held() as (ws, peer):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await anext(ws.recv_streaming())
        receiving = asyncio.create_task(ws.recv())
        await asyncio.sleep(0)
        await peer.fragment(1, b"wh")
        await peer.fragment(0, b"ole", final=True)
        assert await receiving == "whole"


async def test_a_second_stream_given_up_before_the_first_was_skipped_loses_nothing() -> None:
    async with held() as (ws, peer):
        await peer.fragment(1, b"first")
        assert await anext(ws.recv_streaming()) == "first"
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await anext(ws.recv_streaming())
        receiving = asyncio.create_task(ws.recv())
        await asyncio.sleep(0)
        await peer.fragment(0, b"skipped", final=True)
        await peer.fragment(1, b"wh")
        await peer.fragment(0, b"ole", final=True)
        assert await receiving == "whole"


async def test_a_stream_whose_first_part_came_with_the_cancellation_loses_nothing() -> None:
    async with held() as (ws, peer):

        async def stream() -> list[str | bytes]:
            return [part async for part in ws.recv_streaming()]

        for again in (ws.recv, stream):
            for _ in range(20):
                task = asyncio.create_task(stream())
                await asyncio.sleep(0)
                await peer.send("whole")
                task.cancel()
                message: str | bytes | list[str | bytes]
                try:
                    message = await task
                except asyncio.CancelledError:
                    message = await again()
                assert message in ("whole", ["whole"])


async def test_an_abandoned_stream_object_does_nothing() -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        ws.recv_streaming()
        await ws.send(await ws.recv())

    async with serve(handler) as server, connected(server) as peer:
        await peer.fragment(1, b"wh")
        await peer.fragment(0, b"ole", final=True)
        assert await peer.message() == "whole"


async def test_a_close_in_the_middle_of_a_streamed_message_raises() -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        with pytest.raises(rawws.ConnectionClosed):
            async for part in ws.recv_streaming():
                await ws.send(part)

    async with serve(handler) as server, connected(server) as peer:
        await peer.fragment(1, b"first")
        assert await peer.message() == "first"
        await peer.start_close()
        assert await peer.finish() == (1000, "")


async def test_a_stream_on_a_closed_connection_raises_connection_closed() -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        async for _ in ws:
            pass
        with pytest.raises(rawws.ConnectionClosedOK):
            async for _ in ws.recv_streaming():
                pass

    async with serve(handler) as server, connected(server) as peer:
        await peer.start_close()
        assert await peer.finish() == (1000, "")


# -- flow control


async def test_a_handler_that_does_not_read_makes_the_peer_wait_and_loses_nothing() -> None:
    count = 20_000
    message = "x" * 1000
    async with held() as (ws, peer):
        sent = 0

        async def flood() -> None:
            nonlocal sent
            for number in range(count):
                await peer.send(f"{number} {message}")
                sent = number + 1

        task = asyncio.create_task(flood())
        before = -1
        while before < sent:
            before = sent
            await asyncio.sleep(0.1)
        assert sent < count, "the server read all that the handler did not"
        for number in range(count):
            assert await ws.recv() == f"{number} {message}"
        await task


async def test_a_ping_behind_a_full_queue_is_answered_when_the_handler_has_read_it_empty() -> None:
    async with held() as (ws, peer):
        # They are all in one read, and more than the queue takes.
        for _ in range(1500):
            peer.connection.send("")
        peer.connection.ping(b"are you there")
        await peer.flush()
        await peer.heard_by(ws)
        for _ in range(1500):
            assert await ws.recv() == ""
        assert await peer.event() == Pong(b"are you there")


async def test_many_small_messages_fill_the_queue_too() -> None:
    """Each empty message costs more than the octets it has, so their number is limited as well."""
    async with held() as (ws, peer):
        await peer.send(*[""] * 20_000)
        await eventually(lambda: ws.full)
        await peer.send("last")
        for _ in range(20_000):
            assert await ws.recv() == ""
        assert await ws.recv() == "last"


async def test_the_close_behind_a_full_queue_in_one_read_is_answered() -> None:
    async with held() as (ws, peer):
        for _ in range(1500):
            peer.connection.send("")
        await peer.start_close(1000, "bye")
        await peer.heard_by(ws)
        assert ws.ready_state is rawws.State.OPEN
        for _ in range(1500):
            assert await ws.recv() == ""
        assert await peer.finish() == (1000, "bye")


async def test_a_violation_behind_a_full_queue_in_one_read_is_answered() -> None:
    async with held() as (ws, peer):
        for _ in range(1500):
            peer.connection.send("")
        await peer.write(b"".join(peer.connection.take_data()) + b"\x81\x00")
        await peer.heard_by(ws)
        for _ in range(1500):
            assert await ws.recv() == ""
        close = await peer.closed()
        assert close is not None
        assert close[0] == 1002


async def test_the_close_behind_a_full_queue_is_answered_and_nothing_before_it_is_lost() -> None:
    async with held() as (ws, peer):
        for number in range(200):
            peer.connection.send(f"{number}".encode().ljust(1000))
        await peer.start_close(1000, "bye")
        received = [(await ws.recv()).rstrip() for _ in range(200)]
        assert received == [f"{number}".encode() for number in range(200)]
        with pytest.raises(rawws.ConnectionClosedOK):
            await ws.recv()
        assert await peer.finish() == (1000, "bye")


def resident() -> int:
    """Return the size of this process in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


async def test_a_deflate_bomb_of_many_messages_waits_compressed() -> None:
    """300 messages of 1 MiB in 5 KiB each: with what is not read inflated, they would be 300 MiB."""
    async with held(DEFLATE) as (ws, peer):
        for _ in range(300):
            peer.connection.send(bytes(1 << 20), True)
        data = b"".join(peer.connection.take_data())
        assert len(data) < 2_000_000
        before = resident()
        task = asyncio.create_task(peer.write(data))
        await eventually(lambda: ws.full)
        assert resident() - before < 20 << 20
        for _ in range(300):
            assert len(await ws.recv()) == 1 << 20
        assert resident() - before < 20 << 20
        await task
