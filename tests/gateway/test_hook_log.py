"""What is shown of the last deliveries of a hook, and the test that somebody sends it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pusher
import pytest
import standardwebhooks

from rawws import testing
from rawws.gateway.hook_log import HEAD, LONGEST_ABOUT, MOST_DELIVERIES, head_of, named_events, secrets_of
from rawws.gateway.hooks import HookQueue
from rawws.gateway.outgoing import IN_A_ROW, Outgoing
from rawws.gateway.webhooks import TEST_EVENT, HookEvent
from tests.gateway.receivers import ReceiverApp, app_of, occupied, vacated
from tests.gateway.test_hooks import queue_to
from tests.server.peers import Logged

PAGE = "<h1>Server error</h1>\n<p>at /hook?token=t%26ken&amp;page=4 by user:pass%26word, dXNlcjpwYXNzJndvcmQ=</p>"


@pytest.fixture
def complaints(logged: Logged, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Expect that the log says what is wrong with a receiver."""
    yield
    logged.take_all("the hook http", sum("the hook http" in each.getMessage() for each in caplog.get_records("call")))


@pytest.mark.usefixtures("complaints")
def test_each_try_is_shown_with_what_came_of_it_the_newest_first() -> None:
    receiver = ReceiverApp(lambda number: [(503, {"Retry-After": "20"}), (204, {}), (404, {})][number - 1])
    receiver.body = b"<p>not\n now</p>"

    async def main() -> HookQueue:
        async with queue_to(receiver) as queue:
            queue.put(occupied("a"))
            queue.put(vacated("b"))
            await asyncio.sleep(40)
            queue.put(HookEvent("user_online", "3", 0.0, {"user_id": "u1"}))
            await asyncio.sleep(1)
            return queue

    queue = testing.run(main())
    refused, sent, failed = [each.shown() for each in queue.log]
    sizes = [len(body) for _, _, body in receiver.requests]
    idents = [headers["x-rawws-delivery"] for _, headers, _ in receiver.requests]
    told = [{"name": "channel_occupied", "about": "a"}, {"name": "channel_vacated", "about": "b"}]
    first = {"events": told, "count": 2, "id": idents[0], "test": False, "error": ""}
    for each in (failed, sent, refused):
        assert each.pop("seconds") >= 0
    assert refused.pop("time") >= sent.pop("time") >= failed.pop("time") > 1.7e9
    later, taken = {"outcome": "retry", "again": 20}, {"outcome": "sent", "again": None}
    assert failed == {**first, **later, "attempt": 1, "size": sizes[0], "status": 503, "answer": "<p>not now</p>"}
    assert sent == {**first, **taken, "attempt": 2, "size": sizes[1], "status": 204, "answer": ""}
    assert (refused["outcome"], refused["status"], refused["attempt"]) == ("refused", 404, 1)
    assert refused["events"] == [{"name": "user_online", "about": "u1"}]
    # It is JSON, as the page gets it.
    assert json.loads(json.dumps(refused)) == refused


@pytest.mark.usefixtures("complaints")
def test_where_there_is_no_answer_it_is_shown_why() -> None:
    receiver = ReceiverApp(lambda _: (0, {}))

    async def main() -> HookQueue:
        async with queue_to(receiver) as queue:
            queue.put(occupied("a"))
            await asyncio.sleep(6)
            return queue

    [delivery] = testing.run(main()).log
    assert (delivery.status, delivery.error) == (0, "the backend did not answer within 5 s")
    assert delivery.outcome == "retry"
    assert delivery.again is not None
    assert delivery.seconds == pytest.approx(5)
    assert delivery.shown()["status"] is None


def test_as_many_are_held_as_fit_on_a_page_whatever_they_are_about() -> None:
    receiver = ReceiverApp()

    async def main() -> HookQueue:
        async with queue_to(receiver, app_of(form="rawws")) as queue:
            for number in range(MOST_DELIVERIES + 20):
                queue.put(occupied(f"{number}"))
            await asyncio.sleep(5)
            assert queue.stats.sent == MOST_DELIVERIES + 20
            return queue

    queue = testing.run(main())
    assert [each.events[0][1] for each in queue.log] == [str(n) for n in range(MOST_DELIVERIES + 19, 19, -1)]
    many = named_events(
        HookEvent("client_event", "3", 0.0, {"channel": "x" * 999, "data": "payload"}) for _ in range(100)
    )
    assert many == (("client_event", "x" * LONGEST_ABOUT),) * 5


