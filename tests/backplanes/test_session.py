"""A session: an engine that is reached, lost and reached again, as no engine can be made to do at will."""

from __future__ import annotations

import asyncio
from itertools import repeat
from typing import Any, final

import pytest

from rawws.backplanes.session import EngineSession, both, check_times
from rawws.net.cancellation import cancel_all
from rawws.topics import History
from rawws.topics.backplane import BackplaneAway
from tests.backplanes.handlers import Told
from tests.server.peers import Logged, eventually


@final
class ByHand:
    """An engine that does what a test says, and remembers what it was told."""

    def __init__(self) -> None:
        self.session = EngineSession(self, "the engine", (OSError,), lambda: repeat(0.0))
        self.said: list[str] = []
        # What the next attempts to reach it raise.
        self.unreachable: list[Exception] = []
        self.swallows = False
        # How many cancellations its work swallows.
        self.deaf = 0
        self.ends: asyncio.Future[None]

    async def reach(self) -> None:
        self.said.append("reach")
        self.ends = asyncio.get_running_loop().create_future()
        if self.unreachable:
            raise self.unreachable.pop(0)
        if self.swallows:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.said.append("swallowed")

    async def work(self) -> None:
        while self.deaf:
            try:
                await self.ends
            except asyncio.CancelledError:
                self.deaf -= 1
                self.said.append("swallowed")
                self.ends = asyncio.get_running_loop().create_future()
        await self.ends

    async def lose(self, reason: str) -> None:
        self.said.append(f"lose: {reason}")

    def enter(self, topic: str, ident: str, info: str) -> None:
        self.said.append(f"enter {topic} {ident} {info}")

    def part(self, topic: str, ident: str) -> None:
        self.said.append(f"part {topic} {ident}")


def opened(engine: ByHand) -> Told:
    """Open the session, and return what its handler is told."""
    backplane: Any = engine
    told = Told(backplane)
    engine.session.open("one", History(), told)
    return told


async def test_the_handler_is_told_once_that_the_engine_is_away_and_once_that_it_is_back() -> None:
    engine = ByHand()
    engine.unreachable = [OSError("one"), OSError("two"), TimeoutError()]
    told = opened(engine)
    await eventually(lambda: told.backs)
    assert (told.reasons, told.backs, engine.session.retries) == (["one"], 1, 3)
    assert engine.said == ["reach", "lose: one", "reach", "lose: two", "reach", "lose: no answer in time", "reach"]
    engine.ends.set_result(None)
    await eventually(lambda: told.backs == 2)
    assert told.reasons == ["one", "the engine ended the connection"]
    await engine.session.close()
    assert engine.said[-1] == "lose: the backplane is closed"
    assert (told.aways, told.backs) == (2, 2)


async def test_who_is_present_is_told_each_time_that_the_engine_is_reached() -> None:
    engine = ByHand()
    told = opened(engine)
    engine.session.join("a", "x", "1")
    engine.session.join("a", "y", "2")
    assert not engine.session.leave("a", "y")
    await eventually(lambda: told.backs)
    assert engine.session.leave("b", "z")
    engine.session.join("b", "w", "3")
    engine.ends.set_exception(OSError("away"))
    await eventually(lambda: told.backs == 2)
    first = ["reach", "enter a x 1", "part b z", "enter b w 3", "lose: away"]
    assert engine.said == [*first, "reach", "enter a x 1", "enter b w 3"]
    await engine.session.close()


async def test_whatever_goes_wrong_the_engine_is_reached_again(logged: Logged) -> None:
    engine = ByHand()
    engine.unreachable = [ValueError("a mistake")]
    told = opened(engine)
    await eventually(lambda: told.backs)
    logged.take("a hub failed at what the engine told it", ValueError, "rawws.backplanes")
    engine.ends.set_exception(KeyError("another"))
    await eventually(lambda: told.backs == 2)
    assert told.reasons == ["the engine ended the connection"] * 2
    await engine.session.close()
    logged.take("a hub failed at what the engine told it", KeyError, "rawws.backplanes")


async def test_what_is_asked_while_the_engine_is_away_fails_at_once() -> None:
    engine = ByHand()
    engine.unreachable = [OSError("away")]
    told = opened(engine)
    with pytest.raises(BackplaneAway, match=r"^the engine is away$"):
        await engine.session.new_answer()
    await eventually(lambda: told.backs)
    assert not engine.session.new_answer().done()
    await engine.session.close()


