"""A text that many write at once: the server puts all changes in one order, and everybody makes them in that order.

`python text.py [PORT]`, and open http://127.0.0.1:8765/ twice. Each letter has an id for ever, and a change names ids,
never positions: so whoever makes the same changes in the same order has the same text, and nothing must be transformed.
"""

import re
import sys
from pathlib import Path
from typing import Any

import rawws
from rawws.topics import endpoints

HERE = Path(__file__).parent
# Letters and changes that ever were: a text for a page, not for a book.
LIMIT = 100_000

hub = rawws.Hub(
    history=rawws.History(count=1000),
    authorize=lambda _client, action, topic: (action, topic) == ("subscribe", "text"),
)
letters: list[list[Any]] = []  # [id, letter, whether it is there]
known: set[str] = set()  # the ids of letters and of changes


def change(asked: Any) -> None:
    """Make a change, once however often it comes. Raises HandshakeError for one that is none."""
    match asked:
        case {"id": str(ident), "after": None | str(), "insert": str(text), "delete": [*gone]} if len(
            ident
        ) <= 40 and not re.search("[\ud800-\udfff]", ident + text):
            named = {None, *map(str, gone), asked["after"]} - {None}
        case _:
            raise rawws.HandshakeError(400, "allowed is {id, after, insert, delete}")
    if ident in known:
        return
    if not known.issuperset(named) or len(known) + len(text) >= LIMIT:
        raise rawws.HandshakeError(409, "it names letters that never were, or the text is full")
    for letter in letters:
        letter[2] = letter[2] and letter[0] not in gone
    at = 1 + next((place for place, letter in enumerate(letters) if letter[0] == asked["after"]), -1)
    letters[at:at] = [[f"{ident}.{number}", letter, True] for number, letter in enumerate(text)]
    known.update([ident], (f"{ident}.{number}" for number in range(len(text))))


def take(request: rawws.HttpRequest) -> None:
    """Take a change from somebody, and tell all. Whoever had no answer sends it again."""
    change(request.json())
    hub.publish("text", request.text())


def whole(_: rawws.HttpRequest) -> dict[str, Any]:
    """Give the text as it is, and the cursor behind which the changes go on: that of a change of nothing."""
    return {"letters": letters, "cursor": hub.publish("text", "null").cursor}


routes = rawws.Routes(
    [
        rawws.Route("/", lambda _: rawws.Response.file(HERE / "text.html")),
        rawws.Route("/style.css", lambda _: rawws.Response.file(HERE / "style.css")),
        rawws.Route("/state.js", lambda _: rawws.Response.file(HERE / "state.js")),
        rawws.Route("/text", whole),
        rawws.Route("/text", take, ["POST"]),
        *endpoints.routes(hub, "/topics"),
    ]
)

if __name__ == "__main__":
    rawws.run(routes, "127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 8765, subprotocols=["rawws.v1"])
