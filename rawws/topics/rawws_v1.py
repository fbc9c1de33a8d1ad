"""Clients: what they ask for in rawws.v1, over WebSocket, event streams, polls and posts, and what they are answered.

Laws:
1. A mistake of a client is told to that client alone, and its connection goes on.
2. What a client may not do is refused without a reason, and nothing is done before that is known.
3. Requests of one connection are answered one after the other; a poll that is held costs no task.
4. What a request costs is counted in the work of the loop's turn: whoever asks for much waits for the others.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, final

from rawws.http.event_stream import EventStream
from rawws.http.long_poll import POLL_TIMEOUT, LongPoll
from rawws.http.responses import Response
from rawws.net.handlers import Handler
from rawws.net.turns import spend, turn_of
from rawws.protocol.opcodes import CloseCode

from .cursors import MAX_ID, CursorError, cursor_of, cursors_of, is_short, join_cursors
from .envelope import (
    SUBPROTOCOL,
    Command,
    EnvelopeError,
    answer_of,
    error_of,
    listed,
    parse,
    place_fields,
    render,
    serialize,
)
from .names import STATUSES, TopicError, check_name
from .presence import NOTHING
from .subscribers import ClientProtocol, EventSubscriber

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator

    from rawws.http.requests import HttpRequest
    from rawws.net.websocket import WebSocket

    from .asgi_socket import AsgiSocket
    from .core import HubCore
    from .history import Publication
    from .subscribers import PublishResult, Subscriber

__all__ = ["PROTOCOL", "HubHandler", "answer_get", "answer_poll", "answer_post", "answer_stream", "serve_client"]

PROTOCOL: Final = ClientProtocol(SUBPROTOCOL, render)

Answer = TypeVar("Answer")
ClientSocket: TypeAlias = "WebSocket | AsgiSocket"

# What a client asks for while it is being found out what it may do, in requests: then it is closed; and in bytes: then
# no more is read, as where a coroutine takes its time.
MAX_PENDING = 1000
MAX_PENDING_SIZE = 65536
# The publications of one answer to a poll have so many bytes; a single one may be larger.
MAX_ANSWER = 1 << 19
# What a request costs, and each topic of one that has several, as bytes of a turn's work: about 20 us, and so 5 ms.
COMMAND_COST = 2048
MISTAKES = (EnvelopeError, CursorError, TopicError)
# What a client must be allowed to do for an action; for unsubscribing, nothing.
RIGHTS = {"subscribe": "subscribe", "presence": "subscribe", "publish": "publish"}
# From a proxy's memory, a client would get the same again.
FRESH = {"Cache-Control": "no-store"}


# -- WebSocket


async def serve_client(hub: HubCore, ws: ClientSocket) -> None:
    """Answer a client until it is gone."""
    if not speaks(ws):
        return
    async for message in ws:
        waiting = handle(hub, ws, message)
        if waiting is not None:
            await waiting
        await ws.drain()


def speaks(ws: ClientSocket) -> bool:
    """Tell whether a client speaks rawws.v1; close it where it does not."""
    if ws.subprotocol != SUBPROTOCOL:
        ws.close(CloseCode.POLICY_VIOLATION, f"the subprotocol must be {SUBPROTOCOL}")
        return False
    return True


def handle(hub: HubCore, ws: ClientSocket, message: str | bytes) -> Awaitable[Any] | None:
    """Do what a message asks for, and answer it; return what is to be waited for first, if anything."""
    spend(COMMAND_COST)
    try:
        command = read(message)
    except EnvelopeError as error:
        reply(ws, error.id, error_of(error))
        return None
    allowed = True if command.action == "unsubscribe" else hub.may(ws, RIGHTS[command.action], command.topic)
    if inspect.isawaitable(allowed):
        return handle_later(hub, ws, command, allowed)
    return execute(hub, ws, command, bool(allowed))


async def handle_later(hub: HubCore, ws: ClientSocket, command: Command, allowed: Awaitable[bool]) -> None:
    """Do the same where it takes time to know whether it is allowed."""
    waiting = execute(hub, ws, command, bool(await allowed))
    if waiting is not None:
        await waiting


def execute(hub: HubCore, ws: ClientSocket, command: Command, allowed: bool) -> Awaitable[Any] | None:
    """Do what a client asks for, and answer; return what is to be waited for, if anything."""
    if not allowed:
        reply(ws, command.id, {"error": "refused"})
        return None
    try:
        if command.action == "publish":
            result = hub.publish(command.topic, command.message, key=command.key)
            if result.pending and command.id is not None:
                return confirm_later(ws, command, result)
            confirm(ws, command, place_of(result))
            return result
        if command.action == "unsubscribe":
            hub.unsubscribe(ws, command.topic)
            confirm(ws, command, {})
        else:
            answer = subscribe if command.action == "subscribe" else list_present
            waiting: Any = hub.when_ready([command.topic], command.since, lambda: answer(hub, ws, command))
            return None if waiting is None else mistaken(ws, command, waiting)
    except MISTAKES as error:
        reply(ws, command.id, error_of(error))
    return None


async def mistaken(ws: ClientSocket, command: Command, waiting: Awaitable[None]) -> None:
    """Wait for what is done later, and say what is wrong with it."""
    try:
        await waiting
    except MISTAKES as error:
        reply(ws, command.id, error_of(error))


async def confirm_later(ws: ClientSocket, command: Command, result: PublishResult) -> None:
    """Answer when it is known where a publication is."""
    await result
    confirm(ws, command, place_of(result))


def place_of(result: PublishResult) -> dict[str, Any]:
    """Return what is answered to who published."""
    if result.accepted or result.cursor:
        return {"cursor": result.cursor}
    return {"error": "limit", "reason": "too many publications wait already"}


def list_present(hub: HubCore, ws: ClientSocket, command: Command) -> None:
    """Answer who is present, to who can know that it is an answer."""
    if command.id is not None:
        say(ws, listed({"id": command.id}, hub.members(command.topic)))


def subscribe(hub: HubCore, ws: ClientSocket, command: Command) -> None:
    """Subscribe, answer, and send what was missed behind the answer."""
    subscriber = hub.subscriber_of(ws)
    result = hub.admit(
        subscriber, command.topic, since=cursor_of(command.since, command.topic), join=command.join, watch=command.watch
    )
    subscription = result.subscription
    if command.id is not None:
        answer: dict[str, Any] = {"id": command.id, "cursor": result.cursor, "recovered": subscription.recovered}
        if command.join is not NOTHING:
            answer["present"] = subscription.present
        say(ws, listed(answer, hub.members(command.topic)) if command.watch else serialize(answer))
    subscriber.replay(subscription, result.missed)


def confirm(ws: ClientSocket, command: Command, answer: dict[str, Any]) -> None:
    """Answer a request that was done, if it has an id."""
    if command.id is not None:
        reply(ws, command.id, answer)


def reply(ws: ClientSocket, number: int | None, answer: dict[str, Any]) -> None:
    """Answer a request."""
    say(ws, serialize({**numbered(number), **answer}))


def say(ws: ClientSocket, text: str) -> None:
    """Send an answer."""
    ws.send(text)
    spend(len(text))


@final
class PendingCommands:
    """What a client asked for behind what is not decided yet; `size` in bytes, of text about that."""

    __slots__ = ("queue", "size", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.queue: deque[str | bytes] = deque()
        self.size = 0

    def append(self, message: str | bytes) -> None:
        """Have a message wait."""
        self.queue.append(message)
        self.size += len(message)

    def take(self) -> str | bytes:
        """Return the first of those that wait."""
        message = self.queue.popleft()
        self.size -= len(message)
        return message


@final
class HubHandler(Handler):
    """The same as `Hub.serve` by callbacks: `rawws.serve(HubHandler(hub))`, for many connections that say little."""

    def __init__(self, hub: HubCore) -> None:
        self.hub = hub
        self._busy: dict[WebSocket, PendingCommands] = {}

    def on_open(self, ws: WebSocket) -> None:
        """Close a client that does not speak rawws.v1."""
        speaks(ws)

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        """Do what a client asks for, behind what is not decided yet."""
        pending = self._busy.get(ws)
        if pending is None:
            waiting = handle(self.hub, ws, message)
            # A publisher that is not waited for cannot be slowed down.
            if inspect.iscoroutine(waiting):
                pending = self._busy[ws] = PendingCommands()
                pending.task = asyncio.get_running_loop().create_task(self._go_on(ws, waiting, pending))
        elif len(pending.queue) < MAX_PENDING:
            pending.append(message)
            if pending.size > MAX_PENDING_SIZE:
                ws.pause_messages()
        else:
            ws.close(CloseCode.TRY_AGAIN_LATER, f"over {MAX_PENDING} requests wait for an answer")

    def on_close(self, ws: WebSocket, code: int, reason: str) -> None:  # noqa: ARG002 - as Handler has it
        """Ask no more what a client may do that is gone."""
        pending = self._busy.pop(ws, None)
        if pending is not None and pending.task is not None:
            pending.task.cancel()

    async def _go_on(self, ws: WebSocket, waiting: Awaitable[Any] | None, pending: PendingCommands) -> None:
        try:
            while True:
                if inspect.iscoroutine(waiting):
                    await waiting
                if pending.size <= MAX_PENDING_SIZE:
                    ws.resume_messages()
                if not pending.queue:
                    break
                await turn_of(asyncio.get_running_loop()).next()
                waiting = handle(self.hub, ws, pending.take())
        except Exception as error:  # noqa: BLE001 - whatever authorize raises, it ends this connection only
            ws.on_handler_error(error)
        finally:
            self._busy.pop(ws, None)
        ws.resume_messages()


# -- HTTP


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
    names = names_of(asked, topics)
    # EventSource comes back to the URL that it began with: what it says beside that is newer.
    start = since if since is not None else asked.last_event_id or asked.query.get("since", "")

    def go() -> Any:
        return hub.when_ready(names, start, lambda: begin_stream(hub, names, start))

    return when_allowed(hub, asked, names if topics is None else (), go)


def begin_stream(hub: HubCore, names: list[str], since: str) -> EventStream:
    """Return a stream that is subscribed to topics, and what it missed of them."""
    check_some(names)
    spend(COMMAND_COST * len(names))
    starts = cursors_of(since, names)
    made = EventStream()
    subscriber = EventSubscriber(hub, made, render)
    try:
        results = [hub.admit(subscriber, name, since=starts[name]) for name in names]
    except BaseException:
        subscriber.leave()
        raise
    for subscription, cursor, _ in results:
        made.send(serialize(place_fields(subscription.topic, cursor, recovered=subscription.recovered)))
    for subscription, _, missed in results:
        subscriber.replay(subscription, missed)
    return made


def answer_poll(
    hub: HubCore, asked: HttpRequest, topics: str | Iterable[str] | None, since: str | None, timeout: float | None
) -> LongPoll | Response | Awaitable[LongPoll | Response]:
    """Answer by what came since a cursor, as soon as there is something."""
    names = names_of(asked, topics)
    start = since if since is not None else asked.query.get("since", "") or asked.last_event_id

    def go() -> Any:
        seconds = seconds_of(asked) if timeout is None else timeout
        return hub.when_ready(names, start, lambda: begin_poll(hub, names, start, seconds))

    return when_allowed(hub, asked, names if topics is None else (), go)


def begin_poll(hub: HubCore, names: list[str], since: str, timeout: float) -> LongPoll | Response:
    """Return what came since a cursor, or a poll that waits for it."""
    check_some(names)
    spend(COMMAND_COST * len(names))
    starts = cursors_of(since, names)
    answer = PollAnswer()
    publications: list[Publication] = []
    complete = True
    for name in names:
        start = starts[name]
        answer.cursors[name], missed, known = hub.history(name, since=start)
        publications += missed
        # Who has no cursor gets one, and asks again with it: else it would miss what comes between two requests.
        complete = complete and bool(start)
        answer.recovered = answer.recovered and known
    if publications or not complete or not answer.recovered or timeout <= 0:
        publications.sort(key=lambda publication: publication.at)
        answer.fill(publications)
        spend(answer.size)
        return answer.response()
    return PendingPoll(hub, answer, timeout).poll


@final
class PollAnswer:
    """What a poll is answered: as many publications as are no larger than others, and the cursors behind them."""

    __slots__ = ("cursors", "full", "publications", "recovered", "size")

    def __init__(self) -> None:
        self.cursors: dict[str, str] = {}
        self.recovered = True
        # As JSON, and how many bytes of that.
        self.publications: list[bytes] = []
        self.size = 0
        self.full = False

    def fill(self, publications: list[Publication]) -> None:
        """Take publications as long as there is room; the cursors are behind all of them."""
        # Of each topic the last first: what remains is the first one that it has.
        before = {each.topic: f"{each.epoch}:{each.offset - 1}" for each in reversed(publications)}
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
        octets = publication.form_of(render).payload
        if self.publications and self.size + len(octets) > MAX_ANSWER:
            # The client asks for it next: its cursor stays before it.
            self.full = True
            return
        self.publications.append(octets)
        self.size += len(octets)
        self.cursors[publication.topic] = publication.cursor

    def response(self) -> Response:
        """Return the answer."""
        octets = answer_of(self.publications, join_cursors(self.cursors), self.recovered)
        return Response(200, octets, FRESH, "application/json")


@final
class PendingPoll:
    """A poll that waits: a subscriber for the rest of one turn of the loop in which something comes."""

    __slots__ = ("answer", "congested", "hard_limit", "hub", "poll", "woken")

    def __init__(self, hub: HubCore, answer: PollAnswer, timeout: float) -> None:
        self.hub = hub
        self.answer = answer
        self.congested = False
        self.hard_limit = 0
        self.woken = False
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
        self.hub.unsubscribe(self)
        self.poll.respond(self.answer.response())

    def _over(self, _: LongPoll) -> None:
        self.hub.unsubscribe(self)


def answer_post(hub: HubCore, asked: HttpRequest) -> Response | Awaitable[Response]:
    """Publish what the body says, or list who is present."""
    spend(COMMAND_COST)
    try:
        command = read(asked.body.decode("utf-8", "replace"))
        if command.action not in {"publish", "presence"}:
            raise EnvelopeError(
                "malformed", f"{command.action} needs a WebSocket, allowed are publish and presence", command.id
            )
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

    def go() -> Any:
        if command.action == "presence":
            return hub.when_ready([command.topic], "", lambda: list_of(hub, command))
        result = hub.publish(command.topic, command.message, key=command.key)
        return answer_later(result) if result.pending else answer(place_of(result))

    return when_allowed(hub, asked, [command.topic], go, RIGHTS[command.action], command.id)


def list_of(hub: HubCore, command: Command) -> Response:
    """Return an answer that says who is present."""
    text = listed(numbered(command.id), hub.members(command.topic))
    spend(len(text))
    return Response(200, text, {**FRESH, "X-Content-Type-Options": "nosniff"}, "application/json")


def when_allowed(
    hub: HubCore,
    asked: HttpRequest,
    names: Collection[str],
    go: Callable[[], Answer],
    right: str = "subscribe",
    number: int | None = None,
) -> Answer | Response | Awaitable[Answer | Response]:
    """Return what `go` returns, or an answer that says what is wrong; or an awaitable of that.

    How many topics a request may have is known before anybody is asked: who is asked may ask a database.
    """
    try:
        check_all(hub, names)
    except TopicError as error:
        return refusal(number, error_of(error))
    return when_rest_allowed(hub, asked, iter(names), go, right, number)


def when_rest_allowed(
    hub: HubCore, asked: HttpRequest, rest: Iterator[str], go: Callable[[], Answer], right: str, number: int | None
) -> Answer | Response | Awaitable[Answer | Response]:
    """Do the same for the topics that are left."""
    try:
        for name in rest:
            verdict = hub.may(asked, right, name)
            if inspect.isawaitable(verdict):
                return when_allowed_later(hub, asked, rest, go, right, number, verdict)
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


# -- what both need


def read(message: str | bytes) -> Command:
    """Return what a client asks for. Raises EnvelopeError, also for a name that no topic may have."""
    command = parse(message)
    try:
        check_name(command.topic)
    except TopicError as error:
        raise EnvelopeError(error.code, str(error), command.id) from None
    return command


def refusal(number: int | None, answer: dict[str, Any]) -> Response:
    """Return an answer that says what is wrong."""
    return Response.json({**numbered(number), **answer}, STATUSES.get(answer["error"], 400), FRESH)


def numbered(number: int | None) -> dict[str, Any]:
    """Return the id of a request, where it has one."""
    return {} if number is None else {"id": number}


def names_of(asked: HttpRequest, topics: str | Iterable[str] | None) -> list[str]:
    """Return the topics of a request, each once."""
    if topics is None:
        return list(dict.fromkeys(asked.query.get_all("topic")))
    return [topics] if isinstance(topics, str) else list(dict.fromkeys(topics))


def check_all(hub: HubCore, names: Collection[str]) -> None:
    """Raise TopicError for a name that no topic may have, and for more topics than one request may have."""
    if len(names) > hub.max_topics:
        raise TopicError("limit", f"the request has {len(names)} topics, limit {hub.max_topics}")
    for name in names:
        check_name(name)
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
