"""The queue of a hook: in order, bounded, tried again, given up by age."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pusher
import pytest
import standardwebhooks

import rawws
from rawws import testing
from rawws.gateway import hooks
from rawws.gateway.config import AppConfig
from rawws.gateway.hooks import HookQueue
from rawws.gateway.outgoing import Outgoing
from rawws.gateway.webhooks import HookEvent
from tests.gateway.backends import backend
from tests.gateway.receivers import ReceiverApp, app_of, hook_of, occupied, vacated
from tests.server.peers import Logged, eventually

Answers = Callable[[int], tuple[int, dict[str, str]]]


@pytest.fixture
def complaints(logged: Logged, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Expect that the log says what is wrong with a receiver."""
    yield
    count = sum("the hook http" in record.getMessage() for record in caplog.get_records("call"))
    assert count
    logged.take_all("the hook http", count)


@asynccontextmanager
async def queue_to(
    receiver: ReceiverApp, app: AppConfig | None = None, *, drain: float = 0.0, max_age: float | None = None
) -> AsyncIterator[HookQueue]:
    app = app_of() if app is None else app
    outgoing = Outgoing(transport=receiver.transport)
    queue = HookQueue(app, hook_of(app), outgoing, max_age=max_age)
    queue.start()
    try:
        yield queue
    finally:
        await queue.close(drain)
        await outgoing.close()


def delivered(answer: Answers, *, seconds: float, app: AppConfig | None = None) -> tuple[ReceiverApp, HookQueue]:
    """Return what came of three events within so many seconds."""
    receiver = ReceiverApp(answer)

    async def main() -> HookQueue:
        async with queue_to(receiver, app) as queue:
            for event in (occupied("a"), occupied("b"), vacated("a")):
                queue.put(event)
            await asyncio.sleep(seconds)
            assert queue.age() == 0.0 or queue.waiting
            return queue

    return receiver, testing.run(main())


async def test_a_server_gets_events_in_one_request_that_the_library_of_pusher_verifies() -> None:
    async with backend(lambda _: rawws.Response(200)) as receiver:
        app = app_of(receiver.url)
        outgoing = Outgoing()
        queue = HookQueue(app, hook_of(app), outgoing)
        queue.start()
        queue.put(occupied("a"))
        queue.put(vacated("a"))
        await receiver.wait_for(1)
        await eventually(lambda: queue.stats.sent == 2)
        await queue.close()
        await outgoing.close()
    [request] = receiver.requests
    # The library for Node compares the whole value.
    assert request.headers["Content-Type"] == "application/json"
    found = pusher.Pusher(app_id="3", key="new", secret="secret of today").validate_webhook(
        request.headers["X-Pusher-Key"], request.headers["X-Pusher-Signature"], request.body.decode()
    )
    assert [event["name"] for event in found["events"]] == ["channel_occupied", "channel_vacated"]
    assert queue.waiting == 0


def test_standard_webhooks_have_one_event_each_which_either_key_verifies() -> None:
    receiver, queue = delivered(lambda _: (204, {}), seconds=1, app=app_of(form="rawws"))
    assert queue.stats.sent == 3
    told = []
    for _, headers, body in receiver.requests:
        for secret in (b"secret of today", b"secret of yesterday"):
            event = standardwebhooks.Webhook(secret).verify(body, headers)
        told.append((event["type"], event["channel"]))
    assert told == [("channel.occupied", "a"), ("channel.occupied", "b"), ("channel.vacated", "a")]
    assert len({headers["webhook-id"] for _, headers, _ in receiver.requests}) == 3


