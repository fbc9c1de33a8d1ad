"""Envelopes: what a client says and hears in rawws.v1, as JSON and back (docs/use/rawws.v1.md).

Laws:
1. What is said twice, misspelt or of the wrong type is refused: a `since` that nobody reads would be a silent gap.
2. An envelope becomes a Command or raises EnvelopeError, and nothing else.
"""

from __future__ import annotations

import json
import sys
from base64 import b64decode, b64encode
from itertools import islice
from json.encoder import encode_basestring as serialize_text
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rawws.errors import RawwsError

from .cursors import CursorError
from .history import ENDED, FAULT, MOVED, Notice
from .names import TopicError, unavailable
from .patterns import Pattern
from .payloads import check_event, distinct, extra_of, has_many_values, no_number, parse_json, serialize
from .presence import NOTHING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from .history import Publication
    from .presence import Present

__all__ = [
    "NAMESPACE_END",
    "SUBPROTOCOL",
    "Command",
    "EnvelopeError",
    "answer_of",
    "error_of",
    "listed",
    "parse",
    "place_fields",
    "render",
    "render_within",
]

SUBPROTOCOL: Final = "rawws.v1"
# What a namespace ends with.
NAMESPACE_END: Final = "/"

# What each action may have beside it, and the types that it may be of.
ACTIONS: Final[dict[str, frozenset[str]]] = {
    "subscribe": frozenset({"since", "join", "watch", "pattern"}),
    "unsubscribe": frozenset({"pattern"}),
    "publish": frozenset({"data", "base64", "json", "event", "key", "exclude"}),
    "presence": frozenset(),
    "renew": frozenset(),
    "history": frozenset({"since", "before", "limit"}),
    "call": frozenset({"data"}),
    "answer": frozenset({"data", "error", "reason"}),
}
TYPES: Final[dict[str, type]] = {
    "id": int,
    "since": str,
    "before": str,
    "limit": int,
    "watch": bool,
    "pattern": bool,
    "data": str,
    "base64": str,
    "json": bool,
    "event": str,
    "exclude": bool,
    "key": str,
    "error": str,
    "reason": str,
    **dict.fromkeys(ACTIONS, str),
    "answer": int,
}
# Whose data is any JSON; that of others is text.
CALLING: Final = frozenset({"call", "answer"})
# So many who are present are listed to a client; the rest is a number.
MAX_LISTED = 1000
# And so many publications of a history, and by default; a hub holds 100 of a topic by default.
MAX_LIMIT: Final = 1000
DEFAULT_LIMIT: Final = 100
# And so many bytes of them: a client takes an envelope of 1 MiB.
MAX_LISTED_SIZE = 1 << 19
# What an id, and what stands around it, takes there.
LISTED_COST = 60
# The values in an envelope are at most as many as somebody present may tell of itself in 1 KiB. A message of 1 MiB can
# be 350,000 lists, which take 30 MiB.
MAX_VALUES = 512


class EnvelopeError(RawwsError, ValueError):
    """An envelope is none. `code` is what the client is told, `id` that of its request, if it can be known."""

    def __init__(self, code: str, reason: str, id: int | None = None) -> None:  # noqa: A002 - the field's own name
        super().__init__(reason)
        self.code = code
        self.id = id


class Command(NamedTuple):
    """What a client asks for: one of ACTIONS, of a topic; "renew" is of none, and its message is the token."""

    action: str
    topic: str
    id: int | None = None
    since: str = ""
    # What others see of it where it is present; NOTHING where it does not want to be.
    join: Any = NOTHING
    watch: bool = False
    message: str | bytes = ""
    key: str | None = None
    # The members beside the message.
    extra: str = ""
    # Whether the client itself is not to get it.
    exclude: bool = False
    # Of history.
    before: str = ""
    limit: int = DEFAULT_LIMIT
    # Of a call, whose name is the topic, and of an answer, whose number is that of the call.
    data: Any = None
    number: int = 0
    error: str = ""
    reason: str = ""
    # Whether the topic is a pattern.
    pattern: bool = False
    # Bytes of memory that the envelope of a call takes.
    size: int = 0


