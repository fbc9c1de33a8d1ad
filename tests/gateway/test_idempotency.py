"""Idempotency: a request that is made again is done once, wherever it comes to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import rawws
from rawws import clock
from rawws.backplanes.memory import Engine as Memory
from rawws.gateway import idempotency
from rawws.gateway.control import RegistryAway
from rawws.gateway.idempotency import KeptAnswers
from tests.gateway.running import app_file, gateway, pair
from tests.gateway.test_pusher_protocol import greeted
from tests.gateway.v1_running import OTHER, server
from tests.server.peers import eventually, set_at_end

pytestmark = pytest.mark.usefixtures("patient")

EVENT = {"channel": "room", "data": "hello"}


async def test_a_request_with_one_key_is_done_once_at_whatever_instance(engines: list[Memory]) -> None:
    async with pair() as (one, other), server(one) as asking, server(other) as again:
        client = await greeted(one)
        await client.subscribe("room")
        told = await asking.post("publish", EVENT, key="k")
        assert await asking.post("publish", EVENT, key="k") == await again.post("publish", EVENT, key="k") == told
        assert (await client.said())["data"] == "hello"
        await client.quiet()
        for each in (asking, again):
            found = await each.refused("publish", {**EVENT, "data": "other"}, headers={"Idempotency-Key": "k"})
            assert found[:2] == (409, "conflict")
            found = await each.refused("users/ann/send", {"data": "hello"}, headers={"Idempotency-Key": "k"})
            assert found[:2] == (409, "conflict")
        await client.quiet()
        assert (await again.post("publish", EVENT, key="another"))["cursors"] != told["cursors"]
        assert (await client.said())["data"] == "hello"
        # Whoever only looks needs no key.
        await asking.answer("GET", "channels", headers={"Idempotency-Key": "k"})


async def test_the_answers_of_an_instance_end_with_it(engines: list[Memory]) -> None:
    async with gateway() as other, server(other) as again:
        async with gateway() as one, server(one) as asking:
            told = await asking.post("publish", EVENT, key="k")
            assert await again.post("publish", EVENT, key="k") == told
        # As the docs say: it is done again.
        assert (await again.post("publish", EVENT, key="k"))["cursors"] != told["cursors"]


async def test_keys_of_apps_are_their_own() -> None:
    async with gateway(app_file() + OTHER) as running:
        async with server(running) as asking, server(running, "4", "the secret of another") as other:
            first = await asking.post("publish", EVENT, key="k")
            assert (await other.post("publish", EVENT, key="k"))["cursors"] != first["cursors"]


async def test_what_is_no_key_is_refused() -> None:
    async with gateway() as running, server(running) as asking:
        for keys in ([""], ["k" * 129], ["é"], ["a", "b"], ["a\tb"]):
            headers = [("Idempotency-Key", key.encode("latin-1")) for key in keys]
            found = await asking.refused("publish", EVENT, headers=headers)
            assert (found[0], found[1]) == (400, "malformed")
            assert "allowed is one of 1 to 128 characters of ASCII" in found[2]


async def test_what_was_refused_may_be_asked_for_again() -> None:
    async with gateway() as running, server(running) as asking:
        key = {"Idempotency-Key": "k"}
        assert (await asking.refused("publish", {"channel": "room"}, headers=key))[0] == 400
        await asking.post("publish", EVENT, key="k")


async def test_while_a_request_is_under_way_others_are_told_so(
    engines: list[Memory], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = asyncio.Event(), asyncio.Event()
    async with pair() as (one, other), server(one) as asking, server(other) as again, set_at_end(go):
        client, counts = await greeted(one), one.gateway.channel_counts
        await client.subscribe("room")

        async def count_later(app: str) -> dict[str, int]:
            begun.set()
            await go.wait()
            return await counts(app)

        monkeypatch.setattr(one.gateway, "channel_counts", count_later)
        counted, key = {**EVENT, "count": True}, {"Idempotency-Key": "k"}
        first = asyncio.ensure_future(asking.post("publish", counted, key="k"))
        await begun.wait()
        for each in (asking, again):
            answer = await each.answer("POST", "publish", counted, headers=key)
            reason = "a request with this Idempotency-Key is under way"
            assert (answer.status_code, answer.json()["reason"]) == (409, reason)
            assert answer.headers["Retry-After"] == "1"
        go.set()
        told = await first
        assert told["subscribers"] == {"room": 1}
        assert await again.post("publish", counted, key="k") == told
        # It was done once.
        assert (await client.said())["data"] == "hello"
        await client.quiet()


async def test_where_an_instance_cannot_be_asked_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway() as running, server(running) as asking:
        client = await greeted(running)
        await client.subscribe("room")

        async def away(verb: str, **fields: Any) -> list[dict[str, Any]]:
            raise RegistryAway(verb)

        with monkeypatch.context() as patched:
            patched.setattr(running.gateway.registry, "ask_all", away)
            assert (await asking.refused("publish", EVENT, headers={"Idempotency-Key": "k"}))[:2] == (
                503,
                "unavailable",
            )
        await client.quiet()
        await asking.post("publish", EVENT, key="k")


async def test_what_is_published_is_published_once_where_nobody_says_how_many_are_subscribed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with gateway() as running, server(running) as asking:
        client = await greeted(running)
        await client.subscribe("room")
        ask_all = running.gateway.registry.ask_all

        async def away(verb: str, **fields: Any) -> list[dict[str, Any]]:
            if verb == "counts":
                raise RegistryAway(verb)
            return await ask_all(verb, **fields)

        monkeypatch.setattr(running.gateway.registry, "ask_all", away)
        told = await asking.post("publish", {**EVENT, "count": True}, key="k")
        assert (told["reached"], told["subscribers"]) == (1, None)
        assert await asking.post("publish", {**EVENT, "count": True}, key="k") == told
        assert (await client.said())["data"] == "hello"
        await client.quiet()


class Alone:
    """A registry of one instance."""

    async def ask_all(self, verb: str, **fields: Any) -> list[dict[str, Any]]:
        return []


def answers(text: str) -> Callable[[], Coroutine[Any, Any, str]]:
    async def work() -> str:
        return text

    return work


def kept() -> KeptAnswers:
    registry: Any = Alone()
    return KeptAnswers(registry, {})


async def test_what_is_kept_of_an_app_is_bounded_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    found, now = kept(), clock.monotonic()
    assert await found.answer("3", "k", "d", answers("first")) == "first"
    assert await found.answer("3", "k", "d", answers("second")) == "first"
    monkeypatch.setattr(clock, "monotonic", lambda: now + idempotency.KEPT + 10)
    assert await found.answer("3", "k", "d", answers("third")) == "third"
    assert found._apps["3"].size == len("third")


async def test_what_is_kept_of_an_app_is_bounded_in_requests_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idempotency, "MOST_KEPT", 3)
    monkeypatch.setattr(idempotency, "MOST_BYTES", 10)
    found = kept()
    await found.answer("4", "k", "d", answers("other"))
    for number in range(5):
        await found.answer("3", f"{number}", "d", answers("x"))
    assert list(found._apps["3"].kept) == ["2", "3", "4"]
    await found.answer("3", "5", "d", answers("x" * 9))
    assert (list(found._apps["3"].kept), found._apps["3"].size) == (["4", "5"], 10)
    # One that is larger than all is kept alone.
    await found.answer("3", "6", "d", answers("x" * 20))
    assert (list(found._apps["3"].kept), found._apps["3"].size) == (["6"], 20)
    assert list(found._apps["4"].kept) == ["k"]


async def test_requests_under_way_are_not_forgotten_and_one_too_many_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(idempotency, "MOST_KEPT", 2)
    found, go, now = kept(), asyncio.Event(), clock.monotonic()

    async def work() -> str:
        await go.wait()
        return "done"

    waiting = [asyncio.ensure_future(found.answer("3", key, "d", work)) for key in "ab"]
    await eventually(lambda: len(found._tasks) == 2)
    with pytest.raises(rawws.HttpError, match="2 requests with an Idempotency-Key are under way, the limit"):
        await found.answer("3", "c", "d", work)
    monkeypatch.setattr(clock, "monotonic", lambda: now + 2 * idempotency.KEPT)
    with pytest.raises(rawws.HttpError, match="is under way"):
        await found.answer("3", "a", "d", work)
    go.set()
    assert await asyncio.gather(*waiting) == ["done", "done"]
    await found.close()


async def test_what_is_under_way_ends_with_the_gateway() -> None:
    found = kept()
    waiting = asyncio.ensure_future(found.answer("3", "a", "d", asyncio.Event().wait))  # type: ignore[arg-type]
    await eventually(lambda: bool(found._tasks))
    await found.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not found._apps["3"].kept


async def test_who_gives_up_waiting_ends_nothing() -> None:
    found, begun, go = kept(), asyncio.Event(), asyncio.Event()

    async def work() -> str:
        begun.set()
        await go.wait()
        return "done"

    waiting = asyncio.ensure_future(found.answer("3", "a", "d", work))
    await begun.wait()
    waiting.cancel()
    go.set()
    await eventually(lambda: not found._tasks)
    assert await found.answer("3", "a", "d", answers("again")) == "done"


async def test_what_fails_after_somebody_gave_up_may_be_asked_for_again() -> None:
    found, begun, go = kept(), asyncio.Event(), asyncio.Event()

    async def work() -> str:
        begun.set()
        await go.wait()
        raise rawws.HttpError(503, "no")

    waiting = asyncio.ensure_future(found.answer("3", "a", "d", work))
    await begun.wait()
    waiting.cancel()
    go.set()
    await eventually(lambda: not found._tasks)
    assert await found.answer("3", "a", "d", answers("again")) == "again"
