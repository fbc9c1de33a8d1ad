"""Both styles of handlers: coroutines and callbacks, what ends them, and what they raise."""

from __future__ import annotations

import asyncio
import functools
from types import SimpleNamespace
from typing import Any

import pytest

import rawws
from rawws.http.application import HttpApplication
from tests.server.answers import get
from tests.server.peers import Logged, Peer, connected, eventually, narrow, request, serve

# -- coroutines


async def test_a_handler_that_returns_closes_with_1000() -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        await ws.send("only this")

    async with serve(handler) as server, connected(server) as peer:
        assert await peer.event() == "only this"
        assert await peer.finish() == (1000, "")


async def test_a_handler_that_raises_closes_with_1011_and_logs_one_traceback(logged: Logged) -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        await ws.recv()
        raise ValueError("broken")

    async with serve(handler) as server, connected(server) as peer:
        await peer.send("go")
        assert await peer.finish() == (1011, "internal error")
    logged.take("connection handler failed", ValueError)


async def test_a_handler_without_async_is_told_what_it_lacks(logged: Logged, caplog: pytest.LogCaptureFixture) -> None:
    def handler(ws: rawws.WebSocket) -> None:
        ws.send("once")

    async with serve(handler) as server, connected(server) as peer:
        assert await peer.event() == "once"
        assert await peer.finish() == (1011, "internal error")
    logged.take("connection handler failed", TypeError)
    assert "`async` is missing before its `def`" in caplog.text


@pytest.mark.parametrize("how", ["raised", "waited for"])
async def test_a_handler_that_lets_a_cancellation_out_closes_with_1011_and_is_logged(how: str, logged: Logged) -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        await ws.recv()
        if how == "waited for":
            waited = asyncio.get_running_loop().create_future()
            waited.cancel()
            await waited
        raise asyncio.CancelledError

    async with serve(handler) as server, connected(server) as peer:
        await peer.send("go")
        assert await peer.finish() == (1011, "internal error")
    logged.take("connection handler failed: GET /", RuntimeError)


async def test_a_handler_that_is_cancelled_itself_closes_with_1000() -> None:
    tasks: list[asyncio.Task[Any] | None] = []

    async def handler(ws: rawws.WebSocket) -> None:
        tasks.append(asyncio.current_task())
        await ws.recv()

    async with serve(handler) as server, connected(server) as peer:
        await eventually(lambda: tasks)
        assert tasks[0] is not None
        tasks[0].cancel()
        assert await peer.finish() == (1000, "")


async def test_the_log_line_of_a_handler_that_fails_has_its_method_and_its_path(logged: Logged) -> None:
    class Failing(rawws.Handler):
        def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
            raise ValueError(message)

        def on_close(self, ws: rawws.WebSocket, code: int, reason: str) -> None:
            raise KeyError(code)

    routes = rawws.Routes([rawws.Route("/room/{name}", Failing(), websocket=True)])
    async with serve(routes) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.shake_hands(line="GET /room/%1b?a=b HTTP/1.1")
        await peer.send("x")
        assert await peer.finish() == (1011, "internal error")
        peer.close()
        await eventually(lambda: not server.settings.connections)
    logged.take_all("connection handler failed: GET /room/%1b?a=b", 1)
    logged.take_all("on_close failed: GET /room/%1b?a=b", 1)


async def test_a_handler_that_raises_after_its_own_close_keeps_the_code_and_logs(logged: Logged) -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        ws.close(4000, "mine")
        raise ValueError("broken")

    async with serve(handler) as server, connected(server) as peer:
        assert await peer.finish() == (4000, "mine")
    logged.take("connection handler failed", ValueError)


@pytest.mark.parametrize("way", ["recv", "send", "ping"])
async def test_connection_closed_that_leaves_a_handler_is_not_logged(way: str) -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        while True:
            await (ws.recv() if way == "recv" else ws.send("x") if way == "send" else ws.ping())
            await asyncio.sleep(0)

    async with serve(handler) as server:
        for end in ("close", "reset"):
            async with connected(server) as peer:
                getattr(peer, end)()
        await eventually(lambda: not server.connections)


