"""How a server drains: readiness, batches, busy handlers, the deadline; and connections that are too old."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import rawws
from tests.processes import ROOT, Process, free_port
from tests.server.answers import get
from tests.server.peers import Logged, Peer, connected, eventually, handler_of, serve, set_at_end
from tests.topics.receivers import still


async def echo(ws: rawws.WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


@contextlib.asynccontextmanager
async def crowd(server: rawws.Server, count: int) -> AsyncIterator[list[Peer]]:
    """Give so many peers whose handshake is done."""
    async with contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(connected(server)) for _ in range(count)]
        await eventually(lambda: len(server.connections) == count)
        yield peers


async def until_head(peer: Peer) -> bytes:
    """Return what comes up to the end of a response's head."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = await peer.read()
        assert more, data
        data += more
    return data


# -- the order of things


async def test_readiness_says_no_first_while_new_connections_are_still_served() -> None:
    routes = rawws.Routes(
        [
            rawws.Route("/", echo, websocket=True),
            rawws.Route("/healthz", rawws.healthz),
            rawws.Route("/readyz", rawws.readyz),
        ]
    )
    async with serve(routes, drain=rawws.Drain(grace=0.4)) as server:
        address = server.sockets[0].getsockname()

        async def status(path: str) -> int:
            probe = await Peer.reach(address)
            await probe.write(get(path, "Connection: close"))
            response = await probe.response()
            probe.close()
            return response.status

        assert (await status("/healthz"), await status("/readyz")) == (200, 200)
        task = asyncio.ensure_future(server.drain())
        await asyncio.sleep(0)
        assert (await status("/healthz"), await status("/readyz")) == (200, 503)
        assert server.is_serving()
        assert server.stats().draining
        async with connected(server) as late:
            await late.send("hi")
            assert await late.message() == "hi"
            assert await late.finish() == (1001, "")
        await task
        with socket.socket() as probe:
            assert probe.connect_ex(address) == errno.ECONNREFUSED


async def test_a_small_server_ends_at_once_and_tells_all() -> None:
    async with serve(echo) as server, crowd(server, 20) as peers:
        task = asyncio.ensure_future(server.drain())
        assert [await peer.finish() for peer in peers] == [(1001, "")] * 20
        await task
        stats = server.stats()
        assert (stats.drained, stats.aborted, stats.connections, stats.closes) == (20, 0, 0, {1001: 20})


async def test_each_connection_may_have_a_code_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    codes = {"one": 4200, "two": 1012, "wrong": 1006}
    plan = rawws.Drain(code=lambda ws: codes[ws.query["as"]])
    async with serve(echo, drain=plan) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        clients = [await rawws.connect(f"{url}/?as={name}") for name in (*codes, "unknown")]
        await server.drain()
        assert [client.close_code for client in clients] == [4200, 1012, 1001, 1001]
    failed = [record for record in caplog.records if record.message == "the code of a drain could not be chosen"]
    assert len(failed) == 2
    caplog.clear()


async def test_code_and_reason_are_an_option() -> None:
    async with serve(echo, drain=rawws.Drain(code=1012, reason="restart")) as server, crowd(server, 1) as [peer]:
        task = asyncio.ensure_future(server.drain())
        assert await peer.finish() == (1012, "restart")
        await task


async def test_connections_are_told_in_batches_and_serve_until_their_turn() -> None:
    plan = rawws.Drain(batch=2, interval=10, timeout=None)
    with still() as clock:
        async with serve(echo, drain=plan) as server, crowd(server, 6) as peers:
            task = asyncio.ensure_future(server.drain())
            await eventually(lambda: server.stats().drained == 2)
            waiting = {ws.remote_address for ws in server.connections if ws.ready_state == rawws.State.OPEN}
            assert len(waiting) == 4
            for peer in peers:
                if peer.sock.getsockname() in waiting:
                    await peer.send("still here?")
                    assert await peer.message() == "still here?"
            for drained in (4, 6):
                # Intervals are half as long again, or half as long, at random.
                clock.now += 15
                await eventually(lambda drained=drained: server.stats().drained == drained)  # type: ignore[misc]
            assert [await peer.finish() for peer in peers] == [(1001, "")] * 6
            await task


