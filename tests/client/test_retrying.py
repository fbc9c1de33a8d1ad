"""Coming back: what is tried again, after how long, and that a client does return, every time."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import random
import signal
import ssl
import statistics
import sys
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any, Final

import pytest

import rawws
from rawws.client.retrying import FIRST_WAIT, LONGEST_WAIT, full_jitter, is_permanent, process_exception, retry_after
from rawws.http.responses import Received
from rawws.protocol.http11 import Headers, Request
from tests.client.peers import accepted, descriptors, port, response, scripted
from tests.processes import Process
from tests.server.peers import eventually, serve

KILLS: Final = 20
CLIENTS: Final = 8


def soon() -> Iterator[float]:
    return itertools.repeat(0.0)


async def drive(connecting: rawws.connect, rounds: int = 1000) -> list[str | bytes]:
    """Take what comes on each connection until its end, so many times."""
    got = []
    async for ws in connecting:
        got += [message async for message in ws]
        rounds -= 1
        if not rounds:
            break
    return got


async def wait_in(connecting: rawws.connect, rounds: int) -> None:
    """Wait for the end of each connection, so many times."""
    async for ws in connecting:
        await ws.wait_closed()
        rounds -= 1
        if not rounds:
            break


def closed(rcvd: int | None, sent: int | None = None) -> rawws.ConnectionClosedError:
    frames = [None if code is None else rawws.Close(code, "") for code in (rcvd, sent)]
    return rawws.ConnectionClosedError(frames[0], frames[1], None if None in frames else True)


def refusal(status: int, **headers: str) -> rawws.InvalidStatus:
    fields = Headers([(name.replace("_", "-"), value) for name, value in headers.items()])
    return rawws.InvalidStatus(Received(status, fields), "refused")


# -- what heals


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(),
        TimeoutError(),
        OSError("no address"),
        ssl.SSLError("oh"),
        refusal(408),
        refusal(429),
        refusal(500),
        refusal(502),
        refusal(503),
        rawws.InvalidMessage(0, "the connection ended"),
        rawws.ProxyError(0, "x"),
        rawws.ProxyError(503, "x"),
        closed(None),
        closed(1000, 1000),
        closed(1001, 1001),
        closed(1011, 1011),
        closed(1012, 1012),
        closed(1013, 1013),
        closed(1009, 1009),
        closed(4000, 4000),
    ],
)
def test_what_may_heal_is_tried_again(error: Exception) -> None:
    assert not is_permanent(error)
    assert process_exception(error) is None


@pytest.mark.parametrize(
    "error",
    [
        *map(refusal, (200, 204, 300, 400, 401, 403, 404, 410, 426)),
        rawws.InvalidUpgrade(101, "x"),
        rawws.NegotiationError(101, "x"),
        rawws.SecurityError(302, "x"),
        rawws.ProxyError(407, "x"),
        rawws.InvalidURI("x"),
        rawws.LocalProtocolError("x"),
        ssl.SSLCertVerificationError("x"),
        ImportError("python-socks"),
        TypeError("x"),
        closed(1002, 1002),
        closed(1008, 1008),
        closed(None, 1002),
    ],
)
def test_what_never_heals_is_raised(error: Exception) -> None:
    assert is_permanent(error)
    assert process_exception(error) is error


# -- how long


def test_the_waits_are_drawn_evenly_from_0_to_a_limit_that_doubles() -> None:
    limits = list(itertools.islice(full_jitter(lambda low, high: high if low == 0 else -1), 9))
    assert limits == [FIRST_WAIT * 2**attempt for attempt in range(6)] + [LONGEST_WAIT] * 3
    shorter = full_jitter(lambda _, high: high, first=0.5, longest=30.0)
    assert list(itertools.islice(shorter, 8)) == [0.5, 1, 2, 4, 8, 16, 30, 30]


def distance_from_uniform(values: list[float], longest: float) -> float:
    """Return the Kolmogorov-Smirnov statistic: the largest distance of the values' distribution from an even one."""
    ordered, count = sorted(values), len(values)
    return max(
        max((place + 1) / count - value / longest, value / longest - place / count)
        for place, value in enumerate(ordered)
    )


def test_the_waits_of_200_clients_are_spread_as_chance_spreads_them() -> None:
    random.seed(4)
    clients = [full_jitter() for _ in range(200)]
    for attempt in range(8):
        longest = min(FIRST_WAIT * 2**attempt, LONGEST_WAIT)
        waits = [next(client) for client in clients]
        # 1.63 / sqrt(n) is exceeded by 1 % of samples that are drawn evenly.
        assert distance_from_uniform(waits, longest) < 1.63 / len(waits) ** 0.5
        # Of 19,900 pairs, 199 are closer than 1/200 of the whole by chance, give or take 14 (the standard deviation).
        pairs = sum(abs(one - other) < longest / 200 for one, other in itertools.combinations(waits, 2))
        assert 199 - 4 * 14 < pairs < 199 + 4 * 14
    # And a client's waits do not depend on those of its neighbours.
    first, second = (list(itertools.islice(client, 100)) for client in clients[:2])
    assert abs(statistics.correlation(first, second)) < 0.26


