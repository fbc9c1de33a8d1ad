"""Requests: rawws.v1 over event streams, polls and posts: what clients ask for, and what they are answered.

Laws:
1. Nothing is done before it is known that a client may do it, and how many topics that are.
2. A poll that is held costs no task.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
from typing import TYPE_CHECKING, Any, TypeVar, final

from rawws.http.event_stream import EventStream
from rawws.http.long_poll import POLL_TIMEOUT, LongPoll
from rawws.http.responses import Response
from rawws.net.turns import spend

from .calls import numbered
from .cursors import EARLIEST, MAX_ID, cursors_of, is_short, join_cursors, namespaced
from .envelope import EnvelopeError, answer_of, error_of, listed, place_fields
from .names import STATUSES, TopicError, unavailable
from .pages import MAX_ANSWER, answer_page, page_of
from .patterns import Pattern, check_channel
from .payloads import serialize
from .rawws_v1 import COMMAND_COST, MISTAKES, RIGHTS, history_of, place_of, placed, read
from .subscribers import EventSubscriber

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator

    from rawws.http.requests import HttpRequest
    from rawws.net.identity import Identity

    from .core import HubCore
    from .history import Publication
    from .subscribers import PublishResult, Subscriber

__all__ = ["answer_get", "answer_poll", "answer_post", "answer_stream"]

Answer = TypeVar("Answer")

# What may be asked for by a request of its own.
POSTED = ("publish", "presence", "history", "call")
# From a proxy's memory, a client would get the same again.
FRESH = {"Cache-Control": "no-store"}


def answer_get(
    hub: HubCore, asked: HttpRequest
) -> EventStream | LongPoll | Response | Awaitable[EventStream | LongPoll | Response]:
    """Answer by one resource in two forms, chosen by Accept (RFC 9110 section 12.5.1): none of them may be stored."""
    wanted = ",".join(asked.headers.get_all("Accept")).lower()
    if "text/event-stream" in wanted:
        return answer_stream(hub, asked, None, None)
    return answer_poll(hub, asked, None, None, None)


def answer_stream(
    hub: HubCore, asked: HttpRequest, topics: str | Iterable[str] | None, since: str | None
) -> EventStream | Response | Awaitable[EventStream | Response]:
    """Answer by an event stream."""
    namespace = hub.rules.namespace_of(asked) if topics is None else ""
    names = within(namespace, names_of(asked, topics))
    # EventSource comes back to the URL that it began with: what it says beside that is newer.
    start = since if since is not None else asked.last_event_id or asked.query.get("since", "")
    start = namespaced(start, namespace)

    def begin() -> Any:
        return hub.when_ready(names, start, lambda: begin_stream(hub, asked, names, start, len(namespace)))

    def go() -> Any:
        hub.account(asked, names)
        return when_admitted(hub, asked, names, begin) if topics is None else begin()

    return when_allowed(hub, asked, names if topics is None else None, go)


def begin_stream(hub: HubCore, asked: HttpRequest, names: list[str], since: str, skip: int) -> EventStream:
    """Return a stream that is subscribed to topics, and what it missed of them; `skip` characters are its namespace."""
    check_some(names)
    spend(COMMAND_COST * len(names))
    starts = cursors_of(since, names)
    made = EventStream()
    made.identity = asked.identity
    subscriber = EventSubscriber(hub, made, hub.render, skip)
    try:
        results = [hub.admit(subscriber, name, since=starts[name]) for name in names]
    except BaseException:
        subscriber.leave()
        raise
    if asked.identity is not None:
        hub.listen_to_orders()
    hub.sessions.begin(made, made.identity, lambda _code, _reason: made.close())
    made.on_close = hub.sessions.end
    for subscription, cursor, _ in results:
        topic = subscription.topic[skip:] if skip else subscription.topic
        made.send(serialize(place_fields(topic, cursor, recovered=subscription.recovered)))
    for subscription, _, missed in results:
        subscriber.replay(subscription, missed)
    return made


def answer_poll(
    hub: HubCore, asked: HttpRequest, topics: str | Iterable[str] | None, since: str | None, timeout: float | None
) -> LongPoll | Response | Awaitable[LongPoll | Response]:
    """Answer by what came since a cursor, as soon as there is something."""
    namespace = hub.rules.namespace_of(asked) if topics is None else ""
    names = within(namespace, names_of(asked, topics))
    start = since if since is not None else asked.query.get("since", "") or asked.last_event_id
    start = namespaced(start, namespace)

    def go() -> Any:
        seconds = seconds_of(asked) if timeout is None else timeout
        hub.account(asked, names)

        def begin() -> Any:
            return hub.when_ready(names, start, lambda: begin_poll(hub, asked, names, start, seconds, len(namespace)))

        return when_admitted(hub, asked, names, begin) if topics is None else begin()

    return when_allowed(hub, asked, names if topics is None else None, go)


def begin_poll(
    hub: HubCore, asked: HttpRequest, names: list[str], since: str, timeout: float, skip: int
) -> LongPoll | Response:
    """Return what came since a cursor, or a poll that waits for it."""
    check_some(names)
    spend(COMMAND_COST * len(names))
    starts = cursors_of(since, names)
    answer = PollAnswer(hub.render, skip)
    found: list[list[Publication]] = []
    complete = True
    for name in names:
        start = starts[name]
        answer.cursors[name], missed, known = hub.recall(name, since=start)
        found.append(missed)
        # Who has no cursor gets one, and asks again with it: else it would miss what comes between two requests.
        complete = complete and bool(start)
        answer.recovered = answer.recovered and known
    if any(found) or not complete or not answer.recovered or timeout <= 0:
        # Those of one topic stay in its order: by what each server sees of clocks, a later one may be older.
        answer.fill([*heapq.merge(*found, key=lambda publication: publication.at)])
        spend(answer.size)
        return answer.response()
    left = None if asked.identity is None else asked.identity.left()
    # Who is nobody any more hears so when it asks again.
    poll = PendingPoll(hub, answer, timeout if left is None else max(min(timeout, left), 0.001))
    poll.identity = asked.identity
    return poll.poll


@final
class PollAnswer:
    """What a poll is answered: as many publications as are no larger than others, and the cursors behind them."""

    __slots__ = ("cursors", "full", "publications", "recovered", "render", "size", "skip")

    def __init__(self, render: Callable[[Publication], str], skip: int) -> None:
        self.render = render
        self.skip = skip
        self.cursors: dict[str, str] = {}
        self.recovered = True
        # As JSON, and how many bytes of that.
        self.publications: list[bytes] = []
        self.size = 0
        self.full = False

    def fill(self, publications: list[Publication]) -> None:
        """Take publications as long as there is room; the cursors are behind all of them."""
        # Of each topic the last first: what remains is the first one that it has.
        before = {each.channel: f"{each.epoch}:{each.offset - 1}" for each in reversed(publications)}
        behind = dict(self.cursors)
        self.cursors |= before
        for publication in publications:
            self.add(publication)
        if not self.full:
            self.cursors = behind

    def add(self, publication: Publication) -> None:
        """Take a publication, if there is room for it and was for all before it; the first one has room."""
        if self.full:
            return
        octets = publication.form_of(self.render).payload
        if self.publications and self.size + len(octets) > MAX_ANSWER:
            # The client asks for it next: its cursor stays before it.
            self.full = True
            return
        self.publications.append(octets)
        self.size += len(octets)
        self.cursors[publication.channel] = publication.cursor

    def response(self) -> Response:
        """Return the answer."""
        octets = answer_of(self.publications, join_cursors(self.cursors, self.skip), self.recovered, {})
        return Response(200, octets, FRESH, "application/json")


@final
class PendingPoll:
    """A poll that waits: a subscriber for the rest of one turn of the loop in which something comes."""

    __slots__ = ("answer", "congested", "hard_limit", "hub", "identity", "poll", "woken")

    def __init__(self, hub: HubCore, answer: PollAnswer, timeout: float) -> None:
        self.hub = hub
        self.answer = answer
        self.congested = False
        self.hard_limit = 0
        self.woken = False
        self.identity: Identity | None = None
        self.poll = LongPoll(timeout, on_close=self._over)
        subscriber = hub.subscriber_of(self)
        try:
            for name in answer.cursors:
                hub.admit(subscriber, name)
        except TopicError:
            subscriber.leave()
            raise

    def send(self, publication: Publication) -> None:
        """Take a publication, and answer when all is here that came in this turn."""
        self.answer.add(publication)
        self._wake()

    def move(self, topic: str, cursor: str, recovered: bool) -> None:
        """Store the new cursor of a topic, and answer at once if something is missing."""
        self.answer.cursors[topic] = cursor
        if not recovered:
            self.answer.recovered = False
            self._wake()

    def fault(self, topic: str) -> None:
        """Answer that the backplane cannot serve one of the topics for now."""
        self.hub.leave(self)
        self.poll.respond(refusal(None, error_of(unavailable(topic))))

    def follow(self, subscriber: Subscriber) -> None:
        """Nothing is to be told: a poll is never slow, and says itself when it is over."""

    def unfollow(self, subscriber: Subscriber) -> None:
        """As `follow`."""

    def fail(self, code: int, reason: str) -> None:  # noqa: ARG002 - what every receiver has
        """End without an answer: the client asks again."""
        self.poll.respond(None)

    def _wake(self) -> None:
        if not self.woken:
            self.woken = True
            spend(COMMAND_COST)
            asyncio.get_running_loop().call_soon(self._answer)

    def _answer(self) -> None:
        self.hub.leave(self)
        self.poll.respond(self.answer.response())

    def _over(self, _: LongPoll) -> None:
        self.hub.leave(self)


def answer_post(hub: HubCore, asked: HttpRequest) -> Response | Awaitable[Response]:
    """Publish what the body says, list who is present or what is held, or call a function."""
    spend(COMMAND_COST)
    try:
        command = placed(hub, asked, read(asked.body.decode("utf-8", "replace")))
        if command.action not in POSTED:
            raise EnvelopeError(
                "malformed", f"{command.action} needs a WebSocket, allowed are {', '.join(POSTED)}", command.id
            )
        if command.exclude:
            # Nobody knows which stream or poll is that of who posts.
            raise EnvelopeError("malformed", "exclude needs a WebSocket", command.id)
    except EnvelopeError as error:
        return refusal(error.id, error_of(error))

    def answer(said: dict[str, Any]) -> Response:
        return (
            refusal(command.id, said)
            if "error" in said
            else Response.json({**numbered(command.id), **said}, headers=FRESH)
        )

    async def answer_later(result: PublishResult) -> Response:
        return answer(place_of(await result))

    def look_back() -> Response:
        page = page_of(hub, command.topic, *history_of(command), command.limit, MAX_ANSWER)
        return Response(200, answer_page(hub, page, numbered(command.id)), FRESH, "application/json")

    async def call() -> Response:
        text, code = await hub.calls.answer(asked, command)
        return Response(STATUSES.get(code, 400) if code else 200, text, FRESH, "application/json")

    def go() -> Any:
        if command.action == "call":
            return call()
        hub.account(asked, (command.topic,))
        if command.action == "presence":
            return hub.when_ready([command.topic], "", lambda: list_of(hub, command.topic, command.id))
        if command.action == "history":
            since, before = history_of(command)
            return hub.when_ready([command.topic], since or before or EARLIEST, look_back)
        edited = hub.rules.edit(asked, command.topic, command.message, command.extra)
        return edit_later(edited) if inspect.isawaitable(edited) else publish(edited)

    async def edit_later(edited: Awaitable[Any]) -> Response:
        answered = publish(await edited)
        return await answered if inspect.isawaitable(answered) else answered

    def publish(edited: tuple[Any, str]) -> Response | Awaitable[Response]:
        result = hub.publish_payload(command.topic, *edited, command.key)
        return answer_later(result) if result.pending else answer(place_of(result))

    return when_allowed(hub, asked, [command.topic], go, RIGHTS[command.action], command.id)


def list_of(hub: HubCore, topic: str, number: int | None) -> Response:
    """Return an answer that says who is present."""
    text = listed(numbered(number), hub.members(topic), hub.user_count(topic))
    spend(len(text))
    return Response(200, text, FRESH, "application/json")


def when_allowed(
    hub: HubCore,
    asked: HttpRequest,
    names: Collection[str] | None,
    go: Callable[[], Answer],
    right: str = "subscribe",
    number: int | None = None,
) -> Answer | Response | Awaitable[Answer | Response]:
    """Return what `go` returns, or an answer that says what is wrong; or an awaitable of that.

    How many topics a request may have is known before anybody is asked: who is asked may ask a database. Where `names`
    is None, it is the application's own request, and nobody is asked.
    """
    if names is None:
        return when_rest_allowed(hub, asked, iter(()), go, right, number)
    try:
        check_all(hub, names)
    except TopicError as error:
        return refusal(number, error_of(error))
    waiting = hub.rules.introduce(asked)
    if waiting is not None:
        return after(waiting, lambda: when_rest_allowed(hub, asked, iter(names), go, right, number))
    return when_rest_allowed(hub, asked, iter(names), go, right, number)


async def after(waiting: Awaitable[None], go: Callable[[], Any]) -> Any:
    """Return what `go` returns, when the application has said what it has to say."""
    await waiting
    answer = go()
    return await answer if inspect.isawaitable(answer) else answer


def when_admitted(hub: HubCore, asked: HttpRequest, names: Iterable[str], go: Callable[[], Any]) -> Any:
    """Tell the application what a client is about to subscribe to, and return what `go` returns."""
    rest = iter(names)
    for name in rest:
        waiting = hub.rules.admit(asked, name)
        if waiting is not None:
            return after(waiting, lambda: when_admitted(hub, asked, rest, go))
    return go()


def when_rest_allowed(
    hub: HubCore, asked: HttpRequest, rest: Iterator[str], go: Callable[[], Answer], right: str, number: int | None
) -> Answer | Response | Awaitable[Answer | Response]:
    """Do the same for the topics that are left."""
    try:
        for name in rest:
            verdict = hub.rules.may(asked, right, name)
            if inspect.isawaitable(verdict):
                return refused_later(when_allowed_later(hub, asked, rest, go, right, number, verdict), number)
            if not verdict:
                return refusal(number, {"error": "refused"})
        answer = go()
    except MISTAKES as error:
        return refusal(number, error_of(error))
    return refused_later(answer, number) if inspect.iscoroutine(answer) else answer


async def refused_later(answer: Awaitable[Answer], number: int | None) -> Answer | Response:
    """Wait for an answer, and say what is wrong with the request."""
    try:
        return await answer
    except MISTAKES as error:
        return refusal(number, error_of(error))


async def when_allowed_later(
    hub: HubCore,
    asked: HttpRequest,
    rest: Iterator[str],
    go: Callable[[], Answer],
    right: str,
    number: int | None,
    verdict: Awaitable[bool],
) -> Answer | Response:
    """Go on behind a verdict that takes time."""
    if not await verdict:
        return refusal(number, {"error": "refused"})
    answer: Any = when_rest_allowed(hub, asked, rest, go, right, number)
    found: Answer | Response = await answer if inspect.isawaitable(answer) else answer
    return found


# -- what several of them need


def refusal(number: int | None, answer: dict[str, Any]) -> Response:
    """Return an answer that says what is wrong."""
    return Response.json({**numbered(number), **answer}, STATUSES.get(answer["error"], 400), FRESH)


def names_of(asked: HttpRequest, topics: str | Iterable[str] | None) -> list[str]:
    """Return the topics and the patterns of a request, each once."""
    if topics is None:
        named = [*asked.query.get_all("topic"), *map(Pattern, asked.query.get_all("pattern"))]
        return list(dict.fromkeys(named))
    return [topics] if isinstance(topics, str) else list(dict.fromkeys(topics))


def within(namespace: str, names: list[str]) -> list[str]:
    """Return the whole names of topics; a pattern stays as it is, and is refused."""
    return [name if isinstance(name, Pattern) else namespace + name for name in names] if namespace else names


def check_all(hub: HubCore, names: Collection[str]) -> None:
    """Raise TopicError for a name that no topic may have, and for more topics than one request may have."""
    if len(names) > hub.max_topics:
        raise TopicError("limit", f"the request has {len(names)} topics, limit {hub.max_topics}")
    for name in names:
        check_channel(name)
    if not is_short(names):
        raise TopicError("limit", f"the topics are too many for the id of an event, which has {MAX_ID} bytes")


def check_some(names: list[str]) -> None:
    """Raise TopicError for a request without a topic."""
    if not names:
        raise TopicError("topic", "no topic is named, needed is at least one")


def seconds_of(asked: HttpRequest) -> float:
    """Return how long a poll may be held."""
    text = asked.query.get("timeout", "")
    if not text:
        return POLL_TIMEOUT
    if len(text) > 4 or text.strip("0123456789"):
        raise EnvelopeError("malformed", "timeout is no number of seconds, allowed are 0 to 25 and nothing")
    return min(float(text), POLL_TIMEOUT)