async def test_a_session_ends_also_where_its_cancellation_is_swallowed() -> None:
    engine = ByHand()
    engine.swallows = True
    told = opened(engine)
    await eventually(lambda: engine.said)
    await engine.session.close()
    assert engine.said == ["reach", "swallowed", "lose: the backplane is closed", "lose: the backplane is closed"]
    assert (told.backs, told.reasons) == (0, [])


async def test_a_session_ends_also_where_the_work_swallows_its_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawws.net.cancellation.CANCEL_INTERVAL", 0.01)
    engine = ByHand()
    engine.deaf = 2
    told = opened(engine)
    await eventually(lambda: told.backs)
    await engine.session.close()
    assert engine.said == ["reach", "swallowed", "swallowed", "lose: the backplane is closed"]


async def test_all_tasks_end_also_where_one_swallows_its_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rawws.net.cancellation.CANCEL_INTERVAL", 0.01)
    done: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait() -> None:
        # In Python 3.11 it swallows the cancellation where the future is done in the same turn.
        await asyncio.wait_for(done, 60)
        await asyncio.Event().wait()

    async def fail() -> None:
        raise ValueError("of no interest")

    tasks = [asyncio.create_task(work()) for work in (wait, wait, fail)]
    await asyncio.sleep(0)
    done.set_result(1)
    await cancel_all(*tasks)
    assert all(task.done() for task in tasks)
    assert sum(task.cancelled() for task in tasks) == 2
    await cancel_all()


async def test_an_engine_that_is_somewhere_else_now_is_not_waited_for() -> None:
    engine = ByHand()
    engine.session = EngineSession(engine, "the engine", (OSError,), lambda: repeat(3600.0))
    engine.unreachable = [OSError("away")]
    told = opened(engine)
    await eventually(lambda: told.reasons)
    engine.session.hurry()
    await eventually(lambda: told.backs)
    # Also where it is said before it is lost.
    engine.session.hurry()
    engine.ends.set_exception(OSError("elsewhere"))
    await eventually(lambda: told.backs == 2)
    await engine.session.close()


async def test_who_could_not_be_entered_is_entered_again_as_long_as_present() -> None:
    engine = ByHand()
    told = opened(engine)
    session = engine.session
    await eventually(lambda: told.backs)
    for ident in ("x", "y"):
        session.join("a", ident, f'"{ident}"')
    engine.said.clear()
    for ident in ("x", "y", "gone"):
        session.not_held("a", ident, f"no room for {ident}")
    # Of whom nobody knows here, nobody is told.
    assert told.doubts == [("a", "no room for x"), ("a", "no room for y")]
    session.leave("a", "y")
    session.enter_again()
    session.enter_again()
    assert engine.said == ["part a y", 'enter a x "x"']
    # Whoever is entered by a new connection needs no second time.
    session.not_held("a", "x", "no room")
    engine.ends.set_exception(OSError("away"))
    await eventually(lambda: told.backs == 2)
    engine.said.clear()
    session.enter_again()
    assert engine.said == []
    await session.close()
    assert not session.leave("a", "x")
    assert engine.said == ["lose: the backplane is closed"]


@pytest.mark.parametrize("times", [(0, 1), (1, 0), (-1, 1), (1, -0.1)])
def test_times_that_are_none_are_refused_and_short_ones_are_not(times: tuple[float, float]) -> None:
    words = f"lease is {times[0]} and timeout {times[1]}, allowed are numbers above 0"
    with pytest.raises(ValueError, match=f"^{words}$"):
        check_times(*times)
    check_times(0.001, 0.001)


@pytest.mark.parametrize("first", ["one", "other"])
@pytest.mark.parametrize("failing", ["one", "other", "neither"])
async def test_of_two_answers_that_come_in_one_turn_the_one_that_failed_is_told(first: str, failing: str) -> None:
    loop = asyncio.get_running_loop()
    answers: dict[str, asyncio.Future[None]] = {"one": loop.create_future(), "other": loop.create_future()}
    answer = both(answers["one"], answers["other"])
    for name in ("one", "other") if first == "one" else ("other", "one"):
        if name == failing:
            answers[name].set_exception(BackplaneAway(name))
        else:
            answers[name].set_result(None)
    if failing == "neither":
        await answer
    else:
        with pytest.raises(BackplaneAway, match=failing):
            await answer
