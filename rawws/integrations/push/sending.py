"""Push sending: messages in bounded queues to tries, until a service takes them, refuses them, or their time is up.

Laws:
1. Whatever is handed over ends in one count: sent, gone, refused, expired, dropped or lost.
2. What one service or one device does, holds up no other one.
3. No token, endpoint, key or text of a message is logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import inspect
import itertools
import logging
from collections import Counter, deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, final

from rawws.client.retrying import full_jitter
from rawws.net.cancellation import called, end_all, result_of

from .messages import AGAIN, REFUSED, UNREGISTERED, outcome_again, outcome_refused
from .requests import PushClient, PushFailed

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from .messages import PushDevice, PushMessage, PushOutcome
    from .requests import PushAnswer, PushRequest

__all__ = ["PushSender", "PushService", "PushStats"]

logger = logging.getLogger("rawws.push")

# Messages that wait or are under way, of 3 KiB each at most; requests under way at a time, and those to one host: one
# that hangs leaves as many to the others.
MAX_WAITING: Final = 10_000
MAX_REQUESTS: Final = 100
MAX_OF_HOST: Final = 50
# The first wait between two tries is up to so many seconds, and the longest; after an hour, a message is given up.
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
MAX_AGE: Final = 3600.0
# A log is not filled by a service that is away.
LOG_INTERVAL: Final = 60.0
# What becomes of a message that no service took.
FAILED: Final = ("gone", "refused", "expired", "dropped", "lost")


class PushService(Protocol):
    """A way to push to the devices of one service: `WebPush`, `Apns`, `Fcm`."""

    name: str

    def check(self, device: PushDevice) -> None:
        """Raise ValueError for a device that may not be asked."""

    def host_of(self, device: PushDevice) -> str:
        """Return who is asked for a device: one that hangs holds up no other."""

    async def request(self, device: PushDevice, message: PushMessage, left: float, client: PushClient) -> PushRequest:
        """Return the request that sends a message. Raises ValueError for what cannot be, PushFailed for not now."""

    def outcome(self, device: PushDevice, answer: PushAnswer) -> PushOutcome:
        """Return what an answer means."""


@final
class PushStats:
    """What became of the messages to the devices of one service, in numbers; `retries` counts tries."""

    __slots__ = ("dropped", "expired", "gone", "lost", "refused", "retries", "sent")

    def __init__(self) -> None:
        # Taken by the service; for devices that are no more; refused for good.
        self.sent = self.gone = self.refused = 0
        # Taken in no try in time; not queued, for the queue was full; still queued at the end.
        self.expired = self.dropped = self.lost = 0
        self.retries = 0


class QueuedPush(NamedTuple):
    """A message that waits; `until` is by the clock of the loop."""

    device: PushDevice
    message: PushMessage
    since: float
    until: float
    waits: Iterator[float]


@final
class ServiceQueue:
    """The messages to the devices of one service: `start` it in the event loop, `stop` it there."""

    __slots__ = (
        "_busy", "_filled", "_held", "_idle", "_logged", "_numbers", "_on_gone", "_queue", "_task", "_tries", "_turns",
        "client", "service", "stats",
    )  # fmt: skip

    def __init__(
        self,
        service: PushService,
        client: PushClient,
        on_gone: Callable[[PushDevice], Any] | None,
        stats: PushStats,
    ) -> None:
        self.service = service
        self.stats = stats
        self.client = client
        self._on_gone = on_gone
        # By when it is tried; the number says which came first.
        self._queue: list[tuple[float, int, QueuedPush]] = []
        self._numbers = itertools.count()
        self._filled = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._turns = asyncio.Semaphore(MAX_REQUESTS)
        self._tries: dict[asyncio.Task[None], QueuedPush] = {}
        # By the host: how many tries are under way, and what waits for one of them to end.
        self._busy: Counter[str] = Counter()
        self._held: dict[str, deque[QueuedPush]] = {}
        self._task: asyncio.Task[None] | None = None
        self._logged = float("-inf")

    @property
    def waiting(self) -> int:
        """How many messages wait, those that are under way among them."""
        return len(self._queue) + len(self._tries) + sum(map(len, self._held.values()))

    def start(self) -> None:
        """Begin to send, in the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def put(self, device: PushDevice, message: PushMessage) -> bool:
        """Have a message sent, if there is room."""
        if self.waiting >= MAX_WAITING:
            self.stats.dropped += 1
            self._complain(f"{MAX_WAITING} messages wait, the limit")
            return False
        now = asyncio.get_running_loop().time()
        waits = full_jitter(first=FIRST_WAIT, longest=LONGEST_WAIT)
        self._put(now, QueuedPush(device, message, now, now + min(message.ttl, MAX_AGE), waits))
        return True

    async def deliver(self, device: PushDevice, message: PushMessage, left: float) -> PushOutcome:
        """Try once to send a message."""
        try:
            request = await self.service.request(device, message, left, self.client)
            return self.service.outcome(device, await self.client.send(request))
        except ValueError as error:
            return outcome_refused(str(error))
        except PushFailed as error:
            return outcome_again(str(error))

    async def wait_idle(self) -> None:
        """Wait until nothing waits."""
        if self._task is not None:
            await self._idle.wait()

    def stop(self) -> list[asyncio.Task[None]]:
        """Count what waits as lost; return what is to be ended."""
        if self._task is None:
            return []
        lost = self.waiting - sum(task.done() for task in self._tries)
        self._queue.clear()
        self._held.clear()
        if lost:
            self.stats.lost += lost
            logger.warning("push by %s ends, and %d messages that wait are lost", self.service.name, lost)
        tasks, self._task = [self._task, *self._tries], None
        return tasks

    # -- inside

    def _put(self, due: float, queued: QueuedPush) -> None:
        heapq.heappush(self._queue, (due, next(self._numbers), queued))
        self._idle.clear()
        self._filled.set()

    async def _run(self) -> None:
        """Begin each try when it is due."""
        loop = asyncio.get_running_loop()
        while True:
            await self._turns.acquire()
            while not self._queue or self._queue[0][0] > loop.time():
                self._filled.clear()
                wait = self._queue[0][0] - loop.time() if self._queue else None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._filled.wait()
            _, _, queued = heapq.heappop(self._queue)
            host = self.service.host_of(queued.device)
            if self._busy[host] < MAX_OF_HOST:
                self._busy[host] += 1
                self._begin(host, queued)
            else:
                self._held.setdefault(host, deque()).append(queued)
                self._turns.release()

    def _begin(self, host: str, queued: QueuedPush) -> None:
        task = asyncio.get_running_loop().create_task(self._try(queued))
        self._tries[task] = queued
        task.add_done_callback(partial(self._end_try, host))

    def _end_try(self, host: str, task: asyncio.Task[None]) -> None:
        del self._tries[task]
        held = self._held.get(host)
        if held:
            # The next one has its turn.
            self._begin(host, held.popleft())
            if not held:
                del self._held[host]
        else:
            self._turns.release()
            self._busy[host] -= 1
            if not self._busy[host]:
                del self._busy[host]
        if not self.waiting:
            self._idle.set()

    async def _try(self, queued: QueuedPush) -> None:
        """Try once, and count what became of it, or have it tried again."""
        loop = asyncio.get_running_loop()
        left = max(0.0, queued.message.ttl - (loop.time() - queued.since))
        try:
            outcome = await result_of(self.deliver(queued.device, queued.message, left))
        except Exception as error:  # noqa: BLE001 - a mistake of ours; its text may have a token, its type has not
            outcome = outcome_refused(type(error).__name__)
        if outcome.kind == UNREGISTERED:
            await self._tell_gone(queued.device)
        due = loop.time() + max(next(queued.waits), outcome.wait)
        kind = outcome.kind
        if kind == AGAIN and due < queued.until:
            self.stats.retries += 1
            self._put(due, queued)
        else:
            name = "expired" if kind == AGAIN else kind
            setattr(self.stats, name, getattr(self.stats, name) + 1)
        if kind in {AGAIN, REFUSED}:
            self._complain(outcome.reason)

    async def _tell_gone(self, device: PushDevice) -> None:
        if self._on_gone is None:
            return
        try:
            found = called("on_gone", self._on_gone, device)
            if inspect.isawaitable(found):
                await found
        except Exception:
            logger.exception("a device of %s that is gone could not be forgotten", device.service)

    def _complain(self, reason: str) -> None:
        """Log what is wrong with the service, once in a while."""
        now = asyncio.get_running_loop().time()
        if now - self._logged >= LOG_INTERVAL:
            self._logged = now
            counts = ", ".join(f"{getattr(self.stats, name)} {name}" for name in ("sent", *FAILED))
            logger.warning("push by %s fails: %s; %d wait, %s", self.service.name, reason, self.waiting, counts)