@pytest.mark.parametrize(
    ("plan", "count", "size"),
    [
        (rawws.Drain(), 19_000, 1584),
        (rawws.Drain(), 500, 1000),
        (rawws.Drain(batch=10, interval=5, timeout=8), 100, 100),
        (rawws.Drain(batch=10, timeout=None), 1_000_000, 10),
        (rawws.Drain(batch=10, interval=0), 1_000_000, 10),
    ],
)
def test_batches_grow_where_they_would_take_over_half_of_the_time(plan: rawws.Drain, count: int, size: int) -> None:
    assert plan.size(count) == size


# -- nothing that was accepted is lost


async def test_a_handler_in_the_middle_of_messages_answers_them_before_its_close_frame() -> None:
    async def slow(ws: rawws.WebSocket) -> None:
        async for message in ws:
            await asyncio.sleep(0.02)
            await ws.send(message)

    async with serve(slow) as server, crowd(server, 1) as [peer]:
        await peer.send("one", "two", "three", "four")
        [ws] = server.connections
        await eventually(lambda: not ws.is_idle())
        task = asyncio.ensure_future(server.drain())
        assert [await peer.message() for _ in range(4)] == ["one", "two", "three", "four"]
        assert await peer.finish() == (1001, "")
        await task


async def test_a_handler_that_never_waits_is_told_after_its_patience() -> None:
    async def ticker(ws: rawws.WebSocket) -> None:
        with contextlib.suppress(rawws.ConnectionClosed):
            while True:
                await ws.send("tick")
                await asyncio.sleep(0.01)

    async with serve(ticker, drain=rawws.Drain(patience=0.1)) as server, crowd(server, 1) as [peer]:
        task = asyncio.ensure_future(server.drain())
        event = await peer.event()
        while event == "tick":
            event = await peer.event()
        assert event == (1001, "")
        peer.connection.settle()
        await peer.flush()
        await task


async def test_a_handler_that_waits_for_the_end_only_is_told_at_once() -> None:
    async def listener(ws: rawws.WebSocket) -> None:
        await ws.wait_closed()

    async with serve(listener, drain=rawws.Drain(patience=3600)) as server, crowd(server, 1) as [peer]:
        task = asyncio.ensure_future(server.drain())
        assert await peer.finish() == (1001, "")
        await task


async def test_handlers_finish_what_they_do_after_the_close() -> None:
    saved: list[str] = []

    async def handler(ws: rawws.WebSocket) -> None:
        async for message in ws:
            saved.append(str(message))
        await asyncio.sleep(0.05)
        saved.append("end")

    async with serve(handler) as server, crowd(server, 1) as [peer]:
        await peer.send("one")
        await eventually(lambda: saved)
        task = asyncio.ensure_future(server.drain())
        assert await peer.finish() == (1001, "")
        await task
        assert saved == ["one", "end"]


async def test_under_load_every_peer_gets_an_answer_to_all_that_was_accepted_and_a_close_frame() -> None:
    """The small version of tests/soak/drain.py."""
    accepted: dict[str, int] = {}

    async def handler(ws: rawws.WebSocket) -> None:
        async for message in ws:
            name, _, number = str(message).partition(" ")
            accepted[name] = int(number)
            await asyncio.sleep(0)
            await ws.send(message)

    async def client(server: rawws.Server, name: str) -> tuple[str, int, object]:
        async with connected(server) as peer:
            for number in range(1_000_000):
                with contextlib.suppress(OSError):
                    await peer.send(f"{name} {number}")
                event = await peer.event()
                if event != f"{name} {number}":
                    peer.connection.settle()
                    with contextlib.suppress(OSError):
                        await peer.flush()
                    return name, number - 1, event
        raise AssertionError("the server went on for ever")

    plan = rawws.Drain(batch=25, interval=0.05)
    async with serve(handler, drain=plan) as server:
        clients = [asyncio.ensure_future(client(server, f"client-{number}")) for number in range(100)]
        await eventually(lambda: len(accepted) == 100 and min(accepted.values()) > 2)
        await server.drain()
        ends = [await task for task in clients]
    assert {close for _, _, close in ends} == {rawws.Close(1001, "")}
    assert {name: number for name, number, _ in ends} == accepted
    assert server.stats().aborted == 0


