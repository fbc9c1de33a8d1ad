"""How a server ends: what its peers are told, what it waits for, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

import rawws
from tests.processes import Process, free_port
from tests.server.peers import Logged, Peer, connected, eventually, narrow, request, serve, set_at_end


async def echo(ws: rawws.WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


# -- connections


async def test_connections_are_those_whose_handshake_is_done_and_that_are_not_closed() -> None:
    async with serve(echo) as server:
        assert server.connections == set()
        silent = await Peer.reach(server.sockets[0].getsockname())
        async with connected(server) as one, connected(server):
            await eventually(lambda: len(server.connections) == 2)
            remote = {ws.remote_address for ws in server.connections}
            assert one.sock.getsockname() in remote
            await one.start_close()
            await one.finish()
            await eventually(lambda: len(server.connections) == 1)
        await eventually(lambda: not server.connections)
        silent.close()


# -- close


async def test_close_tells_every_peer_1001_and_wait_closed_waits_for_the_handlers() -> None:
    finished: list[str] = []
    released = asyncio.Event()

    async def handler(ws: rawws.WebSocket) -> None:
        async for _ in ws:
            pass
        await released.wait()
        finished.append("saved")

    async with serve(handler) as server, connected(server) as one, connected(server) as two, set_at_end(released):
        await eventually(lambda: len(server.connections) == 2)
        server.close()
        assert not server.is_serving()
        task = asyncio.ensure_future(server.wait_closed())
        for peer in (one, two):
            assert await peer.finish() == (1001, "")
        assert not task.done()
        released.set()
        await task
        assert finished == ["saved", "saved"]
        assert server.connections == set()


async def test_close_may_say_why() -> None:
    async with serve(echo) as server, connected(server) as peer:
        await eventually(lambda: server.connections)
        server.close(1012, "restart")
        assert await peer.finish() == (1012, "restart")


@pytest.mark.parametrize(("code", "reason"), [(1005, "why"), (99, ""), (1001, "x" * 124)])
async def test_close_with_a_code_that_may_not_be_sent_is_refused_and_the_server_goes_on(code: int, reason: str) -> None:
    async with serve(echo) as server, connected(server) as peer:
        with pytest.raises(rawws.LocalProtocolError):
            server.close(code, reason)
        assert server.is_serving()
        await peer.send("hi")
        assert await peer.message() == "hi"
        async with connected(server) as other:
            await other.send("hi")
            assert await other.message() == "hi"


async def test_close_takes_no_new_connections_and_drops_silent_ones() -> None:
    async with serve(echo) as server:
        address = server.sockets[0].getsockname()
        silent, halfway = await Peer.reach(address), await Peer.reach(address)
        await halfway.write(request()[:20])
        await eventually(lambda: len(server.settings.connections) == 2)
        server.close()
        assert await silent.read_to_end() == b""
        assert await halfway.read_to_end() == b""
        with socket.socket() as probe:
            await asyncio.sleep(0)
            assert probe.connect_ex(address) == errno.ECONNREFUSED
        silent.close()
        halfway.close()


async def test_close_aborts_peers_that_do_not_answer_after_close_timeout() -> None:
    async with serve(echo, close_timeout=0.1) as server, connected(server) as peer:
        await eventually(lambda: server.connections)
        server.close()
        await server.wait_closed()
        assert await peer.closed() == (1001, "")


async def test_close_and_wait_closed_may_be_called_again() -> None:
    async with serve(echo) as server, connected(server) as peer:
        await eventually(lambda: server.connections)
        server.close(1001)
        server.close(4000)
        waiting = [asyncio.ensure_future(server.wait_closed()) for _ in range(2)]
        assert await peer.finish() == (1001, "")
        await asyncio.gather(*waiting)
        await server.wait_closed()


async def test_a_handler_may_close_its_server() -> None:
    async def handler(ws: rawws.WebSocket) -> None:
        async for _ in ws:
            server.close()

    async with serve(handler) as server, connected(server) as peer:
        await peer.send("stop")
        assert await peer.finish() == (1001, "")


async def test_leaving_the_block_on_an_exception_closes_all_the_same() -> None:
    peers: list[Peer] = []
    with pytest.raises(ValueError, match="broken"):
        async with serve(echo, close_timeout=0.2) as server:
            peer = await Peer.reach(server.sockets[0].getsockname())
            await peer.shake_hands()
            await eventually(lambda: server.connections)
            peers.append(peer)
            raise ValueError("broken")
    assert await peers[0].closed() == (1001, "")
    peers[0].close()
    assert not server.is_serving()


# -- serve_forever


async def test_serve_forever_ends_when_the_server_is_closed() -> None:
    async with serve(echo) as server:
        task = asyncio.ensure_future(server.serve_forever())
        async with connected(server) as peer:
            await eventually(lambda: server.connections)
            assert not task.done()
            server.close()
            assert await peer.finish() == (1001, "")
        await server.wait_closed()
        await task


async def test_several_may_wait_in_serve_forever() -> None:
    server = await serve(echo)
    tasks = [asyncio.create_task(server.serve_forever()) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    server.close()
    await server.wait_closed()
    await asyncio.gather(*tasks)


async def test_serve_forever_that_is_cancelled_closes_the_server() -> None:
    async with serve(echo) as server, connected(server) as peer:
        await eventually(lambda: server.connections)
        task = asyncio.ensure_future(server.serve_forever())
        await asyncio.sleep(0)
        task.cancel()
        assert await peer.finish() == (1001, "")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not server.is_serving()


async def test_serve_forever_of_a_closed_server_returns() -> None:
    async with serve(echo) as server:
        server.close()
        await server.serve_forever()


async def test_serve_forever_starts_what_serve_returned() -> None:
    listening = narrow()
    task = asyncio.ensure_future(rawws.serve(echo, sock=listening).serve_forever())
    peer = await Peer.reach(listening.getsockname())
    await peer.shake_hands()
    assert not task.done()
    peer.close()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# -- nothing is left


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def connections() -> int:
    gc.collect()
    return sum(isinstance(thing, rawws.WebSocket) for thing in gc.get_objects())


async def end_in_some_way(server: rawws.Server, number: int) -> None:
    """Have a connection end in one of the ways there are."""
    peer = await Peer.reach(server.sockets[0].getsockname())
    way = number % 8
    if way == 0:
        await peer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await peer.answer()
    elif way == 1:
        await peer.write(request()[:40])
        await asyncio.sleep(0)
    elif way == 2:
        await peer.shake_hands()
        await peer.start_close()
        await peer.finish()
    elif way == 3:
        await peer.shake_hands()
        await peer.write(b"\x81\x00")
        await peer.closed()
    elif way == 4:
        await peer.shake_hands(then=b"\x81\x84\x00\x00\x00\x00fail")
        await peer.finish()
    elif way == 5:
        await peer.shake_hands()
        peer.reset()
    elif way == 6:
        await peer.shake_hands()
        await peer.send("x" * 10_000)
    else:
        await peer.shake_hands()
        await peer.fragment(1, b"half")
    peer.close()


@pytest.mark.parametrize("style", ["coroutine", "callbacks"])
async def test_no_task_no_descriptor_and_no_reference_is_left_of_many_connections(style: str, logged: Logged) -> None:
    async def coroutine(ws: rawws.WebSocket) -> None:
        async for message in ws:
            if message == "fail":
                raise ValueError(message)
            await ws.send(message)

    class Callbacks(rawws.Handler):
        def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
            if message == "fail":
                raise ValueError(message)
            ws.send(message)

    async with serve(coroutine if style == "coroutine" else Callbacks()) as server:
        await end_in_some_way(server, 0)
        await eventually(lambda: not server.settings.connections)
        before = descriptors(), connections(), len(asyncio.all_tasks())
        for _ in range(5):
            await asyncio.gather(*[end_in_some_way(server, number) for number in range(16)])
        await eventually(lambda: not server.settings.connections)
        await eventually(lambda: len(asyncio.all_tasks()) == before[2])
        # Tracebacks that were logged hold frames, and those their connection.
        logged.take_all("connection handler failed", 10)
        logged.forget()
        await eventually(lambda: (descriptors(), connections(), len(asyncio.all_tasks())) == before)


# -- run

PROGRAM = """
import asyncio, sys
if sys.argv[2] == "asyncio":
    sys.modules["uvloop"] = None
