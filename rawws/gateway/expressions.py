"""Expressions: a text of API Gateway and a message to a route key or a header ("selection" and "mapping expressions").

Of JSONPath exactly this is understood: names with dots between them, and whole numbers in brackets. Everything else is
refused where the expression is read, not where a message comes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["NO_JSON", "ExpressionError", "RequestValue", "RouteSelection", "parse_message"]

NAME = r"[^\W\d][\w-]*"
STEPS = re.compile(rf"\.(?P<name>{NAME})|\[(?P<index>\d{{1,9}})\]")
# Without braces, a variable ends before a hyphen: `$request.body.a-b` is the value of `a`, and the text `-b`.
BARE = re.compile(r"request\.body(?:\.[^\W\d]\w*|\[\d{1,9}\])+")
IN_BRACES = re.compile(rf"request\.body(?:\.{NAME}|\[\d{{1,9}}\])+")
BODY = "request.body"
ALLOWED = "allowed are names with dots and [0] behind request.body"


class ExpressionError(ValueError):
    """An expression is not understood; the message says where."""


class NoJson:
    """What a message says that is no JSON."""


NO_JSON = NoJson()


def parse_message(text: str) -> Any:
    """Return what a message says in JSON, NO_JSON for one that is none; it raises for no message."""
    try:
        # NaN and Infinity are no JSON (RFC 8259 section 6).
        return json.loads(text, parse_constant=_no_number)
    # More levels than the interpreter takes, more digits than it converts.
    except (ValueError, RecursionError):
        return NO_JSON


def _no_number(name: str) -> None:
    raise ValueError(name)


@final
class JsonPath:
    """A path to one value: `.user.names[0]`. Raises ExpressionError for another."""

    __slots__ = ("steps",)

    def __init__(self, path: str) -> None:
        self.steps: list[str | int] = []
        place = 0
        while place < len(path):
            found = STEPS.match(path, place)
            if found is None:
                raise ExpressionError(f"the path is {path[:64]!r}, {ALLOWED}")
            self.steps.append(found["name"] if found["index"] is None else int(found["index"]))
            place = found.end()

    def find(self, value: Any) -> str:
        """Return what stands at the path, as text; "" for nothing."""
        for step in self.steps:
            if isinstance(step, str):
                value = value.get(step) if isinstance(value, dict) else None
            else:
                value = value[step] if isinstance(value, list) and step < len(value) else None
        return text_of(value)


def text_of(value: Any) -> str:
    """Return a value as API Gateway writes it: a list of two is `[a, b]`, and what there is not is empty."""
    if isinstance(value, list):
        return f"[{', '.join(_member(each) for each in value)}]"
    return _member(value)


def _member(value: Any) -> str:
    """Return a value as text; what is inside a list or an object stays JSON."""
    if value is None or value is NO_JSON:
        return ""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    except RecursionError:
        return ""


class Piece(NamedTuple):
    """A part of a selection expression: a text as it is, or the path to a value."""

    text: str
    path: JsonPath | None = None


@final
class RouteSelection:
    r"""A route selection expression: `$request.body.action`, `${request.body.a}/${request.body.b}`, `\$default`.

    Raises ExpressionError for one that is not understood.
    """

    __slots__ = ("pieces",)

    def __init__(self, expression: str) -> None:
        self.pieces = list(_pieces(expression))
        if not self.pieces:
            raise ExpressionError("the expression is empty, needed is one such as $request.body.action")

    def select(self, message: Any) -> str:
        """Return the route key that a message asks for; what `parse_message` returns goes in."""
        return "".join(piece.text if piece.path is None else piece.path.find(message) for piece in self.pieces)


def _pieces(expression: str) -> Sequence[Piece]:
    """Return the parts of an expression."""
    pieces, text, place = [], "", 0
    while place < len(expression):
        if expression.startswith(r"\$", place):
            text, place = f"{text}$", place + 2
        elif expression[place] != "$":
            text, place = text + expression[place], place + 1
        else:
            path, place = _variable(expression, place + 1)
            pieces += [Piece(text), Piece("", path)] if text else [Piece("", path)]
            text = ""
    return [*pieces, Piece(text)] if text else pieces


def _variable(expression: str, place: int) -> tuple[JsonPath, int]:
    """Return the path of the variable that begins at a place, and the place behind it."""
    if expression.startswith("{", place):
        end = expression.find("}", place)
        name = expression[place + 1 : end] if end > 0 else ""
        if IN_BRACES.fullmatch(name):
            return JsonPath(name[len(BODY) :]), end + 1
    else:
        found = BARE.match(expression, place)
        if found is not None and expression[found.end() : found.end() + 1] not in {".", "["}:
            return JsonPath(found[0][len(BODY) :]), found.end()
    raise ExpressionError(
        rf"the expression is {expression[:128]!r}, not understood from character {place}: {ALLOWED}, "
        r"${...} around them where text follows, and \$ for a dollar"
    )


@final
class RequestValue:
    """A mapping expression: `'text'`, `context.connectionId`, `route.request.body.room`, of `$connect` also headers.

    `on_connect` says that it is for `$connect`. Raises ExpressionError for one that is not understood.
    """

    __slots__ = ("expression", "find")

    def __init__(self, expression: str, *, on_connect: bool) -> None:
        self.expression = expression
        # What is found in an event (`aws_events`) and its message; "" for nothing.
        self.find: Callable[[Mapping[str, Any], Any], str] = _finder(expression, on_connect=on_connect)


def _finder(expression: str, *, on_connect: bool) -> Callable[[Mapping[str, Any], Any], str]:
    if len(expression) > 1 and expression[0] == expression[-1] == "'":
        text = expression[1:-1]
        return lambda *_: text
    if expression.startswith("context."):
        path = JsonPath(expression.removeprefix("context"))
        return lambda event, _: path.find(event["requestContext"])
    if expression.startswith("route.request.body.") and not on_connect:
        path = JsonPath(expression.removeprefix("route.request.body"))
        return lambda _, message: path.find(message)
    where, _, name = expression.removeprefix("route.request.").partition(".")
    if expression.startswith("route.request.") and where in CONNECT_ONLY and name and on_connect:
        member, same = CONNECT_ONLY[where]
        first = not where.startswith("multivalue")
        return lambda event, _: ",".join(_values(event.get(member, {}), name, same)[: 1 if first else None])
    raise ExpressionError(
        f"the expression is {expression[:128]!r}, allowed are 'text', context.NAME, route.request.body.PATH for "
        f"messages, and for $connect route.request.NAME with {', '.join(CONNECT_ONLY)}"
    )


# Where an event has it, and what makes two names the same.
CONNECT_ONLY: Final[Mapping[str, tuple[str, Callable[[str], str]]]] = {
    "querystring": ("multiValueQueryStringParameters", str),
    "header": ("multiValueHeaders", str.lower),
    "multivaluequerystring": ("multiValueQueryStringParameters", str),
    "multivalueheader": ("multiValueHeaders", str.lower),
}


def _values(members: Mapping[str, list[str]], name: str, same: Callable[[str], str]) -> list[str]:
    """Return the values of a name."""
    return [value for each, values in members.items() if same(each) == same(name) for value in values]