# -- plain HTTP


async def test_a_request_that_is_answered_gets_its_answer_and_a_silent_connection_its_end() -> None:
    drained = asyncio.Event()

    async def slow(request: rawws.HttpRequest) -> str:
        await drained.wait()
        return "done"

    routes = rawws.Routes([rawws.Route("/", slow, methods=("GET", "POST"))])
    async with serve(routes) as server, set_at_end(drained):
        address = server.sockets[0].getsockname()
        silent, asking, uploading = [await Peer.reach(address) for _ in range(3)]
        await asking.write(get("/"))
        await uploading.write(get("/", "Content-Length: 4", method="POST") + b"ha")
        await eventually(
            lambda: (
                [bool(handler_of(ws).exchange) for ws in server.settings.connections].count(True) == 2
                and len(server.settings.connections) == 3
            )
        )
        task = asyncio.ensure_future(server.drain())
        await asyncio.sleep(0)
        await uploading.write(b"lf")
        assert await silent.read_to_end() == b""
        drained.set()
        for peer in (asking, uploading):
            answer = await peer.read_to_end()
            assert answer.endswith(b"\r\n\r\ndone")
            assert b"\r\nConnection: close\r\n" in answer
        await task
        for peer in (silent, asking, uploading):
            peer.close()


async def test_what_came_before_the_end_began_is_answered_also_on_a_connection_that_waits_to_be_accepted() -> None:
    routes = rawws.Routes()

    @routes.get("/")
    def page(request: rawws.HttpRequest) -> str:
        return "here"

    async with serve(routes) as server:
        address = server.sockets[0].getsockname()
        kept, waiting = await Peer.reach(address), Peer(socket.socket())
        await kept.write(get("/"))
        assert (await until_head(kept)).endswith(b"\r\n\r\nhere")
        # The loop does not turn until the end begins: of this the kernel knows, and the server does not.
        waiting.sock.connect(address)
        waiting.sock.setblocking(False)
        for peer in (kept, waiting):
            peer.sock.send(get("/"))
        task = server.start_draining()
        for peer in (kept, waiting):
            assert (await peer.read_to_end()).endswith(b"\r\n\r\nhere")
            peer.close()
        await task


async def test_event_streams_and_polls_end_whole() -> None:
    stream = rawws.EventStream()
    routes = rawws.Routes(
        [rawws.Route("/events", lambda _: stream), rawws.Route("/poll", lambda _: rawws.LongPoll())],
    )
    async with serve(routes) as server:
        address = server.sockets[0].getsockname()
        listening, polling = await Peer.reach(address), await Peer.reach(address)
        await listening.write(get("/events"))
        await polling.write(get("/poll"))
        await until_head(listening)
        await eventually(lambda: sum(bool(handler_of(ws).observer) for ws in server.settings.connections) == 2)
        stream.send("last words")
        task = asyncio.ensure_future(server.drain())
        events = await listening.read_to_end()
        assert events.endswith(b"data: last words\n\n\r\n0\r\n\r\n")
        assert (await polling.read_to_end()).startswith(b"HTTP/1.1 204 ")
        await task
        assert server.stats().drained == 2
        listening.close()
        polling.close()


async def test_a_stream_that_begins_while_the_server_drains_ends_at_once() -> None:
    begun = asyncio.Event()

    async def late(request: rawws.HttpRequest) -> rawws.EventStream:
        begun.set()
        await asyncio.sleep(0.05)
        return rawws.EventStream()

    async with serve(rawws.Routes([rawws.Route("/", late)])) as server:
        peer = await Peer.reach(server.sockets[0].getsockname())
        await peer.write(get("/"))
        await begun.wait()
        await server.drain()
        assert (await peer.read_to_end()).endswith(b"\r\n\r\n0\r\n\r\n")
        peer.close()


