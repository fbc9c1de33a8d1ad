"""Session: a backplane's tie to its engine: reach it, lose it, back off, and reach it again.

Laws:
1. The handler is told once that the engine is away, however often it is tried meanwhile, and nothing after `close`.
2. Who is present by this server is told to the engine each time that it is reached.
3. What goes wrong, whatever it is, ends with the engine reached again.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, final

from rawws.client.retrying import full_jitter
from rawws.net.cancellation import end_all, finish
from rawws.topics.backplane import BackplaneAway, new_answer

from .remedies import with_remedy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rawws.topics.backplane import BackplaneHandler, History

__all__ = ["LONGEST_WAIT", "EngineConnection", "EngineSession", "both", "check_times", "engine_waits", "fail_answers"]

logger = logging.getLogger("rawws.backplanes")

# The servers of one engine are few, and all their clients wait: they come back sooner than clients do.
LONGEST_WAIT = 5.0
# So many who are present, and could not be written, are tried again at a time.
MAX_ENTERED = 1000


class EngineConnection(Protocol):
    """What a session needs of the backplane that it is of. `lose` follows each `reach`, also one that failed."""

    async def reach(self) -> None:
        """Connect to the engine, up to where it can be asked."""

    async def work(self) -> None:
        """Serve until the engine ends the connection; raise what else goes wrong."""

    async def lose(self, reason: str) -> None:
        """Disconnect, and fail all that is asked and not answered; go on with that where it was cut off before."""

    def enter(self, topic: str, ident: str, info: str) -> None:
        """Tell the engine, which is reached, that somebody is present."""

    def part(self, topic: str, ident: str) -> None:
        """Tell the engine, which is reached, that somebody is present no more."""


@final
class EngineSession:
    """Reaches an engine again and again, from `open` to `close`.

    `name` is what the engine is called where it is away. `errors` are those that say so; all others are logged. Each
    time after it was reached, `waits()` gives the seconds from one attempt to the next, by default `engine_waits`.
    """

    __slots__ = (
        "_away",
        "_engine",
        "_errors",
        "_hurried",
        "_name",
        "_unheld",
        "_waits",
        "closed",
        "handler",
        "here",
        "history",
        "loop",
        "reached",
        "retries",
        "server",
        "task",
    )

    def __init__(
        self,
        engine: EngineConnection,
        name: str,
        errors: tuple[type[Exception], ...],
        waits: Callable[[], Iterator[float]] | None = None,
    ) -> None:
        self._engine = engine
        self._name = name
        self._errors = errors
        self._waits = engine_waits if waits is None else waits
        self._away = False
        self.reached = False
        self.closed = False
        self.retries = 0
        # Who is present by this server: what each tells of itself, by topic and id.
        self.here: dict[tuple[str, str], str] = {}
        # Those of them whom the engine refused to hold.
        self._unheld: dict[tuple[str, str], None] = {}
        self.server = ""
        self.task: asyncio.Task[None] | None = None

    def open(self, server: str, history: History, handler: BackplaneHandler) -> None:
        """Begin to reach the engine."""
        self.server, self.history, self.handler = server, history, handler
        self.loop = asyncio.get_running_loop()
        self._hurried = asyncio.Event()
        self.task = self.loop.create_task(self._run())

    async def close(self) -> None:
        """End."""
        if self.task is not None:
            self.closed = True
            await end_all(self.task)
            self.task = None

    def hurry(self) -> None:
        """Try at once to reach the engine, where that is waited for."""
        self._hurried.set()

    def new_answer(self) -> asyncio.Future[Any]:
        """Return a future for an answer; it has failed already where the engine is away."""
        answer = new_answer(self.loop)
        if not self.reached:
            answer.set_exception(BackplaneAway(f"{self._name} is away"))
        return answer

    def join(self, topic: str, ident: str, info: str) -> None:
        """Have somebody present, now or as soon as the engine is reached."""
        self.here[topic, ident] = info
        if self.reached:
            self._engine.enter(topic, ident, info)

    def leave(self, topic: str, ident: str) -> bool:
        """Have somebody present no more, and return whether the engine could be told."""
        self.here.pop((topic, ident), None)
        if self.reached:
            self._engine.part(topic, ident)
        return self.reached

    def enter_all(self) -> None:
        """Tell the engine who is present."""
        for (topic, ident), info in self.here.items():
            self._engine.enter(topic, ident, info)

    def not_held(self, topic: str, ident: str, reason: str) -> None:
        """Hear that the engine refused to hold somebody present: the handler is told, and `enter_again` tries again."""
        if (topic, ident) in self.here:
            self._unheld[topic, ident] = None
            self.handler.on_doubt(topic, reason)

    def enter_again(self) -> None:
        """Tell the engine of those again whom it refused to hold, as far as they are present still."""
        for topic, ident in list(self._unheld)[:MAX_ENTERED]:
            del self._unheld[topic, ident]
            info = self.here.get((topic, ident))
            if info is not None:
                self._engine.enter(topic, ident, info)

    # -- inside

    async def _run(self) -> None:
        waits = self._waits()
        try:
            while not self.closed:
                reason = f"{self._name} ended the connection"
                try:
                    await self._engine.reach()
                    self._begin()
                    waits = self._waits()
                    await self._engine.work()
                except self._errors as error:
                    reason = with_remedy(str(error) or "no answer in time")
                except Exception:
                    logger.exception("a hub failed at what %s told it", self._name)
                await self._lose(reason)
                self.retries += 1
                with suppress(TimeoutError):
                    async with asyncio.timeout(next(waits)):
                        await self._hurried.wait()
                self._hurried.clear()
        finally:
            # By `close`, or with the loop: there is nobody to be told.
            self.closed = True
            await self._lose("the backplane is closed")

    def _begin(self) -> None:
        if self.closed:
            # What connects to the engine may have swallowed the cancellation.
            raise BackplaneAway("the backplane is closed")
        self.reached, self._away = True, False
        self._unheld.clear()
        self.enter_all()
        self.handler.on_back()

    async def _lose(self, reason: str) -> None:
        self.reached = False
        await finish(self._engine.lose(reason))
        if not self.closed and not self._away:
            self._away = True
            self.handler.on_away(reason)


def both(one: asyncio.Future[Any], other: asyncio.Future[Any]) -> asyncio.Future[None]:
    """Return a future that is done when two answers are there, or fails as the first that fails."""
    answer: asyncio.Future[None] = new_answer(one.get_loop())

    def look(done: asyncio.Future[Any]) -> None:
        error = done.exception()
        if answer.done():
            return
        if error is None and one.done() and other.done():
            # Both are there, and the one that is not told of yet may have failed.
            error = one.exception() or other.exception()
            if error is None:
                answer.set_result(None)
        if error is not None:
            answer.set_exception(error)

    one.add_done_callback(look)
    other.add_done_callback(look)
    return answer


def fail_answers(answers: Iterable[asyncio.Future[Any]], reason: str) -> None:
    """Fail those that are asked and not answered."""
    for answer in answers:
        if not answer.done():
            answer.set_exception(BackplaneAway(reason))


def engine_waits() -> Iterator[float]:
    """Yield the seconds from one attempt to reach an engine to the next, with full jitter up to LONGEST_WAIT."""
    return full_jitter(longest=LONGEST_WAIT)


def check_times(lease: float, timeout: float) -> None:
    """Raise ValueError for a lease or a timeout that is no time."""
    if lease <= 0 or timeout <= 0:
        raise ValueError(f"lease is {lease} and timeout {timeout}, allowed are numbers above 0")
