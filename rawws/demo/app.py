"""The demo's server: a page, an echo and a chat room over WebSockets, and one feed by events and by long polling."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import secrets
import time
import unicodedata
from typing import Any, final

import rawws

from .connection import connection_routes
from .pages import page_response

__all__ = ["demo_routes"]

# The page's own limits stand in its maxlength attributes; these hold for everybody else.
NAME_LIMIT = 24
TEXT_LIMIT = 1000
HISTORY_LIMIT = 50
ROOM_LIMIT = 200
# The feed keeps so many entries, two minutes of them; a newcomer gets those of the last half minute.
LOG_LIMIT = 120
GREETING = 30
READER_LIMIT = 400
# How long a browser waits before it comes back to a stream, in milliseconds; most wait 3 to 5 s if nobody tells them.
RETRY = 1000


def demo_routes(server: str) -> rawws.Routes:
    """Return the table of all that the demo serves; `server` is what the page says it was served by."""
    echo, room = Echo(), Room(server)
    feed = Feed(echo, room)
    page = page_response("page.html")
    return rawws.Routes(
        [
            rawws.Route("/", lambda _: page),
            rawws.Route("/healthz", rawws.healthz),
            rawws.Route("/readyz", rawws.readyz),
            rawws.Route("/echo", echo, websocket=True),
            rawws.Route("/chat", room, websocket=True),
            rawws.Route("/feed", feed.stream),
            rawws.Route("/poll", feed.poll),
            *connection_routes(),
        ]
    )


@final
class Echo(rawws.Handler):
    """Sends back what came."""

    def __init__(self) -> None:
        self.open = 0
        self.messages = 0

    def on_open(self, ws: rawws.WebSocket) -> None:  # noqa: ARG002
        """Count a connection."""
        self.open += 1

    def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
        """Answer one message."""
        self.messages += 1
        ws.send(message)

    def on_close(self, ws: rawws.WebSocket, code: int, reason: str) -> None:  # noqa: ARG002
        """Forget a connection."""
        self.open -= 1


@final
class Room(rawws.Handler):
    """A chat room: who looks on, who has joined under which name, and the last messages."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.messages = 0
        self.ids: dict[rawws.WebSocket, str] = {}
        self.names: dict[rawws.WebSocket, str] = {}
        self.history: collections.deque[dict[str, Any]] = collections.deque(maxlen=HISTORY_LIMIT)

    def on_open(self, ws: rawws.WebSocket) -> None:
        """Let a connection look on, or turn it away from a full room."""
        if len(self.ids) >= ROOM_LIMIT:
            ws.close(rawws.CloseCode.TRY_AGAIN_LATER, "the room is full")
            return
        self.ids[ws] = secrets.token_urlsafe(6)
        tell(ws, type="welcome", server=self.server, you=self.ids[ws], history=list(self.history))
        tell(ws, type="presence", names=list(self.names.values()))

    def on_close(self, ws: rawws.WebSocket, code: int, reason: str) -> None:  # noqa: ARG002
        """Forget a connection that ended."""
        self.ids.pop(ws, None)
        self.leave(ws)

    def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
        """Do what one message of the page asks for, or tell its sender why not."""
        if ws not in self.ids:  # turned away, and not gone yet
            return
        self.messages += 1
        try:
            match json.loads(message):
                case {"type": "join", "name": str(name)}:
                    self.join(ws, one_line(name, NAME_LIMIT))
                case {"type": "say", "text": str(text)}:
                    self.say(ws, one_line(text, TEXT_LIMIT))
                case {"type": "leave"}:
                    self.leave(ws)
                case _:
                    raise ValueError('allowed are {"type": "join", "name"}, {"type": "say", "text"}, {"type": "leave"}')
        except (ValueError, RecursionError) as error:
            tell(ws, type="error", text=str(error))

    def join(self, ws: rawws.WebSocket, name: str) -> None:
        """Give a connection the name under which it may speak."""
        before, self.names[ws] = self.names.get(ws), name
        tell(ws, type="joined", name=name)
        if before != name:
            self.tell_all(type="notice", text=f"{before} is now {name}" if before else f"{name} joined")
            self.tell_all(type="presence", names=list(self.names.values()))

    def leave(self, ws: rawws.WebSocket) -> None:
        """Take a connection's name away."""
        name = self.names.pop(ws, None)
        if name is not None:
            self.tell_all(type="notice", text=f"{name} left")
            self.tell_all(type="presence", names=list(self.names.values()))

    def say(self, ws: rawws.WebSocket, text: str) -> None:
        """Give a text to everybody in the room."""
        if ws not in self.names:
            raise ValueError("join under a name first")
        now = int(time.time() * 1000)
        message = {"type": "message", "from": self.ids[ws], "name": self.names[ws], "text": text, "time": now}
        self.history.append(message)
        self.tell_all(**message)

    def tell_all(self, **message: object) -> None:
        """Send one message to everybody who looks on."""
        for ws in list(self.ids):
            tell(ws, **message)