@pytest.mark.usefixtures("complaints")
@pytest.mark.parametrize("status", [408, 425, 429, 500, 503, 0])
def test_who_fails_for_20_seconds_gets_each_event_once_after_that(status: int) -> None:
    receiver = ReceiverApp()

    answers: list[int] = []

    async def main() -> HookQueue:
        since = asyncio.get_running_loop().time()

        def answer(_: int) -> tuple[int, dict[str, str]]:
            answers.append(status if asyncio.get_running_loop().time() - since < 20 else 200)
            return answers[-1], {}

        receiver.answer = answer
        async with queue_to(receiver) as queue:
            for event in (occupied("a"), vacated("a"), occupied("b")):
                queue.put(event)
            await asyncio.sleep(10)
            queue.put(vacated("b"))
            await asyncio.sleep(120)
            return queue

    queue = testing.run(main())
    assert (queue.stats.sent, queue.stats.failed, queue.waiting) == (4, 0, 0)
    assert queue.stats.retries >= len(receiver.requests) - 2
    requests = zip(answers, receiver.requests, strict=True)
    taken = [json.loads(body) for answered, (_, _, body) in requests if answered == 200]
    events = [(event["name"], event["channel"]) for each in taken for event in each["events"]]
    assert events == [(f"channel_{what}", channel) for channel in "ab" for what in ("occupied", "vacated")]
    attempts = [int(headers["x-rawws-attempt"]) for _, headers, _ in receiver.requests]
    # Some were not made: the breaker was open.
    assert attempts[0] == 1
    assert attempts[-2] >= len(receiver.requests) - 1
    assert len({headers["x-rawws-delivery"] for _, headers, _ in receiver.requests[:-1]}) == 1


@pytest.mark.usefixtures("complaints")
def test_each_try_is_signed_anew() -> None:
    receiver, _ = delivered(lambda number: (500 if number < 3 else 200, {}), seconds=60)
    verify = pusher.Pusher(app_id="3", key="new", secret="secret of today").validate_webhook
    for _, headers, body in receiver.requests:
        assert verify(headers["x-pusher-key"], headers["x-pusher-signature"], body.decode())
    times = [json.loads(body)["time_ms"] for _, _, body in receiver.requests]
    assert times == sorted(times)


@pytest.mark.usefixtures("complaints")
def test_who_says_when_to_come_again_is_left_alone_until_then() -> None:
    receiver, queue = delivered(lambda number: (429, {"Retry-After": "77"}) if number == 1 else (200, {}), seconds=100)
    assert queue.stats.sent == 3
    assert receiver.times[1] - receiver.times[0] >= 77


@pytest.mark.usefixtures("complaints")
@pytest.mark.parametrize("said", ["soon", "٣", "99999999", "-1"])
def test_a_retry_after_that_says_nothing_is_ignored(said: str) -> None:
    _, queue = delivered(lambda number: (503, {"Retry-After": said}) if number == 1 else (200, {}), seconds=5)
    assert queue.stats.sent == 3


@pytest.mark.usefixtures("complaints")
@pytest.mark.parametrize("status", [301, 400, 404])
def test_who_refuses_is_not_asked_again(status: int) -> None:
    receiver, queue = delivered(lambda _: (status, {"Location": "http://elsewhere.example/"}), seconds=100)
    assert len(receiver.requests) == 1
    assert (queue.stats.sent, queue.stats.refused) == (0, 3)


@pytest.mark.usefixtures("complaints")
def test_who_is_gone_is_told_nothing_more() -> None:
    receiver = ReceiverApp(lambda _: (410, {}))

    async def main() -> HookQueue:
        async with queue_to(receiver, app_of(form="rawws")) as queue:
            queue.put(occupied("a"))
            queue.put(occupied("b"))
            await asyncio.sleep(1)
            queue.put(occupied("c"))
            await asyncio.sleep(1)
            return queue

    queue = testing.run(main())
    assert len(receiver.requests) == 1
    assert queue.is_off
    assert queue.stats.refused == 2


