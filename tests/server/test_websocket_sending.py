"""What a handler sends: it acts at once, keeps its order, and its awaitable says when to go on."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import rawws
from rawws.protocol.connection import Pong
from tests.server.peers import Follower, Logged, Peer, connected, eventually, held, narrow, serve

DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover"


class Text(str):
    """A str of another class, such as an enumeration has."""

    __slots__ = ()


class Binary(bytes):
    """Bytes of another class."""

    __slots__ = ()


# -- kinds


@pytest.mark.parametrize(
    ("message", "text", "expected"),
    [
        ("grüße", None, "grüße"),
        (b"\x00\xff", None, b"\x00\xff"),
        (bytearray(b"\x00\xff"), None, b"\x00\xff"),
        (memoryview(b"\x00\xff"), None, b"\x00\xff"),
        (memoryview(b"abcdef")[::2], None, b"ace"),
        (Text("text"), None, "text"),
        (Binary(b"binary"), None, b"binary"),
        ("", None, ""),
        (b"", None, b""),
        ("grüße".encode(), True, "grüße"),
        (bytearray("grüße".encode()), True, "grüße"),
        ("grüße", True, "grüße"),
        ("grüße", False, "grüße".encode()),
        (b"\xff", False, b"\xff"),
    ],
)
async def test_each_kind_of_message_arrives(message: Any, text: bool | None, expected: str | bytes) -> None:
    async with held() as (ws, peer):
        await ws.send(message, text=text)
        event = await peer.message()
        assert event == expected
        assert type(event) is type(expected)


@pytest.mark.parametrize(
    ("message", "name"),
    [(1, "int"), (None, "NoneType"), ({"a": 1}, "dict"), (1.5, "float"), (object(), "object"), (..., "ellipsis")],
)
@pytest.mark.parametrize("text", [None, True])
async def test_what_is_no_message_is_refused_by_the_name_of_its_type(
    message: Any, name: str, text: bool | None
) -> None:
    async with held() as (ws, peer):
        with pytest.raises(TypeError, match=f"^message is {name}, allowed are str, bytes"):
            ws.send(message, text=text)
        await ws.send("next")
        assert await peer.message() == "next"


async def test_what_should_have_been_awaited_is_refused() -> None:
    async with held() as (ws, _):
        with pytest.raises(TypeError, match=r"^message is Receiver, which is to be awaited first$"):
            ws.send(ws.recv())  # type: ignore[arg-type]


async def test_a_str_without_utf8_is_refused() -> None:
    async with held() as (ws, peer):
        with pytest.raises(rawws.LocalProtocolError, match="lone surrogate at index 1"):
            ws.send("a\ud800")
        await ws.send("next")
        assert await peer.message() == "next"


async def test_bytes_that_are_no_utf8_are_refused_as_text() -> None:
    async with held() as (ws, peer):
        with pytest.raises(ValueError, match="utf-8"):
            ws.send(b"\xff", text=True)
        await ws.send("next")
        assert await peer.message() == "next"


@pytest.mark.parametrize(
    ("size", "compress", "compressed"),
    [(10, None, False), (2000, None, True), (2000, False, False), (10, True, True), (0, True, True)],
)
async def test_compress_overrides_the_threshold(size: int, compress: bool | None, compressed: bool) -> None:
    async with held(DEFLATE) as (ws, peer):
        await ws.send("x" * size, compress=compress)
        data = await peer.read()
        assert (data[0] & 0x40 != 0) is compressed
        peer.connection.receive(data)
        assert await peer.message() == "x" * size


@pytest.mark.parametrize("message", [bytearray(2000), memoryview(bytes(2000))])
async def test_compress_is_for_whatever_a_message_is_given_as(message: bytearray | memoryview) -> None:
    async with held(DEFLATE) as (ws, peer):
        for compress in (None, False):
            await ws.send(message, compress=compress)
            data = await peer.read()
            assert (data[0] & 0x40 != 0) is (compress is None)
            peer.connection.receive(data)
            assert await peer.message() == bytes(2000)


async def test_compress_without_the_extension_does_nothing() -> None:
    async with held() as (ws, peer):
        await ws.send("x" * 2000, compress=True)
        assert await peer.message() == "x" * 2000


# -- messages in fragments


def generate(parts: list[Any]) -> Iterator[Any]:
    yield from parts


async def generate_slowly(parts: list[Any]) -> AsyncIterator[Any]:
    for part in parts:
        await asyncio.sleep(0)
        yield part


async def generate_until(go_on: asyncio.Event) -> AsyncIterator[str]:
    yield "a"
    await go_on.wait()
    yield "b"


@pytest.mark.parametrize("make", [list, tuple, generate, generate_slowly])
@pytest.mark.parametrize(
    ("parts", "expected"),
    [(["a", "b", "c"], "abc"), ([b"a", bytearray(b"b"), memoryview(b"c")], b"abc"), (["one"], "one"), ([""], "")],
)
async def test_an_iterable_is_one_message(make: Callable[[list[Any]], Any], parts: list[Any], expected: Any) -> None:
    async with held() as (ws, peer):
        await ws.send(make(parts))
        await ws.send("next")
        assert [await peer.message(), await peer.message()] == [expected, "next"]


async def test_an_iterable_goes_out_in_fragments() -> None:
    async with held() as (ws, peer):
        await ws.send(["a", "b", "c"])
        assert await peer.read() == b"\x01\x01a\x00\x01b\x80\x01c"


@pytest.mark.parametrize("make", [list, generate_slowly])
async def test_an_empty_iterable_sends_nothing(make: Callable[[list[Any]], Any]) -> None:
    async with held() as (ws, peer):
        await ws.send(make([]))
        await ws.send("next")
        assert await peer.read() == b"\x81\x04next"


@pytest.mark.parametrize("make", [list, generate_slowly])
@pytest.mark.parametrize(("text", "expected"), [(True, "ü"), (False, "ü".encode())])
async def test_text_decides_the_kind_of_a_message_in_fragments(
    make: Callable[[list[Any]], Any], text: bool, expected: str | bytes
) -> None:
    async with held() as (ws, peer):
        await ws.send(make(["ü"]), text=text)
        await ws.send(make(["ü".encode()]), text=text)
        assert [await peer.message(), await peer.message()] == [expected, expected]


async def test_an_iterable_with_a_part_that_is_none_sends_nothing() -> None:
    async with held() as (ws, peer):
        with pytest.raises(TypeError, match="a part of a message is int, allowed are str, bytes"):
            ws.send(["a", 1])  # type: ignore[list-item]
        with pytest.raises(TypeError, match="str and bytes, allowed is one kind"):
            ws.send(["a", b"b"])
        await ws.send("next")
        assert await peer.message() == "next"


async def test_other_messages_wait_for_the_end_of_an_asynchronous_one_and_keep_their_order() -> None:
    async with held() as (ws, peer):
        halfway, go_on = asyncio.Event(), asyncio.Event()

        async def parts() -> AsyncIterator[str]:
            yield "a"
            halfway.set()
            await go_on.wait()
            yield "b"

        task = asyncio.ensure_future(ws.send(parts()))
        await halfway.wait()
        for number in range(3):
            ws.send(f"{number}")
        ws.send(b"binary", text=True)
        # Control frames may stand between the frames of a message.
        ws.pong(b"between")
        go_on.set()
        await task
        await ws.send("last")
        events = [await peer.event() for _ in range(7)]
        assert events == [Pong(b"between"), "ab", "0", "1", "2", "binary", "last"]


async def test_who_awaits_a_message_behind_an_asynchronous_one_waits_for_its_end() -> None:
    async with held() as (ws, peer):
        go_on, sent = asyncio.Event(), []

        async def parts() -> AsyncIterator[str]:
            yield "a"
            # What gives the parts does not wait for itself.
            await ws.send("behind")
            await go_on.wait()
            yield "b"

        async def flood() -> None:
            for number in range(100):
                await ws.send(bytes(100_000))
                sent.append(number)

        task = asyncio.ensure_future(ws.send(parts()))
        await asyncio.sleep(0)
        flooding = asyncio.ensure_future(flood())
        for _ in range(10):
            await asyncio.sleep(0)
        assert sent == []
        go_on.set()
        assert await peer.message() == "ab"
        assert await peer.message() == "behind"
        for _ in range(100):
            assert await peer.message() == bytes(100_000)
        await task
        await flooding


async def test_what_nobody_awaits_behind_an_asynchronous_message_is_bounded_by_the_hard_limit() -> None:
    async with held(hard_limit=100_000) as (ws, peer):
        go_on = asyncio.Event()
        task = asyncio.ensure_future(ws.send(generate_until(go_on)))
        await asyncio.sleep(0)
        waiting = asyncio.ensure_future(ws.send(bytes(1_000_000)))
        await asyncio.sleep(0)
        # An empty one takes memory, too: 256 bytes. These are as many as the limit, so that one more may come.
        for size in (89_760, *[0] * 39, 0):
            ws.send(bytes(size))
        with pytest.raises(rawws.ConnectionClosed, match="over 100000 bytes wait behind a message in fragments"):
            ws.send(b"one more")
        assert await peer.finish() == (1013, "over 100000 bytes wait behind a message in fragments")
        go_on.set()
        for each in (task, waiting):
            with pytest.raises(rawws.ConnectionClosed):
                await each


async def test_who_awaits_a_message_behind_an_asynchronous_one_waits_for_a_slow_reader_too() -> None:
    async with held() as (ws, peer):
        go_on = asyncio.Event()
        task = asyncio.ensure_future(ws.send(generate_until(go_on)))
        await asyncio.sleep(0)
        waiting = asyncio.ensure_future(ws.send(bytes(10_000_000)))
        await asyncio.sleep(0)
        go_on.set()
        for _ in range(20):
            await asyncio.sleep(0)
        assert ws.followers is None
        assert ws.buffered > 0
        assert not waiting.done()
        assert await peer.message() == "ab"
        assert await peer.message() == bytes(10_000_000)
        await waiting
        await task


async def test_a_message_behind_an_asynchronous_one_is_compressed_or_not_as_it_was_asked_for_and_awaited_late() -> None:
    async with held(DEFLATE) as (ws, peer):
        go_on = asyncio.Event()
        task = asyncio.ensure_future(ws.send(generate_until(go_on)))
        await asyncio.sleep(0)
        sent = ws.send("x" * 2000, compress=False)
        go_on.set()
        await task
        assert ws.bytes_sent > 2000
        # It went out before anybody waited for it.
        waiting = asyncio.ensure_future(sent)
        await eventually(waiting.done)
        assert [await peer.message(), await peer.message()] == ["ab", "x" * 2000]


async def test_what_is_awaited_no_more_behind_an_asynchronous_message_counts_for_the_hard_limit_again() -> None:
    async with held(hard_limit=100_000) as (ws, peer):
        go_on = asyncio.Event()
        task = asyncio.ensure_future(ws.send(generate_until(go_on)))
        await asyncio.sleep(0)
        for _ in range(2):
            waiting = asyncio.ensure_future(ws.send(bytes(60_000)))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        with pytest.raises(rawws.ConnectionClosed, match="over 100000 bytes wait behind a message in fragments"):
            ws.send(b"one more")
        assert await peer.finish() == (1013, "over 100000 bytes wait behind a message in fragments")
        go_on.set()
        with pytest.raises(rawws.ConnectionClosed):
            await task


async def test_who_awaits_a_message_behind_an_asynchronous_one_hears_of_the_end_of_the_connection() -> None:
    async with held() as (ws, peer):
        go_on = asyncio.Event()
        task = asyncio.ensure_future(ws.send(generate_until(go_on)))
        await asyncio.sleep(0)
        waiting = asyncio.ensure_future(ws.send("behind"))
        await asyncio.sleep(0)
        peer.reset()
        with pytest.raises(rawws.ConnectionClosed):
            await waiting
        go_on.set()
        with pytest.raises(rawws.ConnectionClosed):
            await task


async def test_the_parts_of_an_asynchronous_message_leave_as_they_come() -> None:
    async with held() as (ws, peer):
        go_on = asyncio.Event()
        task = asyncio.ensure_future(ws.send(generate_until(go_on)))
        assert await peer.read() == b"\x01\x01a"
        go_on.set()
        await task
        assert await peer.read() == b"\x00\x01b\x80\x00"


async def test_a_second_message_in_fragments_at_the_same_time_is_refused() -> None:
    async with held() as (ws, peer):
        go_on = asyncio.Event()

        async def parts() -> AsyncIterator[str]:
            yield "a"
            await go_on.wait()

        task = asyncio.ensure_future(ws.send(parts()))
        await asyncio.sleep(0)
        with pytest.raises(rawws.LocalProtocolError, match="another message in fragments is being sent"):
            ws.send(["b"])
        with pytest.raises(rawws.LocalProtocolError, match="another message in fragments is being sent"):
            await ws.send(generate_slowly(["b"]))
        go_on.set()
        await task
        assert await peer.message() == "a"


async def fail_after(parts: list[Any]) -> AsyncIterator[Any]:
    for part in parts:
        yield part
    raise ValueError("no more")


async def test_an_asynchronous_message_that_breaks_off_closes_with_1011() -> None:
    async with held() as (ws, peer):
        with pytest.raises(ValueError, match="no more"):
            await ws.send(fail_after(["a"]))
        assert await peer.finish() == (1011, "a message in fragments was broken off")


async def test_an_asynchronous_message_that_breaks_off_before_its_first_part_changes_nothing() -> None:
    async with held() as (ws, peer):
        with pytest.raises(ValueError, match="no more"):
            await ws.send(fail_after([]))
        await ws.send("next")
        assert await peer.message() == "next"


@pytest.mark.parametrize(("parts", "error"), [(["a", 1], "is int"), (["a", b"b"], "allowed is one kind")])
async def test_a_bad_part_of_an_asynchronous_message_closes_with_1011(parts: list[Any], error: str) -> None:
    async with held() as (ws, peer):
        with pytest.raises(TypeError, match=error):
            await ws.send(generate_slowly(parts))
        close = await peer.finish()
        assert close is not None
        assert close[0] == 1011


async def test_an_asynchronous_message_that_is_cancelled_closes_with_1011_and_drops_what_waited() -> None:
    async with held() as (ws, peer):
        started = asyncio.Event()

        async def parts() -> AsyncIterator[str]:
            yield "a"
            started.set()
            await asyncio.sleep(DEADLINE)

        task = asyncio.ensure_future(ws.send(parts()))
        await started.wait()
        ws.send("waits")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await peer.finish() == (1011, "a message in fragments was broken off")


DEADLINE = 60


async def test_an_asynchronous_message_on_a_closing_connection_raises_connection_closed() -> None:
    async with held() as (ws, peer):
        go_on = asyncio.Event()
        task = asyncio.ensure_future(ws.send(generate_until(go_on)))
        await asyncio.sleep(0)
        await peer.start_close()
        assert await peer.finish() == (1000, "")
        with pytest.raises(rawws.ConnectionClosed):
            ws.send("waits no longer")
        go_on.set()
        with pytest.raises(rawws.ConnectionClosed):
            await task


# -- the end


async def test_send_raises_at_the_call_once_the_connection_is_closed() -> None:
    async with held() as (ws, peer):
        await peer.start_close(1000, "bye")
        assert await peer.finish() == (1000, "bye")
        await eventually(lambda: ws.ready_state is rawws.State.CLOSED)
        for message in ("text", b"binary", bytearray(b"more"), ["parts"]):
            with pytest.raises(rawws.ConnectionClosedOK, match="bye"):
                ws.send(message)
        with pytest.raises(rawws.ConnectionClosedOK):
            await ws.send(generate_slowly(["parts"]))
        for act in (ws.ping, ws.pong):
            with pytest.raises(rawws.ConnectionClosedOK):
                act()


async def test_send_raises_at_the_call_once_this_side_closes() -> None:
    async with held() as (ws, peer):
        ws.close()
        with pytest.raises(rawws.ConnectionClosed):
            ws.send("too late")
        assert await peer.finish() == (1000, "")


async def test_send_raises_at_the_call_once_the_peer_vanished() -> None:
    async with held() as (ws, peer):
        peer.reset()
        await eventually(lambda: ws.ready_state is rawws.State.CLOSED)
        with pytest.raises(rawws.ConnectionClosedError):
            ws.send("text")


async def test_sending_to_a_peer_that_reset_ends_in_connection_closed_and_logs_nothing() -> None:
    async with held() as (ws, peer):
        peer.reset()
        with pytest.raises(rawws.ConnectionClosedError):
            while True:
                await ws.send("x" * 10_000)
                await asyncio.sleep(0)


# -- the awaitable


async def test_the_awaitable_can_be_awaited_twice_gathered_made_a_task_and_forgotten() -> None:
    async with held() as (ws, peer):
        sent = ws.send("0")
        await sent
        await sent
        ws.send("1")
        await asyncio.gather(ws.send("2"), ws.send("3"))
        await asyncio.create_task(ws.send("4"))
        await asyncio.wait_for(ws.send("5"), 60)
        async with asyncio.TaskGroup() as group:
            group.create_task(ws.send("6"))
        assert [await peer.message() for _ in range(7)] == list("0123456")


async def test_send_does_not_give_way_while_the_peer_keeps_up() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with held() as (ws, peer):
        task = asyncio.create_task(count())
        await asyncio.sleep(0)
        before = turns
        for _ in range(100):
            await ws.send("x")
        assert turns == before
        task.cancel()
        assert await peer.message() == "x"


async def fill(ws: rawws.WebSocket, size: int = 10_000) -> asyncio.Task[None]:
    """Send until the awaitable has to wait; return the task in which it does."""
    while True:
        task: asyncio.Task[None] = asyncio.ensure_future(ws.send(bytes(size)))
        await asyncio.sleep(0)
        if not task.done():
            return task


async def drop(peer: Peer, count: int) -> None:
    """Read so many binary messages."""
    for _ in range(count):
        assert isinstance(await peer.message(), bytes)


@pytest.mark.parametrize("kind", ["message", "iterable", "pong"])
async def test_send_waits_while_the_peer_does_not_read_and_goes_on_when_it_does(kind: str) -> None:
    async with held(slow=True) as (ws, peer):
        await fill(ws)
        message = {"message": "end", "iterable": ["e", "nd"], "pong": None}[kind]
        task = asyncio.ensure_future(ws.pong() if message is None else ws.send(message))
        await asyncio.sleep(0.05)
        assert not task.done()
        assert ws.buffered > 16384
        reader = asyncio.create_task(peer.read_to_end())
        await task
        # The low-water mark, of asyncio and of uvloop.
        assert ws.buffered <= 16384
        ws.send("very last")
        ws.close()
        await eventually(lambda: ws.buffered == 0)
        reader.cancel()


async def test_whoever_follows_no_more_is_told_nothing_and_the_others_are() -> None:
    async with held(slow=True) as (ws, peer):
        stays, leaves = Follower(), Follower()
        for follower in (leaves, stays):
            ws.follow(follower)
        ws.unfollow(leaves)
        task = await fill(ws)
        reading = asyncio.create_task(peer.read_to_end())
        await task
        await eventually(lambda: stays.told)
        ws.abort()
        await ws.wait_closed()
        await reading
        assert (stays.told, leaves.told) == (["drained", "lost"], [])


async def test_buffered_grows_with_what_waits_and_returns_to_zero() -> None:
    async with held(slow=True) as (ws, peer):
        assert ws.buffered == 0
        ws.send("x")
        # Gathered for the end of this turn.
        assert ws.buffered == 3
        await asyncio.sleep(0)
        assert await peer.message() == "x"
        assert ws.buffered == 0
        ws.send(bytes(500_000))
        ws.send(bytes(100_000))
        await asyncio.sleep(0)
        assert 300_000 < ws.buffered <= 600_100
        await drop(peer, 2)
        await eventually(lambda: ws.buffered == 0)


@pytest.mark.parametrize("end", ["reset", "close"])
async def test_send_that_waits_raises_when_the_connection_dies(end: str) -> None:
    async with held(slow=True) as (ws, peer):
        task = await fill(ws)
        getattr(peer, end)()
        with pytest.raises(rawws.ConnectionClosedError):
            await task


async def test_send_awaited_after_the_connection_died_raises_as_well() -> None:
    async with held(slow=True) as (ws, peer):
        (await fill(ws)).cancel()
        sent = ws.send("lost")
        peer.reset()
        await eventually(lambda: ws.ready_state is rawws.State.CLOSED)
        with pytest.raises(rawws.ConnectionClosedError):
            await sent


async def test_send_that_is_cancelled_while_it_waits_has_sent_its_message_once() -> None:
    async with held(slow=True) as (ws, peer):
        (await fill(ws)).cancel()
        for text in ("one", "two"):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await ws.send(text)
        waiting = asyncio.ensure_future(ws.send("three"))
        texts: list[str] = []
        while len(texts) < 3:
            message = await peer.message()
            if isinstance(message, str):
                texts.append(message)
        assert texts == ["one", "two", "three"]
        await waiting


async def test_several_tasks_wait_in_send_and_all_go_on() -> None:
    async with held(slow=True) as (ws, peer):
        waiting = [await fill(ws)] + [asyncio.ensure_future(ws.send(f"{number}")) for number in range(5)]
        await asyncio.sleep(0)
        reader = asyncio.create_task(peer.read_to_end())
        await asyncio.gather(*waiting)
        ws.close()
        peer.close() if reader.done() else reader.cancel()


# -- limits


async def test_sends_that_are_not_awaited_end_with_1013_at_the_hard_limit() -> None:
    async with held(slow=True, hard_limit=200_000) as (ws, peer):
        sent = 0
        with pytest.raises(rawws.ConnectionClosedError, match="slow consumer: over 200000 bytes"):
            while True:
                ws.send(bytes(10_000))
                sent += 1
                assert sent < 1000
        assert ws.buffered < 300_000
        close = await peer.closed()
        assert close is not None
        assert close == (1013, "slow consumer: over 200000 bytes wait to be sent")


async def test_iterables_that_are_not_awaited_end_with_1013_at_the_hard_limit() -> None:
    async with held(slow=True, hard_limit=200_000) as (ws, peer):
        sent = 0
        with pytest.raises(rawws.ConnectionClosedError, match="slow consumer"):
            while True:
                ws.send([bytes(5_000), bytes(5_000)])
                sent += 1
                assert sent < 1000
        close = await peer.closed()
        assert close is not None
        assert close[0] == 1013


async def test_pings_and_pongs_that_are_not_awaited_end_with_1013_at_the_hard_limit() -> None:
    for act in ("ping", "pong"):
        async with held(slow=True, hard_limit=100_000) as (ws, peer):
            (await fill(ws)).cancel()
            with pytest.raises(rawws.ConnectionClosedError, match="slow consumer"):
                for number in range(5_000):
                    getattr(ws, act)(f"{number}".ljust(100))
            close = await peer.closed()
            assert close is not None
            assert close[0] == 1013


async def test_a_peer_that_does_not_read_after_1013_is_dropped() -> None:
    async with held(slow=True, hard_limit=200_000, close_timeout=0.1) as (ws, peer):
        with pytest.raises(rawws.ConnectionClosedError, match="slow consumer"):
            while True:
                ws.send(bytes(10_000))
        await ws.wait_closed()
        assert ws.ready_state is rawws.State.CLOSED
        assert peer.sock.fileno() >= 0


async def test_a_callback_that_meets_the_hard_limit_logs_no_traceback() -> None:
    class Flood(rawws.Handler):
        def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
            while True:
                ws.send(bytes(10_000))

    async with rawws.serve(Flood(), sock=narrow(), hard_limit=200_000) as server:
        async with connected(server, receive_buffer=2048) as peer:
            await peer.send("go")
            close = await peer.closed()
            assert close is not None
            assert close[0] == 1013


async def test_hard_limit_none_means_no_limit() -> None:
    async with held(slow=True, hard_limit=None) as (ws, peer):
        for _ in range(50):
            ws.send(bytes(100_000))
        await drop(peer, 50)


async def crowd(ws: rawws.WebSocket, who: str) -> None:
    """Send something small, beside what another task awaits."""
    if who == "broadcast":
        rawws.broadcast([ws], "tick")
    elif who == "iterable":
        await ws.send(["ti", "ck"])
    elif who == "pong":
        await ws.pong()
    elif who == "ping":
        ws.ping()
    else:
        await ws.send("tick")


@pytest.mark.parametrize("who", ["send", "iterable", "broadcast", "ping", "pong"])
async def test_what_a_task_awaits_does_not_count_against_the_hard_limit(who: str) -> None:
    async with held(slow=True, hard_limit=100_000) as (ws, peer):
        large = asyncio.ensure_future(ws.send(bytes(500_000)))
        small = asyncio.ensure_future(crowd(ws, who))
        await asyncio.sleep(0)
        small_too = asyncio.ensure_future(crowd(ws, "send"))
        assert await peer.message() == bytes(500_000)
        assert await peer.message() == "tick"
        await asyncio.gather(large, small, small_too)
        assert ws.ready_state is rawws.State.OPEN


async def test_sends_that_are_gathered_do_not_count_against_the_hard_limit() -> None:
    async with held(slow=True, hard_limit=100_000) as (ws, peer):
        gathered = asyncio.gather(*[ws.send(bytes(300_000)) for _ in range(3)])
        for _ in range(3):
            assert await peer.message() == bytes(300_000)
        await gathered


async def test_the_keepalive_does_not_end_a_connection_for_what_a_task_awaits() -> None:
    async with held(slow=True, hard_limit=100_000, ping_interval=0.02, ping_timeout=None) as (ws, peer):
        large = asyncio.ensure_future(ws.send(bytes(500_000)))
        await asyncio.sleep(0)
        written = ws.bytes_sent
        await eventually(lambda: ws.bytes_sent > written + 15)
        assert await peer.message() == bytes(500_000)
        await large


async def test_an_asynchronous_iterable_is_awaited_too() -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield bytes(300_000)
        yield bytes(300_000)

    async with held(slow=True, hard_limit=100_000) as (ws, peer):
        sending = asyncio.ensure_future(ws.send(parts()))
        await asyncio.sleep(0)
        ws.ping()
        assert await peer.message() == bytes(600_000)
        await sending


async def test_beside_what_a_task_awaits_the_hard_limit_counts_the_rest() -> None:
    async with held(slow=True, hard_limit=100_000) as (ws, peer):
        large = asyncio.ensure_future(ws.send(bytes(500_000)))
        await asyncio.sleep(0)
        with pytest.raises(rawws.ConnectionClosedError, match="slow consumer"):
            for _ in range(12):
                ws.send(bytes(10_000))
        assert 590_000 < ws.buffered < 620_000
        close = await peer.closed()
        assert close is not None
        assert close[0] == 1013
        with contextlib.suppress(rawws.ConnectionClosed):
            await large


async def test_a_send_whose_task_is_cancelled_counts_again() -> None:
    async with held(slow=True, hard_limit=100_000) as (ws, peer):
        large = asyncio.ensure_future(ws.send(bytes(500_000)))
        await asyncio.sleep(0)
        ws.ping()
        large.cancel()
        await asyncio.wait([large])
        with pytest.raises(rawws.ConnectionClosedError, match="slow consumer"):
            ws.send("tick")
        close = await peer.closed()
        assert close is not None
        assert close[0] == 1013


# -- order


@pytest.mark.parametrize("waits", [True, False])
async def test_messages_of_all_sizes_arrive_in_order_through_partial_writes(waits: bool) -> None:
    """Sizes around those where the writer changes its way: 125, 16 KiB (written where it is), 64 KiB (flushed)."""
    chance = random.Random(6455)
    edges = [0, 1, 125, 126, 16383, 16384, 16385, 65535, 65536, 65537, 200_000]
    sizes = [chance.choice(edges) if chance.random() < 0.3 else chance.randrange(2000) for _ in range(400)]

    def message(number: int, size: int) -> str | bytes:
        text = f"{number} ".ljust(size, "x")
        return text if number % 2 else text.encode()

    async with held(slow=True, hard_limit=1 << 30) as (ws, peer):

        async def send() -> None:
            for number, size in enumerate(sizes):
                sent = ws.send(message(number, size))
                if waits:
                    await sent
                elif number % 7 == 0:
                    await asyncio.sleep(0)

        task = asyncio.create_task(send())
        for number, size in enumerate(sizes):
            assert await peer.message() == message(number, size)
        await task


async def test_two_tasks_that_send_at_the_same_time_do_not_mix() -> None:
    async with held(slow=True) as (ws, peer):

        async def send(letter: str) -> None:
            for number in range(50):
                await ws.send(f"{letter}{number} ".ljust(5000))

        tasks = [asyncio.create_task(send(letter)) for letter in "ab"]
        received: dict[str, list[int]] = {"a": [], "b": []}
        for _ in range(100):
            text = str(await peer.message())
            received[text[0]].append(int(text[1:]))
        assert received == {"a": list(range(50)), "b": list(range(50))}
        await asyncio.gather(*tasks)


async def test_more_chunks_than_one_system_call_takes_arrive_in_order() -> None:
    """IOV_MAX is 1024: one writev takes no more pieces."""
    async with held(hard_limit=1 << 30) as (ws, peer):
        parts = [f"{number} ".encode().ljust(20_000) for number in range(1100)]
        task = asyncio.ensure_future(ws.send(parts))
        assert await peer.message() == b"".join(parts)
        await task


async def test_one_message_to_many_connections_arrives_at_each(logged: Logged) -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        async for message in ws:
            for other in server.connections:
                other.send(message)

    async with serve(handler) as server:
        peers = [await Peer.reach(server.sockets[0].getsockname()) for _ in range(20)]
        for peer in peers:
            await peer.shake_hands()
        await peers[0].send("one", "two")
        for peer in peers:
            assert [await peer.message(), await peer.message()] == ["one", "two"]
            peer.close()