async def test_200_clients_of_a_server_that_is_gone_are_spread_by_connect_itself() -> None:
    random.seed(4)
    waits: list[float] = []

    class EnoughError(Exception):
        pass

    def on_retry(error: Exception, seconds: float) -> None:
        assert isinstance(error, ConnectionRefusedError)
        waits.append(seconds)
        raise EnoughError

    async def client() -> None:
        with contextlib.suppress(EnoughError):
            async for _ in rawws.connect("ws://127.0.0.1:1/", on_retry=on_retry):
                raise AssertionError

    await asyncio.gather(*(client() for _ in range(200)))
    assert len(set(waits)) == 200
    assert distance_from_uniform(waits, FIRST_WAIT) < 1.63 / 200**0.5


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        ("120", 120),
        ("99999", 3600),
        ("9" * 5000, 3600),
        ("1" + "0" * 11, 3600),
        ("0" * 20 + "7", 7),
        ("0" * 5000, 0),
        ("-1", 0),
        ("1.5", 0),
        ("soon", 0),
        ("\xb2", 0),
    ],
)
def test_retry_after_in_seconds_is_obeyed_up_to_an_hour(value: str, seconds: float) -> None:
    assert retry_after(refusal(503, Retry_After=value)) == seconds


def test_retry_after_as_a_date_is_obeyed() -> None:
    later = formatdate(time.time() + 100, usegmt=True)
    assert 98 < retry_after(refusal(429, retry_after=later)) <= 100
    assert retry_after(refusal(429, retry_after="Fri, 31 Dec 1999 23:59:59 GMT")) == 0
    assert retry_after(refusal(429, retry_after="Fri, 31 Dec 9998 23:59:59 GMT")) == 3600
    assert retry_after(refusal(429, retry_after="Fri, 99 Dec 2099 23:59:59 GMT")) == 0


@pytest.mark.parametrize(("code", "wait"), [(1012, (5, 30)), (1013, (5, 30)), (1001, None), (1011, None)])
def test_a_server_that_restarts_or_is_overloaded_is_left_alone_for_5_to_30_seconds(code: int, wait: Any) -> None:
    asked: list[Any] = []

    def draw(*limits: float) -> float:
        asked.append(limits)
        return 7.0

    assert retry_after(closed(code), draw) == (7.0 if wait else 0.0)
    assert asked == ([wait] if wait else [])


def test_a_code_that_this_side_sent_asks_for_nothing() -> None:
    assert retry_after(closed(None, 1013)) == 0
    assert retry_after(ConnectionRefusedError()) == 0


# -- the loop


async def test_on_retry_is_told_why_and_how_long() -> None:
    answers = iter([response(503, "Retry-After: 3"), response(429), None])
    told: list[tuple[Any, float]] = []

    def answer(request: Request) -> bytes:
        return next(answers) or accepted(request)

    async with scripted(answer) as server:
        sleeps = asyncio.sleep

        async def at_once(seconds: float) -> None:
            slept.append(seconds)
            await sleeps(0)

        slept: list[float] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("rawws.client.connect.asyncio.sleep", at_once)
            connecting = rawws.connect(
                server.uri,
                on_retry=lambda error, seconds: told.append((error, seconds)),
                reconnect_delays=lambda: iter([0.25, 0.5]),
            )
            async for ws in connecting:
                ws.abort()
                break
        assert [(error.status, seconds) for error, seconds in told] == [(503, 3.25), (429, 0.5)]
        assert slept == [3.25, 0.5]


async def test_the_loop_gives_a_new_connection_each_time_the_server_closes() -> None:
    async def once(ws: rawws.WebSocket) -> None:
        await ws.send("hello")

    async with serve(once) as server:
        connecting = rawws.connect(f"ws://127.0.0.1:{port(server)}", reconnect_delays=soon)
        assert await drive(connecting, 3) == ["hello"] * 3


@pytest.mark.parametrize("code", [1002, 1008])
async def test_the_loop_ends_with_an_end_that_never_heals(code: int) -> None:
    async def refuse(ws: rawws.WebSocket) -> None:
        await ws.close(code, "never")

    async with serve(refuse) as server:
        with pytest.raises(rawws.ConnectionClosedError, match=f"received {code} .never."):
            await wait_in(rawws.connect(f"ws://127.0.0.1:{port(server)}", reconnect_delays=soon), 1000)


async def test_the_loop_ends_with_a_refusal_that_never_heals() -> None:
    async with scripted(lambda _: response(404)) as server:
        with pytest.raises(rawws.InvalidStatus):
            await drive(rawws.connect(server.uri, reconnect_delays=soon))
        assert len(server.requests) == 1


