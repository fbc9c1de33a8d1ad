"""Sessions: the WebSocket part of ASGI, on our ASGI server and in a real uvicorn, seen by a client of others."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.integrations.serving import (
    LOGGERS,
    Receive,
    Recorder,
    Send,
    Speaker,
    echo,
    end,
    exchange_messages,
    refused,
    served,
)
from tests.server.peers import Logged, eventually, set_at_end


@pytest.fixture(params=LOGGERS)
def server(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_messages_of_both_kinds_go_through(server: str) -> None:
    async with served(server, echo) as url, connect(url) as ws:
        await exchange_messages(ws)


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "away"), (3456, "Grüße")])
async def test_the_application_hears_how_its_peer_closed_and_hears_it_again(
    server: str, code: int, reason: str
) -> None:
    app = Recorder()
    async with served(server, app) as url:
        async with connect(url) as ws:
            await ws.send("last")
            await ws.close(code, reason)
        await app.ended.wait()
    assert app.events == [
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "last"},
        *2 * [{"type": "websocket.disconnect", "code": code, "reason": reason}],
    ]


async def test_a_peer_that_vanishes_is_a_disconnect_with_1006(server: str) -> None:
    app = Recorder()
    async with served(server, app) as url, connect(url) as ws:
        ws.transport.abort()
        await app.ended.wait()
    assert app.events[-1] == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


async def test_what_breaks_the_protocol_is_told_to_both(server: str) -> None:
    app = Recorder()
    async with served(server, app) as url, connect(url) as ws:
        ws.transport.write(b"\x81\x00")
        assert (await end(ws))[0] == 1002
        await app.ended.wait()
    assert app.events[-1]["code"] == 1002


async def test_a_message_over_the_limit_is_refused_with_1009(server: str) -> None:
    app = Recorder()
    async with served(server, app, max_size=100) as url, connect(url, compression=None) as ws:
        await ws.send("x" * 100)
        await ws.send("x" * 101)
        assert (await end(ws))[0] == 1009
        await app.ended.wait()
    assert [event.get("text") for event in app.events[1:2]] == ["x" * 100]


async def test_an_application_closes_with_its_code(server: str) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4000, "reason": "enough"})
        event = await receive()
        assert event == {"type": "websocket.disconnect", "code": 4000, "reason": "enough"}
        with pytest.raises(RuntimeError, match=r"after sending 'websocket.close'"):
            await send({"type": "websocket.send", "text": "too late"})

    async with served(server, app) as url, connect(url) as ws:
        assert await end(ws) == (4000, "enough")


async def test_an_application_that_returns_closes_with_1000(server: str) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "bye"})

    async with served(server, app) as url, connect(url) as ws:
        assert await ws.recv() == "bye"
        assert await end(ws) == (1000, "")


async def test_what_an_application_returns_is_logged(server: str, logged: Logged) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> str:
        await receive()
        await send({"type": "websocket.accept"})
        return "bye"

    async with served(server, app) as url, connect(url) as ws:
        assert await end(ws) == (1000, "")
    logged.take("ASGI callable should return None, but returned 'bye'.", name=LOGGERS[server])


async def test_an_application_that_raises_closes_with_1011(server: str, logged: Logged) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        raise ValueError("a fault")

    async with served(server, app) as url, connect(url) as ws:
        assert (await end(ws))[0] == 1011
    logged.take("Exception in ASGI application", ValueError, LOGGERS[server])


@pytest.mark.parametrize("accepts", [False, True])
async def test_an_application_that_lets_a_cancellation_out_ends_its_connection(
    server: str, accepts: bool, logged: Logged
) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        if accepts:
            await send({"type": "websocket.accept"})
        waited = asyncio.get_running_loop().create_future()
        waited.cancel()
        await waited

    async with served(server, app) as url:
        if accepts:
            async with connect(url) as ws:
                assert (await end(ws))[0] == 1011
        else:
            assert (await refused(url))[0] == 500
    logged.take("Exception in ASGI application (GET /)", asyncio.CancelledError, LOGGERS[server])


async def test_an_application_that_raises_before_it_accepts_answers_500(server: str, logged: Logged) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        raise ValueError("a fault")

    async with served(server, app) as url:
        assert (await refused(url))[0] == 500
    logged.take("Exception in ASGI application", ValueError, LOGGERS[server])


async def test_an_application_that_returns_before_it_accepts_answers_500(server: str, logged: Logged) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()

    async with served(server, app) as url:
        assert (await refused(url))[0] == 500
    logged.take("ASGI callable returned without completing handshake", name=LOGGERS[server])


async def test_a_close_before_the_accept_is_403(server: str) -> None:
    seen: list[dict[str, Any]] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 4000})
        seen.append(await receive())

    async with served(server, app) as url:
        assert (await refused(url))[0] == 403
    assert seen == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


async def test_an_application_denies_with_a_response_of_its_own(server: str) -> None:
    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        headers = [(b"content-type", b"text/plain"), (b"www-authenticate", b"Basic"), (b"content-length", b"99")]
        await send({"type": "websocket.http.response.start", "status": 401, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"who ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"are you?"})

    async with served(server, app) as url:
        status, headers, body = await refused(url)
    assert (status, body) == (401, "who are you?")
    assert headers["www-authenticate"] == "Basic"


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([{"type": "websocket.send", "text": "x"}], "Expected ASGI message 'websocket.accept'"),
        ([{"type": "websocket.accept"}, {"type": "websocket.accept"}], "but got 'websocket.accept'"),
        ([{"type": "websocket.accept"}, {"type": "websocket.send"}], "neither bytes nor text"),
        ([{"type": "websocket.accept", "subprotocol": "not offered"}], "allowed are None and one of"),
        ([{"type": "websocket.accept", "headers": [(b"a", b"b\r\nc: d")]}], "0x0d is not allowed"),
        ([{"type": "websocket.accept", "headers": [(b"Sec-WebSocket-Accept", b"x")]}], "the handshake's own"),
        ([{"type": "websocket.http.response.start", "status": 99}], "Invalid HTTP status code '99'"),
        (
            2 * [{"type": "websocket.http.response.start", "status": 401}],
            "Expected ASGI message 'websocket.http.response",
        ),
        (
            [
                {"type": "websocket.http.response.start", "status": 401},
                {"type": "websocket.http.response.body", "body": bytes((1 << 20) + 1), "more_body": True},
            ],
            "over 1048576 bytes, the limit",
        ),
    ],
)
async def test_what_asgi_does_not_allow_raises_in_the_application(
    server: str, events: list[dict[str, Any]], message: str, logged: Logged
) -> None:
    app = Speaker(events)
    async with served(server, app) as url:
        with contextlib.suppress(InvalidStatus, ConnectionClosed):
            async with connect(url) as ws:
                await end(ws)
        await eventually(lambda: app.errors)
    assert message in str(app.errors[0])
    logged.take("Exception in ASGI application", type(app.errors[0]), LOGGERS[server])


async def test_a_send_after_the_end_is_an_oserror_that_nobody_logs(server: str) -> None:
    raised: list[BaseException] = []

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        try:
            await send({"type": "websocket.send", "text": "x"})
        except OSError as error:
            raised.append(error)
            raise

    async with served(server, app) as url:
        async with connect(url):
            pass
        await eventually(lambda: raised)


async def test_a_slow_application_holds_its_peer_back(server: str) -> None:
    go_on = asyncio.Event()
    count = 0

    async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
        nonlocal count
        await receive()
        await send({"type": "websocket.accept"})
        await go_on.wait()
        while (await receive())["type"] == "websocket.receive":
            count += 1

    async def flood(ws: ClientConnection) -> None:
        for _ in range(400):
            await ws.send(bytes(1 << 16))

    async with served(server, app) as url, connect(url, compression=None) as ws, set_at_end(go_on):
        sending = asyncio.create_task(flood(ws))
        done, _ = await asyncio.wait([sending], timeout=0.5)
        assert not done
        go_on.set()
        await sending
        await ws.close()
        await eventually(lambda: count == 400)


@pytest.mark.usefixtures("steady")
async def test_an_idle_peer_is_pinged_and_one_that_does_not_answer_is_closed_with_1011(server: str) -> None:
    app = Recorder()
    async with served(server, app, ping_interval=0.05, ping_timeout=0.1) as url:
        async with connect(url, ping_interval=None) as ws:
            await asyncio.sleep(0.4)
            await ws.send("alive")
            await eventually(lambda: len(app.events) > 1)
            # From here on it reads nothing.
            ws.transport.pause_reading()
            await app.ended.wait()
            ws.transport.resume_reading()
            assert (await end(ws))[0] == 1011
    assert app.events[-1]["code"] == 1011
