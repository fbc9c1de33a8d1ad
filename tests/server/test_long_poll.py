"""Long polls: held until there is an answer, and answered once."""

from __future__ import annotations

import asyncio
import gc
import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import rawws
from tests.server.answers import ask, asked, get, judge, on, served
from tests.server.peers import Logged, Peer, eventually, handler_of, serve, set_at_end


@asynccontextmanager
async def polling(**options: Any) -> AsyncIterator[tuple[rawws.LongPoll, Peer]]:
    """Give both ends of a poll that is held."""
    poll = rawws.LongPoll()
    async with served(on("/", lambda _: poll), **options) as (server, peer):
        await peer.write(get())
        await eventually(lambda: any(handler_of(ws).observer for ws in server.settings.connections))
        yield poll, peer


@pytest.mark.parametrize(
    ("value", "status", "body"),
    [
        ("text", 200, b"text"),
        (b"octets", 200, b"octets"),
        ({"a": [1, "é"]}, 200, '{"a":[1,"é"]}'.encode()),
        (["x"], 200, b'["x"]'),
        (None, 204, b""),
        (rawws.Response(410, "gone"), 410, b"gone"),
    ],
)
async def test_a_poll_is_held_until_it_is_answered(value: Any, status: int, body: bytes) -> None:
    async with polling() as (poll, peer):
        assert poll.respond(value) is True
        assert poll.closed
        [answer] = await asked(peer)
        assert (answer.status, answer.body) == (status, body)


async def test_a_poll_is_answered_once() -> None:
    assert repr(rawws.LongPoll()) == "<rawws.LongPoll waiting>"
    async with polling() as (poll, peer):
        assert repr(poll) == "<rawws.LongPoll open>"
        assert [poll.respond("one"), poll.respond("two")] == [True, False]
        [answer] = await asked(peer)
        assert answer.body == b"one"


async def test_a_poll_may_be_answered_before_it_is_returned() -> None:
    def endpoint(_: rawws.HttpRequest) -> rawws.LongPoll:
        poll = rawws.LongPoll()
        assert poll.respond("at once")
        return poll

    async with serve(on("/", endpoint)) as server:
        answers = await ask(server, get() * 3, ["GET"] * 3)
        assert [answer.body for answer in answers] == [b"at once"] * 3


@pytest.mark.parametrize("value", [7, object(), {1}, rawws.EventStream()])
async def test_what_is_no_answer_raises_and_the_poll_is_still_held(value: Any) -> None:
    async with polling() as (poll, peer):
        with pytest.raises(TypeError, match="the answer is"):
            poll.respond(value)
        assert poll.respond("good")
        [answer] = await asked(peer)
        assert answer.body == b"good"


async def test_an_answer_that_cannot_be_sent_is_a_500_and_logged(logged: Logged) -> None:
    async with polling() as (poll, peer):
        poll.respond(rawws.Response(204, "text"))
        [answer] = await asked(peer)
        assert answer.status == 500
    logged.take("request failed", rawws.LocalProtocolError)


async def test_after_the_timeout_the_answer_is_204_and_the_client_asks_again() -> None:
    polls: set[rawws.LongPoll] = set()

    def endpoint(_: rawws.HttpRequest) -> rawws.LongPoll:
        poll = rawws.LongPoll(0.1, on_close=polls.discard)
        polls.add(poll)
        return poll

    async with served(on("/", endpoint), open_timeout=1) as (_, peer):
        for _ in range(2):
            await peer.write(get())
            await eventually(lambda: polls)
            [poll] = polls
            [answer] = await asked(peer)
            assert (answer.status, answer.body) == (204, b"")
            assert poll.respond("late") is False
            await eventually(lambda: not polls)


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_timeout_that_is_none_is_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match=f"timeout is {timeout}, allowed are numbers above 0"):
        rawws.LongPoll(timeout)


async def test_a_client_that_gives_up_is_noticed() -> None:
    closed: list[rawws.LongPoll] = []
    async with polling() as (poll, peer):
        poll.on_close = closed.append
        peer.close()
        await eventually(lambda: closed)
        assert closed == [poll]
        assert poll.respond("late") is False


async def test_on_close_is_not_called_for_a_poll_that_was_answered() -> None:
    closed: list[rawws.LongPoll] = []
    async with polling() as (poll, peer):
        poll.on_close = closed.append
        poll.respond("x")
        await asked(peer)
        peer.close()
        await eventually(lambda: poll._exchange is not None and poll._exchange.socket.lost)
    assert closed == []


