"""Calls: both sides call functions of each other, each call ends, and what goes wrong in one disturbs no other."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from websockets.asyncio.client import connect

import rawws
from rawws.net.turns import turn_of
from rawws.topics import CallError, Hub, TopicError, calls
from tests.server.peers import Logged, eventually
from tests.topics.asgi import in_asgi
from tests.topics.dialogue import allow, client, served
from tests.topics.test_http import post

STYLES = pytest.mark.parametrize("callbacks", [False, True], ids=["coroutine", "callbacks"])


def calling() -> Hub:
    """Return a hub with functions that answer, wait, raise and call back."""
    hub = Hub(authorize=lambda _client, action, name: action != "call" or name != "secret")
    hub.on_call("add")(lambda _, data: sum(data))

    @hub.on_call("ask me")
    async def back(ws: Any, data: Any) -> Any:
        return [await hub.call(ws, "name", data)]

    @hub.on_call("raise")
    async def fail(_: Any, data: Any) -> None:
        await asyncio.sleep(0)
        if data == "sold out":
            raise CallError("sold out", "there are none left")
        if data == "cancel":
            raise asyncio.CancelledError
        if data == "late":
            raise TimeoutError
        raise ZeroDivisionError

    @hub.on_call("cancelled")
    def ask(_: Any, data: Any) -> Any:
        asked: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        asked.cancel()
        return asked.result()

    hub.on_call("strange")(lambda _, data: {data})
    hub.on_call("large")(lambda _, data: "x" * data)
    hub.on_call("letters")(lambda _, data: "é" * data)
    return hub


async def test_an_answer_is_work_of_the_turn_as_a_publication_is() -> None:
    hub = Hub(authorize=allow)
    asked, going = asyncio.Event(), asyncio.Event()

    @hub.on_call("much")
    async def answer(_: Any, data: Any) -> str:
        asked.set()
        await going.wait()
        return "x" * data  # type: ignore[no-any-return]

    async with served(hub, callbacks=True) as server, client(server) as one:
        await one.say(id=1, call="much", data=10_000)
        await asked.wait()
        turn, most = turn_of(asyncio.get_running_loop()), 0
        going.set()
        for _ in range(5):
            await asyncio.sleep(0)
            most = max(most, turn.spent)
        assert 10_000 < most < 20_000
        assert len((await one.hear())["result"]) == 10_000


@STYLES
async def test_a_client_calls_and_requests_behind_it_do_not_wait(callbacks: bool) -> None:
    hub = calling()
    going = asyncio.Event()

    @hub.on_call("wait")
    async def wait(_: Any, data: Any) -> Any:
        await going.wait()
        return data

    async with served(hub, callbacks=callbacks) as server, client(server) as one:
        await one.say(id=1, call="wait", data={"x": None})
        assert await one.ask(id=2, call="add", data=[1, 2]) == {"id": 2, "result": 3}
        assert (await one.ask(id=3, presence="a"))["count"] == 0
        going.set()
        assert await one.hear() == {"id": 1, "result": {"x": None}}
        # Without an id nobody is answered, unless something is wrong; without data it is null.
        await one.say(call="add", data=[1])
        assert await one.ask(call="none") == {"error": "call", "reason": "there is no call 'none'"}
        assert await one.ask(id=4, call="wait") == {"id": 4, "result": None}


@pytest.mark.parametrize(
    ("fields", "status", "code", "reason", "lines"),
    [
        ({"call": "none"}, 404, "call", "there is no call 'none'", 0),
        ({"call": "secret"}, 403, "refused", None, 0),
        ({"call": ""}, 400, "topic", "the topic is '', allowed are 1 to 255 printable bytes", 0),
        ({"call": "add", "data": [], "since": ""}, 400, "malformed", "call has no 'since'", 0),
        ({"call": "raise", "data": "sold out"}, 400, "sold out", "there are none left", 0),
        ({"call": "raise"}, 500, "failed", "the call failed", 1),
        ({"call": "raise", "data": "cancel"}, 500, "failed", "the call failed", 1),
        ({"call": "raise", "data": "late"}, 500, "failed", "the call failed", 1),
        ({"call": "cancelled"}, 500, "failed", "the call failed", 1),
        ({"call": "strange", "data": 1}, 500, "failed", "the call failed", 1),
        ({"call": "large", "data": 1 << 20}, 413, "size", "the answer has over 1040384 bytes", 0),
        ({"call": "letters", "data": 600_000}, 413, "size", "the answer has over 1040384 bytes", 0),
    ],
)
async def test_what_goes_wrong_is_a_code_over_a_websocket_and_by_a_post(
    logged: Logged, fields: dict[str, Any], status: int, code: str, reason: str | None, lines: int
) -> None:
    async with served(calling()) as server, client(server) as one:
        answer = await one.ask(id=1, **fields)
        assert (answer["error"], answer.get("reason")) == (code, reason)
        assert await post(server, json.dumps({"id": 1, **fields})) == (status, answer)
        assert await one.ask(id=2, call="add", data=[1]) == {"id": 2, "result": 1}
        assert await post(server, '{"id": 2, "call": "add", "data": [1]}') == (200, {"id": 2, "result": 1})
    logged.take_all("the call", 2 * lines)


async def test_a_function_has_its_time() -> None:
    hub = Hub(authorize=allow)
    ended = []

    @hub.on_call("slow", timeout=0.01)
    async def slow(_: Any, data: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(data)

    async with served(hub) as server, client(server) as one:
        wanted = {"id": 1, "error": "timeout", "reason": "the call took over 0.01 s"}
        assert await one.ask(id=1, call="slow", data=7) == wanted
        assert ended == [7]
        assert await post(server, '{"id": 1, "call": "slow"}') == (504, wanted)


@STYLES
async def test_calls_end_with_the_connection_of_their_client(callbacks: bool) -> None:
    hub = Hub(authorize=allow)
    begun, ended = [], []

    @hub.on_call("wait")
    async def wait(ws: Any, data: Any) -> None:
        begun.append(data)
        try:
            await hub.call(ws, "never", timeout=1000)
        except (asyncio.CancelledError, rawws.ConnectionClosed):
            ended.append(data)
            raise

    async with served(hub, callbacks=callbacks) as server:
        async with client(server) as one:
            for number in range(2):
                await one.say(id=number, call="wait", data=number)
                assert (await one.hear())["call"] == "never"
        await eventually(lambda: sorted(ended) == [0, 1])
        assert not hub.calls.clients
    assert begun == [0, 1]


async def test_so_many_calls_of_a_client_are_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "MAX_CALLS", 2)
    hub = Hub(authorize=allow)
    going = asyncio.Event()
    hub.on_call("wait")(lambda *_: going.wait())
    async with served(hub) as server, client(server) as one:
        for number in range(2):
            await one.say(id=number, call="wait")
        wanted = {"id": 2, "error": "limit", "reason": "2 calls are in flight already"}
        assert await one.ask(id=2, call="wait") == wanted
        going.set()
        assert [await one.hear(), await one.hear()] == [{"id": 0, "result": True}, {"id": 1, "result": True}]
        assert await one.ask(id=3, call="wait") == {"id": 3, "result": True}


async def test_so_many_bytes_of_calls_of_a_client_are_in_flight() -> None:
    hub = Hub(authorize=allow)
    going = asyncio.Event()
    hub.on_call("wait")(lambda *_: going.wait())
    large = "x" * (700 << 10)
    async with served(hub) as server, client(server) as one:
        await one.say(id=0, call="wait", data=large)
        found = await one.ask(id=1, call="wait", data=large)
        assert (found["id"], found["error"]) == (1, "limit")
        assert re.fullmatch(r"the calls in flight have 14\d{5} bytes, limit 1048576", found["reason"])
        await one.say(id=2, call="wait")
        going.set()
        assert [await one.hear(), await one.hear()] == [{"id": 0, "result": True}, {"id": 2, "result": True}]
        # What was answered counts no more, and one alone is never too large.
        for number in (3, 4):
            assert await one.ask(id=number, call="wait", data=large) == {"id": number, "result": True}
        # In memory, this one has over 2 MiB.
        wide = {"id": 5, "call": "wait", "data": large + "\U0001f600"}
        await one.peer.send(json.dumps(wide, ensure_ascii=False))
        assert await one.hear() == {"id": 5, "result": True}
        assert [each.size for each in hub.calls.clients.values()] == [0]


@STYLES
async def test_the_server_calls_a_client_also_from_within_a_call_of_it(callbacks: bool) -> None:
    async with served(calling(), callbacks=callbacks) as server, client(server) as one:
        await one.say(id=1, call="ask me", data="who?")
        asked = await one.hear()
        assert asked == {"call": "name", "number": asked["number"], "data": "who?"}
        assert await one.ask(answer=asked["number"], data={"name": "Ann"}) == {"id": 1, "result": [{"name": "Ann"}]}
        await one.say(id=2, call="ask me")
        number = (await one.hear())["number"]
        # An answer to nothing is dropped, and so is a second one.
        await one.say(answer=number + 1, data="x")
        await one.say(answer=number, error="busy" * 100, reason="later")
        await one.say(answer=number, data="x")
        assert await one.hear() == {"id": 2, "error": ("busy" * 100)[:64], "reason": "later"}
        for fields, reason in (
            ({"answer": "1"}, "answer is str, allowed is int"),
            ({"answer": 1, "error": 1}, "error is int, allowed is str"),
            ({"answer": 1, "key": ""}, "answer has no 'key'"),
        ):
            assert await one.ask(id=3, **fields) == {"id": 3, "error": "malformed", "reason": reason}


async def test_what_a_call_of_a_client_raises_and_whom_it_cannot_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "MAX_CALLS", 1)
    hub = Hub(authorize=allow)
    sockets: list[Any] = []
    hub.on_call("here")(lambda ws, _: sockets.append(ws))
    async with served(hub, subprotocols=["rawws.v1", "other"]) as server:
        async with client(server) as one:
            await one.ask(id=1, call="here")
            [ws] = sockets
            with pytest.raises(TimeoutError, match=r"the client did not answer 'f' within 0\.01 s"):
                await hub.call(ws, "f", timeout=0.01)
            first = asyncio.create_task(hub.call(ws, "f"))
            await one.hear()
            await one.hear()
            with pytest.raises(CallError, match="limit: 1 calls are in flight already"):
                await hub.call(ws, "f")
            with pytest.raises(TopicError):
                await hub.call(ws, "")
        with pytest.raises(rawws.ConnectionClosed):
            await first
        with pytest.raises(rawws.ConnectionClosed):
            await hub.call(ws, "f")
    for stranger in (rawws.EventStream(), rawws.HttpRequest, "ann"):
        with pytest.raises(TypeError):
            await hub.call(stranger, "f")  # type: ignore[arg-type]

    async def handler(ws: rawws.WebSocket) -> None:
        with pytest.raises(rawws.LocalProtocolError, match=r"the subprotocol is None, needed for a call is rawws\.v1"):
            await hub.call(ws, "f")
        await ws.send("done")

    async with rawws.serve(handler, "127.0.0.1", 0) as server:
        async with rawws.connect(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/") as peer:
            assert await peer.recv() == "done"


async def test_a_hub_that_closes_ends_the_calls_of_clients_that_subscribed_to_nothing() -> None:
    hub = Hub(authorize=allow)
    ended = asyncio.Event()

    @hub.on_call("wait")
    async def wait(*_: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with served(hub) as server, client(server) as one:
        await one.say(id=1, call="wait")
        await eventually(lambda: hub.calls.clients)
        await asyncio.sleep(0)
        await hub.close()
        await ended.wait()


@pytest.mark.parametrize("server", ["uvicorn", "rawws"])
async def test_in_asgi_both_sides_call_too(server: str) -> None:
    hub = calling()
    application = Starlette(routes=[Mount("/topics", hub.asgi())])
    async with in_asgi(server, application) as address:
        async with connect(f"ws://{address}/topics/ws", subprotocols=["rawws.v1"]) as ws:  # type: ignore[list-item]
            await ws.send('{"id": 1, "call": "ask me"}')
            number = json.loads(await ws.recv())["number"]
            await ws.send(json.dumps({"answer": number, "data": "Ann"}))
            assert json.loads(await ws.recv()) == {"id": 1, "result": ["Ann"]}


def test_what_is_no_function_of_a_call_raises_where_it_is_made() -> None:
    hub = Hub()
    hub.on_call("a")(print)
    with pytest.raises(ValueError, match="the call 'a' has a function already, allowed is one"):
        hub.on_call("a")(print)
    with pytest.raises(TopicError):
        hub.on_call("")(print)
    with pytest.raises(ValueError, match="timeout is 0, allowed are numbers above 0"):
        hub.on_call("b", timeout=0)(print)
    assert str(CallError("code")) == "code"


async def test_an_answer_counts_only_from_who_was_asked() -> None:
    async with served(calling()) as server, client(server) as one, client(server) as other:
        await one.say(id=1, call="ask me")
        number = (await one.hear())["number"]
        await other.say(answer=number, data="forged")
        await other.ask(id=1, call="add", data=[])
        assert await one.ask(answer=number, data="Ann") == {"id": 1, "result": ["Ann"]}