async def test_connection_closed_of_another_connection_is_logged(logged: Logged) -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        raise rawws.ConnectionClosedError(None, None)

    async with serve(handler) as server, connected(server) as peer:
        assert await peer.finish() == (1011, "internal error")
    logged.take("connection handler failed", rawws.ConnectionClosedError)


async def test_the_failure_of_one_handler_leaves_the_others_alone(logged: Logged) -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        async for message in ws:
            await ws.send(message)
            if message == "fail":
                raise ValueError(message)

    async with serve(handler) as server, connected(server) as one, connected(server) as two:
        await one.send("fail")
        assert await one.message() == "fail"
        assert await one.finish() == (1011, "internal error")
        await two.send("fine")
        assert await two.message() == "fine"
    logged.take("connection handler failed", ValueError)


async def test_a_handler_that_is_no_coroutine_function_is_logged(logged: Logged) -> None:
    def handler(ws: rawws.WebSocket) -> None:
        """Do nothing."""

    async with serve(handler) as server, connected(server) as peer:
        assert await peer.finish() == (1011, "internal error")
    logged.take("connection handler failed", TypeError)


async def test_a_handler_that_raises_before_it_is_a_coroutine_is_logged(logged: Logged) -> None:
    def handler(ws: rawws.WebSocket) -> Any:
        raise ValueError

    async with serve(handler) as server, connected(server) as peer:
        assert await peer.finish() == (1011, "internal error")
    logged.take("connection handler failed", ValueError)


class Greeter:
    async def __call__(self, ws: rawws.WebSocket) -> None:
        await ws.send("hello")

    async def method(self, ws: rawws.WebSocket, greeting: str) -> None:
        await ws.send(greeting)


@pytest.mark.parametrize("handler", [Greeter(), functools.partial(Greeter().method, greeting="hello")])
async def test_any_callable_that_returns_a_coroutine_is_a_handler(handler: Any) -> None:
    async with serve(handler) as server, connected(server) as peer:
        assert await peer.event() == "hello"
        assert await peer.finish() == (1000, "")


async def test_what_a_handler_left_to_read_does_not_hold_up_its_end() -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        await ws.recv()

    async with serve(handler) as server, connected(server) as peer:
        await peer.send(*["x" * 1000] * 1000)
        assert await peer.finish() == (1000, "")


async def test_each_connection_has_its_own_state_and_name() -> None:
    connections: list[rawws.WebSocket] = []

    async def handler(ws: rawws.WebSocket) -> None:
        assert isinstance(ws.state, SimpleNamespace)
        ws.state.number = len(connections)
        connections.append(ws)
        await ws.send(f"{ws.state.number}")

    async with serve(handler) as server:
        for number in range(2):
            async with connected(server) as peer:
                assert await peer.message() == f"{number}"
                assert await peer.finish() == (1000, "")
    first, second = connections
    assert first.id != second.id
    assert first.id == first.id
    assert len({first, second}) == 2
    first.state = {"anything": "else"}
    assert first.state == {"anything": "else"}
    assert repr(first).startswith("<rawws.WebSocket CLOSED")


# -- callbacks


class Recorder(rawws.Handler):
    """Notes what is called, and raises where it is told to."""

    def __init__(self, raises: str = "") -> None:
        self.calls: list[Any] = []
        self.raises = raises

    def note(self, *call: Any) -> None:
        self.calls.append(call)
        if call[0] == self.raises:
            raise ValueError("broken")

    def on_open(self, ws: rawws.WebSocket) -> None:
        self.note("open")

    def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
        self.note("message", message)

    def on_close(self, ws: rawws.WebSocket, code: int, reason: str) -> None:
        self.note("close", code, reason)

    def on_drain(self, ws: rawws.WebSocket) -> None:
        self.note("drain")