async def test_on_close_that_raises_is_logged(logged: Logged) -> None:
    def broken(_: rawws.LongPoll) -> None:
        raise KeyError("broken")

    async with polling() as (poll, peer):
        poll.on_close = broken
        peer.close()
        await eventually(lambda: poll.closed)
    logged.take("on_close of a poll failed: GET /", KeyError)


async def test_the_poll_of_a_client_that_left_before_it_was_made_is_over(logged: Logged) -> None:
    made: list[rawws.LongPoll] = []
    asked_for, left = asyncio.Event(), asyncio.Event()

    def broken(_: rawws.LongPoll) -> None:
        raise KeyError("broken")

    async def endpoint(asked: rawws.HttpRequest) -> rawws.LongPoll:
        asked_for.set()
        await left.wait()
        poll = rawws.LongPoll(on_close=broken if asked.query else made.append)
        if "answered" in asked.query:
            poll.respond("x")
        made.append(poll)
        return poll

    for target in ("/", "/?answered", "/?broken"):
        made.clear()
        asked_for.clear()
        left.clear()
        async with served(on("/", endpoint)) as (server, peer), set_at_end(left):
            await peer.write(get(target))
            await asked_for.wait()
            peer.reset()
            await eventually(lambda: not server.settings.connections)
            left.set()
            await eventually(lambda: made and made[0].closed)
            assert len(made) == (2 if target == "/" else 1)
    logged.take("failed", KeyError)


async def test_a_poll_is_held_for_one_request(logged: Logged) -> None:
    async with polling() as (poll, peer):
        await peer.write(get())
        poll.respond("first")
        first, second = judge(await peer.read_to_end(), ["GET", "GET"], closed=True)
        assert (first.body, second.status) == (b"first", 500)
    logged.take("request failed", rawws.LocalProtocolError)


async def test_at_the_end_of_the_server_held_polls_get_204() -> None:
    async with served(on("/", lambda _: rawws.LongPoll())) as (server, peer):
        await peer.write(get() + get())
        await eventually(lambda: any(handler_of(ws).observer for ws in server.settings.connections))
        server.close()
        [answer] = judge(await peer.read_to_end(), ["GET"], closed=True)
        assert (answer.status, answer.headers["connection"]) == (204, "close")
        peer.close()
        await server.wait_closed()


async def test_no_message_between_two_polls_is_lost() -> None:
    """The pattern of docs/use/http.md: the client says up to where it has them."""
    messages: list[str] = []
    waiting: set[rawws.LongPoll] = set()

    def since(at: int) -> dict[str, Any]:
        return {"at": len(messages), "messages": messages[at:]}

    def poll(asked: rawws.HttpRequest) -> Any:
        at = int(asked.query.get("at", "0"))
        if at < len(messages):
            return since(at)
        held = rawws.LongPoll(on_close=waiting.discard)
        waiting.add(held)
        return held

    def publish(message: str) -> None:
        messages.append(message)
        for held in waiting:
            held.respond(since(len(messages) - 1))
        waiting.clear()

    async with served(on("/", poll)) as (_, peer):
        got: list[str] = []
        at = 0
        for number in range(50):
            if number % 3:
                publish(f"{number} before")
            await peer.write(get(f"/?at={at}"))
            if number % 3 != 1:
                await asyncio.sleep(0.001)
                publish(f"{number} while")
            [answer] = await asked(peer)
            found = json.loads(answer.body)
            got += found["messages"]
            at = found["at"]
            publish(f"{number} after")
        await peer.write(get(f"/?at={at}"))
        [answer] = await asked(peer)
        got += json.loads(answer.body)["messages"]
        assert got == messages


async def test_a_held_poll_costs_no_task_and_little_memory() -> None:
    """What Python allocates for it; the transport of the loop and the socket come on top."""
    polls: set[rawws.LongPoll] = set()

    def endpoint(_: rawws.HttpRequest) -> rawws.LongPoll:
        poll = rawws.LongPoll(on_close=polls.discard)
        polls.add(poll)
        return poll

    count = 1000
    async with serve(on("/", endpoint)) as server:
        address = server.sockets[0].getsockname()
        peers = [await Peer.reach(address) for _ in range(count)]
        await eventually(lambda: len(server.settings.connections) == count)
        tasks = len(asyncio.all_tasks())
        gc.collect()
        tracemalloc.start()
        for peer in peers:
            await peer.write(get())
        await eventually(lambda: len(polls) == count)
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert len(asyncio.all_tasks()) == tasks
        assert grown / count < 4096
        for poll in tuple(polls):
            assert poll.respond("go")
        for peer in peers:
            assert b"200 OK" in (await peer.read())[:20]
            peer.close()
