"""Hub requests: what a program asks of a hub to the answers, or to the error that says what is not known of them.

Laws:
1. Requests go out in the order in which they were made, each once.
2. Of one that was sent and not answered nobody here knows whether it is done: that is told, and it is not sent again.
3. What waits is bounded, in number and in bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any, final

from rawws.errors import HubError

from .envelopes import serialize_request_fields

if TYPE_CHECKING:
    from .envelopes import HubEnvelope

__all__ = ["HubRequests", "PendingRequest"]


@final
class PendingRequest:
    """A request, and who waits for its answer."""

    __slots__ = ("future", "id", "text")

    def __init__(self, number: int, text: bytes) -> None:
        self.id = number
        self.text = text
        self.future: asyncio.Future[HubEnvelope] = asyncio.get_running_loop().create_future()

    def settle(self, envelope: HubEnvelope) -> None:
        """Give the answer to who waits for it."""
        if not self.future.done():
            if envelope.error:
                self.future.set_exception(HubError(envelope.error, envelope.reason))
            else:
                self.future.set_result(envelope)

    def fail(self, error: HubError) -> None:
        """Give an error to who waits."""
        if not self.future.done():
            self.future.set_exception(error)


@final
class HubRequests:
    """Those that wait for a connection, and those that wait for their answer."""

    __slots__ = ("_count", "_held", "_last", "_queue", "_sent", "_size")

    def __init__(self, count: int, size: int) -> None:
        self._count = count
        self._size = size
        self._last = 0
        self._held = 0
        self._queue: deque[PendingRequest] = deque()
        self._sent: dict[int, PendingRequest] = {}

    def next_id(self) -> int:
        """Return a number that no other request has."""
        self._last += 1
        return self._last

    def ask(self, fields: dict[str, Any]) -> PendingRequest:
        """Have a request wait to be sent. Raises HubError where too much waits already."""
        number = self.next_id()
        text = serialize_request_fields({"id": number, **fields})
        if len(self._queue) + len(self._sent) >= self._count or self._held + len(text) > self._size:
            raise HubError("queue", f"{self._count} requests or {self._size} bytes wait already")
        request = PendingRequest(number, text)
        self._queue.append(request)
        self._held += len(text)
        return request

    def take(self) -> PendingRequest | None:
        """Return the next one, which is sent then, None if there is none."""
        if not self._queue:
            return None
        request = self._queue.popleft()
        self._sent[request.id] = request
        return request

    def answer(self, envelope: HubEnvelope) -> bool:
        """Take an answer; tell whether it is one to a request that was sent."""
        request = None if envelope.id is None else self._sent.pop(envelope.id, None)
        if request is None:
            return False
        self._held -= len(request.text)
        request.settle(envelope)
        return True

    def forget(self, request: PendingRequest) -> None:
        """Drop one that nobody waits for: it is not sent any more, or its answer is of no use."""
        with contextlib.suppress(ValueError):
            self._queue.remove(request)
            self._held -= len(request.text)
        if self._sent.pop(request.id, None) is not None:
            self._held -= len(request.text)

    def lose(self) -> None:
        """Fail what was sent over a connection that is gone."""
        sent, self._sent = self._sent, {}
        for request in sent.values():
            self._held -= len(request.text)
            request.fail(HubError("unanswered", "the connection broke before the answer: it may be done, or not"))

    def end(self, error: HubError) -> None:
        """Fail all that waits to be sent."""
        while self._queue:
            request = self._queue.popleft()
            self._held -= len(request.text)
            request.fail(HubError(error.code, error.reason, error.status))