async def test_callbacks_are_called_in_order() -> None:
    handler = Recorder()
    async with serve(handler) as server, connected(server) as peer:
        await peer.send("one", b"two")
        await peer.start_close(4000, "bye")
        assert await peer.finish() == (4000, "bye")
        await eventually(lambda: not server.connections)
    assert handler.calls == [("open",), ("message", "one"), ("message", b"two"), ("close", 4000, "bye")]


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_on_close_gets_1006_where_the_peer_vanished(end: str) -> None:
    handler = Recorder()
    async with serve(handler) as server, connected(server) as peer:
        getattr(peer, end)()
        await eventually(lambda: not server.connections)
    assert handler.calls == [("open",), ("close", 1006, "")]


async def test_on_close_is_not_called_for_a_handshake_that_failed() -> None:
    handler = Recorder()
    async with serve(handler) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        response, _ = await peer.answer()
        assert response.status == 426
        peer.close()
    assert handler.calls == []


async def test_a_bare_handler_takes_everything() -> None:
    async with serve(rawws.Handler()) as server, connected(server) as peer:
        await peer.send("one", b"two")
        await peer.start_close()
        assert await peer.finish() == (1000, "")


async def test_an_echo_in_callbacks() -> None:
    class Echo(rawws.Handler):
        def on_open(self, ws: rawws.WebSocket) -> None:
            ws.state.count = 0
            ws.send("welcome")

        def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
            ws.state.count += 1
            ws.send(message)
            if message == "bye":
                ws.close(4000, f"{ws.state.count}")

    async with serve(Echo()) as server:
        for _ in range(2):
            async with connected(server) as peer:
                assert await peer.message() == "welcome"
                await peer.send("one", b"two", "bye", "too late")
                assert [await peer.message() for _ in range(3)] == ["one", b"two", "bye"]
                assert await peer.finish() == (4000, "3")


async def test_an_exception_in_on_open_closes_with_1011_and_is_logged(logged: Logged) -> None:
    handler = Recorder("open")
    async with serve(handler) as server, connected(server) as peer:
        assert await peer.finish() == (1011, "internal error")
        await eventually(lambda: not server.connections)
    logged.take("connection handler failed", ValueError)
    assert handler.calls == [("open",), ("close", 1011, "internal error")]


async def test_an_exception_in_on_message_closes_with_1011_and_drops_what_follows(logged: Logged) -> None:
    handler = Recorder("message")
    async with serve(handler) as server, connected(server) as peer:
        await peer.send("one", "two")
        assert await peer.finish() == (1011, "internal error")
        await eventually(lambda: not server.connections)
    logged.take("connection handler failed", ValueError)
    assert handler.calls == [("open",), ("message", "one"), ("close", 1011, "internal error")]


async def test_an_exception_in_on_message_does_not_hide_the_close_behind_the_message(logged: Logged) -> None:
    handler = Recorder("message")
    async with serve(handler, close_timeout=60) as server, connected(server) as peer:
        peer.connection.send("one")
        await peer.start_close(1000, "bye")
        assert await peer.closed() == (1011, "internal error")
        assert await peer.read() == b""
        await eventually(lambda: not server.connections)
    logged.take("connection handler failed", ValueError)
    assert handler.calls == [("open",), ("message", "one"), ("close", 1000, "bye")]


async def test_an_exception_in_on_message_with_a_violation_behind_it_ends_the_connection(logged: Logged) -> None:
    async with serve(Recorder("message"), close_timeout=60) as server, connected(server) as peer:
        await peer.write(b"\x81\x80\x00\x00\x00\x00\x81\x00")
        assert await peer.closed() == (1011, "internal error")
        assert await peer.read() == b""
        peer.close()
        await eventually(lambda: not server.connections)
    logged.take("connection handler failed", ValueError)


