"""Pages of history: back and forth without a gap or a repetition, bounded, and honest about what is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rawws.backplanes.memory import Engine, MemoryBackplane
from rawws.topics import CursorError, History, Hub, TopicError
from tests.server.peers import Logged, eventually
from tests.topics.dialogue import client, served
from tests.topics.receivers import Clock, still
from tests.topics.test_api import api
from tests.topics.test_http import post


def filled(count: int, **options: Any) -> Hub:
    """Return a hub with publications 1, 2, 3 and so on in the topic "a"."""
    hub = Hub(**options)
    for number in range(1, count + 1):
        hub.publish("a", str(number))
    return hub


async def texts(hub: Hub, **options: Any) -> list[str | bytes]:
    return [each.message for each in (await hub.history("a", **options)).publications]


async def test_the_last_ones_those_before_a_cursor_and_the_first_ones_behind_one() -> None:
    hub = filled(9, history=History(count=6))
    page = await hub.history("a", limit=2)
    assert ([each.message for each in page.publications], page.cursor[-2:], page.recovered) == (["8", "9"], ":9", True)
    page = await hub.history("a", limit=2, before=page.publications[0].cursor)
    assert ([each.message for each in page.publications], page.cursor[-2:]) == (["6", "7"], ":6")
    page = await hub.history("a", limit=9, before=page.cursor)
    assert ([each.message for each in page.publications], page.cursor[-2:]) == (["4", "5"], ":4")
    end = await hub.history("a", before=page.cursor)
    assert end == ([], page.cursor, True)
    # What is held no longer is in no page, and a cursor from there is one.
    assert await hub.history("a", before=page.cursor[:-1] + "2") == ([], page.cursor[:-1] + "2", True)
    page = await hub.history("a", limit=2, since=page.cursor)
    assert ([each.message for each in page.publications], page.cursor[-2:]) == (["5", "6"], ":6")
    assert await texts(hub, limit=0) == []
    assert await texts(hub) == ["4", "5", "6", "7", "8", "9"]
    assert await texts(hub, since="earliest", limit=1) == ["4"]
    # A joined cursor is one, too.
    assert await texts(hub, before=f"b=x:1&a={page.cursor}") == ["4", "5"]


async def test_pages_back_and_forth_have_everything_once() -> None:
    for count in range(7):
        for limit in range(1, 4):
            hub = filled(count)
            found: list[Any] = []
            page = await hub.history("a", limit=limit)
            while page.publications:
                found = [*page.publications, *found]
                page = await hub.history("a", limit=limit, before=found[0].cursor)
            forth: list[Any] = []
            page = await hub.history("a", limit=limit, since="earliest")
            while page.publications:
                forth += page.publications
                page = await hub.history("a", limit=limit, since=page.cursor)
            assert [each.message for each in found] == [str(number) for number in range(1, count + 1)]
            assert forth == found


async def test_what_is_lost_is_said_and_what_was_never_there_is_a_mistake() -> None:
    hub = filled(2)
    for cursor in ({"since": "ffff:1"}, {"before": "ffff:1"}):
        page = await hub.history("a", **cursor)  # type: ignore[arg-type]
        assert (page.publications, page.recovered) == ([], False)
    ahead = (await hub.history("a")).cursor[:-1] + "3"
    for cursor in ({"since": ahead}, {"before": ahead}, {"before": "earliest"}, {"since": "x"}):
        with pytest.raises(CursorError):
            await hub.history("a", **cursor)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="history has since and before, allowed is one"):
        await hub.history("a", since="earliest", before=ahead)
    with pytest.raises(ValueError, match="limit is -1, allowed are numbers from 0"):
        await hub.history("a", limit=-1)
    with pytest.raises(TopicError, match="the topic is ''"):
        await hub.history("")
    assert await hub.history("b") == ([], (await hub.history("b")).cursor, True)


async def test_of_what_is_too_old_there_is_nothing_before() -> None:
    clock: Clock
    with still() as clock:
        hub = filled(3, history=History(age=10))
        cursor = (await hub.history("a")).cursor
        clock.now += 11
        assert await hub.history("a", before=cursor) == ([], cursor, True)


async def test_a_client_that_may_subscribe_looks_back_over_a_websocket_and_by_a_post() -> None:
    hub = filled(5, authorize=lambda _client, action, topic: action == "subscribe" and topic == "a")
    cursor = (await hub.history("a")).cursor
    async with served(hub) as server, client(server) as one:
        answer = await one.ask(id=1, history="a", limit=2)
        publications = [{"topic": "a", "cursor": cursor[:-1] + text, "data": text} for text in "45"]
        assert answer == {"id": 1, "publications": publications, "cursor": cursor, "recovered": True}
        before = publications[0]["cursor"]
        answer = await one.ask(id=2, history="a", limit=2, before=before)
        assert ([each["data"] for each in answer["publications"]], answer["cursor"][-2:]) == (["2", "3"], ":2")
        status, posted = await post(server, json.dumps({"id": 2, "history": "a", "limit": 2, "before": before}))
        assert (status, posted) == (200, answer)
        answer = await one.ask(id=3, history="a", limit=1, since="earliest")
        assert ([each["data"] for each in answer["publications"]], answer["cursor"][-2:]) == (["1"], ":1")
        assert (await one.ask(id=4, history="b")) == {"id": 4, "error": "refused"}
        # Who asks without an id cannot know that it is an answer.
        await one.say(history="a")
        for fields, code, reason in (
            ({"limit": 1001}, "malformed", "limit is 1001, allowed is an integer from 0 to 1000"),
            ({"limit": -1}, "malformed", "limit is -1, allowed"),
            ({"limit": True}, "malformed", "limit is True, allowed"),
            ({"limit": "1"}, "malformed", "limit is str, allowed is int"),
            ({"before": 1}, "malformed", "before is int, allowed is str"),
            ({"before": before, "since": before}, "malformed", "history has since and before, allowed is one"),
            ({"before": cursor[:-1] + "9"}, "cursor", "the cursor is"),
        ):
            answer = await one.ask(id=5, history="a", **fields)
            assert (answer["error"], answer["reason"].startswith(reason)) == (code, True), answer
            status, _ = await post(server, json.dumps({"history": "a", **fields}))
            assert status == 400


async def test_a_page_for_a_client_is_bounded_in_bytes_and_never_empty() -> None:
    hub = Hub(authorize=lambda *_: True, history=History(size=1 << 23))
    for _ in range(4):
        hub.publish("a", "x" * 300_000)
    hub.publish("a", "y" * 900_000)
    async with served(hub) as server, client(server) as one, api(hub) as program:
        sizes: list[list[int]] = []
        before: dict[str, str] = {}
        for _ in range(6):
            answer = await one.ask(id=1, history="a", **before)
            assert (await program.get("history", params={"topic": "a", **before})).json() == {
                name: value for name, value in answer.items() if name != "id"
            }
            sizes.append([len(each["data"]) for each in answer["publications"]])
            if not answer["publications"]:
                break
            before = {"before": answer["publications"][0]["cursor"]}
        assert sizes == [[900_000], [300_000], [300_000], [300_000], [300_000], []]


async def test_with_a_backplane_a_page_is_of_what_the_engine_holds(logged: Logged) -> None:
    engine = Engine()
    async with Hub(backplane=MemoryBackplane(engine)) as one, Hub(backplane=MemoryBackplane(engine)) as two:
        for number in range(1, 6):
            last = await one.publish("a", str(number))
        # This one has heard nothing of the topic.
        page = await two.history("a", limit=2)
        assert ([each.message for each in page.publications], page.cursor) == (["4", "5"], last.cursor)
        assert await texts(two, before=page.publications[0].cursor) == ["1", "2", "3"]
        engine.stop()
        await eventually(lambda: two.degraded)
        two.publish("a", "alone")
        assert await texts(two) == ["1", "2", "3", "4", "5", "alone"]
        mine = (await two.history("a")).publications[-1].cursor
        assert await texts(two, before=mine, limit=2) == ["4", "5"]
        assert await texts(two, before=last.cursor, limit=2) == ["3", "4"]
        engine.start()
        await eventually(lambda: not two.degraded and not two.stats().unsent)
        assert (await texts(one))[-1] == "alone"
    logged.take_all("the backplane is away", 2)
    logged.take_all("the backplane is back", 2)