# -- the deadline


async def test_what_is_left_at_the_deadline_is_aborted_counted_and_logged(logged: Logged) -> None:
    cancelled: list[bool] = []

    async def stubborn(ws: rawws.WebSocket) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    plan = rawws.Drain(timeout=0.2, patience=0)
    async with serve(stubborn, drain=plan) as server, crowd(server, 3) as peers:
        began = asyncio.get_running_loop().time()
        await server.drain()
        took = asyncio.get_running_loop().time() - began
        # The difference of two floats may be a little less than that of the milliseconds that they stand for.
        assert round(took, 3) >= 0.2
        assert [await peer.closed() for peer in peers] == [(1001, "")] * 3
        assert cancelled == [True] * 3
        assert server.stats().aborted == 3
    logged.take("3 connections and 3 handlers are left after 0.2 s, and aborted")


async def test_a_drain_that_is_asked_for_twice_is_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rawws.server")
    async with serve(echo, drain=rawws.Drain(grace=0.1)) as server, crowd(server, 1) as [peer]:
        both = asyncio.gather(server.drain(), server.drain())
        assert await peer.finish() == (1001, "")
        await both
    begun, ended = [record.getMessage() for record in caplog.records if "drain" in record.getMessage()]
    assert begun == "draining 1 connections"
    assert re.fullmatch(r"drained in \d+\.\d s: 1 connections were told to go, 0 aborted", ended)


async def test_close_in_the_middle_of_a_drain_tells_those_who_wait_for_their_turn() -> None:
    plan = rawws.Drain(batch=1, interval=3600, timeout=None)
    async with serve(echo, drain=plan) as server, crowd(server, 3) as peers:
        task = asyncio.ensure_future(server.drain())
        await eventually(lambda: server.stats().drained == 1)
        server.close(1001, "now")
        assert sorted([await peer.finish() or (0, "") for peer in peers]) == [(1001, ""), (1001, "now"), (1001, "now")]
        await task


def test_the_page_on_operations_lists_the_fields_of_a_drain_with_their_defaults() -> None:
    text = (ROOT / "docs" / "run" / "operations.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[a-z`, ]+) \| (`[^|]+`) \|", text, re.MULTILINE)
    listed: dict[str, str] = {}
    for names, defaults in rows:
        listed |= dict(zip(re.findall(r"`(\w+)`", names), re.findall(r"`([^`]*)`", defaults), strict=True))
    plan = rawws.Drain()
    assert listed == {field.name: repr(getattr(plan, field.name)) for field in dataclasses.fields(plan)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grace": -1}, "grace is -1, allowed are numbers from 0 on"),
        ({"patience": -1}, "patience is -1, allowed are numbers from 0 on"),
        ({"interval": float("nan")}, "interval is nan, allowed are numbers from 0 on"),
        ({"batch": 0}, "batch is 0, allowed are numbers above 0"),
        ({"timeout": 0}, "timeout is 0, allowed are numbers above 0"),
    ],
)
def test_a_drain_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rawws.Drain(**options)


def test_a_drain_with_a_code_that_may_not_be_sent_is_refused() -> None:
    with pytest.raises(rawws.LocalProtocolError):
        rawws.Drain(code=1006)


def test_the_option_drain_is_a_drain() -> None:
    with pytest.raises(TypeError, match="drain is float, allowed are a Drain and None"):
        serve(echo, drain=25.0)


# -- by signals

PROGRAM = """
import asyncio, sys
if sys.argv[2] == "asyncio":
    sys.modules["uvloop"] = None
import rawws

async def handler(ws):
    await ws.send("ready")
    await ws.recv()

routes = rawws.Routes([rawws.Route("/", handler, websocket=True), rawws.Route("/readyz", rawws.readyz)])
rawws.run(routes, "127.0.0.1", int(sys.argv[1]), drain=rawws.Drain(grace=float(sys.argv[3])))
print("run returned", flush=True)
"""


