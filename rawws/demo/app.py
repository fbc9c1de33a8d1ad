"""The demo's server: HTTP paths to the page, WebSocket messages to the echo and to the chat room."""

from __future__ import annotations

import base64
import collections
import contextlib
import hashlib
import importlib.resources
import json
import re
import secrets
import time
import unicodedata
from typing import TYPE_CHECKING, Any, final

import rawws

if TYPE_CHECKING:
    from rawws.protocol.http11 import Response

__all__ = ["Demo", "answer"]

# The page's own limits stand in its maxlength attributes; these hold for everybody else.
NAME_LIMIT = 24
TEXT_LIMIT = 1000
HISTORY_LIMIT = 50
ROOM_LIMIT = 200


@final
class Demo(rawws.Handler):
    """Serves every connection: /echo sends back what came, /chat is one room for all."""

    def __init__(self, server: str) -> None:
        self.room = Room(server)

    def on_open(self, ws: rawws.WebSocket) -> None:
        """Show a newcomer of the chat the room; the echo has nothing to say."""
        ws.state.chats = ws.request is not None and ws.request.path.startswith("/chat")
        if ws.state.chats:
            self.room.enter(ws)

    def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
        """Answer one message."""
        if ws.state.chats:
            self.room.receive(ws, message)
        else:
            ws.send(message)

    def on_close(self, ws: rawws.WebSocket, code: int, reason: str) -> None:  # noqa: ARG002
        """Forget a connection."""
        self.room.exit(ws)


@final
class Room:
    """A chat room: who looks on, who has joined under which name, and the last messages."""

    __slots__ = ("history", "ids", "names", "server")

    def __init__(self, server: str) -> None:
        self.server = server
        self.ids: dict[rawws.WebSocket, str] = {}
        self.names: dict[rawws.WebSocket, str] = {}
        self.history: collections.deque[dict[str, Any]] = collections.deque(maxlen=HISTORY_LIMIT)

    def enter(self, ws: rawws.WebSocket) -> None:
        """Let a connection look on, or turn it away from a full room."""
        if len(self.ids) >= ROOM_LIMIT:
            ws.close(1013, "the room is full")
            return
        self.ids[ws] = secrets.token_urlsafe(6)
        tell(ws, type="welcome", server=self.server, you=self.ids[ws], history=list(self.history))
        tell(ws, type="presence", names=list(self.names.values()))

    def exit(self, ws: rawws.WebSocket) -> None:
        """Forget a connection that ended."""
        self.ids.pop(ws, None)
        self.leave(ws)

    def receive(self, ws: rawws.WebSocket, message: str | bytes) -> None:
        """Do what one message of the page asks for, or tell its sender why not."""
        if ws not in self.ids:  # turned away, and not gone yet
            return
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


PAGE = (importlib.resources.files(__package__) / "page.html").read_bytes()


def digest(tag: str) -> str:
    """Return the CSP source that allows the page's own <style> or <script>, and no other."""
    [inline] = re.findall(rf"<{tag}>(.*?)</{tag}>".encode(), PAGE, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(inline).digest()).decode()}'"


PAGE_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": (
        f"default-src 'none'; style-src {digest('style')}; script-src {digest('script')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "Cache-Control": "no-cache",
    # Alone in its process, the page may read the clock in steps of 5 us; else in steps of 100.
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def answer(ws: rawws.WebSocket, request: rawws.Request) -> Response | None:
    """Answer plain HTTP; None lets a WebSocket in."""
    match request.path.partition("?")[0]:
        case "/echo" | "/chat":
            return None
        case "/":
            return rawws.Response(200, body=PAGE, headers=PAGE_HEADERS)
        case "/healthz":
            return ws.respond(200, "ok\n")
        case _:
            return ws.respond(404, "not here: the page is at /, the WebSockets at /echo and /chat\n")
