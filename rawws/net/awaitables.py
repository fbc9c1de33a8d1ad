"""Awaitables: what the methods of a connection return, made so that each costs next to nothing.

asyncio takes for a coroutine what has `send`, `throw` and `close`, so all of these can be made a task of.
"""

from __future__ import annotations

import codecs
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from rawws.protocol.messages import Fragment

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Generator

__all__ = [
    "DONE",
    "Latency",
    "Later",
    "PendingPing",
    "Started",
    "Stream",
    "Streamed",
    "later",
    "raise_thrown",
    "release",
]

Result_co = TypeVar("Result_co", covariant=True)


class Started(Coroutine[Any, None, Result_co]):
    """What acts when it is called, and may be awaited for the rest, made a task, or forgotten.

    The type of what `send`, `ping`, `pong` and `close` return, whose classes it has as little to do with as a Protocol:
    type checkers tell of a plain coroutine that is not awaited, and take no plain awaitable for a task.
    """

    __slots__ = ()


def raise_thrown(*error: Any) -> None:
    """Raise what the `throw` of a coroutine is given: for example that its task is cancelled."""
    try:
        raise error[1] if len(error) > 1 and error[1] is not None else error[0]
    finally:
        # This frame is in its traceback: a name for it would be a cycle, and so keep all that the handler has.
        del error


class Done:
    """An awaitable that has nothing to wait for; there is one."""

    __slots__ = ()

    def __await__(self) -> Done:
        return self

    def __iter__(self) -> Done:
        return self

    def __next__(self) -> None:
        raise StopIteration

    def send(self, value: None) -> None:  # noqa: ARG002 - with throw and close: what makes it a coroutine to asyncio
        """End."""
        raise StopIteration

    throw = staticmethod(raise_thrown)

    def close(self) -> None:
        """Do nothing."""


class Later:
    """An awaitable that calls `start` for what to wait for when it is awaited, and that nobody need await."""

    __slots__ = ("_iterator", "_start")

    def __init__(self, start: Callable[[], Awaitable[Any]]) -> None:
        self._start = start
        self._iterator: Generator[Any, None, Any] | None = None

    def __await__(self) -> Generator[Any, None, Any]:
        return self._start().__await__()

    def send(self, value: None) -> Any:
        """Go on, as a coroutine that asyncio made a task of."""
        if self._iterator is None:
            self._iterator = self._start().__await__()
        return self._iterator.send(value)

    def throw(self, *error: Any) -> Any:
        """Raise the error where the coroutine waits."""
        if self._iterator is None:
            self._iterator = self._start().__await__()
        try:
            return self._iterator.throw(*error)
        finally:
            # As in `raise_thrown`.
            del error

    def close(self) -> None:
        """End the coroutine."""
        if self._iterator is not None:
            self._iterator.close()


def later(start: Callable[[], Awaitable[Result_co]]) -> Started[Result_co]:
    """Return an awaitable that calls `start` when it is awaited."""
    return Later(start)  # type: ignore[return-value]  # as that of DONE


class Streamed(Protocol):
    """What a Stream asks of a connection."""

    def begin_stream(self) -> Awaitable[str | bytes | Fragment]:
        """Have the next message come in parts, unless it is here already; return what to await for each."""

    def took_part(self, final: bool, /) -> None:
        """Count a part as taken; `final` is True for the last one of its message."""


class Stream:
    """What `recv_streaming()` returns: the parts of one message, each str or bytes."""

    __slots__ = ("_decode", "_decoder", "_receiver", "_started", "_ws")

    def __init__(self, ws: Streamed, decode: bool | None) -> None:
        self._ws = ws
        self._decode = decode
        # A part of a binary message may end inside a character.
        self._decoder = codecs.getincrementaldecoder("utf-8")() if decode else None
        self._receiver: Awaitable[str | bytes | Fragment] | None = None
        self._started = False

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> str | bytes:
        if not self._started:
            self._receiver = self._ws.begin_stream()
            self._started = True
        while self._receiver is not None:
            part = await self._receiver
            final = True
            if isinstance(part, Fragment):
                final = part.final
                self._ws.took_part(final)
                part = part.data
            if final:
                self._receiver = None
            if self._decode is False and isinstance(part, str):
                part = part.encode()
            elif self._decoder is not None and isinstance(part, bytes):
                part = self._decoder.decode(part, final)
                if not part and not final:
                    continue
            return part
        raise StopAsyncIteration


class Latency(float):
    """A time in seconds. It may be awaited once more: what `await ws.ping()` gives in `websockets` is awaited, too."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, Latency]:
        yield from ()
        return self


class PendingPing:
    """A Ping whose Pong did not come yet: its `latency` is below 0 until then."""

    __slots__ = ("future", "latency", "payload", "sent_at")

    def __init__(self, payload: bytes, sent_at: float) -> None:
        self.payload = payload
        self.sent_at = sent_at
        self.latency = -1.0
        self.future: asyncio.Future[None] | None = None


def release(waiters: list[asyncio.Future[None]] | None) -> None:
    """Let those who wait go on; they look for themselves how it ended."""
    for waiter in waiters or ():
        if not waiter.done():
            waiter.set_result(None)


DONE: Started[None] = Done()  # type: ignore[assignment]  # what asyncio needs of a coroutine it has