def parse(text: str | bytes) -> Command:
    """Return what an envelope asks for. Raises EnvelopeError."""
    fields = parse_object(text)
    asked = fields.get("id")
    number = asked if isinstance(asked, int) and not isinstance(asked, bool) and 0 <= asked < 2**53 else None
    try:
        command = parse_fields(fields, number)
    except EnvelopeError as error:
        error.id = number
        raise
    return command._replace(size=sys.getsizeof(text)) if command.action == "call" else command


def parse_fields(fields: dict[str, Any], number: int | None) -> Command:
    """Return what the members of an envelope ask for."""
    actions = [name for name in ACTIONS if name in fields]
    if len(actions) != 1:
        raise malformed(f"it has {' and '.join(actions) or 'none'} of {', '.join(ACTIONS)}, needed is one")
    [action] = actions
    for name, value in fields.items():
        if name not in {"id", action} and name not in ACTIONS[action]:
            raise malformed(f"{action} has no {name[:64]!r}")
        wanted = object if name == "data" and action in CALLING else TYPES.get(name, object)
        if not isinstance(value, wanted) or (name == "id" and value != number):
            allowed = "an integer from 0 to 2^53 - 1" if name == "id" else wanted.__name__
            raise malformed(f"{name} is {type(value).__name__}, allowed is {allowed}")
    if action == "renew":
        return Command(action, "", number, message=fields[action])
    limit = fields.get("limit", DEFAULT_LIMIT)
    if isinstance(limit, bool) or not 0 <= limit <= MAX_LIMIT:
        raise malformed(f"limit is {str(limit)[:64]}, allowed is an integer from 0 to {MAX_LIMIT}")
    return Command(
        action,
        fields[action] if action != "answer" else "",
        number,
        fields.get("since", ""),
        fields.get("join", NOTHING),
        fields.get("watch", False),
        message_of(fields) if action == "publish" else "",
        fields.get("key"),
        members_beside(fields) if action == "publish" else "",
        fields.get("exclude", False),
        fields.get("before", ""),
        limit,
        fields.get("data") if action in CALLING else None,
        fields.get("answer", 0),
        fields.get("error", ""),
        fields.get("reason", ""),
        fields.get("pattern", False),
    )


def parse_object(text: str | bytes) -> dict[str, Any]:
    """Return the members of the JSON object that a message is."""
    if not isinstance(text, str):
        raise malformed("the message is binary, allowed is text")
    if has_many_values(text, MAX_VALUES):
        raise malformed(f"it is not JSON of at most {MAX_VALUES} values")
    try:
        fields = json.loads(text, object_pairs_hook=distinct, parse_constant=no_number)
    except (ValueError, RecursionError) as error:
        raise malformed(f"it is not JSON: {error}"[:200]) from None
    if not isinstance(fields, dict):
        raise malformed(f"it is {type(fields).__name__}, allowed is an object")
    return fields


def message_of(fields: dict[str, Any]) -> str | bytes:
    """Return what is to be published."""
    if ("data" in fields) is ("base64" in fields):
        raise malformed("publish has data and base64 or neither, needed is one")
    try:
        if "base64" in fields:
            return b64decode(fields["base64"], validate=True)
        fields["data"].encode()
    except UnicodeEncodeError:
        raise malformed("data has a lone surrogate, allowed is text that has a UTF-8") from None
    except ValueError:
        raise malformed("base64 is none (RFC 4648 section 4)") from None
    return fields["data"]  # type: ignore[no-any-return]


def members_beside(fields: dict[str, Any], *, is_json: bool = False) -> str:
    """Return the members that go beside what is published; with `is_json`, it is known to be JSON.

    Raises EnvelopeError for data that is said to be JSON and is not, and for no name of an event.
    """
    if fields.get("json") and not is_json:
        if "data" not in fields:
            raise malformed("json is beside base64, allowed is data")
        try:
            parse_json(fields["data"])
        except ValueError as error:
            raise malformed(f"data is not JSON: {error}"[:200]) from None
    event = fields.get("event")
    try:
        check_event(event)
    except TopicError as error:
        raise EnvelopeError(error.code, str(error)) from None
    return extra_of(event, is_json=is_json or fields.get("json", False))


def malformed(reason: str) -> EnvelopeError:
    """Return the error of what is no envelope."""
    return EnvelopeError("malformed", reason)