import rawws

async def handler(ws):
    await ws.send(type(asyncio.get_running_loop()).__module__)
    try:
        async for message in ws:
            if message == "hang":
                await ws.send("hangs")
                await asyncio.sleep(3600)
    finally:
        print("handler ended", flush=True)

rawws.run(handler, "127.0.0.1", int(sys.argv[1]), close_timeout=60)
print("run returned", flush=True)
"""


@contextlib.contextmanager
def program(folder: Path, loop: str) -> Any:
    """Run a server in a process of its own."""
    script = folder / "program.py"
    script.write_text(PROGRAM)
    port = free_port()
    with Process([sys.executable, script, str(port), loop], listens=port) as process:
        yield process


async def ended(process: Process) -> int:
    """Wait for the end of a process and return its status."""
    await eventually(lambda: process.poll() is not None)
    status = process.poll()
    assert status is not None
    return status


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_run_ends_with_status_0_on_a_signal_and_tells_its_peers_1001(
    number: signal.Signals, loop_name: str, tmp_path: Path
) -> None:
    with program(tmp_path, loop_name) as process:
        peer = await Peer.reach(("127.0.0.1", process.port))
        await peer.shake_hands()
        assert str(await peer.message()).split(".")[0] == loop_name
        os.kill(process.pid, number)
        assert await peer.finish() == (1001, "")
        assert await ended(process) == 0
        assert process.output == "handler ended\nrun returned\n"
        peer.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_second_signal_waits_neither_for_peers_nor_for_handlers(
    number: signal.Signals, loop_name: str, tmp_path: Path
) -> None:
    with program(tmp_path, loop_name) as process:
        peer = await Peer.reach(("127.0.0.1", process.port))
        await peer.shake_hands()
        await peer.message()
        await peer.send("hang")
        assert await peer.message() == "hangs"
        os.kill(process.pid, number)
        assert await peer.closed() == (1001, "")
        assert process.poll() is None
        os.kill(process.pid, number)
        # The deadline of the test is long before the handler's hour.
        assert await ended(process) != 0
        assert "handler ended" in process.output
        assert "run returned" not in process.output
        peer.close()


async def test_a_second_signal_ends_over_a_handler_that_does_not_read(loop_name: str, tmp_path: Path) -> None:
    """The peer answered, so its connection is gone; only the handler stays."""
    with program(tmp_path, loop_name) as process:
        peer = await Peer.reach(("127.0.0.1", process.port))
        await peer.shake_hands()
        await peer.message()
        await peer.send("hang")
        assert await peer.message() == "hangs"
        os.kill(process.pid, signal.SIGTERM)
        assert await peer.finish() == (1001, "")
        await asyncio.sleep(0.1)
        assert process.poll() is None
        os.kill(process.pid, signal.SIGTERM)
        assert await ended(process) != 0
        peer.close()
