"""AsgiSocket: a WebSocket of another server, by ASGI, to a subscriber of a hub (ASGI 3, WebSocket specification 2.3).

Where a server of ours, or uvicorn with our class for `--ws`, brought it, there is a WebSocket below it: then the hub
takes that one, and this module does nothing more.

Laws:
1. `send` acts at once, as that of a WebSocket does: what the server does not take yet waits here, up to `hard_limit`.
2. Nothing is sent to a connection that ended: its end is that of the task that subscribed it, at the latest.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, final

from rawws.errors import Close, ConnectionClosedError, LocalProtocolError
from rawws.http.asgi import head_of_scope
from rawws.http.event_stream import EventStream
from rawws.net.awaitables import DONE, later
from rawws.net.flow import Flow
from rawws.net.loops import of_loop
from rawws.net.parameters import parse_cookies, query_of, token_in
from rawws.net.websocket import WebSocket
from rawws.protocol.opcodes import CloseCode

from .subscribers import PublishResult, Subscriber

if TYPE_CHECKING:
    from collections.abc import Callable

    from rawws.http.asgi import AsgiReceive, AsgiScope, AsgiSend
    from rawws.net.awaitables import Started
    from rawws.net.identity import Identity
    from rawws.net.interfaces import Follower
    from rawws.net.parameters import Query
    from rawws.net.prepared import DataLike
    from rawws.protocol.http11 import Headers, Request

    from .history import Notice, Publication
    from .subscribers import Receiver, SubscriberOwner, Subscription

__all__ = ["AsgiSocket", "AsgiSubscriber", "AsgiWebSocket", "native_socket", "receiver_of"]

logger = logging.getLogger("rawws.topics")

# What a server of ours says of a WebSocket beside the scope of ASGI.
EXTENSION: Final = "rawws.websocket"
# Under which name a scope remembers what the hubs have of its WebSocket.
REMEMBERED: Final = "rawws.topics.socket"
# Publications that wait for one subscriber, in bytes: that of a server of ours.
HARD_LIMIT = 1 << 20


class ScopedWebSocket(Protocol):
    """A WebSocket of Starlette or FastAPI; and a consumer of Django Channels, which has a `base_send` as well."""

    @property
    def scope(self) -> MutableMapping[str, Any]:
        """The scope of ASGI."""

    @property
    def send(self) -> Callable[..., Any]:
        """What sends an event of ASGI."""


AsgiWebSocket: TypeAlias = "ScopedWebSocket | tuple[AsgiScope, AsgiReceive, AsgiSend]"


@final
class AsgiSocket(Flow):
    """A WebSocket that was accepted, as a hub uses one; `async for` gives its messages, where `receive` is its own."""

    __slots__ = (
        "_asgi_receive", "_asgi_send", "_close", "_due", "_pump", "_queue", "_request", "_token", "_writer",
        "hard_limit", "identity", "max_size", "scope", "subprotocol",
    )  # fmt: skip

    def __init__(
        self,
        scope: AsgiScope,
        receive: AsgiReceive | None,
        send: AsgiSend,
        *,
        subprotocol: str | None = None,
        max_size: int = 1 << 20,
    ) -> None:
        super().__init__()
        self.scope = scope
        self.subprotocol = subprotocol
        self.max_size = max_size
        self.hard_limit = HARD_LIMIT
        self._asgi_receive = receive
        self._asgi_send = send
        self._request: Request | None = None
        self._token: str | None = None
        # Who this is, as `identify` of the hub said, or the application.
        self.identity: Identity | None = None
        # The events that wait, each with what it counts; whether the pump has them to send, and the task that does.
        self._queue: deque[tuple[dict[str, Any], int]] = deque()
        self._pump = of_loop(PUMPS, self.shared.loop, AsgiPump)
        self._due = False
        self._writer: asyncio.Task[Any] | None = None
        self._close: Close | None = None

    def __repr__(self) -> str:
        return f"<rawws.topics.AsgiSocket {'over' if self.closed else 'open'} {self.scope.get('client')}>"

    @property
    def request(self) -> Request:
        """The request of the opening handshake, as that of a WebSocket."""
        if self._request is None:
            self._request = head_of_scope(self.scope)
        return self._request

    @property
    def headers(self) -> Headers:
        """The header fields of the request."""
        return self.request.headers

    @property
    def query(self) -> Query:
        """The parameters behind the `?` of the request, read again at each call."""
        return query_of(self.request)

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies of the request, by name, read again at each call."""
        return parse_cookies(self.request)

    @property
    def token(self) -> str:
        """The token that it named last, as that of a WebSocket."""
        return token_in(self.request) if self._token is None else self._token

    @token.setter
    def token(self, token: str) -> None:
        self._token = token

    @property
    def closed(self) -> bool:
        """Whether it takes no more."""
        return self.lost or self._close is not None

    # -- what handlers call

    def send(self, message: DataLike) -> Started[None]:
        """Send a message at once; return an awaitable of `drain`. Raises ConnectionClosed where that is over."""
        self.shared.check()
        if self.congested and self.buffered > self.hard_limit:
            self.fail(CloseCode.TRY_AGAIN_LATER, f"slow consumer: over {self.hard_limit} bytes wait to be sent")
        if self.lost or self._close is not None:
            raise ConnectionClosedError(None, self._close)
        if isinstance(message, str):
            self._put({"type": "websocket.send", "text": message}, size_of(message))
        else:
            self._put({"type": "websocket.send", "bytes": bytes(message)}, len(message))
        return later(self.drain) if self.congested else DONE

    async def drain(self) -> None:
        """Wait until the write buffer is under its low-water mark. Raises ConnectionClosed if the connection ends."""
        if self.congested:
            await self.wait_drained()
            if self.lost:
                raise ConnectionClosedError(None, self._close)

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close it, behind all that was sent."""
        self.shared.check()
        if not self.closed:
            self._close = Close(int(code), reason)
            self._put({"type": "websocket.close", "code": int(code), "reason": reason}, 0)

    def __aiter__(self) -> AsgiSocket:
        return self

    async def __anext__(self) -> str | bytes:
        while self._asgi_receive is not None and not self.lost:
            event = await self._asgi_receive()
            if event["type"] == "websocket.receive":
                text = event.get("text")
                message: str | bytes = event.get("bytes") or b"" if text is None else text
                if self._close is not None:
                    continue
                if size_of(message) <= self.max_size:
                    return message
                self.close(CloseCode.MESSAGE_TOO_BIG, f"message is over {self.max_size} bytes, the limit")
            elif event["type"] == "websocket.disconnect":
                self.lose()
        raise StopAsyncIteration

    # -- what a hub calls

    def follow(self, follower: Follower) -> None:
        """Have `follower.drained()` called when the write buffer is under its low-water mark, `lost()` at the end."""
        if self.closed:
            raise ConnectionClosedError(None, self._close)
        self.followers = [*(self.followers or ()), follower]

    def fail(self, code: int, reason: str) -> None:
        """Close it without what waits."""
        if self.closed:
            return
        logger.info("%s is closed with %d: %s", self.scope.get("client"), code, reason)
        waits = sum([size for _, size in self._queue])
        self._queue.clear()
        self.buffered -= waits
        self.close(code, reason)

    def lose(self) -> None:
        """End with the connection, and wake all who wait for it."""
        if not self.lost:
            self._queue.clear()
            self.scope.pop(REMEMBERED, None)
            if self._writer is not None and self._writer is not asyncio.current_task():
                self._writer.cancel()
            self.end()

    def end_with_task(self) -> None:
        """Have the connection end with the task that runs now, at the latest: that of its endpoint."""
        task = asyncio.current_task()
        if task is None:
            raise LocalProtocolError("no task runs here, needed is the one of the endpoint of the WebSocket")
        task.add_done_callback(lambda _: self.lose())

    # -- inside

    def _put(self, event: dict[str, Any], size: int) -> None:
        self._queue.append((event, size))
        self.add(size)
        if not self._due:
            self._due = True
            self._pump.add(self)

    async def write_out(self, task: asyncio.Task[Any] | None) -> None:
        """Send what waits, as the server takes it, in this task."""
        self._writer = task
        try:
            while self._queue:
                event, size = self._queue.popleft()
                await self._asgi_send(event)
                self.take(size)
        except Exception as error:  # noqa: BLE001 - each server has its own errors for a client that is gone
            logger.debug("%s is gone: %r", self.scope.get("client"), error)
            self.lose()
        finally:
            self._due, self._writer = False, None


@final
class AsgiPump:
    """Has what waits for the sockets of one event loop sent: by one task, as long as no server lets it wait.

    A task that waits for one server is left to that, and another one goes on: so a slow client delays no other.
    """

    __slots__ = ("_loop", "_scheduled", "_sockets", "_tasks")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._sockets: deque[AsgiSocket] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._scheduled = False

    def add(self, socket: AsgiSocket) -> None:
        """Have a socket send what waits."""
        self._sockets.append(socket)
        if not self._scheduled:
            self._start()

    def _start(self) -> None:
        self._scheduled = True
        task = self._loop.create_task(self._run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Behind the first step of the task.
        self._loop.call_soon(self._look)

    def _look(self) -> None:
        """Go on by another task, where the last one waits."""
        self._scheduled = False
        if self._sockets:
            self._start()

    async def _run(self) -> None:
        task = asyncio.current_task()
        while self._sockets:
            await self._sockets.popleft().write_out(task)


PUMPS: dict[asyncio.AbstractEventLoop, AsgiPump] = {}


class AsgiSubscriber(Subscriber):
    """A subscriber on another server's WebSocket, with the messages as they are, or what a client protocol makes."""

    __slots__ = ("render", "socket")

    def __init__(self, hub: SubscriberOwner, socket: AsgiSocket, render: Callable[[Publication], str] | None) -> None:
        super().__init__(hub, socket)
        self.socket = socket
        self.render = render

    def write(self, publication: Publication) -> None:
        """Send the message."""
        if self.render is None:
            self.socket.send(publication.message)
        else:
            self.socket.send(publication.form_of(self.render).message)

    def tell_place(self, subscription: Subscription, place: Notice) -> None:
        """Tell it, behind all that it got, if it knows cursors."""
        if self.render is not None:
            self.deliver(subscription, place, PublishResult())

    def tell_end(self, notice: Notice) -> None:
        """Tell it, if it speaks a client protocol."""
        if self.render is not None:
            self.write_form(notice)