def test_the_head_of_an_answer_has_no_secret_in_any_spelling_and_is_one_line() -> None:
    secrets = secrets_of(app_of(), "http://user:pass%26word@h.example/hook?token=t%26ken&page=4")
    assert head_of(PAGE.encode(), secrets) == "<h1>Server error</h1> <p>at /hook?*** by ***:***, ***</p>"
    assert head_of(b"token is t&ken or t&amp;ken, secret of today", secrets) == "token is *** or ***, ***"
    # One that is cut would be half a secret.
    assert head_of(b"x" * (HEAD - 4) + b"secret of today", secrets) == "x" * (HEAD - 4) + "***"
    unknown = "\N{REPLACEMENT CHARACTER}"
    assert head_of(b"\x1b[2J\xff" + b"y" * 9999, secrets) == f"{unknown}[2J{unknown}" + "y" * (HEAD - 5)
    assert secrets_of(app_of(), "http://h.example/") == ["secret of yesterday", "secret of today"]


@pytest.mark.usefixtures("complaints")
@pytest.mark.parametrize("form", ["pusher", "rawws"])
def test_a_test_is_signed_and_marked_and_changes_nothing(form: str) -> None:
    receiver = ReceiverApp(lambda number: (503 if number < 3 else 204, {"Retry-After": "100"}))

    async def main() -> HookQueue:
        async with queue_to(receiver, app_of(form=form, channels="none")) as queue:
            queue.put(HookEvent("user_online", "3", 0.0, {"user_id": "u1"}))
            await asyncio.sleep(1)
            # What waits to be sent again goes on waiting.
            failed, sent = await queue.test(), await queue.test()
            assert failed is not None
            assert sent is not None
            assert [each.is_test for each in queue.log] == [True, True, False]
            assert (failed.outcome, failed.status, failed.again) == ("failed", 503, None)
            assert (sent.outcome, sent.status) == ("sent", 204)
            assert sent.events == ((TEST_EVENT, ""),)
            assert failed.ident != sent.ident
            assert (queue.waiting, queue.stats.sent, queue.stats.refused, queue.stats.retries) == (1, 0, 0, 1)
            return queue

    testing.run(main())
    assert len(receiver.requests) == 3
    _, headers, body = receiver.requests[-1]
    if form == "pusher":
        library = pusher.Pusher(app_id="3", key="new", secret="secret of today")
        found = library.validate_webhook(headers["x-pusher-key"], headers["x-pusher-signature"], body.decode())
        [event] = found["events"]
        assert event["name"] == "hook_test"
        assert headers["x-rawws-delivery"].startswith("test_")
    else:
        event = standardwebhooks.Webhook(b"secret of today").verify(body, headers)
        assert (event["type"], event["app"]) == ("hook.test", "3")
        assert headers["webhook-id"].startswith("test_")
    assert event["note"] == "sent by hand, nothing happened"


@pytest.mark.usefixtures("complaints")
def test_one_test_is_under_way_at_a_time_beside_the_request_of_the_queue() -> None:
    receiver = ReceiverApp(lambda _: (0, {}))

    async def main() -> None:
        async with queue_to(receiver) as queue:
            queue.put(occupied("a"))
            await asyncio.sleep(1)
            sent, refused = await asyncio.gather(queue.test(), queue.test())
            assert sent is not None
            assert (sent.error, refused) == ("the backend did not answer within 5 s", None)
            receiver.answer = lambda _: (200, {})
            again = await queue.test()
            assert again is not None
            assert again.outcome == "sent"

    testing.run(main())


def test_a_test_asks_also_where_the_url_is_left_alone() -> None:
    receiver = ReceiverApp(lambda _: (500, {}))

    async def main() -> None:
        async with queue_to(receiver) as queue:
            for number in range(2 * IN_A_ROW):
                failed = await queue.test()
                assert failed is not None
                assert failed.status == 500
                assert len(receiver.requests) == number + 1

    testing.run(main())


def test_a_hook_that_is_off_is_sent_a_test_and_stays_off(logged: Logged) -> None:
    receiver = ReceiverApp(lambda number: (410 if number == 1 else 200, {}))

    async def main() -> None:
        async with queue_to(receiver) as queue:
            queue.put(occupied("a"))
            await asyncio.sleep(1)
            sent = await queue.test()
            assert sent is not None
            assert (sent.outcome, queue.is_off) == ("sent", True)
            assert [each.outcome for each in queue.log] == ["sent", "refused"]

    testing.run(main())
    logged.take_all("answers 410", 1)


def test_a_test_ends_with_its_caller() -> None:
    receiver = ReceiverApp(lambda _: (0, {}))

    async def main() -> None:
        app = app_of()
        outgoing = Outgoing(transport=receiver.transport)
        queue = HookQueue(app, app.hooks[0], outgoing)
        caller = asyncio.get_running_loop().create_task(queue.test())
        await asyncio.sleep(1)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert not queue.log
        receiver.answer = lambda _: (200, {})
        sent = await queue.test()
        assert sent is not None
        assert sent.outcome == "sent"
        await outgoing.close()

    testing.run(main())