def error_of(error: EnvelopeError | CursorError | TopicError) -> dict[str, Any]:
    """Return what a client is told of an error that it made."""
    code = "cursor" if isinstance(error, CursorError) else error.code
    return {"error": code, "reason": reason} if (reason := str(error)) else {"error": code}


def render(publication: Publication) -> str:
    """Return the envelope of a publication, or of a notice."""
    return rendered(publication, fields_of(publication))


def render_within(publication: Publication) -> str:
    """Return the same for clients in a namespace: what stands before the first `/` of a topic is not said."""
    fields = fields_of(publication)
    if "topic" in fields:
        fields["topic"] = fields["topic"].partition(NAMESPACE_END)[2] or fields["topic"]
    return rendered(publication, fields)


def rendered(publication: Publication, fields: dict[str, Any]) -> str:
    """Return an envelope, and in it what goes beside the publication."""
    text = serialize(fields)
    return f"{text[:-1]},{publication.extra}}}" if publication.extra else text


def fields_of(publication: Publication) -> dict[str, Any]:
    """Return what the envelope of a publication or of a notice says."""
    return notice_fields(publication) if isinstance(publication, Notice) else publication_fields(publication)


def notice_fields(notice: Notice) -> dict[str, Any]:
    """Return what the envelope of a notice says."""
    if notice.present is not None:
        return {"topic": notice.topic, notice.event: shown(notice.present)}
    if notice.event == FAULT:
        return {"topic": notice.topic, **error_of(unavailable(notice.topic))}
    if notice.event == ENDED:
        return {**channel_fields(notice.channel), "error": "unsubscribed"}
    return place_fields(notice.topic, notice.cursor, recovered=notice.event == MOVED)


def place_fields(channel: str, cursor: str, *, recovered: bool) -> dict[str, Any]:
    """Return what the envelope says that tells where a subscription is from now on."""
    return {**channel_fields(channel), "cursor": cursor, "recovered": recovered}


def channel_fields(channel: str) -> dict[str, Any]:
    """Return what an envelope says that is about a subscription: to which topic, or by which pattern."""
    return {"pattern": channel.text} if isinstance(channel, Pattern) else {"topic": channel}


def publication_fields(publication: Publication) -> dict[str, Any]:
    """Return what the envelope of a publication says."""
    message = publication.message
    fields = {"topic": publication.topic, "cursor": publication.cursor}
    if publication.pattern is not None:
        fields["pattern"] = publication.pattern
    if isinstance(message, str):
        fields["data"] = message
    else:
        fields["base64"] = b64encode(message).decode()
    return fields


def shown(present: Present) -> dict[str, Any]:
    """Return what clients are told of somebody present."""
    fields = {"id": present.id, "info": present.info}
    if present.user:
        fields["user"] = present.user
        if present.claim_octets:
            fields["claim"] = present.claim
    elif present.claimed:
        fields["claimed"] = True
    return fields


def listed(answer: dict[str, Any], members: Collection[Present], users: int) -> str:
    """Return an answer that also says who is present, as JSON, made of the JSON that they told of themselves."""
    size, some = 0, []
    for present in islice(members, MAX_LISTED):
        size += len(present.octets) + len(present.claim_octets) + len(present.user) + LISTED_COST
        if size > MAX_LISTED_SIZE:
            break
        some.append(f'{{"id":{serialize_text(present.id)},"info":{present.text}{more_of(present)}}}')
    rest = f'"members":[{",".join(some)}],"count":{len(members)}'
    if users:
        rest += f',"users":{users}'
    return f"{serialize(answer)[:-1]},{rest}}}" if answer else f"{{{rest}}}"


def more_of(present: Present) -> str:
    """Return what clients are told of somebody present beside its id and info, as JSON."""
    if not present.user:
        return ',"claimed":true' if present.claimed else ""
    claim = f',"claim":{present.claim_octets.decode()}' if present.claim_octets else ""
    return f',"user":{serialize_text(present.user)}{claim}'


def answer_of(publications: Iterable[bytes], cursor: str, recovered: bool, answer: dict[str, Any]) -> bytes:
    """Return an answer that has envelopes of publications, and a cursor."""
    rest = serialize({**answer, "cursor": cursor, "recovered": recovered})
    return b'{"publications":[' + b",".join(publications) + b"]," + rest[1:].encode()
