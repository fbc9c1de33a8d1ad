"""Broker: an engine in a process of its own, for the hubs of one machine, and the backplane that reaches it.

They speak WebSocket over a unix socket, and what they say is the contract as JSON: `[number, call, arguments]` from a
hub, `[number, answer]` or `[number, null, reason]` from the broker, and `[event, arguments]` of what happens. Whoever
may open the socket may say all of it: the folder that it is in keeps others out. What the broker holds is lost when it
ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import signal
from base64 import b64decode, b64encode
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, final
from urllib.parse import quote

from rawws.client.connect import unix_connect
from rawws.errors import ConnectionClosed, RawwsError
from rawws.net.handlers import Handler
from rawws.server.server import unix_serve
from rawws.topics.backplane import (
    ALL_TOPICS,
    NO_TOPICS,
    BackplaneAway,
    History,
    HistoryResult,
    Placed,
    Position,
    TopicUnavailable,
    new_entry,
    new_placed,
    new_position,
    new_record,
)

from .memory import Engine, MemoryBackplane
from .session import EngineSession, fail_answers

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    from rawws.net.websocket import WebSocket
    from rawws.server.server import Server
    from rawws.topics.backplane import BackplaneHandler, PresenceEntry, Record

__all__ = ["Broker", "BrokerBackplane", "keep"]

logger = logging.getLogger("rawws.backplanes")

Answer = TypeVar("Answer")

# The broker is on this machine, and soon back where it is started again: so many seconds from one attempt to the next.
WAIT = (0.02, 0.2)
# What may wait for a hub, or for the broker, in bytes: all that a hub holds back while the broker is away, and more.
HARD_LIMIT = 64 << 20
# How often the broker looks whether the last hub is gone, in seconds.
LOOK = 0.02


def result_of(answer: Any) -> HistoryResult:
    """Return what is known of a topic. Raises ValueError and TypeError for what is no answer to that."""
    epoch, offset, records, recovered, began, before = answer
    found = [new_record(*each) for each in records]
    places = tuple(new_position(*each) for each in before)
    return HistoryResult(*new_position(epoch, offset), found, recovered is True, int(began), places)


# Calls that are answered, and what makes the answer of what came; and those that are not.
ANSWERED: dict[str, Callable[[Any], Any]] = {
    "publish": lambda answer: new_placed(answer[0], dict(answer[1])),
    "follow": lambda _: None,
    "history": result_of,
    "presence": lambda answer: [new_entry(*each) for each in answer],
}
TOLD = frozenset({"unfollow", "join", "leave"})


# -- the broker's side


@final
class Broker(Handler):
    """An engine for each path: `rawws.unix_serve(Broker(), path)`."""

    def __init__(self) -> None:
        self._engines: dict[str, Engine] = {}

    def on_open(self, ws: WebSocket) -> None:
        """Begin with a hub."""
        realm = "" if ws.request is None else ws.request.path
        ws.state.session = HubSession(ws, self._engines.setdefault(realm, Engine()))

    def on_message(self, ws: WebSocket, message: str | bytes) -> None:
        """Do what a hub asks for."""
        ws.state.session.take(message)

    def on_close(self, ws: WebSocket, code: int, reason: str) -> None:  # noqa: ARG002 - as Handler has it
        """End the lease of a hub that is gone."""
        ws.state.session.backplane.end()


@final
class HubSession:
    """One hub at the broker: a BackplaneHandler that passes on what it is told."""

    __slots__ = ("backplane", "ws")

    def __init__(self, ws: WebSocket, engine: Engine) -> None:
        self.ws = ws
        self.backplane = MemoryBackplane(engine)

    def take(self, message: str | bytes) -> None:
        """Make a call for the hub, and answer when it is done."""
        number, call, arguments = decode(message)
        if call == "open":
            server, bounds = arguments
            self.backplane.open(server, History(*bounds), self)
        elif call in TOLD:
            getattr(self.backplane, call)(*arguments)
        elif call == "history":
            topic, since = arguments
            self._answer(number, self.backplane.history(topic, since and Position(*since)))
        elif call in ANSWERED:
            self._answer(number, getattr(self.backplane, call)(*arguments))
        else:
            raise ValueError(f"the call is {call!r}, allowed are open, {', '.join([*ANSWERED, *sorted(TOLD)])}")

    def on_record(self, record: Record) -> None:
        """Send a record to the server of this line."""
        self._say("record", [record])

    def on_presence(self, topic: str, event: str, entry: PresenceEntry) -> None:
        """Tell the server of this line who joined or left."""
        self._say("presence", [topic, event, entry])

    def on_server_gone(self, server: str, topics: Container[str] = ALL_TOPICS) -> None:  # noqa: ARG002 - it is in all
        """Tell the server of this line that the lease of another one ended."""
        self._say("gone", [server])

    def on_doubt(self, topic: str, reason: str = "") -> None:
        """Nothing is to be told: a hub sees for itself what is missing."""

    def on_away(self, reason: str, away: Container[str] = ALL_TOPICS) -> None:
        """Nothing is to be told: a broker that is away says nothing."""

    def on_back(self, away: Container[str] = NO_TOPICS) -> None:
        """Nothing is to be told: the hub knows that it is here."""

    def _answer(self, number: int, asked: asyncio.Future[Any]) -> None:
        def done(_: object) -> None:
            # It is cancelled, or away, where the hub is gone.
            error = None if asked.cancelled() else asked.exception()
            if isinstance(error, TopicUnavailable):
                self._say(number, None, error.reason)
            elif not asked.cancelled() and error is None:
                answer = asked.result()
                self._say(number, (answer, list(answer.patterns.items())) if isinstance(answer, Placed) else answer)

        asked.add_done_callback(done)

    def _say(self, about: int | str, *what: Any) -> None:
        with suppress(ConnectionClosed):
            self.ws.send(encode([about, *what]))


async def keep(path: str, on_ready: Callable[[Server], None]) -> None:
    """Be a broker until SIGTERM, and then until the last hub is gone: those that drain still need it."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    # What hubs come and go is no news.
    quiet = logger.getChild("broker")
    quiet.setLevel(logging.WARNING)
    async with unix_serve(
        Broker(), path, compression=None, max_size=None, hard_limit=HARD_LIMIT, logger=quiet
    ) as server:
        on_ready(server)
        await ended.wait()
        while server.connections:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(LOOK)