async def test_the_loop_ends_with_the_last_error_when_the_delays_end() -> None:
    async with scripted(lambda _: response(500)) as server:
        with pytest.raises(rawws.InvalidStatus):
            await drive(rawws.connect(server.uri, reconnect_delays=lambda: iter([0.0, 0.0])))
        assert len(server.requests) == 3


async def test_process_exception_decides_about_what_could_not_be_made() -> None:
    class StopError(Exception):
        pass

    verdicts = iter([None, None, StopError("enough")])
    async with scripted(lambda _: response(404)) as server:
        connecting = rawws.connect(server.uri, reconnect_delays=soon, process_exception=lambda _: next(verdicts))
        with pytest.raises(StopError) as caught:
            await drive(connecting)
        assert isinstance(caught.value.__cause__, rawws.InvalidStatus)
        assert len(server.requests) == 3


async def test_process_exception_is_not_asked_about_a_connection_that_was_there() -> None:
    async def once(ws: rawws.WebSocket) -> None:
        ws.abort()

    async with serve(once) as server:
        uri = f"ws://127.0.0.1:{port(server)}"
        await wait_in(rawws.connect(uri, reconnect_delays=soon, process_exception=lambda error: error), 2)


async def test_leaving_the_loop_closes_the_connection_and_leaves_nothing_behind() -> None:
    async def wait(ws: rawws.WebSocket) -> None:
        await ws.wait_closed()
        ended.append(ws.close_code)

    ended: list[int | None] = []
    async with serve(wait) as server:
        before = descriptors(), len(asyncio.all_tasks())
        async for _ in rawws.connect(f"ws://127.0.0.1:{port(server)}"):
            break
        gc.collect()
        await eventually(lambda: ended == [1000])
        await eventually(lambda: (descriptors(), len(asyncio.all_tasks())) == before)


async def test_being_cancelled_in_the_middle_of_a_wait_ends_the_loop() -> None:
    waits = asyncio.Event()

    async def client() -> None:
        options: Any = {"on_retry": lambda *_: waits.set(), "reconnect_delays": lambda: itertools.repeat(60.0)}
        async for _ in rawws.connect("ws://127.0.0.1:1/", **options):
            raise AssertionError

    task = asyncio.ensure_future(client())
    await waits.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_connection_that_lived_begins_the_waits_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    async def once(ws: rawws.WebSocket) -> None:
        ws.abort()

    begun = []

    def delays() -> Iterator[float]:
        begun.append(1)
        return itertools.repeat(0.0)

    async with serve(once) as server:
        for stable, times in ((10.0, 1), (0.0, 4)):
            monkeypatch.setattr("rawws.client.connect.STABLE", stable)
            begun.clear()
            await wait_in(rawws.connect(f"ws://127.0.0.1:{port(server)}", reconnect_delays=delays), 4)
            assert len(begun) == times


# -- twenty times


async def next_server(last: int, process_of: list[int], echoed: list[int]) -> int:
    """Wait until all clients talk to another process than the last one, and return its id."""
    await eventually(lambda: 0 not in process_of and last not in process_of)
    enough = sum(echoed) + 10 * CLIENTS
    await eventually(lambda: sum(echoed) > enough)
    (process,) = set(process_of)
    return process


async def test_a_server_killed_20_times_under_load_is_returned_to_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def delays() -> Iterator[float]:
        # As full_jitter draws them, but faster: the test is about returning, not about patience.
        return (wait / 200 for wait in full_jitter())

    monkeypatch.setattr("rawws.client.connect.STABLE", 0.05)
    process_of: list[int] = [0] * CLIENTS
    echoed: list[int] = [0] * CLIENTS

    async def client(number: int, uri: str) -> None:
        async for ws in rawws.connect(uri, reconnect_delays=delays):
            with contextlib.suppress(rawws.ConnectionClosed):
                server = int(await ws.recv())
                for digit in range(8):  # in flight at any time
                    await ws.send(f"{digit}" * 100)
                async for message in ws:
                    process_of[number] = server
                    echoed[number] += 1
                    await ws.send(message)

    with Process([sys.executable, Path(__file__).with_name("phoenix.py")], listens=True) as server:
        uri = f"ws://127.0.0.1:{server.port}"
        async with rawws.connect(uri, ping_interval=None) as ws:  # what the loop makes once, it has now
            await ws.recv()
        before, others = descriptors(), asyncio.all_tasks()
        tasks = [asyncio.ensure_future(client(number, uri)) for number in range(CLIENTS)]
        killed = 0
        for _ in range(KILLS):
            killed = await next_server(killed, process_of, echoed)
            os.kill(killed, signal.SIGKILL)
        await next_server(killed, process_of, echoed)
        assert not [task for task in tasks if task.done()], "an exception ended a client"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # A task keeps the frames of its end, and with them the loop and its connection.
        del task, tasks
        gc.collect()
        await eventually(lambda: descriptors() == before)
        await eventually(lambda: asyncio.all_tasks() == others)
