"""Hooks: events in a queue to requests in order, tried again until they are taken, given up by age.

Laws:
1. One request of a queue is under way, so that its receiver hears of events in their order. A test goes beside it.
2. A queue is bounded by count and by bytes, and each event by its age. What is dropped is counted, and logged.
3. A receiver that hangs or fails costs nobody else anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import logging
import secrets
import time
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, final

from rawws import clock
from rawws.client.retrying import full_jitter
from rawws.net.cancellation import end_all

from .hook_log import MOST_DELIVERIES, DeliveryLog, HookDelivery, head_of, named_events, secrets_of
from .outgoing import CallFailed
from .spelling import shown_url
from .webhooks import TEST_EVENT, HookEvent, HookRequest, pusher_webhook, standard_webhook

if TYPE_CHECKING:
    from .config import AppConfig, HookConfig
    from .outgoing import BackendAnswer, Outgoing

__all__ = ["HookQueue", "HookStats"]

logger = logging.getLogger("rawws.gateway")

MAX_EVENTS: Final = 10_000
MAX_BYTES: Final = 8 << 20
# Of one request, in Pusher's format; Standard Webhooks has one event in each.
BATCH_EVENTS: Final = 100
BATCH_BYTES: Final = 256 << 10
# Seconds for which events are gathered: a page that comes brings several.
GATHER: Final = 0.05
# Pusher's library for Python takes 300 s, by `time_ms`, which is that of the try; a day's outage is not made up for.
MAX_AGE: Final = {"pusher": 240.0, "rawws": 3600.0}
# Of one request, in seconds.
TIMEOUT: Final = 5.0
# The first wait between two tries is up to so many seconds, and the longest.
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
# What may be otherwise the next time (RFC 9110 15.5.9, RFC 8470 5.2, RFC 6585 4).
TRANSIENT: Final = frozenset({408, 425, 429})
GONE: Final = 410
# A log is not filled by a receiver that is away.
LOG_INTERVAL: Final = 60.0


@final
class HookStats:
    """What became of the events of a queue, in numbers; `retries` counts requests."""

    __slots__ = ("dropped", "expired", "lost", "refused", "retries", "sent")

    def __init__(self) -> None:
        # Taken by the receiver; refused by it for good.
        self.sent = self.refused = 0
        # Pushed out of a full queue; too old; still queued at the end.
        self.dropped = self.expired = self.lost = 0
        self.retries = 0

    @property
    def failed(self) -> int:
        """Events that the receiver never took."""
        return self.refused + self.dropped + self.expired + self.lost


class QueuedEvent(NamedTuple):
    """An event that waits, since when by the clock of the loop, its size, and the id of its delivery."""

    event: HookEvent
    since: float
    size: int
    ident: str


@final
class HookQueue:
    """What one hook of an app is to be told; `start` it in the event loop, `close` it at the end.

    What becomes of it is counted in `stats`, and shown in `log`, which may be those of another queue before it.
    """

    def __init__(
        self,
        app: AppConfig,
        hook: HookConfig,
        outgoing: Outgoing,
        *,
        max_age: float | None = None,
        stats: HookStats | None = None,
        log: DeliveryLog | None = None,
    ) -> None:
        self.app = app
        self.hook = hook
        # As it may be shown and logged.
        self.shown_url = shown_url(hook.url)
        self.stats = stats or HookStats()
        self.log: DeliveryLog = deque(maxlen=MOST_DELIVERIES) if log is None else log
        # Whether its receiver said that it is gone: nothing is queued until the configuration is loaded again.
        self.is_off = False
        self._outgoing = outgoing
        self._max_age = MAX_AGE[hook.format] if max_age is None else max_age
        self._queue: deque[QueuedEvent] = deque()
        self._size = 0
        self._filled = asyncio.Event()
        self._closing = asyncio.Event()
        # What ends a pause before its time.
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._logged = float("-inf")
        # Events of the request that is under way, which are in the queue no more.
        self._under_way: list[QueuedEvent] = []
        self._testing = False

    def __repr__(self) -> str:
        return f"<HookQueue {self.shown_url} of {self.app.id}: {self.waiting} waiting>"

    @property
    def waiting(self) -> int:
        """How many events wait, those of the request that is under way among them."""
        return len(self._queue) + len(self._under_way)

    def age(self) -> float:
        """Return for how many seconds the oldest event waits, 0 for none."""
        oldest = self._under_way or self._queue
        return asyncio.get_running_loop().time() - oldest[0].since if oldest else 0.0

    def wants(self, event: HookEvent) -> bool:
        """Tell whether its receiver is told of such an event: of those without a channel, by their names alone."""
        if event.name not in self.hook.events or self.is_off:
            return False
        return not event.channel or fnmatch.fnmatchcase(event.channel, self.hook.channels)

    def start(self) -> None:
        """Begin to send, in the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def put(self, event: HookEvent) -> None:
        """Have an event sent, if the receiver wants it; the oldest one is dropped where there is no room."""
        if not self.wants(event):
            return
        queued = QueuedEvent(event, asyncio.get_running_loop().time(), event.size, f"evt_{secrets.token_hex(12)}")
        self._queue.append(queued)
        self._size += queued.size
        while len(self._queue) > MAX_EVENTS or (self._size > MAX_BYTES and len(self._queue) > 1):
            self._take()
            self.stats.dropped += 1
            self._complain("its queue is full")
        self._filled.set()

    def retry(self) -> None:
        """Send now what waits to be sent again; have a receiver that answered 410 be told again from now on."""
        self.is_off = False
        self._outgoing.forgive(self.hook.url)
        self._hurry.set()

    async def test(self) -> HookDelivery | None:
        """Send a test now, once, and return what came of it; None while another one is under way.

        It changes nothing of what waits, nor whether the receiver is told anything more.
        """
        if self._testing:
            return None
        self._testing = True
        try:
            # Where the URL is left alone, whoever asks wants to know whether that is still right.
            self._outgoing.forgive(self.hook.url)
            event = HookEvent(TEST_EVENT, self.app.id, time.time(), {"note": "sent by hand, nothing happened"})
            delivery, _ = await self._send([event], f"test_{secrets.token_hex(12)}", 1)
        finally:
            self._testing = False
        delivery = delivery._replace(is_test=True, outcome="sent" if 200 <= delivery.status < 300 else "failed")
        self.log.appendleft(delivery)
        return delivery

    async def close(self, drain: float = 0.0) -> None:
        """End: what waits is sent within so many seconds, or counted as lost."""
        self._closing.set()
        self._hurry.set()
        self._filled.set()
        if self._task is None:
            return
        try:
            if drain > 0:
                await asyncio.wait([self._task], timeout=drain)
        finally:
            await end_all(self._task)
            self._task = None
            lost = self.waiting
            if lost:
                self.stats.lost += lost
                logger.warning("the hook %s loses %d events that wait for it", self.shown_url, lost)
                self._queue.clear()
                self._under_way.clear()
                self._size = 0

    # -- inside

    async def _run(self) -> None:
        while True:
            await self._filled.wait()
            if not self._queue:
                if self._closing.is_set():
                    return
                self._filled.clear()
                continue
            if self.hook.format == "pusher" and len(self._queue) < BATCH_EVENTS:
                await self._pause(GATHER)
            self._under_way = self._batch()
            await self._deliver()

    async def _deliver(self) -> None:
        """Send a batch until it is taken, refused, or too old."""
        ident = self._under_way[0].ident
        # All receivers are not asked at once, nor all queues of one.
        for attempt, shortest in enumerate(full_jitter(first=FIRST_WAIT, longest=LONGEST_WAIT), 1):
            wait = await self._attempt(ident, attempt, shortest)
            if wait is None:
                return
            self.stats.retries += 1
            await self._pause(wait)
            self._expire()
            if not self._under_way:
                return

    async def _attempt(self, ident: str, attempt: int, wait: float) -> float | None:
        """Send a batch once; return for how many seconds to wait for the next time, None where there is none."""
        delivery, answer = await self._send([each.event for each in self._under_way], ident, attempt)
        if answer is None or answer.status in TRANSIENT or answer.status >= 500:
            self._complain(delivery.error or f"it answers {delivery.status}")
            again = wait if answer is None else max(wait, min(retry_after_of(answer), self._max_age))
            self.log.appendleft(delivery._replace(outcome="retry", again=again))
            return again
        count = len(self._under_way)
        self._under_way = []
        if 200 <= answer.status < 300:
            self.stats.sent += count
            self.log.appendleft(delivery._replace(outcome="sent"))
            return None
        self.stats.refused += count
        self.log.appendleft(delivery._replace(outcome="refused"))
        if answer.status == GONE:
            self.is_off = True
            self.stats.refused += len(self._queue)
            self._queue.clear()
            self._size = 0
            logger.warning("the hook %s answers 410 and is told nothing more", self.shown_url)
        else:
            self._complain(f"it refuses by {answer.status}")
        return None

    async def _send(
        self, events: list[HookEvent], ident: str, attempt: int
    ) -> tuple[HookDelivery, BackendAnswer | None]:
        """Send a request; return what is known of it, and its answer, if there is one."""
        now, began, error, answer = time.time(), clock.monotonic(), "", None
        request = self._request(events, ident, attempt, now)
        try:
            answer = await self._outgoing.call(self.hook.url, request.body, request.headers, timeout=TIMEOUT)
        except CallFailed as failure:
            error = str(failure)
        said = b"" if answer is None or 200 <= answer.status < 300 else answer.body
        delivery = HookDelivery(
            time=now,
            ident=ident,
            attempt=attempt,
            events=named_events(events),
            total=len(events),
            size=len(request.body),
            is_test=False,
            seconds=clock.monotonic() - began,
            status=0 if answer is None else answer.status,
            error=error,
            answer=head_of(said, secrets_of(self.app, self.hook.url)) if said else "",
        )
        return delivery, answer

    def _request(self, events: list[HookEvent], ident: str, attempt: int, now: float) -> HookRequest:
        """Return the request for events, signed as of now."""
        if self.hook.format == "pusher":
            return pusher_webhook(events, self.app.keys[0], ident, attempt, now)
        keys = [each.secret for each in self.app.keys]
        return standard_webhook(events[0], keys, ident, attempt, now)

    def _batch(self) -> list[QueuedEvent]:
        """Take the first events of the queue: as many as a request may have."""
        found = [self._take()]
        size = found[0].size
        most = BATCH_EVENTS if self.hook.format == "pusher" else 1
        while self._queue and len(found) < most and size + self._queue[0].size <= BATCH_BYTES:
            found.append(self._take())
            size += found[-1].size
        return found

    def _take(self) -> QueuedEvent:
        queued = self._queue.popleft()
        self._size -= queued.size
        return queued

    def _expire(self) -> None:
        """Give up the events of the batch that are too old."""
        since = asyncio.get_running_loop().time() - self._max_age
        young = [each for each in self._under_way if each.since > since]
        self.stats.expired += len(self._under_way) - len(young)
        self._under_way = young

    async def _pause(self, seconds: float) -> None:
        """Wait, until somebody is in a hurry; at the end not for longer than until the end."""
        if not self._closing.is_set():
            self._hurry.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._hurry.wait()
        else:
            # Nobody is asked without a pause, at the end neither.
            await asyncio.sleep(min(seconds, GATHER))

    def _complain(self, reason: str) -> None:
        """Log what is wrong with the receiver, once in a while."""
        now = asyncio.get_running_loop().time()
        if now - self._logged >= LOG_INTERVAL:
            self._logged = now
            logger.warning(
                "the hook %s fails, %d events wait, %d were dropped: %s",
                self.shown_url,
                self.waiting,
                self.stats.dropped,
                reason,
            )


def retry_after_of(answer: BackendAnswer) -> float:
    """Return after how many seconds a receiver wants to be asked again, 0 where it does not say (RFC 9110 10.2.3)."""
    text = answer.header("retry-after") or ""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0.0