async def test_an_exception_in_on_close_is_logged(logged: Logged) -> None:
    async with serve(Recorder("close")) as server, connected(server) as peer:
        await peer.start_close()
        assert await peer.finish() == (1000, "")
        await eventually(lambda: not server.connections)
    logged.take("on_close failed", ValueError)


class Flood(Recorder):
    """Sends more than the kernel takes."""

    def on_open(self, ws: rawws.WebSocket) -> None:
        ws.send(bytes(200_000))


async def test_on_drain_is_called_when_the_peer_has_read_what_waited() -> None:
    handler = Flood()
    async with rawws.serve(handler, sock=narrow()) as server, connected(server, receive_buffer=2048) as peer:
        [ws] = server.connections
        await eventually(lambda: ws.congested)
        assert handler.calls == []
        assert await peer.message() == bytes(200_000)
        await eventually(lambda: handler.calls)
    assert handler.calls[0] == ("drain",)


async def test_an_exception_in_on_drain_closes_with_1011_and_is_logged(logged: Logged) -> None:
    handler = Flood("drain")
    async with rawws.serve(handler, sock=narrow()) as server, connected(server, receive_buffer=2048) as peer:
        assert await peer.message() == bytes(200_000)
        assert await peer.finish() == (1011, "internal error")
        await eventually(lambda: not server.connections)
    logged.take("connection handler failed", ValueError)


async def test_a_send_that_fails_in_a_callback_because_the_connection_ended_is_not_logged() -> None:
    class Late(rawws.Handler):
        def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
            ws.close(4000)
            ws.send("too late")

    async with serve(Late()) as server, connected(server) as peer:
        await peer.send("go")
        assert await peer.finish() == (4000, "")


async def test_messages_in_fragments_reach_callbacks_whole() -> None:
    handler = Recorder()
    async with serve(handler) as server, connected(server) as peer:
        await peer.fragment(1, b"a")
        await peer.fragment(0, b"b", final=True)
        await peer.start_close()
        await peer.finish()
    assert handler.calls[1] == ("message", "ab")


@pytest.mark.parametrize("name", ["on_open", "on_message", "on_close", "on_drain"])
def test_asynchronous_callbacks_are_refused(name: str) -> None:
    async def callback(self: rawws.Handler, *_: Any) -> None:
        """Do nothing."""

    handler = type("Wrong", (rawws.Handler,), {name: callback})()
    with pytest.raises(TypeError, match=rf"Wrong\.{name} is a coroutine function, allowed are plain functions"):
        serve(handler)


class Deaf(rawws.Handler):
    def on_message(self, ws: rawws.WebSocket) -> None:  # type: ignore[override]
        """Have forgotten the message."""


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (lambda ws, path: None, r"handler takes \(ws, path\), it is called with \(ws\)$"),
        (lambda: None, r"handler takes \(\), it is called with \(ws\)$"),
        (Deaf(), r"Deaf\.on_message takes \(ws\), it is called with \(ws, message\)$"),
    ],
)
def test_what_takes_other_arguments_is_refused(handler: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        serve(handler)


async def test_what_does_not_say_its_arguments_is_called() -> None:
    class Silent:
        __signature__ = "none"

        async def __call__(self, ws: rawws.WebSocket) -> None:
            await ws.send("hello")

    async with serve(Silent()) as server, connected(server) as peer:
        assert await peer.message() == "hello"


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (rawws.Handler, r"the class Handler, allowed is an instance of it: Handler\(\)"),
        (None, "handler is NoneType, allowed"),
        ("chat:chat", "handler is str, allowed"),
    ],
)
def test_what_is_no_handler_is_refused(handler: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        serve(handler)


async def test_an_application_that_says_nothing_fails_what_it_is_asked(logged: Logged) -> None:
    for asked in (get(), request()):
        async with serve(HttpApplication()) as server:
            peer = await Peer.reach(server.sockets[0].getsockname())
            await peer.write(asked)
            assert (await peer.answer())[0].status == 500
            peer.close()
    logged.take_all("failed", 2)