@final
class Feed:
    """Figures of this server, noted once a second: the last entries, and everybody who waits for the next one.

    An entry's id is that of this run and its number. Whoever names one gets what came behind it; whoever names none
    that is kept gets all that is, and sees by the numbers what is missing.
    """

    def __init__(self, echo: Echo, room: Room) -> None:
        self.echo = echo
        self.room = room
        self.epoch = secrets.token_hex(3)
        self.count = 0
        self.entries: collections.deque[rawws.Event] = collections.deque(maxlen=LOG_LIMIT)
        self.streams: set[rawws.EventStream] = set()
        self.polls: set[rawws.LongPoll] = set()
        self.begun = False

    def stream(self, request: rawws.HttpRequest) -> rawws.EventStream | rawws.Response:
        """Send what the reader has missed, and then each entry."""
        if not self.admits():
            return FULL
        stream = rawws.EventStream(retry=RETRY, on_close=self.streams.discard)
        # A browser that comes back names the last id by itself; a page that made a new EventSource cannot.
        for entry in self.since(request.last_event_id or request.query.get("since", "")):
            stream.send(entry)
        self.streams.add(stream)
        return stream

    def poll(self, request: rawws.HttpRequest) -> rawws.LongPoll | rawws.Response:
        """Answer with what the reader has missed, or hold the request until there is an entry."""
        if not self.admits():
            return FULL
        missed = self.since(request.query.get("since", ""))
        if missed:
            return as_array(missed)
        poll = rawws.LongPoll(on_close=self.polls.discard)
        self.polls.add(poll)
        return poll

    def admits(self) -> bool:
        """Tell whether there is room for one more reader; with the first one, begin."""
        if not self.begun:
            self.begun = True
            asyncio.get_running_loop().call_later(1, self.note, self.measure())
        return len(self.streams) + len(self.polls) < READER_LIMIT

    def since(self, seen: str) -> list[rawws.Event]:
        """Return the entries behind an id."""
        kept = list(self.entries)
        if not seen:
            return kept[-GREETING:]
        known = [number for number, entry in enumerate(kept, 1) if entry.id == seen]
        return kept[known[0] :] if known else kept

    def note(self, before: tuple[float, float, int]) -> None:
        """Add an entry, give it to everybody, and do so again in a second; `before` is what `measure` said last."""
        now = self.measure()
        asyncio.get_running_loop().call_later(1, self.note, now)
        used, passed, messages = (new - old for new, old in zip(now, before, strict=True))
        self.count += 1
        identity = f"{self.epoch}-{self.count}"
        figures = {
            "id": identity,
            "time": int(time.time() * 1000),
            "messages": messages,
            "cpu": round(100 * used / passed, 1),
            "sockets": self.echo.open + len(self.room.ids),
            "streams": len(self.streams),
            "polls": len(self.polls),
        }
        entry = rawws.Event(json.dumps(figures), id=identity)
        self.entries.append(entry)
        for stream in self.streams:
            with contextlib.suppress(rawws.ConnectionClosed):
                stream.send(entry)
        polls, self.polls = self.polls, set()
        for poll in polls:
            poll.respond(as_array([entry]))

    def measure(self) -> tuple[float, float, int]:
        """Return the CPU seconds that the process has used, the time, and how many messages have come."""
        return time.process_time(), time.perf_counter(), self.echo.messages + self.room.messages


FULL = rawws.Response(503, "there are too many readers\n", {"Retry-After": "10"})


def as_array(entries: list[rawws.Event]) -> rawws.Response:
    """Return entries as one JSON array."""
    text = ",".join(str(entry.data) for entry in entries)
    return rawws.Response(200, f"[{text}]", {"Cache-Control": "no-store"}, "application/json")


def tell(ws: rawws.WebSocket, **message: object) -> None:
    """Send one JSON message; a connection that is closing misses it, and `on_close` will clear it away."""
    with contextlib.suppress(rawws.ConnectionClosed):
        ws.send(json.dumps(message))


def one_line(text: str, limit: int) -> str:
    """Return `text` as one line without control characters, or raise ValueError that says what is allowed."""
    line = " ".join("".join(" " if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"} else c for c in text).split())
    if not 1 <= len(line) <= limit:
        raise ValueError(f"{len(line)} characters came, 1 to {limit} are allowed")
    return line
