"""Idempotency: a request that a server makes again to the answer of the first one, at whatever instance.

Source: https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/

Laws:
1. Of several requests with one key one is done. While it is under way, the others are told so, and do nothing.
2. Who gives up waiting for a request does not end it: what came of it is kept for who asks again.
3. What is kept is bounded, for each app of its own: in time, in requests, and in bytes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

import rawws
from rawws import clock
from rawws.net.cancellation import cancel_all

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from .control import InstanceRegistry

__all__ = ["KeptAnswers"]

# Who asks again after so many seconds is a new request: as long as Centrifugo keeps a key.
KEPT: Final = 300.0
# Of an app: requests, and bytes of their answers.
MOST_KEPT: Final = 10_000
MOST_BYTES: Final = 4 << 20
VERB: Final = "once"


class KeptAnswer(NamedTuple):
    """What is known of a request: what it asked for, since when, and the answer, None while it is under way."""

    digest: str
    at: float
    body: str | None = None


@final
class AppAnswers:
    """The requests of one app, by their keys; the oldest comes first."""

    __slots__ = ("kept", "size")

    def __init__(self) -> None:
        self.kept: OrderedDict[str, KeptAnswer] = OrderedDict()
        self.size = 0

    def of_key(self, key: str) -> KeptAnswer | None:
        """Return what is known of a key."""
        self.forget_old()
        return self.kept.get(key)

    def keep(self, key: str, answer: KeptAnswer) -> None:
        """Remember a request. Raises HttpError(429) where all that are kept are under way."""
        self.drop(key)
        self.kept[key] = answer
        self.size += len(answer.body or "")
        while len(self.kept) > MOST_KEPT or self.size > MOST_BYTES:
            oldest = next((each for each, known in self.kept.items() if known.body is not None and each != key), None)
            if oldest is None:
                break
            self.drop(oldest)
        if len(self.kept) > MOST_KEPT:
            self.drop(key)
            reason = f"{MOST_KEPT} requests with an Idempotency-Key are under way, the limit"
            raise rawws.HttpError(429, reason, (("Retry-After", "1"),))

    def drop(self, key: str) -> None:
        """Forget a request."""
        known = self.kept.pop(key, None)
        if known is not None:
            self.size -= len(known.body or "")

    def forget_old(self) -> None:
        """Forget what is over."""
        until = clock.monotonic() - KEPT
        while self.kept:
            key, known = next(iter(self.kept.items()))
            if known.at > until or known.body is None:
                break
            self.drop(key)


@final
class KeptAnswers:
    """What came of requests with a key; the instances ask each other before one is done. `close` it where it ends."""

    def __init__(
        self, registry: InstanceRegistry, answers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]]
    ) -> None:
        self._registry = registry
        self._apps: dict[str, AppAnswers] = {}
        self._tasks: set[asyncio.Task[str]] = set()
        answers[VERB] = self._tell

    def _tell(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Tell another instance what is known of a key."""
        known = self._of(asked["app"]).of_key(asked["key"])
        return {} if known is None else {"digest": known.digest, "body": known.body}

    def _of(self, app: str) -> AppAnswers:
        found = self._apps.get(app)
        if found is None:
            found = self._apps[app] = AppAnswers()
        return found

    async def answer(self, app: str, key: str, digest: str, work: Callable[[], Coroutine[Any, Any, str]]) -> str:
        """Return what `work` answers, or what it answered to the first request with this key.

        Raises HttpError(409) for one that is under way, or asked for something else, what `work` raises, and
        RegistryAway.
        """
        mine = self._of(app)
        known = mine.of_key(key)
        if known is not None:
            return told_again(known.digest, known.body, digest)
        mine.keep(key, KeptAnswer(digest, clock.monotonic()))
        try:
            # Of two that begin at once, each finds that of the other, and neither is done.
            others = await self._registry.ask_all(VERB, app=app, key=key)
        except BaseException:
            mine.drop(key)
            raise
        told = next((each for each in others if "digest" in each), None)
        if told is not None:
            mine.drop(key)
            return told_again(told["digest"], told["body"], digest)
        task = asyncio.get_running_loop().create_task(do(mine, key, digest, work))
        self._tasks.add(task)
        task.add_done_callback(self._end)
        return await asyncio.shield(task)

    def _end(self, task: asyncio.Task[str]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # Who waited for it may have given up: it is known then.
            task.exception()

    async def close(self) -> None:
        """End what is under way."""
        await cancel_all(*self._tasks)


async def do(mine: AppAnswers, key: str, digest: str, work: Callable[[], Coroutine[Any, Any, str]]) -> str:
    """Do a request, and keep its answer."""
    try:
        body = await work()
    except BaseException:
        # It was refused: whoever asks again, asks anew.
        mine.drop(key)
        raise
    mine.keep(key, KeptAnswer(digest, clock.monotonic(), body))
    return body


def told_again(known: str, body: str | None, digest: str) -> str:
    """Return the answer to a request that was made before. Raises HttpError(409)."""
    if known != digest:
        raise rawws.HttpError(409, "the Idempotency-Key was that of another request, needed is a new one")
    if body is None:
        raise rawws.HttpError(409, "a request with this Idempotency-Key is under way", (("Retry-After", "1"),))
    return body
