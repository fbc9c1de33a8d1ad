"""A process that is asked over a unix socket: it answers, is busy, is gone, or cannot."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rawws.admin import sources
from rawws.admin.application import routes_of
from rawws.admin.overview import Overview
from rawws.admin.sources import LocalSource, SourceBusyError, SourceGoneError, WorkerSource, offer
from rawws.cli.looking import busy_lines
from tests.admin.looks import post
from tests.server.peers import Logged, eventually, serve


class Parrot:
    """Answers with what it is asked, and what the test wants beside it."""

    def __init__(self, **more: Any) -> None:
        self.more = more
        self.asked: list[Any] = []

    async def answer(self, ask: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(ask)
        return {**ask, **self.more}


def path_of(folder: Path) -> str:
    return os.path.relpath(folder / "s")


async def test_questions_are_answered_one_after_the_other_over_one_connection(tmp_path: Path) -> None:
    source = WorkerSource(path_of(tmp_path))
    async with offer(path_of(tmp_path), Parrot(more="x" * 1_000_000)):
        answers = await asyncio.gather(*[source.ask({"number": number}) for number in range(10)])
        assert [answer["number"] for answer in answers] == list(range(10))
    with pytest.raises(SourceGoneError):
        await source.ask({})
    async with offer(path_of(tmp_path), Parrot()):
        assert await source.ask({"number": 11}) == {"number": 11}
        source.close()
        assert await source.ask({"number": 12}) == {"number": 12}
    source.close()


async def test_what_is_not_there_is_gone(tmp_path: Path) -> None:
    with pytest.raises(SourceGoneError):
        await WorkerSource(path_of(tmp_path)).ask({})


async def test_the_answer_to_who_left_is_not_that_to_who_asks_next(tmp_path: Path) -> None:
    held: list[asyncio.StreamWriter] = []

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Broken, where it answers whoever left.
        with suppress(OSError):
            while await reader.readline():
                held.append(writer)

    server = await asyncio.start_unix_server(hold, path_of(tmp_path))
    source = WorkerSource(path_of(tmp_path))
    try:
        first = asyncio.ensure_future(source.ask({"number": 1}))
        await eventually(lambda: held)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        held[0].write(b'{"number": 1}\n')
        second = asyncio.ensure_future(source.ask({"number": 2}))
        await eventually(lambda: len(held) == 2)
        held[1].write(b'{"number": 2}\n')
        assert await second == {"number": 2}
    finally:
        source.close()
        for writer in held:
            writer.close()
        server.close()


async def test_an_answer_without_an_end_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LONGEST_ANSWER", 1000)
    async with offer(path_of(tmp_path), Parrot(more="x" * 100_000)):
        with pytest.raises(SourceGoneError):
            await WorkerSource(path_of(tmp_path)).ask({})


async def test_what_does_not_answer_is_busy_and_its_late_answer_is_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "PATIENCE", 0.05)
    late: list[asyncio.StreamWriter] = []

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        late.append(writer)

    server = await asyncio.start_unix_server(hold, path_of(tmp_path))
    source = WorkerSource(path_of(tmp_path))
    with pytest.raises(SourceBusyError):
        await source.ask({"number": 1})
    await eventually(lambda: late)
    monkeypatch.setattr(sources, "PATIENCE", 20)
    second = asyncio.ensure_future(source.ask({"number": 2}))
    await eventually(lambda: len(late) == 2)
    late[0].write(b'{"number": 1}\n')
    late[1].write(b'{"number": 2}\n')
    assert await second == {"number": 2}
    source.close()
    for writer in late:
        writer.close()
    server.close()
    await server.wait_closed()


async def test_an_act_waits_longer_than_a_look_and_keeps_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PATIENCE", 0.05)
    held: list[tuple[bytes, asyncio.StreamWriter]] = []

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append((await reader.readline(), writer))

    server = await asyncio.start_unix_server(hold, path_of(tmp_path))
    source = WorkerSource(path_of(tmp_path))
    act = asyncio.ensure_future(source.act({"do": 1}))
    await eventually(lambda: held)
    with pytest.raises(SourceBusyError):
        await source.ask({"number": 1})
    assert not act.done()
    assert held[0][0] == b'{"do": 1}\n'
    held[0][1].write(b'{"done": 1}\n')
    assert await act == {"done": 1}
    monkeypatch.setattr(sources, "ACT_PATIENCE", 0.05)
    with pytest.raises(SourceBusyError):
        await source.act({"do": 2})
    for _, writer in held:
        writer.close()
    server.close()
    await server.wait_closed()


async def test_a_kick_that_a_busy_process_may_do_is_told_from_one_of_nobody() -> None:
    here, elsewhere, busy, gone = {"found": True}, {"found": False}, SourceBusyError(), SourceGoneError()

    async def kicked(*said: Any) -> str | None:
        return await Overview([Told(each) for each in said]).kick("1", 1008, "")

    assert await kicked(elsewhere, busy, here) == ""
    assert await kicked(elsewhere, {**here, "wrong": "that code"}) == "that code"
    assert await kicked(elsewhere, gone) is None
    with pytest.raises(SourceBusyError):
        await kicked(elsewhere, busy)
    async with serve(routes_of(Overview([Told(busy)]), None)) as admin:
        answer = await post(admin, {"id": "1"})
    assert answer.status == 503
    assert "if the connection is there, it is closed when it does" in answer.body.decode()


async def test_a_list_says_how_many_did_not_answer() -> None:
    assert busy_lines({"busy": 0}) == []
    assert busy_lines({"busy": 1}) == ["1 worker is busy and missing here"]
    assert busy_lines({"busy": 2}) == ["2 workers are busy and missing here"]
    overview = Overview([Told({"total": 0, "connections": []}), Told(SourceBusyError()), Told(SourceGoneError())])
    assert await overview.connections(10, "age") == {"total": 0, "busy": 1, "connections": []}


async def test_what_is_no_answer_is_as_good_as_none(tmp_path: Path) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"nothing in JSON\n")
        writer.close()

    server = await asyncio.start_unix_server(babble, path_of(tmp_path))
    with pytest.raises(SourceGoneError):
        await WorkerSource(path_of(tmp_path)).ask({})
    server.close()
    await server.wait_closed()


async def test_a_question_that_cannot_be_answered_is_logged_and_ends_its_connection(
    tmp_path: Path, logged: Logged
) -> None:
    source = WorkerSource(path_of(tmp_path))
    async with offer(path_of(tmp_path), Parrot(set=set())):
        with pytest.raises(SourceGoneError):
            await source.ask({})
    logged.take("a question about this process could not be answered", TypeError, name="rawws.admin")


# -- sums of several


def snapshot(life: str, count: float, **more: Any) -> dict[str, Any]:
    samples = {"rawws_connections": {"": count}, "rawws_connections_opened": {"_total": count}}
    fields = {
        "worker": 0,
        "life": life,
        "pid": 1,
        "began": 0.0,
        "serving": True,
        "draining": False,
        "degraded": False,
        "connections": 0,
        "streams": 0,
        "polls": 0,
        "lag": 0.0,
        "samples": samples,
        "slow": [],
        "topics": {"total": 0, "topics": []},
    }
    return fields | more


class Told:
    """A process that says what the test wants, or raises."""

    def __init__(self, said: Any = None) -> None:
        self.said = said
        self.acts = 0

    async def act(self, ask: dict[str, Any]) -> dict[str, Any]:
        self.acts += 1
        return await self.ask(ask)

    async def ask(self, ask: dict[str, Any]) -> dict[str, Any]:
        if isinstance(self.said, dict):
            return self.said
        raise self.said


async def totals(overview: Overview) -> tuple[float, float, list[bool]]:
    """Look anew, and return the connections that there are, that there were, and who is busy."""
    await asyncio.sleep(0.51)
    look = await overview.look()
    now, ever = (look.samples.get(name, {}) for name in ("rawws_connections", "rawws_connections_opened"))
    return now.get("", 0), ever.get("_total", 0), [each["busy"] for each in look.snapshots]


async def test_counters_outlive_their_process_and_gauges_do_not(tmp_path: Path) -> None:
    one, two = Told(), Told()
    file = tmp_path / "ended.json"
    overview = Overview([one, two], file)
    one.said, two.said = SourceGoneError(), SourceGoneError()
    assert await totals(overview) == (0, 0, [])
    one.said, two.said = snapshot("a", 3), snapshot("b", 5)
    assert await totals(overview) == (8, 8, [False, False])
    one.said = SourceBusyError()
    assert await totals(overview) == (8, 8, [True, False])
    one.said = SourceGoneError()
    assert await totals(overview) == (5, 8, [False])
    assert not file.exists()
    one.said = snapshot("c", 1)
    assert await totals(overview) == (6, 9, [False, False])
    assert json.loads(file.read_text()) == {"rawws_connections_opened": {"_total": 3}}
    # Who takes the place of what looks on knows it.
    assert await totals(Overview([one, two], file)) == (6, 9, [False, False])


async def test_rates_are_those_between_two_looks() -> None:
    told = Told()
    told.said = snapshot("a", 100)
    overview = Overview([told])
    first = asyncio.ensure_future(overview.status())
    await eventually(lambda: overview._last is not None)
    told.said = snapshot("a", 200)
    rates = (await first)["rates"]
    assert 100 / 60 < rates["opened"] <= 100 / 0.5
    assert rates["closed"] == 0
    # What fell, as where nothing of a dead process was known, is no rate below 0.
    told.said = snapshot("b", 0, samples={})
    await asyncio.sleep(0.51)
    assert (await overview.status())["rates"]["opened"] == 0


async def test_however_many_ask_the_processes_are_asked_once() -> None:
    parrot = Parrot(**snapshot("a", 1))
    overview = Overview([LocalSource(parrot)])
    await asyncio.gather(*[overview.metrics() for _ in range(20)])
    assert len(parrot.asked) == 1


def sent_at(*times: float) -> dict[str, Any]:
    return {"found": True, "deliveries": [{"time": time} for time in times]}


async def test_deliveries_of_all_processes_are_shown_the_newest_first_and_no_more_than_a_page() -> None:
    away, none = Told(SourceBusyError()), Told({"found": False})
    one, two = Told(sent_at(*range(100, 40, -1))), Told(sent_at(200, 90.5))
    found = await Overview([away, none, one, two]).hook_deliveries("3", "http://h/")
    assert found is not None
    assert (found["busy"], len(found["deliveries"])) == (1, 50)
    assert [each["time"] for each in found["deliveries"]][:13] == [200, *range(100, 90, -1), 90.5, 90]
    assert await Overview([none]).hook_deliveries("3", "http://h/") is None
    with pytest.raises(SourceBusyError):
        await Overview([none, away]).hook_deliveries("3", "http://h/")


async def test_one_process_sends_a_test_the_first_that_can() -> None:
    away, none, one, two = Told(SourceBusyError()), Told({"found": False}), Told(sent_at(1)), Told(sent_at(2))
    assert await Overview([away, none, one, two]).test_hook("3", "http://h/") == [{"time": 1}]
    assert (one.acts, two.acts) == (1, 0)
    assert await Overview([none, Told(SourceGoneError())]).test_hook("3", "http://h/") is None
    with pytest.raises(SourceBusyError):
        await Overview([away, none]).test_hook("3", "http://h/")