def size_of(message: str | bytes) -> int:
    """Return how many bytes a message has where it is sent."""
    if isinstance(message, str) and not message.isascii():
        return len(message.encode(errors="surrogatepass"))
    return len(message)


def native_socket(scope: AsgiScope) -> WebSocket | None:
    """Return the WebSocket of ours that is below one of ASGI, None where another server brought it."""
    found: WebSocket | None = (scope.get("extensions") or {}).get(EXTENSION, {}).get("connection")
    return found


def receiver_of(given: Any, *, known_only: bool = False) -> WebSocket | EventStream | Receiver:
    """Return what a hub subscribes: a receiver as it is, or what there is below a framework's WebSocket.

    That is an object with a `scope` and a `send` as in ASGI (Starlette, FastAPI), or `base_send` (Django Channels), or
    the (scope, receive, send) of an application. It must be accepted. Raises TypeError for what is none. With
    `known_only`, one that no hub has had stays so, and None stands for it.
    """
    if isinstance(given, (WebSocket, EventStream)) or hasattr(given, "follow"):
        return given  # type: ignore[no-any-return]
    if isinstance(given, tuple) and len(given) == 3:
        scope, _, send = given
    else:
        scope, send = getattr(given, "scope", None), getattr(given, "base_send", getattr(given, "send", None))
    if not isinstance(scope, MutableMapping) or scope.get("type") != "websocket" or not callable(send):
        allowed = "a WebSocket, an EventStream, an ASGI WebSocket and an object with follow, unfollow, send and fail"
        raise TypeError(f"the subscriber is {type(given).__name__}, allowed are {allowed}")
    native = native_socket(scope)
    if native is not None:
        return native
    known: AsgiSocket | None = scope.get(REMEMBERED)
    if known is None and not known_only:
        state = getattr(getattr(given, "application_state", None), "name", "")
        if state == "CONNECTING":
            raise LocalProtocolError("the WebSocket is not accepted yet, needed is `await websocket.accept()` before")
        known = AsgiSocket(scope, None, send)
        known.end_with_task()
        scope[REMEMBERED] = known
    return known  # type: ignore[return-value]  # `AsgiSubscriber` sends to it
