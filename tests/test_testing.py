"""rawws.testing: the pair without sockets does what one with sockets does, its lines fail as told, its clock jumps."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import rawws
from rawws import clock, testing
from rawws.testing import Line
from tests.processes import ROOT


async def echo(ws: rawws.WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


def scenario(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run a test on the clock that jumps."""

    def run() -> None:
        async def main() -> None:
            await test()

        testing.run(main())

    run.__name__ = run.__qualname__ = getattr(test, "__name__", "")
    return run


@scenario
async def test_what_is_sent_comes_back_and_the_close_is_agreed_on() -> None:
    async with testing.serve(echo) as host:
        async with host.connect() as ws:
            for message in ("Grüße", b"\x00\xff", "x" * 1_000_000):
                await ws.send(message)
                assert await ws.recv() == message
            [other] = host.server.connections
            assert ws.remote_address == other.local_address
            assert ws.local_address == other.remote_address
        assert (ws.close_code, other.close_code) == (1000, 1000)
    assert host.server.connections == set()


@scenario
async def test_the_handshake_is_the_real_one() -> None:
    async with testing.serve(echo, subprotocols=["a", "b"], origins=["https://example.com"]) as host:
        async with host.connect("/x?y", subprotocols=["b"], origin="https://example.com") as ws:
            assert ws.subprotocol == "b"
            [other] = host.server.connections
            assert other.request is not None
            assert other.request.path == "/x?y"
        with pytest.raises(rawws.InvalidStatus) as refused:
            await host.connect("ws://localhost/", subprotocols=["b"], origin="https://elsewhere.example")
        assert refused.value.response.status_code == 403


@scenario
async def test_routes_and_event_streams_are_served() -> None:
    async def ticks(request: rawws.HttpRequest) -> rawws.EventStream:
        async def numbers() -> Any:
            for number in range(3):
                await asyncio.sleep(60)
                yield str(number)

        return rawws.EventStream(numbers())

    async with testing.serve(rawws.Routes([rawws.Route("/ticks", ticks)])) as host:
        async with host.events("/ticks", reconnect=False) as feed:
            assert [(await anext(feed)).data for _ in range(3)] == ["0", "1", "2"]


@scenario
async def test_a_pair_is_both_ends_of_one_connection() -> None:
    async with testing.pair(compression=None) as (client, server):
        await client.send("to the server")
        await server.send("to the client")
        assert await server.recv() == "to the server"
        assert await client.recv() == "to the client"
        assert await client.ping() == 0.0
    assert (client.close_code, server.close_code) == (1000, 1000)


@scenario
async def test_a_closed_host_refuses() -> None:
    async with testing.serve(echo) as host:
        pass
    with pytest.raises(ConnectionRefusedError):
        await host.connect()


def test_tls_is_refused() -> None:
    async def main() -> None:
        async with testing.serve(echo) as host:
            for uri in ("wss://localhost/", "http://localhost/", "x"):
                with pytest.raises(ValueError, match=r"allowed are a path and ws://"):
                    host.connect(uri)
            with pytest.raises(ValueError, match=r"allowed are a path and http://"):
                host.events("https://localhost/")

    testing.run(main())


@pytest.mark.parametrize(("options", "message"), [({"piece": 0}, "piece is 0 bytes"), ({"delay": -1}, "delay is -1 s")])
def test_a_line_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Line(**options)


@scenario
async def test_a_line_may_bring_every_byte_alone_and_take_its_time() -> None:
    to_server, to_client = Line(piece=1, delay=0.01), Line(piece=1)
    async with testing.pair(to_server=to_server, to_client=to_client) as (client, server):
        passed, began = to_server.passed, asyncio.get_running_loop().time()
        await client.send("Hello")
        assert await server.recv() == "Hello"
        assert to_server.passed == passed + 6 + 5
        assert asyncio.get_running_loop().time() - began == pytest.approx(0.11)