@final
class PushSender:
    """Sends messages by the services that it has: `async with` it where the event loop runs.

    `on_gone(device)` is called for each device that is no more, a coroutine or not: forget it. `drain` is how many
    seconds what waits has at the end. `tls` is for services that are none of the public ones. `stats` are those of a
    sender before this one, to be counted on. Raises ImportError without `rawws[push]`, ValueError for two services of
    one name.
    """

    def __init__(
        self,
        *services: PushService,
        on_gone: Callable[[PushDevice], Any] | None = None,
        drain: float = 5.0,
        tls: ssl.SSLContext | None = None,
        stats: dict[str, PushStats] | None = None,
    ) -> None:
        self._drain = drain
        # By the names of the services: what became of messages.
        self.stats = {} if stats is None else stats
        self._queues: dict[str, ServiceQueue] = {}
        for service in services:
            counted = self.stats.setdefault(service.name, PushStats())
            # Each has connections of its own: one that does not answer holds all that it can get.
            self._queues[service.name] = ServiceQueue(service, PushClient(tls), on_gone, counted)
        if len(self._queues) < len(services):
            raise ValueError("two services have one name, allowed is one of each")

    def __repr__(self) -> str:
        return f"<rawws.PushSender {', '.join(self._queues)}: {self.waiting} waiting>"

    @property
    def waiting(self) -> int:
        """How many messages wait, those that are under way among them."""
        return sum(queue.waiting for queue in self._queues.values())

    @property
    def services(self) -> list[str]:
        """The names of the services."""
        return list(self._queues)

    def check(self, device: PushDevice) -> None:
        """Raise ValueError for a device of a service that there is not, or that may not be asked."""
        self._queue_of(device).service.check(device)

    def send(self, device: PushDevice, message: PushMessage) -> bool:
        """Have a message sent; tell whether there is room: 10,000 wait for each service, more are dropped and counted.

        Raises ValueError for a device of a service that there is not.
        """
        return self._queue_of(device).put(device, message)

    async def deliver(self, device: PushDevice, message: PushMessage) -> PushOutcome:
        """Try once to send a message, and return what became of it; nothing is counted, and no device is forgotten.

        Raises ValueError for a device of a service that there is not.
        """
        return await self._queue_of(device).deliver(device, message, message.ttl)

    def start(self) -> None:
        """Begin to send, in the running loop: `async with` does it, and ends by `close`."""
        for queue in self._queues.values():
            queue.start()

    async def __aenter__(self) -> PushSender:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End: what waits is sent within `drain` seconds, or counted as lost."""
        queues = self._queues.values()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._drain):
                    for queue in queues:
                        await queue.wait_idle()
        finally:
            tasks = [task for queue in queues for task in queue.stop()]
            try:
                await end_all(*tasks)
            finally:
                await asyncio.gather(*(queue.client.close() for queue in queues))

    def _queue_of(self, device: PushDevice) -> ServiceQueue:
        queue = self._queues.get(device.service)
        if queue is None:
            raise ValueError(f"the device is of {device.service!r}, services are {', '.join(self._queues) or 'none'}")
        return queue
