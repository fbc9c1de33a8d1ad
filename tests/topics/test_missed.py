"""Missed: who is addressed and not connected is told to a function, once, whatever becomes of others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rawws.backplanes.memory import Engine, MemoryBackplane
from rawws.topics import Hub, Identity, Publication, TopicError, missed
from tests.server.peers import Logged, eventually
from tests.topics.receivers import Receiver


def told_by(hub: Hub, after: float = 0.0) -> list[tuple[str, Publication]]:
    """Return what the function of a hub is told."""
    told: list[tuple[str, Publication]] = []
    hub.on_missed(after=after)(lambda user, publication: told.append((user, publication)))
    return told


def present(hub: Hub, user: str, topic: str = "chat") -> Receiver:
    """Return a receiver that is a user, and present."""
    receiver = Receiver()
    hub.subscribe(receiver, topic, join=Identity(user))
    return receiver


async def test_who_is_not_present_is_told_of_and_who_is_gets_the_message() -> None:
    async with Hub() as hub:
        told = told_by(hub)
        ann = present(hub, "ann")
        present(hub, "ben", "another topic")
        result = hub.notify(["ann", "ben", "eve", "ben"], "chat", {"text": "Hello"}, key="k", event="said")
        assert told == []
        await eventually(lambda: len(told) == 2)
        assert ann.got == ['{"text":"Hello"}']
        assert [user for user, _ in told] == ["ben", "eve"]
        publication = told[0][1]
        assert (publication.topic, publication.key, publication.event) == ("chat", "k", "said")
        assert publication.json() == {"text": "Hello"}
        assert publication.cursor == result.cursor != ""


async def test_who_excludes_a_subscriber_does_so_as_with_publish() -> None:
    async with Hub() as hub:
        told_by(hub)
        ann, ben = present(hub, "ann"), present(hub, "ben")
        hub.notify([], "chat", b"x", exclude=ann)
        assert (ann.got, ben.got) == ([], [b"x"])


async def test_who_comes_back_in_time_missed_nothing() -> None:
    async with Hub() as hub:
        told = told_by(hub)
        hub.notify(["ann"], "chat", "1")
        present(hub, "ann")
        hub.notify(["ben"], "chat", "2")
        await eventually(lambda: told)
        assert [user for user, _ in told] == ["ben"]


async def test_who_is_lost_and_waited_for_is_not_connected_unless_by_another_connection() -> None:
    async with Hub(presence_grace=3600) as hub:
        told = told_by(hub)
        present(hub, "ann").die()
        present(hub, "ben").die()
        present(hub, "ben")
        tab = present(hub, "ben")
        tab.die()
        assert [each.away for each in hub.users("chat")["ann"]] == [True]
        hub.notify(["ann", "ben", "eve"], "chat", "Hello")
        await eventually(lambda: len(told) == 2)
        assert [user for user, _ in told] == ["ann", "eve"]


async def test_who_is_present_at_another_server_missed_nothing() -> None:
    engine = Engine()
    async with Hub(backplane=MemoryBackplane(engine)) as one, Hub(backplane=MemoryBackplane(engine)) as two:
        told = told_by(one)
        there = Receiver()
        await two.subscribe(there, "chat", join=Identity("ann"))
        await one.publish("chat", "before")
        result = one.notify(["ann", "ben"], "chat", "Hello")
        await eventually(lambda: told)
        await result
        await eventually(lambda: there.got == ["before", "Hello"])
        assert [user for user, _ in told] == ["ben"]


async def test_functions_do_not_wait_for_each_other_and_one_that_fails_is_logged(logged: Logged) -> None:
    async with Hub() as hub:
        done, going = [], asyncio.Event()

        @hub.on_missed(after=0)
        async def push(user: str, publication: Publication) -> None:
            if user == "fails":
                raise ZeroDivisionError
            if user == "cancels":
                raise asyncio.CancelledError
            if user == "waits":
                await going.wait()
            done.append(user)

        hub.notify(["waits", "fails", "goes"], "chat", "Hello")
        await eventually(lambda: done == ["goes"])
        logged.take("the function of on_missed failed", ZeroDivisionError, "rawws.topics")
        hub.notify(["cancels", "goes on"], "chat", "Hello")
        await eventually(lambda: done == ["goes", "goes on"])
        logged.take("the function of on_missed failed", RuntimeError, "rawws.topics")
        going.set()

    async with Hub() as hub:
        asked = asyncio.get_running_loop().create_future()
        asked.cancel()
        # It is no coroutine, and raises what the future of somebody else does.
        hub.on_missed(after=0)(lambda *_: asked.result())
        hub.notify(["ann"], "chat", "Hello")
        await eventually(logged.left)
        logged.take("the function of on_missed failed", RuntimeError, "rawws.topics")
        await eventually(lambda: hub._missed_users is not None and not hub._missed_users.count)
        going.set()
        await eventually(lambda: done == ["goes", "goes on", "waits"])


async def test_so_many_functions_run_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missed, "MAX_CALLS", 2)
    async with Hub() as hub:
        running, going = [], asyncio.Event()

        @hub.on_missed(after=0)
        async def push(user: str, publication: Publication) -> None:
            running.append(user)
            await going.wait()
            running.remove(user)
            running.append(user.upper())

        hub.notify(list("abc"), "chat", "Hello")
        await eventually(lambda: running == ["a", "b"])
        for _ in range(5):
            await asyncio.sleep(0)
        assert running == ["a", "b"]
        going.set()
        await eventually(lambda: sorted(running) == ["A", "B", "C"])


@pytest.mark.parametrize(
    ("users", "error", "match"),
    [
        ("ann", TypeError, "users is str, allowed is a list of them"),
        ([1], TypeError, "user is int, allowed is str"),
        ([""], ValueError, "allowed are 1 to 255 printable bytes"),
        (["ann", "ben", "eve"], TopicError, "1 users wait to be judged, with 3 more over 3"),
    ],
)
async def test_whom_nothing_can_be_told_of_has_nothing_published(
    monkeypatch: pytest.MonkeyPatch, users: Any, error: type[Exception], match: str
) -> None:
    monkeypatch.setattr(missed, "MAX_WAITING", 3)
    async with Hub() as hub:
        told_by(hub, after=3600)
        hub.notify(["joe"], "chat", "1")
        with pytest.raises(error, match=match):
            hub.notify(users, "chat", "2")
        assert hub.stats().published == 1


@pytest.mark.parametrize("message", ["é" * 600, b"x" * 600, memoryview(b"x" * 600)], ids=["str", "bytes", "view"])
async def test_what_users_wait_for_is_bounded_in_bytes_and_there_is_room_again_when_they_are_judged(
    monkeypatch: pytest.MonkeyPatch, message: Any
) -> None:
    monkeypatch.setattr(missed, "MAX_WAITING_SIZE", 1500)
    hub = Hub()
    async with hub:
        told = told_by(hub, after=3600)
        for _ in range(2):
            hub.notify(["ann", "ben"], "chat", message)
        with pytest.raises(TopicError, match=r"users wait to be judged for \d+ bytes of messages, limit 1500"):
            hub.notify(["ann"], "chat", message)
        # Nobody waits for that.
        hub.notify([], "chat", message)
        assert hub.stats().published == 3
    assert len(told) == 4
    async with Hub() as hub:
        told = told_by(hub)
        for number in range(5):
            hub.notify(["ann"], "chat", message)
            await eventually(lambda number=number: len(told) == number + 1)  # type: ignore[misc]
        # One that is larger than all may be waits alone.
        hub.notify(["ann"], "chat", b"x" * 2000)
        await eventually(lambda: len(told) == 6)


async def test_as_many_users_wait_as_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missed, "MAX_WAITING", 3)
    async with Hub() as hub:
        told = told_by(hub, after=3600)
        hub.notify(["ann", "ben", "eve"], "chat", "1")
        with pytest.raises(TopicError, match="3 users wait to be judged, with 1 more over 3"):
            hub.notify(["joe"], "chat", "2")
    assert len(told) == 3


async def test_a_message_that_cannot_be_published_leaves_nobody_waiting() -> None:
    async with Hub() as hub:
        told = told_by(hub)
        for wrong in (object(), 1j):
            with pytest.raises(TypeError):
                hub.notify(["ann"], "chat", wrong)
        with pytest.raises(TopicError):
            hub.notify(["ann"], "", "x")
        hub.notify(["ben"], "chat", "x")
        await eventually(lambda: told)
        assert [user for user, _ in told] == ["ben"]


def test_there_is_one_function_with_a_time_and_without_it_nobody_is_notified() -> None:
    hub = Hub()
    with pytest.raises(RuntimeError, match="notify needs a function"):
        hub.notify(["ann"], "chat", "x")
    with pytest.raises(ValueError, match="after is -1, allowed are 0 to 3600 seconds"):
        hub.on_missed(after=-1)(print)
    hub.on_missed()(print)
    with pytest.raises(ValueError, match="has a function already"):
        hub.on_missed()(print)
    with pytest.raises(RuntimeError, match="no running event loop"):
        hub.notify(["ann"], "chat", "x")
    assert hub.stats().published == 0


async def test_a_hub_that_closes_has_all_be_judged_at_once() -> None:
    hub = Hub()
    told = told_by(hub, after=3600)
    async with hub:
        present(hub, "ann")
        hub.notify(["ann", "ben"], "chat", "1")
        await asyncio.sleep(0)
        hub.notify(["eve"], "chat", "2")
    assert [(user, publication.message) for user, publication in told] == [("ben", "1"), ("eve", "2")]


async def test_a_hub_that_closes_waits_for_functions_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    monkeypatch.setattr(missed, "CLOSE_TIMEOUT", 0.01)
    hub = Hub()

    @hub.on_missed(after=0)
    async def push(user: str, publication: Publication) -> None:
        await asyncio.Event().wait()

    async with hub:
        hub.notify(["ann", "ben"], "chat", "1")
    logged.take("the hub closes, and 2 users are not told of what they missed", name="rawws.topics")


async def test_a_hub_whose_closing_is_cancelled_closes_the_rest_and_says_who_was_not_told(logged: Logged) -> None:
    hub, begun = Hub(), asyncio.Event()

    @hub.on_missed(after=0)
    async def push(user: str, publication: Publication) -> None:
        begun.set()
        await asyncio.Event().wait()

    hub.notify(["ann"], "chat", "1")
    await begun.wait()
    heard = hub.listen("chat")
    hearing = asyncio.ensure_future(anext(heard))
    await eventually(lambda: hub.subscribers("chat"))
    closing = asyncio.ensure_future(hub.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    with pytest.raises(StopAsyncIteration):
        await hearing
    logged.take("the hub closes, and 1 users are not told of what they missed", name="rawws.topics")


async def test_where_it_is_not_known_who_is_present_all_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missed, "PATIENCE", 0.01)
    async with Hub() as hub:
        told = told_by(hub)
        present(hub, "ann")

        async def never() -> list[str]:
            await asyncio.Event().wait()
            raise AssertionError

        judging: Any = hub._missed_users
        judging._when_ready = lambda *_: never()
        hub.notify(["ann", "ben"], "chat", "1")
        await eventually(lambda: told)
        assert [user for user, _ in told] == ["ben"]