@pytest.mark.parametrize("after", [0, 1, 100, 1000])
def test_a_line_may_be_cut_after_so_many_bytes(after: int) -> None:
    async def main() -> None:
        line = Line(cut_after=after)
        async with testing.serve(echo, compression=None) as host:
            with pytest.raises((rawws.ConnectionClosedError, rawws.InvalidMessage, ConnectionError)):
                async with host.connect(to_server=line) as ws:
                    await ws.send("x" * 2000)
                    await ws.recv()
        assert line.passed == after

    testing.run(main())


@scenario
async def test_a_cut_is_noticed_on_both_sides() -> None:
    line = Line()
    async with testing.pair(to_client=line) as (client, server):
        line.cut()
        for ws in (client, server):
            await ws.wait_closed()
            assert ws.close_code == 1006
        line.cut()
    Line().cut()


@scenario
async def test_a_line_that_stalls_makes_the_sender_wait_and_loses_nothing() -> None:
    line = Line()
    async with testing.pair(to_client=line, compression=None) as (client, server):
        line.stall_after = line.passed + 10
        sending = asyncio.ensure_future(server.send(b"x" * 100_000))
        await asyncio.sleep(1)
        assert not sending.done()
        assert server.buffered == 100_010 - 10
        line.stall_after = None
        await sending
        assert await client.recv() == b"x" * 100_000


@scenario
async def test_a_handler_that_does_not_read_makes_the_sender_wait() -> None:
    async with testing.pair(compression=None) as (client, server):
        messages = [b"%d" % number * 10_000 for number in range(40)]
        sending = [asyncio.ensure_future(client.send(message)) for message in messages]
        await asyncio.sleep(1)
        assert not all(task.done() for task in sending)
        assert [await server.recv() for _ in messages] == messages
        await asyncio.gather(*sending)


@scenario
async def test_a_client_that_falls_silent_is_left_at_the_time_that_the_options_say() -> None:
    line, loop = Line(), asyncio.get_running_loop()
    async with testing.serve(echo, ping_interval=100, ping_timeout=50, close_timeout=10) as host:
        async with host.connect(to_server=line, ping_interval=None) as ws:
            line.stall_after, began = line.passed, loop.time()
            with pytest.raises(rawws.ConnectionClosedError):
                await ws.recv()
            assert ws.close_code == 1011
            assert 150 <= loop.time() - began < 153


@scenario
async def test_a_client_that_comes_back_has_sound_lines_the_next_time() -> None:
    line, visits = Line(cut_after=500), 0
    async with testing.serve(echo) as host:
        async for ws in host.connect(to_server=line):
            visits += 1
            try:
                await ws.send("x" * 1000)
                assert len(await ws.recv()) == 1000
                break
            except rawws.ConnectionClosed:
                continue
    assert visits == 2


@scenario
async def test_abort_is_a_reset_for_the_other_side() -> None:
    async with testing.pair() as (client, server):
        await server.send("never arrives")
        server.abort()
        with pytest.raises(rawws.ConnectionClosedError):
            await client.recv()
        assert (client.close_code, server.close_code) == (1006, 1006)


@scenario
async def test_a_violation_is_answered_and_ends_the_connection() -> None:
    async with testing.pair() as (client, server):
        client.transport.write(b"\x83\x80\x00\x00\x00\x00")
        with pytest.raises(rawws.ConnectionClosedError):
            await client.recv()
        await server.wait_closed()
        assert (client.close_code, server.close_code) == (1002, 1006)


def test_an_hour_takes_no_time_and_the_real_clock_is_back_afterwards() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(3600)
        return loop.time() - began

    real = time.monotonic()
    assert testing.run(main()) == pytest.approx(3600)
    assert time.monotonic() - real < 3600
    assert clock.monotonic is time.monotonic


def test_what_a_scenario_raises_is_raised_and_the_real_clock_is_back() -> None:
    async def main() -> None:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        testing.run(main())
    assert clock.monotonic is time.monotonic


def test_the_programs_of_the_page_pass(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "use" / "testing.md").read_text(encoding="utf-8")
    blocks = page.split("```python\n")[1:]
    assert len(blocks) == 4
    for block in blocks:
        text = block.partition("```")[0]
        (tmp_path / text.partition("\n")[0].removeprefix("# ")).write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "--import-mode=prepend", "."],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "6 passed" in done.stdout, done.stdout
