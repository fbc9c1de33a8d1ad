"""Calls of a backend that answers, and of one that does not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rawws
from rawws import clock
from rawws.gateway import outgoing
from rawws.gateway.outgoing import (
    CLOSED,
    HALF_OPEN,
    LONGEST_OPEN,
    MAX_ANSWER,
    OPEN,
    BackendAnswer,
    Breaker,
    CallFailed,
    Outgoing,
)
from tests.gateway.backends import BAD_BACKENDS, BadAnswer, backend, bad_backend
from tests.processes import free_port
from tests.server.peers import eventually, set_at_end


@asynccontextmanager
async def outgoing_calls(**options: Any) -> AsyncIterator[Outgoing]:
    running = Outgoing(**options)
    try:
        yield running
    finally:
        await running.close()


async def failure(client: Outgoing, url: str, **options: Any) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        await client.call(url, **{"timeout": 10, **options})
    return caught.value


async def test_a_request_arrives_and_its_answer_comes_back() -> None:
    def answer(request: rawws.HttpRequest) -> rawws.Response:
        return rawws.Response(201, b"made", {"X-Made": "1", "Set-Cookie": "a=b"})

    async with outgoing_calls() as client, backend(answer) as running:
        for _ in range(2):
            found = await client.call(
                running.url, b"\x00body", [("X-Name", "v\xfc"), ("X-Name", "2")], timeout=60, method="PUT"
            )
        assert (found.status, found.body, found.header("x-made"), found.header("none")) == (201, b"made", "1", None)
        request = running.requests[1]
        assert (request.method, request.body, request.headers.get_all("X-Name")) == ("PUT", b"\x00body", ["v\xfc", "2"])
        # Nothing is kept of an answer, and nothing is said that was not asked for.
        assert "Cookie" not in request.headers
        assert request.headers["Accept-Encoding"] == "identity"
        assert client.targets[running.url].outcomes == {"2xx": 2}


async def test_no_library_logs_a_url(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with outgoing_calls() as client, backend(lambda _: rawws.Response(200)) as running:
        url = running.url.replace("http://", "http://user:pa55word@")
        assert (await client.call(f"{url}?token=t0ken", timeout=60)).status == 200
    assert running.requests[0].query["token"] == "t0ken"
    assert [word for word in ("pa55word", "t0ken") if word in caplog.text] == []


@pytest.mark.parametrize("status", [200, 301, 400, 404, 500, 503])
async def test_each_status_is_an_answer_and_no_redirect_is_followed(status: int) -> None:
    async with (
        outgoing_calls() as client,
        backend(lambda _: rawws.Response(status, b"", {"Location": "/backend/other"})) as running,
    ):
        assert (await client.call(running.url, timeout=60)).status == status
        assert len(running.requests) == 1


@pytest.mark.parametrize(("size", "taken"), [(MAX_ANSWER, True), (MAX_ANSWER + 1, False)])
async def test_an_answer_has_a_largest_size(size: int, taken: bool) -> None:
    async with outgoing_calls() as client, backend(lambda _: bytes(size)) as running:
        if taken:
            assert len((await client.call(running.url, timeout=60)).body) == size
        else:
            assert (await failure(client, running.url)).outcome == "too_large"


@pytest.mark.parametrize(("answer", "outcome"), BAD_BACKENDS.values(), ids=BAD_BACKENDS)
async def test_a_bad_backend_fails_its_call_alone(answer: BadAnswer, outcome: str) -> None:
    async with outgoing_calls() as client, bad_backend(answer) as bad, backend(lambda _: "good") as good:
        timeout = 0.3 if outcome == "timeout" else 10
        failed, well = await asyncio.gather(
            failure(client, bad.url, timeout=timeout), client.call(good.url, timeout=60)
        )
        assert (failed.outcome, well.body) == (outcome, b"good")
        assert client.targets[bad.url].outcomes == {outcome: 1}
        assert client.targets[bad.url].calls == 0
        # What was sent once is not sent again.
        assert bad.connections == 1


async def test_who_takes_no_connection_is_asked_once_more() -> None:
    async with outgoing_calls() as client:
        failed = await failure(client, f"http://127.0.0.1:{free_port()}/")
    assert (failed.outcome, failed.status) == ("refused", 502)


async def test_a_url_that_fails_is_left_alone_and_then_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    status = 500
    async with outgoing_calls() as client, backend(lambda _: rawws.Response(status)) as running:
        for _ in range(5):
            assert (await client.call(running.url, timeout=60)).status == 500
        opened = await failure(client, running.url)
        assert (opened.outcome, opened.status, len(running.requests)) == ("open", 503, 5)
        status = 200
        later = clock.monotonic() + 10.0
        monkeypatch.setattr(clock, "monotonic", lambda: later)
        # One call tries, the others do not wait for it.
        tried, refused = await asyncio.gather(client.call(running.url, timeout=60), failure(client, running.url))
        assert (tried.status, refused.outcome) == (200, "open")
        assert (await client.call(running.url, timeout=60)).status == 200


async def test_more_calls_wait_for_their_turn_and_not_longer_than_their_timeout() -> None:
    held = asyncio.Event()

    async def answer(_: rawws.HttpRequest) -> str:
        await held.wait()
        return "late"

    async with outgoing_calls(max_calls=2) as client, backend(answer) as running, set_at_end(held):
        calls = [asyncio.create_task(client.call(running.url, timeout=60)) for _ in range(3)]
        await running.wait_for(2)
        assert (await failure(client, running.url, timeout=0.05)).outcome == "timeout"
        # To wait says nothing against the backend.
        assert client.targets[running.url].breaker.in_a_row == 0
        assert (client.targets[running.url].calls, len(running.requests)) == (2, 2)
        held.set()
        assert [(await call).body for call in calls] == [b"late"] * 3


async def test_a_cancelled_call_says_nothing_about_its_backend() -> None:
    async with outgoing_calls() as client, bad_backend(BAD_BACKENDS["hangs"][0]) as bad:
        call = asyncio.create_task(client.call(bad.url, timeout=60))
        async with asyncio.timeout(60):
            await bad.connected.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        target = client.targets[bad.url]
        assert (target.calls, target.outcomes, len(target.breaker.last)) == (0, {}, 0)


class Times:
    """A clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(clock, "monotonic", lambda: self.now)


