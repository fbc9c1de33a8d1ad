"""Turns: what one turn of the loop does is bounded, and those who wait go on in the order in which they came."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Any

import rawws
from rawws.net.turns import FLUSHED, TURN_SIZE, spend, turn_of
from tests.server.answers import ask, get
from tests.server.peers import connected, eventually, serve

MUCH = TURN_SIZE // 2 + 1


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_those_who_wait_go_on_in_order_as_long_as_there_is_room() -> None:
    turn = turn_of(asyncio.get_running_loop())
    went: list[tuple[int, int]] = []
    number = 0

    def worker(name: int) -> Any:
        def work() -> None:
            went.append((number, name))
            turn.spend(MUCH)

        return work

    spend(2 * MUCH)
    assert turn.is_over()
    for name in range(4):
        turn.wait(worker(name))
    assert went == []
    for _ in range(3):
        number += 1
        await turns(1)
    assert went == [(1, 0), (1, 1), (2, 2), (2, 3)]
    await turns(1)
    assert not turn.is_over()


async def test_whoever_waits_again_waits_behind_the_others_and_once() -> None:
    turn = turn_of(asyncio.get_running_loop())
    went: list[str] = []

    def greedy() -> None:
        went.append("greedy")
        turn.spend(2 * MUCH)
        turn.wait(greedy)
        turn.wait(greedy)

    turn.wait(greedy)
    turn.wait(lambda: went.append("modest"))
    await turns(6)
    assert went[:4] == ["greedy", "modest", "greedy", "greedy"]


async def test_one_that_raises_holds_nobody_up() -> None:
    turn = turn_of(asyncio.get_running_loop())
    went: list[str] = []
    raised: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: raised.append(context["exception"]))
    turn.wait(lambda: 1 // 0)
    turn.wait(lambda: went.append("next"))
    await turns(3)
    assert (went, [type(error) for error in raised]) == (["next"], [ZeroDivisionError])


async def test_a_turn_may_be_waited_for_and_the_wait_be_cancelled() -> None:
    turn = turn_of(asyncio.get_running_loop())
    await turn.next()
    spend(2 * MUCH)
    waiting = [asyncio.ensure_future(turn.next()) for _ in range(2)]
    await turns(0)
    waiting[0].cancel()
    await waiting[1]
    assert waiting[0].cancelled()
    assert not turn.is_over()


def test_without_a_loop_nobody_waits() -> None:
    spend(10 * TURN_SIZE)


def test_the_turns_of_loops_that_are_closed_are_forgotten() -> None:
    from rawws.net.turns import TURNS  # noqa: PLC0415

    for _ in range(3):
        loop = asyncio.new_event_loop()
        turn_of(loop)
        loop.close()
    loop = asyncio.new_event_loop()
    turn_of(loop)
    assert [known for known in TURNS if known.is_closed()] == []
    loop.close()


async def per_turn(counted: list[Any], total: int) -> list[int]:
    """Return how many came in each turn of the loop, until all came."""
    seen = [0]
    while seen[-1] < total:
        await asyncio.sleep(0)
        seen.append(len(counted))
    return [after - before for before, after in itertools.pairwise(seen)]


async def test_messages_whose_work_is_much_leave_their_turns_to_others() -> None:
    for callbacks in (True, False):
        got: list[str | bytes] = []

        def work(message: str | bytes, got: list[str | bytes] = got) -> None:
            got.append(message)
            spend(MUCH)

        class Worker(rawws.Handler):
            def on_message(self, ws: rawws.WebSocket, message: str | bytes, work: Any = work) -> None:
                work(message)

        async def handler(ws: rawws.WebSocket, work: Any = work) -> None:
            async for message in ws:
                work(message)

        async with serve(Worker() if callbacks else handler) as server, connected(server) as peer:
            await peer.send(*map(str, range(50)))
            # Two use up a turn; a third one may begin what was read.
            assert max(await per_turn(got, 50)) <= 3
            assert got == [*map(str, range(50))]


async def test_what_came_before_the_end_of_a_connection_is_worked_on_in_turns_too() -> None:
    got: list[str | bytes] = []

    async def handler(ws: rawws.WebSocket) -> None:
        async for message in ws:
            got.append(message)
            spend(MUCH)

    async with serve(handler) as server:
        async with connected(server) as peer:
            await peer.send(*map(str, range(50)))
            await peer.start_close()
            assert max(await per_turn(got, 50)) <= 3
            assert await peer.finish() == (1000, "")
        assert got == [*map(str, range(50))]


async def test_one_message_of_a_modest_client_does_not_wait_behind_greedy_ones() -> None:
    order: list[str] = []

    class Worker(rawws.Handler):
        def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
            assert isinstance(message, str)
            order.append(message)
            if message == "greedy":
                spend(4 * MUCH)

    async with serve(Worker()) as server, connected(server) as one, connected(server) as two:
        await one.send(*["greedy"] * 40)
        await per_turn(order, 1)
        await two.send("modest")
        await per_turn(order, 41)
        assert order.index("modest") < 40


async def test_pipelined_requests_whose_work_is_much_leave_their_turns_to_others() -> None:
    got: list[bytes] = []

    def endpoint(request: rawws.HttpRequest) -> str:
        got.append(request.body)
        spend(MUCH)
        return "done"

    routes = rawws.Routes()
    routes.post("/")(endpoint)
    requests = b"".join([get(method="POST", body=str(number).encode()) for number in range(20)])
    async with serve(routes) as server:
        asked = asyncio.ensure_future(ask(server, requests, ["POST"] * 20))
        assert max(await per_turn(got, 20)) <= 3
        answers = await asked
        assert [answer.status for answer in answers] == [200] * 20
        assert got == [str(number).encode() for number in range(20)]


async def test_a_message_to_a_crowd_is_written_in_several_turns_and_each_gets_all_in_order() -> None:
    opened: list[rawws.WebSocket] = []

    async def handler(ws: rawws.WebSocket) -> None:
        opened.append(ws)
        await ws.wait_closed()

    async with serve(handler) as server, contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(connected(server)) for _ in range(FLUSHED + 10)]
        await eventually(lambda: len(opened) == len(peers))
        before = [ws.bytes_sent for ws in opened]

        def written() -> int:
            return sum(ws.bytes_sent > start for ws, start in zip(opened, before, strict=True))

        for number in range(3):
            rawws.broadcast(opened, str(number))
        most = seen = 0
        while seen < len(opened):
            await asyncio.sleep(0)
            most, seen = max(most, written() - seen), written()
        assert most <= FLUSHED
        for peer in peers:
            assert [await peer.message() for _ in range(3)] == ["0", "1", "2"]