@pytest.mark.usefixtures("complaints")
def test_what_waits_to_be_sent_again_is_sent_at_once_where_somebody_says_so() -> None:
    receiver = ReceiverApp(lambda _: (503, {"Retry-After": "200"}))

    async def main() -> HookQueue:
        async with queue_to(receiver) as queue:
            for name in ("a", "b"):
                # Five failures and more open the breaker of its URL, which is closed by that, too.
                queue.put(occupied(name))
            for number in range(6):
                await asyncio.sleep(1)
                assert len(receiver.requests) == number + 1
                queue.retry()
            await asyncio.sleep(1)
            receiver.answer = lambda _: (200, {})
            queue.retry()
            await asyncio.sleep(1)
            return queue

    queue = testing.run(main())
    assert (queue.stats.sent, queue.stats.failed, len(receiver.requests)) == (2, 0, 8)


@pytest.mark.usefixtures("complaints")
def test_who_was_gone_is_told_again_where_somebody_says_so() -> None:
    receiver = ReceiverApp(lambda number: (410 if number == 1 else 200, {}))

    async def main() -> HookQueue:
        async with queue_to(receiver) as queue:
            queue.put(occupied("a"))
            await asyncio.sleep(1)
            assert queue.is_off
            queue.retry()
            queue.put(occupied("b"))
            await asyncio.sleep(1)
            return queue

    queue = testing.run(main())
    assert (queue.stats.sent, queue.stats.refused, queue.is_off) == (1, 1, False)


@pytest.mark.usefixtures("complaints")
@pytest.mark.parametrize(("form", "least"), [("pusher", 140), ("rawws", 3400)])
def test_what_is_too_old_is_given_up(form: str, least: float) -> None:
    receiver, queue = delivered(lambda _: (500, {}), seconds=4000, app=app_of(form=form))
    assert least < receiver.times[-1] - receiver.times[0] <= hooks.MAX_AGE[form] + 31
    assert (queue.stats.sent, queue.waiting) == (0, 0)
    assert queue.stats.expired == 3


@pytest.mark.usefixtures("complaints")
def test_a_full_queue_drops_the_oldest_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hooks, "MAX_EVENTS", 5)
    receiver = ReceiverApp()

    async def main() -> HookQueue:
        async with queue_to(receiver) as queue:
            for number in range(8):
                queue.put(occupied(f"c{number}"))
            await asyncio.sleep(1)
            return queue

    with caplog.at_level(logging.WARNING, "rawws.gateway"):
        queue = testing.run(main())
    assert [event["channel"] for event in receiver.events] == ["c3", "c4", "c5", "c6", "c7"]
    assert (queue.stats.sent, queue.stats.dropped) == (5, 3)
    # Once, and not for each.
    assert len(caplog.records) == 1
    assert "its queue is full" in caplog.text


@pytest.mark.usefixtures("complaints")
def test_a_queue_is_bounded_in_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "MAX_BYTES", 3000)
    receiver = ReceiverApp()

    async def main() -> HookQueue:
        async with queue_to(receiver) as queue:
            for number in range(5):
                members = {"channel": "a", "event": "client-x", "data": f"{number}" * 1000}
                queue.put(HookEvent("client_event", "3", 0.0, members))
            await asyncio.sleep(1)
            return queue

    assert testing.run(main()).stats.dropped == 3
    assert [event["data"][0] for event in receiver.events] == ["3", "4"]


def test_a_request_has_at_most_a_hundred_events_and_256_kib() -> None:
    receiver = ReceiverApp()

    async def main() -> None:
        async with queue_to(receiver) as queue:
            for number in range(250):
                queue.put(occupied(f"c{number}"))
            for _ in range(4):
                queue.put(HookEvent("client_event", "3", 0.0, {"channel": "a", "data": "x" * 100_000}))
            await asyncio.sleep(5)

    testing.run(main())
    counts = [len(json.loads(body)["events"]) for _, _, body in receiver.requests]
    assert counts == [100, 100, 52, 2]
    assert max(len(body) for _, _, body in receiver.requests) < 256 * 1024
    assert [event["channel"] for event in receiver.events[:250]] == [f"c{number}" for number in range(250)]


