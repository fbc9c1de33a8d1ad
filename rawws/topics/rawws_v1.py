"""Clients: what they ask for in rawws.v1 over WebSockets, and what they are answered.

Laws:
1. A mistake of a client is told to that client alone, and its connection goes on.
2. What a client may not do is refused, with no other reason than the application gave, and nothing is done before that
   is known. It may do nothing before it is known who it is.
3. Requests of one connection are answered one after the other, but for calls, which may take their time.
4. What a request costs is counted in the work of the loop's turn: whoever asks for much waits for the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from rawws.errors import ConnectionClosed, HttpError
from rawws.net.handlers import Handler
from rawws.net.turns import spend, turn_of
from rawws.net.websocket import WebSocket
from rawws.protocol.closing import close_reason
from rawws.protocol.opcodes import CloseCode

from .calls import numbered
from .cursors import EARLIEST, CursorError, cursor_of, namespaced
from .envelope import (
    CALLING,
    SUBPROTOCOL,
    Command,
    EnvelopeError,
    error_of,
    listed,
    parse,
    render,
    render_within,
)
from .names import TopicError
from .pages import MAX_ANSWER, answer_page, check_page, page_of
from .patterns import channel_of
from .payloads import serialize
from .presence import NOTHING
from .rules import Refused
from .sessions import close_code_of
from .subscribers import ClientProtocol

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .asgi_socket import AsgiSocket
    from .core import HubCore
    from .subscribers import PublishResult

__all__ = ["PROTOCOL", "PROTOCOL_WITHIN", "HubHandler", "remind", "serve_client"]

PROTOCOL: Final = ClientProtocol(SUBPROTOCOL, render)
# Of clients in namespaces.
PROTOCOL_WITHIN: Final = ClientProtocol(SUBPROTOCOL, render_within)

ClientSocket: TypeAlias = "WebSocket | AsgiSocket"

# What a client asks for while it is being found out what it may do, in requests: then it is closed; and in bytes: then
# no more is read, as where a coroutine takes its time.
MAX_PENDING = 1000
MAX_PENDING_SIZE = 65536
# What a request costs, and each topic of one that has several, as bytes of a turn's work: about 20 us, and so 5 ms.
COMMAND_COST = 2048
MISTAKES = (EnvelopeError, CursorError, TopicError)
# What a client must be allowed to do for an action; for these, nothing.
FREE = frozenset({"unsubscribe", "renew", "answer"})
# What is about no topic.
NAMELESS = frozenset({"renew", "answer"})
# What is about a topic of a namespace.
NAMED = frozenset({"subscribe", "unsubscribe", "publish", "presence", "history"})
RIGHTS = {
    "subscribe": "subscribe",
    "presence": "subscribe",
    "history": "subscribe",
    "publish": "publish",
    "call": "call",
}


# -- WebSocket


async def serve_client(hub: HubCore, ws: ClientSocket) -> None:
    """Answer a client until it is gone."""
    if not speaks(ws):
        return
    try:
        waiting = hub.rules.introduce(ws)
        if waiting is not None:
            await waiting
    except HttpError as error:
        turn_away(ws, error)
        return
    begin_session(hub, ws)
    try:
        async for message in ws:
            waiting = handle(hub, ws, message)
            if waiting is not None:
                await waiting
            await ws.drain()
    finally:
        hub.forget_client(ws)


def begin_session(hub: HubCore, ws: ClientSocket) -> None:
    """Have a client that is known now be told when its identity is about to expire."""
    if isinstance(ws, WebSocket):
        # `identify` read it, and few will again.
        ws.lend_request(None)
    if ws.identity is not None:
        hub.listen_to_orders()
    hub.sessions.begin(ws, ws.identity, ws.close, lambda left: remind(ws, left))


def remind(ws: ClientSocket, left: float) -> None:
    """Tell a client for how many seconds it is who it is, unless it is about to leave."""
    with contextlib.suppress(ConnectionClosed):
        say(ws, serialize({"expires": round(left, 3)}))


def turn_away(ws: ClientSocket, error: HttpError) -> None:
    """Close a client that `identify` did not let in."""
    ws.close(close_code_of(error.status), close_reason(error.reason))


def speaks(ws: ClientSocket) -> bool:
    """Tell whether a client speaks rawws.v1; close it where it does not."""
    if ws.subprotocol != SUBPROTOCOL:
        ws.close(CloseCode.POLICY_VIOLATION, f"the subprotocol must be {SUBPROTOCOL}")
        return False
    return True


def handle(hub: HubCore, ws: ClientSocket, message: str | bytes) -> Awaitable[Any] | None:
    """Do what a message asks for, and answer it; return what is to be waited for first, if anything."""
    spend(COMMAND_COST)
    if hub.sessions.is_over(ws):
        return None
    try:
        command = placed(hub, ws, read(message))
    except EnvelopeError as error:
        reply(ws, error.id, error_of(error))
        return None
    try:
        allowed = command.action in FREE or hub.rules.may(ws, RIGHTS[command.action], command.topic)
    except Refused as error:
        reply(ws, command.id, error_of(error))
        return None
    if inspect.isawaitable(allowed):
        return mistaken(ws, command, handle_later(hub, ws, command, allowed))
    return execute(hub, ws, command, bool(allowed))


async def handle_later(hub: HubCore, ws: ClientSocket, command: Command, allowed: Awaitable[bool]) -> None:
    """Do the same where it takes time to know whether it is allowed."""
    verdict = bool(await allowed)
    if not hub.sessions.is_over(ws):
        waiting = execute(hub, ws, command, verdict)
        if waiting is not None:
            await waiting


def execute(hub: HubCore, ws: ClientSocket, command: Command, allowed: bool) -> Awaitable[Any] | None:
    """Do what a client asks for, and answer; return what is to be waited for, if anything."""
    if not allowed:
        reply(ws, command.id, {"error": "refused"})
        return None
    if command.action in CALLING:
        (hub.calls.begin if command.action == "call" else hub.calls.take)(ws, command)
        return None
    try:
        if command.action not in FREE:
            hub.account(ws, (command.topic,))
        judged = judge(hub, ws, command)
        if inspect.isawaitable(judged):
            return mistaken(ws, command, perform_later(hub, ws, command, judged))
        return perform(hub, ws, command, judged)
    except MISTAKES as error:
        reply(ws, command.id, error_of(error))
    return None


def judge(hub: HubCore, ws: ClientSocket, command: Command) -> Any:
    """Return what the application makes of a request, or an awaitable of that: of a publication, what it says."""
    if command.action == "publish":
        return hub.rules.edit(ws, command.topic, command.message, command.extra)
    if command.action == "subscribe":
        return hub.rules.admit(ws, command.topic)
    if command.action == "renew":
        return hub.rules.renewed(ws, str(command.message))
    return None


async def perform_later(hub: HubCore, ws: ClientSocket, command: Command, judged: Awaitable[Any]) -> None:
    """Do what a client asks for where the application takes its time."""
    found = await judged
    if not hub.sessions.is_over(ws):
        waiting = perform(hub, ws, command, found)
        if waiting is not None:
            await waiting


def perform(hub: HubCore, ws: ClientSocket, command: Command, judged: Any) -> Awaitable[Any] | None:
    """Do what a client may do, and answer; return what is to be waited for, if anything."""
    if command.action == "publish":
        message, extra = judged
        exclude = ws if command.exclude else None
        result = hub.publish_payload(command.topic, message, extra, command.key, exclude)
        if result.pending and command.id is not None:
            return confirm_later(ws, command, result)
        confirm(ws, command, place_of(result))
        return result
    if command.action == "unsubscribe":
        hub.leave(ws, command.topic)
        confirm(ws, command, {})
        return None
    if command.action == "renew":
        hub.sessions.renew(ws, judged)
        left = judged.left()
        confirm(ws, command, {} if left is None else {"expires": round(left, 3)})
        return None
    answer, since = ANSWERS[command.action], command.since
    if command.action == "history":
        since = "".join(history_of(command)) or EARLIEST
    waiting: Any = hub.when_ready([command.topic], since, lambda: answer(hub, ws, command))
    return None if waiting is None else mistaken(ws, command, waiting)


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
    if result.refused:
        return {"error": "unavailable", "reason": result.refused}
    return {"error": "limit", "reason": "too many publications wait already"}


def list_present(hub: HubCore, ws: ClientSocket, command: Command) -> None:
    """Answer who is present, to who can know that it is an answer."""
    if command.id is not None:
        say(ws, listed({"id": command.id}, hub.members(command.topic), hub.user_count(command.topic)))


def list_held(hub: HubCore, ws: ClientSocket, command: Command) -> None:
    """Answer what is held, to who can know that it is an answer."""
    if command.id is not None:
        page = page_of(hub, command.topic, *history_of(command), command.limit, MAX_ANSWER)
        say(ws, answer_page(hub, page, {"id": command.id}).decode())


def subscribe(hub: HubCore, ws: ClientSocket, command: Command) -> None:
    """Subscribe, answer, and send what was missed behind the answer."""
    subscriber = hub.subscriber_of(ws)
    since = cursor_of(command.since, command.topic)
    result = hub.admit(subscriber, command.topic, since=since, join=command.join, is_claim=True, watch=command.watch)
    subscription = result.subscription
    if command.id is not None:
        answer: dict[str, Any] = {"id": command.id, "cursor": result.cursor, "recovered": subscription.recovered}
        if command.join is not NOTHING:
            answer["present"] = subscription.present
        if command.watch:
            say(ws, listed(answer, hub.members(command.topic), hub.user_count(command.topic)))
        else:
            say(ws, serialize(answer))
    subscriber.replay(subscription, result.missed)


ANSWERS: Final = {"subscribe": subscribe, "presence": list_present, "history": list_held}


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

    def clear(self) -> None:
        """Forget those that wait."""
        self.queue.clear()
        self.size = 0

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
        """Find out who a client is; close one that does not speak rawws.v1, or that nobody knows."""
        if not speaks(ws):
            return
        try:
            waiting = self.hub.rules.introduce(ws)
        except HttpError as error:
            turn_away(ws, error)
            return
        if waiting is None:
            begin_session(self.hub, ws)
        else:
            self._wait(ws, self._introduce(ws, waiting))

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        """Do what a client asks for, behind what is not decided yet."""
        pending = self._busy.get(ws)
        if pending is None:
            waiting = handle(self.hub, ws, message)
            # A publisher that is not waited for cannot be slowed down.
            if inspect.iscoroutine(waiting):
                self._wait(ws, waiting)
        elif len(pending.queue) < MAX_PENDING:
            pending.append(message)
            if pending.size > MAX_PENDING_SIZE:
                ws.pause_messages()
        else:
            ws.close(CloseCode.TRY_AGAIN_LATER, f"over {MAX_PENDING} requests wait for an answer")

    def on_close(self, ws: WebSocket, code: int, reason: str) -> None:  # noqa: ARG002 - as Handler has it
        """Ask no more what a client may do that is gone."""
        self.hub.forget_client(ws)
        pending = self._busy.pop(ws, None)
        if pending is not None and pending.task is not None:
            pending.task.cancel()

    def _wait(self, ws: WebSocket, waiting: Awaitable[Any]) -> None:
        """Have what a client asks for wait behind this."""
        pending = self._busy[ws] = PendingCommands()
        pending.task = asyncio.get_running_loop().create_task(self._go_on(ws, waiting, pending))

    async def _introduce(self, ws: WebSocket, waiting: Awaitable[None]) -> None:
        try:
            await waiting
        except HttpError as error:
            turn_away(ws, error)
            self._busy[ws].clear()
        else:
            begin_session(self.hub, ws)

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


# -- what requests over HTTP need, too


def read(message: str | bytes) -> Command:
    """Return what a client asks for. Raises EnvelopeError, also for what is no name of a topic, and no pattern."""
    command = parse(message)
    try:
        if command.action not in NAMELESS:
            channel = channel_of(command.topic, pattern=command.pattern)
            return command._replace(topic=channel) if command.pattern else command
    except TopicError as error:
        raise EnvelopeError(error.code, str(error), command.id) from None
    return command


def placed(hub: HubCore, client: Any, command: Command) -> Command:
    """Return what a client asks for with the whole name of the topic."""
    if hub.rules.namespace is None or command.action not in NAMED or command.pattern:
        return command
    namespace = hub.rules.namespace_of(client)
    since, before = (namespaced(cursor, namespace) for cursor in (command.since, command.before))
    return command._replace(topic=namespace + command.topic, since=since, before=before)


def history_of(command: Command) -> tuple[str, str]:
    """Return the cursors of its topic that history is asked for behind, and before. Raises as `check_page` does."""
    check_page(command.since, command.before)
    return cursor_of(command.since, command.topic), cursor_of(command.before, command.topic)