# -- the hub's side


@final
class BrokerBackplane:
    """A hub's connection to a Broker at a path; hubs that name the same `realm` there are joined."""

    patterns = True

    def __init__(self, path: str, realm: str = "") -> None:
        self._path = path
        self._uri = f"ws://localhost/{quote(realm, safe='')}"
        self._ws: WebSocket | None = None
        self._number = 0
        # By their numbers: who waits for an answer, of which topic, and what makes it of what comes.
        self._asked: dict[int, tuple[asyncio.Future[Any], str, Callable[[Any], Any]]] = {}
        self._session = EngineSession(self, "the broker", (BackplaneAway,), waits)

    def open(self, server: str, history: History, handler: BackplaneHandler) -> None:
        """Reach the engine in the running loop, then call on_back or on_away of the handler."""
        self._session.open(server, history, handler)

    async def close(self) -> None:
        """End the lease of this server, and close the connection."""
        await self._session.close()

    def publish(
        self, topic: str, message: str | bytes, key: str | None, number: int, extra: str = ""
    ) -> asyncio.Future[Position]:
        """Store a message and send it to all followers of the topic. The future gets its position."""
        return self._ask("publish", topic, message, key, number, extra)

    def follow(self, topic: str) -> asyncio.Future[None]:
        """Pass records of this topic to the handler, from when the future is done."""
        return self._ask("follow", topic)

    def unfollow(self, topic: str) -> None:
        """Pass no more records of this topic to the handler."""
        self._tell("unfollow", topic)

    def history(self, topic: str, since: Position | None) -> asyncio.Future[HistoryResult]:
        """Return the records after a position, or all that are stored if it is None."""
        return self._ask("history", topic, since)

    def join(self, topic: str, ident: str, info: str) -> None:
        """Enter somebody into the presence of a topic, and tell its followers."""
        self._session.join(topic, ident, info)

    def leave(self, topic: str, ident: str) -> None:
        """Remove somebody from the presence of a topic, and tell its followers."""
        self._session.leave(topic, ident)

    def presence(self, topic: str) -> asyncio.Future[list[PresenceEntry]]:
        """Return who is present in a topic, at servers whose lease has not ended."""
        return self._ask("presence", topic)

    def stats(self) -> dict[str, int]:
        """Return the number of retries to reach the engine."""
        return {"retries": self._session.retries}

    # -- what the session calls

    async def reach(self) -> None:
        """Connect to the broker."""
        try:
            self._ws = await unix_connect(self._path, self._uri, compression=None, max_size=None, hard_limit=HARD_LIMIT)
        except (OSError, RawwsError) as error:
            raise self._away(error) from error
        session = self._session
        bounds = session.history
        self._tell("open", session.server, (bounds.count, bounds.size, bounds.age, bounds.total))

    async def work(self) -> None:
        """Take what the broker says, until it ends the connection."""
        assert self._ws is not None  # noqa: S101 - for mypy
        try:
            async for message in self._ws:
                self._take(message)
        except (OSError, RawwsError) as error:
            raise self._away(error) from error

    async def lose(self, reason: str) -> None:
        """Fail what was asked and not answered."""
        ws, self._ws = self._ws, None
        asked, self._asked = self._asked, {}
        fail_answers([future for future, _, _ in asked.values()], reason)
        if ws is not None:
            await ws.close()

    def enter(self, topic: str, ident: str, info: str) -> None:
        """Tell the broker that somebody is present."""
        self._tell("join", topic, ident, info)

    def part(self, topic: str, ident: str) -> None:
        """Tell the broker that somebody is no longer present."""
        self._tell("leave", topic, ident)

    # -- inside

    def _away(self, error: Exception) -> BackplaneAway:
        return BackplaneAway(f"the broker at {self._path} cannot be reached: {error}")

    def _take(self, message: str | bytes) -> None:
        """Take an answer, or what happened."""
        about, what, *reason = decode(message)
        if about == "record":
            record = self._read(what[0][0], new_record, what[0])
            if record is not None:
                self._session.handler.on_record(record)
        elif about == "presence":
            entry = self._read(what[0], new_entry, what[2])
            if entry is not None:
                self._session.handler.on_presence(what[0], what[1], entry)
        elif about == "gone":
            self._session.handler.on_server_gone(*what)
        else:
            future, topic, made = self._asked.pop(about)
            if future.done():
                return
            try:
                if reason:
                    raise ValueError(*reason)
                future.set_result(made(what))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is about one topic
                future.set_exception(TopicUnavailable(topic, str(error)))

    def _read(self, topic: Any, made: Callable[..., Answer], what: Any) -> Answer | None:
        """Return what came of a topic; None for what cannot be read, which the handler is told."""
        try:
            return made(*what)
        except (TypeError, ValueError) as error:
            if not isinstance(topic, str):
                raise
            self._session.handler.on_doubt(topic, f"what came of it cannot be read: {error}")
            return None

    def _ask(self, call: str, topic: str, *arguments: object) -> asyncio.Future[Any]:
        future = self._session.new_answer()
        if future.done():
            return future
        number = self._tell(call, topic, *arguments)
        if number:
            self._asked[number] = future, topic, ANSWERED[call]
        else:
            fail_answers([future], "the broker is away")
        return future

    def _tell(self, call: str, *arguments: object) -> int:
        """Send a call, and return its number, 0 where there is nobody to send it to."""
        if self._ws is None:
            return 0
        self._number += 1
        try:
            self._ws.send(encode([self._number, call, arguments]))
        except ConnectionClosed:
            return 0
        return self._number


def waits() -> Iterator[float]:
    """Yield the seconds from one attempt to reach a broker to the next."""
    while True:
        yield random.uniform(*WAIT)  # noqa: S311 - no secret


# -- both sides


def encode(value: object) -> str:
    """Return JSON; octets in it are an object with one member."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=boxed)


def boxed(octets: bytes) -> dict[str, str]:
    """Return what stands for octets in JSON."""
    return {"base64": b64encode(octets).decode()}


def decode(message: str | bytes) -> Any:
    """Return what JSON stands for."""
    return json.loads(message, object_hook=lambda box: b64decode(box["base64"]))