def test_a_receiver_is_told_of_the_events_and_channels_that_it_wants() -> None:
    receiver = ReceiverApp()

    async def main() -> None:
        app = app_of(channels="presence-*")
        async with queue_to(receiver, app) as queue:
            for event in (occupied("room"), occupied("presence-room"), HookEvent("user_online", "3", 0.0, {})):
                queue.put(event)
            assert "3" in repr(queue)
            assert queue.waiting == 2
            await asyncio.sleep(1)

    testing.run(main())
    assert [event["name"] for event in receiver.events] == ["channel_occupied", "user_online"]


def test_at_the_end_what_waits_is_sent() -> None:
    receiver = ReceiverApp()

    async def main() -> HookQueue:
        async with queue_to(receiver, drain=5.0) as queue:
            for number in range(250):
                queue.put(occupied(f"c{number}"))
            return queue

    queue = testing.run(main())
    assert (queue.stats.sent, queue.stats.lost, len(receiver.events)) == (250, 0, 250)


@pytest.mark.usefixtures("complaints")
def test_at_the_end_a_receiver_that_failed_is_tried_once_more_at_once() -> None:
    receiver = ReceiverApp(lambda number: (500 if number < 3 else 200, {}))

    async def main() -> HookQueue:
        async with queue_to(receiver, drain=5.0) as queue:
            queue.put(occupied("a"))
            await eventually(lambda: len(receiver.requests) == 2)
            return queue

    assert testing.run(main()).stats.sent == 1


@pytest.mark.usefixtures("complaints")
@pytest.mark.parametrize("status", [500, 0])
def test_at_the_end_what_cannot_be_sent_is_counted(status: int, caplog: pytest.LogCaptureFixture) -> None:
    receiver = ReceiverApp(lambda _: (status, {}))

    async def main() -> HookQueue:
        async with queue_to(receiver, drain=5.0) as queue:
            for number in range(150):
                queue.put(occupied(f"c{number}"))
            await asyncio.sleep(0.2)
            return queue

    queue = testing.run(main())
    assert (queue.stats.sent, queue.stats.lost, queue.stats.failed, queue.waiting) == (0, 150, 150, 0)
    assert "loses 150 events" in caplog.text


async def test_a_queue_that_never_began_ends() -> None:
    app = app_of()
    outgoing = Outgoing()
    queue = HookQueue(app, hook_of(app), outgoing)
    await queue.close(5.0)
    await outgoing.close()


@pytest.mark.usefixtures("complaints")
def test_what_is_larger_than_a_queue_may_be_is_sent_alone_and_what_just_fits_with_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    size = occupied("a").size
    monkeypatch.setattr(hooks, "MAX_BYTES", size - 2)
    receiver, queue = delivered(lambda _: (200, {}), seconds=1)
    assert (len(receiver.requests), queue.stats.dropped, queue.stats.sent) == (1, 2, 1)
    monkeypatch.setattr(hooks, "MAX_BYTES", 4 * size)
    for most, counts in ((2 * size, [2, 1]), (2 * size - 1, [1, 2])):
        monkeypatch.setattr(hooks, "BATCH_BYTES", most)
        receiver, queue = delivered(lambda _: (200, {}), seconds=1)
        assert [len(json.loads(body)["events"]) for _, _, body in receiver.requests] == counts


@pytest.mark.usefixtures("complaints")
def test_no_receiver_has_its_events_wait_for_longer_than_they_are_kept() -> None:
    _, queue = delivered(lambda _: (503, {"Retry-After": "9999999"}), seconds=1)
    assert [each.again for each in queue.log] == [hooks.MAX_AGE["pusher"]]


@pytest.mark.usefixtures("complaints")
def test_what_a_receiver_that_is_gone_was_not_told_takes_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "BATCH_EVENTS", 1)
    _, queue = delivered(lambda _: (410, {}), seconds=1)
    assert (queue.stats.refused, queue.waiting, queue._size) == (3, 0, 0)
