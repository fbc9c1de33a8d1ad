"""Documents that many edit at once, with Yjs: what y-websocket speaks on one side, pycrdt and SQLite on the other.

`python collaboration.py [PORT]`, and open http://127.0.0.1:8765/#notes twice. It needs pycrdt and, where it is started,
`yjs.js` (docs/use/collaboration.md); there it keeps the documents, in `documents.sqlite`.
"""

import json
import re
import sqlite3
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pycrdt import (
    Doc,
    Encoder,
    YMessageType,
    YSyncMessageType,
    create_awareness_message,
    create_sync_message,
    create_update_message,
    handle_sync_message,
)

import rawws

HERE = Path(__file__).parent
LIMIT = 4 << 20  # bytes of a document with all its changes; so a client can bring a whole one in one message

hub = rawws.Hub(history=None, max_size=2 * LIMIT)
store = sqlite3.connect("documents.sqlite")
store.executescript(
    "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
    "CREATE TABLE IF NOT EXISTS updates (document TEXT, data BLOB); CREATE INDEX IF NOT EXISTS i ON updates (document)"
)


def read(data: bytes, at: int) -> tuple[int, int]:
    """Read a number of up to 56 bits, seven in each byte, the lowest first; return it and where it ends."""
    for end in range(at, at + 8):
        if data[end] < 128:
            return sum((data[i] & 127) << 7 * (i - at) for i in range(at, end + 1)), end + 1
    raise ValueError("a number is too long")


def block(data: bytes, at: int) -> tuple[bytes, int]:
    """Read bytes behind their length."""
    size, start = read(data, at)
    if start + size > len(data):
        raise ValueError("bytes are missing")
    return data[start : start + size], start + size


class Document:
    """A document that somebody has open: what is in it, and who is there."""

    def __init__(self, name: str) -> None:
        self.name, self.open = name, 0
        self.people: dict[rawws.WebSocket, tuple[int, int, str]] = {}  # their client, its clock, its state in JSON
        self.load()

    def load(self) -> None:
        """Read it from the store."""
        self.doc: Doc[Any] = Doc()
        updates = store.execute("SELECT data FROM updates WHERE document = ? ORDER BY rowid", [self.name]).fetchall()
        for (update,) in updates:
            self.doc.apply_update(update)
        self.size = sum(len(update) for (update,) in updates)
        if len(updates) > 1:
            self.pack()

    def pack(self) -> None:
        """Store it as one update in the place of many."""
        whole = self.doc.get_update()
        with store:
            store.execute("DELETE FROM updates WHERE document = ?", [self.name])
            store.execute("INSERT INTO updates VALUES (?, ?)", [self.name, whole])
        self.size = len(whole)

    def take(self, ws: rawws.WebSocket, message: str | bytes) -> bytes | None:
        """Take a message, and return what answers it. Raises ValueError or IndexError for what is none."""
        data = message if isinstance(message, bytes) else b""
        kind, at = read(data, 0)
        step, at = read(data, at) if kind == YMessageType.SYNC else (None, at)
        body, _ = block(data, at)
        # pycrdt makes room for as many clients as the first number says, before it reads them.
        if read(body, 0)[0] > len(body):
            raise ValueError("more clients than bytes")
        match kind, step:
            case YMessageType.SYNC, YSyncMessageType.SYNC_STEP1:
                return handle_sync_message(data[1:], self.doc)
            case YMessageType.SYNC, YSyncMessageType.SYNC_STEP2 | YSyncMessageType.SYNC_UPDATE:
                if body != b"\0\0":  # nothing
                    self.change(body)
            case YMessageType.AWARENESS, _:
                self.meet(ws, body)
            case _:
                raise ValueError("no message of y-websocket")
        return None

    def change(self, update: bytes) -> None:
        """Make a change, keep it, tell all. Raises ValueError for what is none, OverflowError where no room is left."""
        if self.size + len(update) > LIMIT:
            self.pack()
        if self.size + len(update) > LIMIT:
            raise OverflowError
        try:
            with store:
                store.execute("INSERT INTO updates VALUES (?, ?)", [self.name, update])
                self.doc.apply_update(update)
        except BaseException as error:  # a panic of Rust is no Exception
            if not isinstance(error, ValueError):
                self.load()  # half of it may be done
            if isinstance(error, sqlite3.Error):
                raise
            raise ValueError("no update") from error
        self.size += len(update)
        hub.publish(self.name, create_update_message(update))

    def meet(self, ws: rawws.WebSocket, data: bytes) -> None:
        """Tell all who is there and where the cursor is. A connection speaks for the client that it names first."""
        count, at = read(data, 0)
        told = None
        for _ in range(count):
            client, at = read(data, at)
            clock, at = read(data, at)
            text, at = block(data, at)
            if client == self.people.get(ws, (client, 0, ""))[0]:
                if len(text) > 2048:
                    raise ValueError("a state is too long")
                told = client, clock, json.dumps(json.loads(text), allow_nan=False)
        if told:
            self.people[ws] = told
            hub.publish(self.name, states([told]))

    def part(self, ws: rawws.WebSocket) -> None:
        """Tell all who is gone."""
        client, clock, _ = self.people.pop(ws, (None, 0, ""))
        if client is not None and all(client != other for other, _, _ in self.people.values()):
            hub.publish(self.name, states([(client, clock, "null")]))


def states(people: Collection[tuple[int, int, str]]) -> bytes:
    """Return the message that tells who is there."""
    encoder = Encoder()
    encoder.write_var_uint(len(people))
    for client, clock, text in people:
        encoder.write_var_uint(client)
        encoder.write_var_uint(clock)
        encoder.write_var_string(text)
    return create_awareness_message(encoder.to_bytes())


documents: dict[str, Document] = {}  # those that somebody has open
routes = rawws.Routes(
    [
        rawws.Route("/", lambda _: rawws.Response.file(HERE / "collaboration.html")),
        rawws.Route("/style.css", lambda _: rawws.Response.file(HERE / "style.css")),
        rawws.Route("/yjs.js", lambda _: rawws.Response.file("yjs.js")),
    ]
)


@routes.websocket("/documents/{name}")
async def edit(ws: rawws.WebSocket) -> None:
    """Speak y-websocket: both sides say what they have, and send what the other one lacks; then each change."""
    name = ws.path_params["name"]
    if not re.fullmatch(r"[\w-]{1,50}", name):
        return await ws.close(4404, "no name of a document")
    document = documents.get(name) or documents.setdefault(name, Document(name))
    document.open += 1
    hub.subscribe(ws, name)
    try:
        ws.send(create_sync_message(document.doc))
        if document.people:
            ws.send(states(document.people.values()))
        async for message in ws:
            if answer := document.take(ws, message):
                await ws.send(answer)
    except (ValueError, IndexError, RecursionError):
        await ws.close(4400, "no message of y-websocket")  # after 44.. a client does not come back
    except OverflowError:
        await ws.close(4413, "the document is full")
    finally:
        document.part(ws)
        document.open -= 1
        if not document.open:
            del documents[name]


if __name__ == "__main__":
    port = int(sys.argv[1]) if sys.argv[1:] else 8765
    rawws.run(routes, "127.0.0.1", port, max_size=LIMIT, message_rate=200)