@contextlib.contextmanager
def program(folder: Path, loop: str, grace: float) -> Any:
    script = folder / "program.py"
    script.write_text(PROGRAM)
    port = free_port()
    with Process([sys.executable, script, str(port), loop, str(grace)], listens=port) as process:
        yield process


async def test_sigterm_drains_and_returns(loop_name: str, tmp_path: Path) -> None:
    with program(tmp_path, loop_name, 0.3) as process:
        peer = await Peer.reach(("127.0.0.1", process.port))
        await peer.shake_hands()
        assert await peer.message() == "ready"
        os.kill(process.pid, signal.SIGTERM)
        status = 200
        while status == 200:
            probe = await Peer.reach(("127.0.0.1", process.port))
            await probe.write(get("/readyz"))
            status = (await probe.response()).status
            probe.close()
        assert status == 503
        assert await peer.finish() == (1001, "")
        await eventually(lambda: process.poll() is not None)
        assert (process.poll(), process.output) == (0, "run returned\n")
        peer.close()


async def test_a_second_signal_waits_for_no_grace(loop_name: str, tmp_path: Path) -> None:
    with program(tmp_path, loop_name, 3600) as process:
        peer = await Peer.reach(("127.0.0.1", process.port))
        await peer.shake_hands()
        await peer.message()
        os.kill(process.pid, signal.SIGTERM)
        status = 200
        while status == 200:
            probe = await Peer.reach(("127.0.0.1", process.port))
            await probe.write(get("/readyz"))
            status = (await probe.response()).status
            probe.close()
        assert process.poll() is None
        os.kill(process.pid, signal.SIGTERM)
        await eventually(lambda: process.poll() is not None)
        assert process.poll() != 0
        assert "run returned" not in process.output
        peer.close()


# -- max_lifetime


@pytest.mark.usefixtures("steady")
async def test_a_connection_that_is_too_old_is_closed_with_1001_and_a_reason() -> None:
    async with serve(echo, max_lifetime=0.2) as server, crowd(server, 1) as [peer]:
        await peer.send("young")
        assert await peer.message() == "young"
        assert await peer.finish() == (1001, "max_lifetime is over, connect again")
        await eventually(lambda: server.stats().retired == 1)


async def test_connections_that_came_together_do_not_get_too_old_together() -> None:
    async with serve(rawws.Handler(), max_lifetime=3600) as server, crowd(server, 20):
        ages = [ws.lifetime for ws in server.connections]
        assert len(set(ages)) > 10
        assert all(3240 <= age <= 3600 for age in ages)


async def test_a_busy_handler_answers_before_its_connection_is_closed_for_its_age() -> None:
    async def slow(ws: rawws.WebSocket) -> None:
        async for message in ws:
            begun.set()
            await answered.wait()
            await ws.send(message)

    begun, answered = asyncio.Event(), asyncio.Event()
    with still() as clock:
        async with serve(slow, max_lifetime=1000) as server, crowd(server, 1) as [peer], set_at_end(answered):
            [ws] = server.connections
            await peer.send("in time")
            await begun.wait()
            # Who is busy has a tenth longer.
            for seconds in (ws.lifetime, 99.0):
                clock.now += seconds
                ws.on_sweep(clock.now)
                assert ws.ready_state is rawws.State.OPEN
            answered.set()
            assert await peer.message() == "in time"
            await eventually(ws.is_idle)
            ws.on_sweep(clock.now)
            assert (await peer.finish() or (0, ""))[0] == 1001


async def test_a_handler_that_is_always_busy_is_closed_for_its_age_too() -> None:
    async def deaf(ws: rawws.WebSocket) -> None:
        await asyncio.sleep(1)

    async with serve(deaf, max_lifetime=0.1) as server, crowd(server, 1) as [peer]:
        assert (await peer.finish() or (0, ""))[0] == 1001