def spend(breaker: Breaker, *, failed: bool | None) -> bool:
    """Make a call, if that is allowed."""
    allowed = breaker.begin()
    if allowed:
        breaker.end(failed=failed, tried=breaker.trying)
    return allowed


def test_a_breaker_opens_after_five_failures_in_a_row_for_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    times, breaker = Times(monkeypatch), Breaker()
    for failed in (True, True, True, True, False, True, True, True, True):
        assert spend(breaker, failed=failed)
    assert breaker.state == CLOSED
    assert spend(breaker, failed=True)
    for length in (10.0, 20.0, 40.0, LONGEST_OPEN, LONGEST_OPEN):
        assert breaker.state == OPEN
        assert not spend(breaker, failed=False)
        times.now += length - 0.01
        assert not spend(breaker, failed=False)
        times.now += 0.01
        assert breaker.state == HALF_OPEN
        assert spend(breaker, failed=True)
    times.now += LONGEST_OPEN
    assert breaker.begin()
    assert not breaker.begin()
    # What was cancelled tells nothing: the next one tries.
    breaker.end(failed=None, tried=True)
    assert spend(breaker, failed=False)
    assert breaker.state == CLOSED
    for _ in range(5):
        assert spend(breaker, failed=True)
    assert breaker.left_until == times.now + 10.0


async def test_a_call_that_began_before_its_breaker_opened_neither_closes_it_nor_lets_a_second_one_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outgoing, "FIRST_OPEN", 0.05)
    answers: dict[str, asyncio.Event] = {name: asyncio.Event() for name in ("old", "cancelled", "trial")}

    async def answer(request: rawws.HttpRequest) -> rawws.Response:
        name = request.body.decode()
        if name in answers:
            await answers[name].wait()
            return rawws.Response(200)
        return rawws.Response(500)

    async with backend(answer) as running, outgoing_calls() as client:
        calls: dict[str, asyncio.Task[BackendAnswer]] = {}

        async def begin(name: str) -> None:
            count = len(running.requests)
            calls[name] = asyncio.create_task(client.call(running.url, name.encode(), timeout=60))
            await running.wait_for(count + 1)

        await begin("old")
        await begin("cancelled")
        for _ in range(5):
            await client.call(running.url, b"fails", timeout=60)
        breaker = client.targets[running.url].breaker
        await eventually(lambda: breaker.state == HALF_OPEN)
        await begin("trial")
        answers["old"].set()
        assert (await calls["old"]).status == 200
        calls["cancelled"].cancel()
        await asyncio.wait([calls["cancelled"]])
        # Only the one that tries says that the URL can be called again.
        assert breaker.state == HALF_OPEN
        with pytest.raises(CallFailed, match="left alone for a while"):
            await client.call(running.url, b"fails", timeout=60)
        answers["trial"].set()
        assert (await calls["trial"]).status == 200
        assert breaker.state == CLOSED
        answers["cancelled"].set()


def test_a_breaker_opens_where_half_of_the_last_twenty_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    times, breaker = Times(monkeypatch), Breaker()
    for number in range(19):
        assert spend(breaker, failed=number % 2 == 1)
    assert breaker.state == CLOSED
    spend(breaker, failed=True)
    assert breaker.state == OPEN
    # Once it answers again, what was before is forgotten.
    times.now += 10.0
    assert spend(breaker, failed=False)
    assert spend(breaker, failed=True)
    assert breaker.state == CLOSED
    # A failure counts for 30 seconds.
    for late, state in ((0.0, OPEN), (0.01, CLOSED)):
        breaker = Breaker()
        spend(breaker, failed=True)
        times.now += 15.0
        for number in range(18):
            spend(breaker, failed=number % 2 == 1 and number < 17)
        times.now += 15.0 + late
        spend(breaker, failed=True)
        assert breaker.state == state
    # The same within a longer time is how things are.
    breaker = Breaker()
    for number in range(40):
        times.now += 3.1
        assert spend(breaker, failed=number % 2 == 0)


@given(st.lists(st.tuples(st.floats(0, 30), st.sampled_from([True, False, None]), st.booleans()), max_size=80))
def test_a_breaker_always_comes_to_try_again(steps: list[tuple[float, bool | None, bool]]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        times, breaker = Times(monkeypatch), Breaker()
        for wait, failed, _ in steps:
            times.now += wait
            spend(breaker, failed=failed)
        times.now += LONGEST_OPEN
        assert spend(breaker, failed=False)
        assert breaker.state == CLOSED


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "httpx2", None)
    with pytest.raises(ImportError, match=r"the gateway needs httpx2: pip install 'rawws\[gateway\]'"):
        outgoing.Outgoing()


def test_an_answer_finds_its_headers_in_any_case() -> None:
    assert BackendAnswer(200, (("content-type", "a"), ("content-type", "b")), b"").header("Content-Type") == "a"
