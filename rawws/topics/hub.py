"""Hub: topics as applications have them, for subscribers of the server and for clients of rawws.v1."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from rawws.http.requests import HttpRequest
from rawws.net.identity import MAX_INFO
from rawws.protocol.closing import serialize_close

from .asgi import HubApplication
from .asgi_socket import receiver_of
from .backplane import History
from .backplane_urls import backplane_of
from .calls import CALL_TIMEOUT
from .core import HubCore
from .cursors import EARLIEST, cursor_of
from .envelope import DEFAULT_LIMIT
from .listening import TopicListener
from .missed import MISSED_AFTER, MissedFunction, MissedUsers
from .names import TopicError, check_name
from .pages import HistoryPage, check_page, page_of
from .payloads import payload_of
from .presence import LARGEST_INFO
from .rates import TOPIC_RATE
from .rawws_v1 import PROTOCOL, PROTOCOL_WITHIN, serve_client
from .rawws_v1_http import answer_poll, answer_post, answer_stream
from .rules import ClientRules
from .sessions import UNAUTHORIZED
from .shared import default_backplane

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
    from concurrent.futures import Future

    from rawws.http.event_stream import EventStream
    from rawws.http.long_poll import LongPoll
    from rawws.http.responses import Response
    from rawws.net.identity import Identity
    from rawws.net.websocket import WebSocket
    from rawws.protocol.handshake import Origins

    from .asgi_socket import AsgiWebSocket
    from .backplane import Backplane
    from .history import Publication
    from .policies import Policy
    from .presence import Present
    from .subscribers import PublishResult, Receiver

__all__ = ["Hub"]

Answer = TypeVar("Answer")

# What one subscriber may be subscribed to; a page that shows a hundred prices is at home with it.
MAX_TOPICS = 1000
# Who is away for longer has left, whatever the page shows.
MAX_GRACE = 3600.0
# As `rawws serve` was told.
WORKERS: Final = "workers"


@final
class Hub(HubCore):
    """Topics, and who is subscribed to them: WebSockets, EventStreams and polls.

    `history` says how much is held for those who come back (None for nothing). `policy` is for subscribers that read
    too slowly, where `subscribe` names none. `max_topics` limits what one subscriber is subscribed to, `max_size` a
    message, in bytes. `topic_rate` limits how many topics a second a client brings up that the hub does not know (None
    for no limit). `authorize(client, action, topic)` is asked whether a client, a WebSocket or an HttpRequest, may
    "subscribe" or "publish"; it returns a bool, or an awaitable of one. Without it, clients may ask for nothing.
    `authorize_pattern(client, pattern)` is asked in its place whether a client may subscribe to all topics that match;
    without it, clients may use no patterns.

    `identify(client)` is asked once for each connection who it is: it returns an `Identity`, which is `client.identity`
    from then on, or None for anybody, or raises HttpError(401). `on_subscribe(client, topic)` is called before a client
    is subscribed, `on_publish(client, topic, data)` returns what is published of what a client says, None for nothing.
    They may be asynchronous; either, and `authorize`, may raise `Refused` with a reason that the client is told.

    `namespace(client)` returns a name without `/`, such as that of a tenant: a client that says "chat" means the topic
    "NAME/chat", and hears of it as "chat". The functions here, and `publish`, have the whole name. Users are those of
    the hub, whatever the namespace. Without it, clients name topics as they are.

    `claims` says whether others are told what a client says of itself where it is present. A user whose connection is
    lost stays present for `presence_grace` seconds, and nobody is told that it left and came back. What is told of
    somebody present has at most `max_info` bytes of JSON; what an Identity says, 1 KiB.

    With a `backplane`, which may be the URL of its engine ("redis://..."), it shares its topics with the hubs of other
    servers that have the same one, and is used in one running loop, until `close`, or as `async with hub:`. By default,
    the hubs of `rawws serve` are joined as --backplane and --workers say, each to its like.
    """

    def __init__(
        self,
        *,
        history: History | None = History(),  # noqa: B008 - it cannot change
        policy: str | Policy = "disconnect",
        max_topics: int = MAX_TOPICS,
        max_size: int = 1 << 20,
        topic_rate: float | None = TOPIC_RATE,
        authorize: Callable[[Any, str, str], bool | Awaitable[bool]] | None = None,
        identify: Callable[[Any], Identity | Awaitable[Identity | None] | None] | None = None,
        on_subscribe: Callable[[Any, str], Awaitable[None] | None] | None = None,
        on_publish: Callable[[Any, str, Any], Any] | None = None,
        authorize_pattern: Callable[[Any, str], bool | Awaitable[bool]] | None = None,
        namespace: Callable[[Any], str] | None = None,
        claims: bool = True,
        presence_grace: float = 0.0,
        max_info: int = MAX_INFO,
        backplane: Backplane | str | None = WORKERS,
    ) -> None:
        if history is not None and not isinstance(history, History):
            raise TypeError(f"history is {type(history).__name__}, allowed are a History and None")
        if max_topics < 1 or max_size < 1:
            raise ValueError(f"max_topics is {max_topics} and max_size {max_size}, allowed are numbers above 0")
        if topic_rate is not None and not topic_rate > 0:
            raise ValueError(f"topic_rate is {topic_rate}, allowed are numbers above 0 and None")
        bounds = History(0, 0, 0.0, 0) if history is None else history
        if isinstance(backplane, str):
            backplane = default_backplane() if backplane == WORKERS else backplane_of(backplane)
        if not 0 <= presence_grace <= MAX_GRACE:
            raise ValueError(f"presence_grace is {presence_grace}, allowed are 0 to {MAX_GRACE:g} seconds")
        if not 0 < max_info <= LARGEST_INFO:
            raise ValueError(f"max_info is {max_info}, allowed are 1 to {LARGEST_INFO} bytes")
        if namespace is not None and authorize_pattern is not None:
            raise ValueError("authorize_pattern is beside namespace, allowed is one: a namespace has no patterns")
        rules = ClientRules(authorize, identify, on_subscribe, on_publish, authorize_pattern, namespace, claims=claims)
        protocols = (PROTOCOL if namespace is None else PROTOCOL_WITHIN,)
        super().__init__(
            bounds, policy, max_topics, max_size, topic_rate, rules, backplane, protocols, presence_grace, max_info
        )
        self._missed_users: MissedUsers | None = None

    def __repr__(self) -> str:
        return f"<rawws.Hub {len(self._table.topics)} topics, {len(self._subscribers)} subscribers>"

    async def __aenter__(self) -> Hub:
        self.enter()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the backplane, if there is one: what waits for it is given up, and counted as lost.

        Users who wait to be judged are judged now, and `on_missed` is called. WebSockets that are subscribed close with
        1000, and event streams end. What other threads published before is sent first.
        """
        try:
            if self._missed_users is not None:
                await self._missed_users.close()
        finally:
            await super().close()

    def publish_threadsafe(
        self,
        topic: str,
        message: Any,
        *,
        key: str | None = None,
        event: str | None = None,
        exclude: WebSocket | EventStream | Receiver | AsgiWebSocket | None = None,
    ) -> Future[PublishResult]:
        """Publish from any thread: return a Future of what `await hub.publish(...)` returns in the hub's event loop.

        Of each thread, publications go in the order in which they were published. Where 10,000 of all threads wait for
        the loop, or 16 MiB, this waits until there is room. In the thread of the loop, it publishes at once; do not
        wait there for the Future. One that is cancelled before its turn is not sent.

        Raises as `publish` does, at once; RuntimeError where the loop is closed, and where the hub has a backplane and
        was used in no loop yet: begin with `async with hub`. What is no subscriber to `exclude` is told by the Future.
        """
        payload, extra = payload_of(message, event)
        self.check_publish(topic, payload, extra, key)
        return self._thread.post(topic, payload, extra, key, exclude, needs_loop=self._replication is not None)

    def notify(
        self,
        users: Iterable[str],
        topic: str,
        message: Any,
        *,
        key: str | None = None,
        event: str | None = None,
        exclude: WebSocket | EventStream | Receiver | AsgiWebSocket | None = None,
    ) -> PublishResult:
        """Publish as `publish` does; then have `on_missed` told of each of these users who is not present in the topic.

        That is judged `after` seconds later, at all servers: who comes back by then missed nothing. Raises as `publish`
        does; TypeError or ValueError for what is no name of a user, TopicError ("limit") where 10,000 users wait to be
        judged, or for 16 MiB of messages, RuntimeError without a function of `on_missed`: then nothing is published.
        """
        if self._missed_users is None:
            raise RuntimeError("notify needs a function that is told who missed it: @hub.on_missed()")
        payload, extra = payload_of(message, event)
        names = self._missed_users.check(users, payload)
        result = self.publish_payload(topic, payload, extra, key, exclude)
        self._missed_users.put(names, topic, payload, key, extra, result)
        return result

    def on_missed(self, *, after: float = MISSED_AFTER) -> Callable[[MissedFunction], MissedFunction]:
        """Have the function that follows be told who missed what `notify` sent: `f(user, publication)`.

        It is a coroutine or not, and called once for each user and publication; 100 at a time. What it raises is
        logged. `after` is how many seconds later a user is judged. Raises ValueError for a second function.
        """

        def add(function: MissedFunction) -> MissedFunction:
            if self._missed_users is not None:
                raise ValueError("on_missed has a function already, allowed is one")
            self._missed_users = MissedUsers(self._table, self.when_ready, function, after)
            return function

        return add

    def disconnect(self, user: str, *, code: int = UNAUTHORIZED, reason: str = "disconnected") -> int:
        """Close all connections of a user, with a backplane at all servers; return how many there were at this one.

        Whoever comes back is asked again who it is: end the session of the user before. `code` is the close code of
        WebSockets, with which `rawws.js` asks for a new token; event streams end, polls are answered. Raises
        LocalProtocolError for a code or a reason that no Close frame may have.
        """
        self._thread.enter()
        serialize_close(code, reason)
        return self.control.disconnect(user, int(code), reason)

    def broadcast(
        self,
        topics: Iterable[str],
        message: Any,
        *,
        key: str | None = None,
        event: str | None = None,
        exclude: WebSocket | EventStream | Receiver | AsgiWebSocket | None = None,
    ) -> list[PublishResult]:
        """Publish the same to several topics, each named once; return what became of it in each, in their order.

        All is checked before anything is published, so that it is published to all of them or to none. Raises as
        `publish` does, and TopicError where no topic is named, or one twice.
        """
        return self.broadcast_payload(topics, *payload_of(message, event), key, exclude)

    def presence(self, topic: str) -> list[Present]:
        """Return who is present in a topic."""
        return list(self.members(topic))

    def users(self, topic: str) -> dict[str, list[Present]]:
        """Return the users that are present in a topic, each with its connections; those of no user are left out."""
        found: dict[str, list[Present]] = {}
        for present in self.members(topic):
            if present.user:
                found.setdefault(present.user, []).append(present)
        return found

    def connections(self, topic: str, user: str) -> int:
        """Return by how many connections a user is present in a topic, at all servers."""
        found = self._table.topics.get(topic)
        return 0 if found is None or found.presence is None else found.presence.users.get(user, 0)

    def subscribers(self, topic: str) -> int:
        """Return how many are subscribed to a topic by its name, of those that are connected to this process."""
        found = self._table.topics.get(topic)
        return 0 if found is None else len(found.subscriptions)

    async def history(
        self, topic: str, *, limit: int = DEFAULT_LIMIT, before: str | None = None, since: str | None = None
    ) -> HistoryPage:
        """Return the last publications of a topic that are held: of all, or of those before a cursor.

        With `since`, the first ones behind that cursor. They are at most `limit`, in their order. With a backplane,
        the engine is asked, and holds what it holds. Raises ValueError for a negative limit and for both cursors,
        CursorError for one that the topic never gave; TopicError for a name that no topic may have, and where the
        backplane cannot serve the topic.
        """
        if limit < 0:
            raise ValueError(f"limit is {limit}, allowed are numbers from 0")
        check_page(since, before)
        check_name(topic)
        behind, ahead = (cursor_of(cursor or "", topic) for cursor in (since, before))
        found: Any = self.when_ready(
            [topic], behind or ahead or EARLIEST, lambda: page_of(self, topic, behind, ahead, limit)
        )
        page: HistoryPage = await found if inspect.isawaitable(found) else found
        return page

    async def listen(
        self, *topics: str, since: str | None = None, policy: str | Policy = "disconnect", pattern: bool = False
    ) -> AsyncGenerator[Publication, None]:
        """Iterate, with `async for`, over what is published to topics from the first step on, or since a cursor.

        Each Publication has `topic`, `message`, `cursor`, `key`, `event` and `json()`. It ends when the hub closes.
        With `pattern`, what is named are patterns, as with `subscribe`.

        What is published while the loop body takes its time waits up to 1 MiB, and then the policy decides: with
        "disconnect" or "block" it raises TopicError with the code "lost"; so it does where it is not known what came
        since a cursor, and where a backplane lost something. The others drop what they say. To leave it early, `break`,
        or `aclose()`.
        """
        if not topics:
            raise TopicError("topic", "no topic is named, needed is at least one")
        listener = TopicListener()
        try:
            for topic in topics:
                subscription = await self.subscribe(listener, topic, since=since, policy=policy, pattern=pattern)
                if not subscription.recovered:
                    listener.lose(f"it is not known what came in {topic!r} since the cursor")
            while (publication := await listener.take()) is not None:
                yield publication
        finally:
            self.unsubscribe(listener)

    def on_call(
        self, name: str, *, timeout: float = CALL_TIMEOUT
    ) -> Callable[[Callable[[Any, Any], Answer]], Callable[[Any, Any], Answer]]:
        """Have the function that follows answer what clients call by a name: `f(client, data)`, a coroutine or not.

        `authorize(client, "call", name)` is asked before. `data` is JSON, and so is what it returns. It has `timeout`
        seconds, and is cancelled with the connection of its client. It raises CallError for what the client is to be
        told. Raises TopicError for what is no name, ValueError for one that has a function already.
        """

        def add(function: Callable[[Any, Any], Answer]) -> Callable[[Any, Any], Answer]:
            self.calls.add(name, function, timeout)
            return function

        return add

    async def call(
        self,
        client: WebSocket | AsgiWebSocket,
        name: str,
        data: Any = None,
        *,
        timeout: float = 10.0,  # noqa: ASYNC109 - it says whose time it is
    ) -> Any:
        """Call a function of a client by its name, with JSON, and return the JSON that it answers.

        The client is a WebSocket that speaks rawws.v1, and which the hub serves. Raises TimeoutError where it does not
        answer within `timeout` seconds, which is all that clients of before do, ConnectionClosed where it goes,
        CallError with the code that it answers, or "limit" for more than 100 calls in flight, TypeError for what is no
        WebSocket, and LocalProtocolError for one without rawws.v1.
        """
        self._thread.enter()
        return await self.calls.ask(socket_of(client), name, data, timeout)

    def asgi(self, *, origins: Origins = None) -> HubApplication:
        """Return an ASGI application to mount: WebSockets with rawws.v1, event streams, polls, posts, and rawws.js.

        Each path is the hub's, but for one that ends in /rawws.js. `origins` are those whose pages may come, as those
        of `rawws.serve`: by default, the pages of the same origin. `authorize` gets clients whose scope is told by
        `rawws.topics.scope_of`. Where it is no part of another application, it closes the hub at its end.
        """
        return HubApplication(self, origins)

    async def serve(self, ws: WebSocket) -> None:
        """Do what a client asks for in rawws.v1, until it is gone: a handler for `rawws.serve` and for routes."""
        await serve_client(self, ws)

    def stream(
        self, asked: HttpRequest, topics: str | Iterable[str] | None = None, *, since: str | None = None
    ) -> EventStream | Response | Awaitable[EventStream | Response]:
        """Answer a request by an event stream of envelopes, as an endpoint.

        The topics are those of `?topic=a&topic=b`, if the client may subscribe to them; or those given here, and nobody
        is asked. It goes on behind `since`, Last-Event-ID or `?since=`.
        """
        return answer_stream(self, checked(asked), topics, since)

    def poll(
        self,
        asked: HttpRequest,
        topics: str | Iterable[str] | None = None,
        *,
        since: str | None = None,
        timeout: float | None = None,
    ) -> LongPoll | Response | Awaitable[LongPoll | Response]:
        """Answer a request by what was published since a cursor, as an endpoint.

        Where there is nothing yet, it is held for `timeout` seconds (`?timeout=`, 25; 0 answers at once). Topics and
        `since` are as with `stream`.
        """
        return answer_poll(self, checked(asked), topics, since, timeout)

    def post(self, asked: HttpRequest) -> Response | Awaitable[Response]:
        """Answer a request whose body is an envelope that publishes, or asks who is present, as an endpoint."""
        return answer_post(self, checked(asked))


def socket_of(client: Any) -> object:
    """Return the WebSocket below a framework's one; what is none as it is."""
    return client if isinstance(client, HttpRequest) else receiver_of(client)


def checked(asked: HttpRequest) -> HttpRequest:
    """Return a request of ours. Raises TypeError for that of another framework."""
    if not isinstance(asked, HttpRequest):
        raise TypeError(f"the request is {type(asked).__name__}, allowed is a rawws.HttpRequest: mount hub.asgi()")
    return asked
