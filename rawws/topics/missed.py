"""Missed: users whom a publication is for, to those of them who are connected nowhere, of whom a function is told.

Laws:
1. A user is judged a while after the publication, by who is present in the topic then, at all servers. Who reloads a
   page missed nothing; who is lost, and waited for by the grace of presence, is not connected.
2. In doubt a user is told of: a push notification too many is better than none.
3. What waits is bounded: over that, nothing is published, and whoever publishes is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import sys
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from rawws.net.cancellation import called, end_all
from rawws.net.identity import Identity
from rawws.net.prepared import PreparedMessage

from .history import Publication
from .names import TopicError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from typing import TypeAlias

    from .subscribers import PublishResult
    from .table import TopicTable

__all__ = ["MISSED_AFTER", "MissedFunction", "MissedUsers"]

logger = logging.getLogger("rawws.topics")

MissedFunction: TypeAlias = "Callable[[str, Publication], Any]"

# Seconds until a user is judged: a page that is loaded again is back within two.
MISSED_AFTER: Final = 5.0
LONGEST_AFTER: Final = 3600.0
# Users who wait to be judged, and functions that run, and bytes of the messages for which users wait: as many as
# publications of other threads may wait.
MAX_WAITING: Final = 10_000
MAX_WAITING_SIZE: Final = 16 << 20
MAX_CALLS: Final = 100
# Seconds for which the engine of a backplane is asked who is present, and for which functions may go on at the end.
PATIENCE: Final = 5.0
CLOSE_TIMEOUT: Final = 10.0


class AddressedPublication(NamedTuple):
    """What was published, whom it is for, and when those are judged."""

    due: float
    size: int
    users: tuple[str, ...]
    topic: str
    encoded: PreparedMessage
    key: str | None
    extra: str
    result: PublishResult


@final
class MissedUsers:
    """Judges the users that publications of a hub are for, and calls a function for each who missed one.

    `when_ready` is that of the hub. Raises ValueError for an `after` that is none.
    """

    __slots__ = (
        "_after", "_calls", "_closing", "_function", "_table", "_turns", "_waiting", "_when_ready", "_worker", "count",
        "size",
    )  # fmt: skip

    def __init__(
        self,
        table: TopicTable,
        when_ready: Callable[[list[str], str, Callable[[], list[str]]], list[str] | Awaitable[list[str]]],
        function: MissedFunction,
        after: float,
    ) -> None:
        if not 0 <= after <= LONGEST_AFTER:
            raise ValueError(f"after is {after}, allowed are 0 to {LONGEST_AFTER:g} seconds")
        self._table = table
        self._when_ready = when_ready
        self._function = function
        self._after = after
        # Users who wait, and those whose function runs.
        self.count = 0
        # Bytes of the messages of those who wait.
        self.size = 0
        self._waiting: deque[AddressedPublication] = deque()
        self._turns = asyncio.Semaphore(MAX_CALLS)
        self._calls: set[asyncio.Task[None]] = set()
        self._worker: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    def check(self, users: Iterable[str], message: Any) -> tuple[str, ...]:
        """Return the users, each once. Raises TypeError or ValueError for what is none, TopicError for too much."""
        if isinstance(users, str):
            raise TypeError("users is str, allowed is a list of them")
        names = tuple(dict.fromkeys(Identity(user).user for user in users))
        if self.count + len(names) > MAX_WAITING:
            raise TopicError(
                "limit", f"{self.count} users wait to be judged, with {len(names)} more over {MAX_WAITING}"
            )
        size = self.size + size_of(message)
        if names and self._waiting and size > MAX_WAITING_SIZE:
            raise TopicError("limit", f"users wait to be judged for {size} bytes of messages, limit {MAX_WAITING_SIZE}")
        # Before anything is published: there must be a loop to judge in.
        asyncio.get_running_loop()
        return names

    def put(
        self, users: tuple[str, ...], topic: str, message: Any, key: str | None, extra: str, result: PublishResult
    ) -> None:
        """Have users be judged, in a while."""
        if not users:
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + self._after
        size = size_of(message)
        encoded = PreparedMessage(message)
        self._waiting.append(AddressedPublication(due, size, users, topic, encoded, key, extra, result))
        self.count += len(users)
        self.size += size
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._run())

    async def close(self) -> None:
        """Judge at once who waits, and wait for the functions; what they take too long for is logged."""
        self._closing.set()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    if self._worker is not None:
                        await asyncio.wait([self._worker])
                    if self._calls:
                        await asyncio.wait(self._calls)
        finally:
            if self.count:
                logger.warning("the hub closes, and %d users are not told of what they missed", self.count)
            self._waiting.clear()
            self.size = 0
            await end_all(*([] if self._worker is None else [self._worker]), *self._calls)
            self.count = 0

    # -- inside

    async def _run(self) -> None:
        """Judge those who wait, in their order, and end when there are none."""
        while self._waiting:
            await self._pause(self._waiting[0].due - asyncio.get_running_loop().time())
            addressed = self._waiting.popleft()
            await self._judge(addressed)
            self.size -= addressed.size

    async def _pause(self, seconds: float) -> None:
        """Wait; at the end not."""
        if seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._closing.wait()

    async def _judge(self, addressed: AddressedPublication) -> None:
        missed = await self._missed(addressed.topic, addressed.users)
        self.count -= len(addressed.users) - len(missed)
        epoch, _, offset = addressed.result.cursor.rpartition(":")
        publication = Publication(
            addressed.topic, addressed.encoded, addressed.key, epoch, int(offset or 0), addressed.extra
        )
        for user in missed:
            await self._turns.acquire()
            task = asyncio.get_running_loop().create_task(self._call(user, publication))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)

    async def _missed(self, topic: str, users: tuple[str, ...]) -> list[str]:
        """Return the users who are not present in a topic, as far as that can be known."""

        def look() -> list[str]:
            found = self._table.topics.get(topic)
            presence = None if found is None else found.presence
            return [user for user in users if presence is None or not presence.is_connected(user)]

        try:
            async with asyncio.timeout(PATIENCE):
                known = self._when_ready([topic], "", look)
                return await known if inspect.isawaitable(known) else known
        except (TimeoutError, TopicError):
            return look()

    async def _call(self, user: str, publication: Publication) -> None:
        try:
            found = called("on_missed", self._function, user, publication)
            if inspect.isawaitable(found):
                await found
        except Exception:
            logger.exception("the function of on_missed failed")
        finally:
            self._turns.release()
        self.count -= 1


def size_of(message: Any) -> int:
    """Return what a message takes, in bytes of memory: text, or what is like bytes."""
    return sys.getsizeof(message) if isinstance(message, str) else memoryview(message).nbytes
