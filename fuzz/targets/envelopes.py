"""Envelopes: what a client of a hub says in rawws.v1, and what it hears.

Invariant: any text is a Command, exactly where docs/use/rawws.v1.md allows it, or EnvelopeError; a Command that is
written again is the same one. Of that, any topic, cursor, key, message and `join` may be used or raises what a client
is told; what it is told is JSON that has a UTF-8, and says what was said; and what is published can be passed on to
another server.

Envelopes are not compiled: both twins run the same lines. Cursors and the histories behind them are.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any, final

from fuzz.target import Target, short
from rawws.errors import RawwsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzz.twins import Twin

# As docs/use/rawws.v1.md has it: what each action may have beside it.
BESIDE = {
    "subscribe": {"since", "join", "watch"},
    "unsubscribe": set[str](),
    "publish": {"data", "base64", "json", "event", "key", "exclude"},
    "presence": set[str](),
    "renew": set[str](),
    "history": {"since", "before", "limit"},
    "call": {"data"},
    "answer": {"data", "error", "reason"},
}
TEXTUAL = ("since", "before", "base64", "event", "key", "error", "reason")
# A cursor that the log of `Topics` gave, which has three publications and holds two.
EPOCH = "0123456789ab"
HELD = 2
MAX_SIZE = 60


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object, or what is no JSON here."""
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        raise ValueError(names)
    return dict(pairs)


def refuse(constant: str) -> None:
    """Know neither NaN nor Infinity."""
    raise ValueError(constant)


def fields_of(text: str) -> dict[str, Any] | None:
    """Return the members of an envelope, None where it may not be one."""
    try:
        fields = json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except ValueError:
        return None
    actions = BESIDE.keys() & fields if isinstance(fields, dict) else set()
    return fields if len(actions) == 1 and is_well_typed(fields, *actions) else None


def is_well_typed(fields: dict[str, Any], action: str) -> bool:
    """Tell whether an object with one action has what it must have, and all of the right type."""
    if fields.keys() - BESIDE[action] - {action, "id"}:
        return False
    number = fields.get("id", 0)
    if type(number) is not int or not 0 <= number < 2**53:
        return False
    limit = fields.get("limit", 0)
    if type(limit) is not int or not 0 <= limit <= 1000:
        return False
    if not all(type(fields.get(name, True)) is bool for name in ("watch", "json", "exclude")):
        return False
    if not all(type(fields.get(name, "")) is str for name in TEXTUAL):
        return False
    if type(fields[action]) is not (int if action == "answer" else str):
        return False
    if action == "publish" and type(fields.get("data", "")) is not str:
        return False
    if action != "publish":
        return True
    if (
        ("data" in fields) == ("base64" in fields)
        or not is_message(fields)
        or not may_be_name(fields.get("event", "e"))
    ):
        return False
    return not fields.get("json") or is_json(fields.get("data", ""))


def is_json(text: str) -> bool:
    """Tell whether a text is JSON, in which a name may stand twice."""
    try:
        json.loads(text, parse_constant=refuse)
    except ValueError:
        return False
    return True


def is_message(fields: dict[str, Any]) -> bool:
    """Tell whether what is to be published is text that has a UTF-8, or base64."""
    if "data" in fields:
        return has_utf_8(fields["data"])
    stem, padding = unpadded(fields["base64"])
    alphabet = all(octet.isascii() and (octet.isalnum() or octet in "+/") for octet in stem)
    return alphabet and len(stem) % 4 != 1 and padding >= -len(stem) % 4 and (stem != "" or padding == 0)


def unpadded(text: str) -> tuple[str, int]:
    """Return base64 without its padding, and how long that is."""
    stem = text.rstrip("=")
    return stem, len(text) - len(stem)


def is_padded_too_much(fields: dict[str, Any]) -> bool:
    """Tell whether there is more padding than needed, which may be ignored (RFC 4648 section 3.3), and may be not."""
    stem, padding = unpadded(fields.get("base64", ""))
    return padding > -len(stem) % 4


def has_utf_8(text: str) -> bool:
    """Tell whether there is no lone surrogate."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def may_be_name(topic: str) -> bool:
    """Tell whether a topic may be called so."""
    return has_utf_8(topic) and topic.isprintable() and 0 < len(topic.encode()) <= 255


@final
class Subscriber:
    """Keeps the publication that comes."""

    congested = False
    hard_limit = 0

    def __init__(self) -> None:
        self.got: Any = None

    def send(self, publication: Any) -> None:
        """Take it."""
        self.got = publication

    def follow(self, member: Any) -> None:
        """Know no member."""

    unfollow = follow


@final
class Topics:
    """What is done with what an envelope asks for, by one twin."""

    def __init__(self, twin: Twin) -> None:
        self.envelope = twin.load("rawws.topics.envelope")
        self.cursors = twin.load("rawws.topics.cursors")
        self.history = twin.load("rawws.topics.history")
        self.backplane = twin.load("rawws.topics.backplane")
        self.names = twin.load("rawws.topics.names")
        self.payloads = twin.load("rawws.topics.payloads")
        self.presence = twin.load("rawws.topics.presence")
        self.records = twin.load("rawws.backplanes.redis_records")
        self.hub = twin.load("rawws.topics.hub").Hub(history=None, max_size=MAX_SIZE)
        self.encoded = twin.load("rawws.topics.core").PreparedMessage
        self.log = self.history.Log("held", self.history.HistoryStore(self.backplane.History(count=HELD)))
        self.log.epoch = EPOCH
        for text in ("one", "two", "three"):
            self.log.append(self.encoded(text))

    def told(self, error: Exception, number: int | None = None) -> str:
        """Return the code of what a client is told of an error, which it can read."""
        said = self.envelope.error_of(error)
        assert said.keys() == {"error", "reason"}
        assert said["reason"].isprintable(), said
        self.heard({"id": number, **said})
        return str(said["error"])

    def heard(self, said: dict[str, Any]) -> None:
        """Check that what is said is heard."""
        text = self.payloads.serialize(said)
        assert json.loads(self.encoded(text).payload) == said, said

    def use_name(self, topic: str) -> str:
        """Check that a name is one; a joined cursor has the cursors that it was joined of."""
        try:
            self.names.check_name(topic)
        except RawwsError as error:
            assert not may_be_name(topic), topic
            return self.told(error)
        assert may_be_name(topic), topic
        cursors = {topic: self.log.cursor, topic + "&": "x:1", "=" + topic: "y:2"}
        joined = self.cursors.join_cursors(cursors)
        assert joined.isascii()
        assert joined.isprintable()
        assert self.cursors.cursors_of(joined, cursors) == cursors, joined
        return "named"

    def use_cursor(self, since: str, topic: str) -> str:
        """Check that what came since a cursor is what the log holds behind it."""
        cursor = self.cursors.cursor_of(since, topic)
        epoch, colon, digits = cursor.rpartition(":")
        shaped = colon != "" and digits.isascii() and digits.isdigit() and len(digits) <= 18 and len(epoch) <= 32
        shaped = shaped and epoch.isascii() and epoch.replace("-", "_").replace("_", "a").isalnum()
        try:
            missed, recovered = self.log.since(cursor)
        except RawwsError as error:
            assert not shaped or (epoch == EPOCH and int(digits) > self.log.offset), cursor
            return self.told(error)
        held = list(self.log.held)
        if cursor == "earliest":
            assert (missed, recovered) == (held, True)
            return "earliest"
        assert shaped, cursor
        behind = self.log.offset - int(digits)
        assert recovered == (epoch == EPOCH and 0 <= behind <= len(held)), cursor
        assert missed == (held[len(held) - behind :] if recovered else []), cursor
        return f"{recovered}, {len(missed)}"

    def publish(self, ask: Any) -> str:
        """Check that what is published is what subscribers here and hubs elsewhere get."""
        subscriber = Subscriber()
        self.hub.subscribe(subscriber, ask.topic)
        try:
            cursor = self.hub.publish_payload(ask.topic, ask.message, ask.extra, ask.key).cursor
        except RawwsError as error:
            return self.told(error)
        finally:
            self.hub.unsubscribe(subscriber)
        got = subscriber.got
        assert (got.topic, got.message, got.key, got.cursor) == (ask.topic, ask.message, ask.key, cursor)
        assert len((got.key or "").encode()) <= 255, got.key
        fields = json.loads(self.encoded(self.envelope.render(got)).payload)
        message = fields.pop("data") if "data" in fields else b64decode(fields.pop("base64"))
        beside = json.loads(f"{{{ask.extra}}}")
        assert (message, fields) == (ask.message, {"topic": ask.topic, "cursor": cursor, **beside})
        self.payloads.check_extra(ask.extra)
        packed = self.records.pack_record("s", 1, ask.message, ask.key, ask.extra)
        record = self.records.unpack_record(ask.topic, got.epoch, got.offset, packed)
        assert record[:8] == (ask.topic, got.epoch, got.offset, ask.message, ask.key, "s", 1, ask.extra), record
        return type(message).__name__

    def join(self, info: Any) -> str:
        """Check that others are told what somebody tells of itself."""
        try:
            present = self.presence.new_present(info)
        except RawwsError as error:
            return self.told(error)
        elsewhere = self.presence.present_of(present.id, present.text, "s")
        assert present.info == elsewhere.info == info
        members = [{"id": present.id, "info": info}] * 2
        for answer in ({}, {"id": 1}):
            text = self.envelope.listed(answer, [present, elsewhere], 0)
            assert json.loads(self.encoded(text).payload) == {**answer, "members": members, "count": 2}, text
        notice = self.history.Notice("a", self.history.JOIN, self.envelope.render, present=present)
        assert json.loads(notice.message)["join"]["info"] == info
        return type(info).__name__


def written(ask: Any, nothing: object) -> dict[str, Any]:
    """Return the envelope of a Command."""
    fields: dict[str, Any] = {ask.action: ask.topic, "id": ask.id, "since": ask.since or None, "key": ask.key}
    if ask.action in {"call", "answer"}:
        fields["data"] = ask.data
    if ask.action == "answer":
        fields |= {"answer": ask.number, "error": ask.error, "reason": ask.reason}
    if ask.action == "renew":
        fields["renew"] = ask.message
    if ask.action == "history":
        fields |= {"before": ask.before, "limit": ask.limit}
    if ask.action == "publish":
        name, message = ("data", ask.message) if isinstance(ask.message, str) else ("base64", b64encode(ask.message))
        fields[name] = message if isinstance(message, str) else message.decode()
        fields |= json.loads(f"{{{ask.extra}}}")
    fields = {name: value for name, value in fields.items() if value is not None}
    fields |= {name: True for name in ("watch", "exclude") if getattr(ask, name)}
    return fields | ({} if ask.join is nothing else {"join": ask.join})


def is_finite(value: Any) -> bool:
    """Tell whether what was read as JSON can be written as JSON."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def make(twin: Twin) -> Callable[[bytes], object]:
    """Return the function that reads an envelope, and does what it asks for."""
    topics = Topics(twin)
    parse, refused = topics.envelope.parse, topics.envelope.EnvelopeError
    nothing = topics.envelope.NOTHING

    def check(data: bytes) -> object:
        text = data.decode("utf-8", "replace")
        fields = fields_of(text)
        try:
            ask = parse(text)
        except refused as error:
            assert fields is None or is_padded_too_much(fields), fields
            assert error.code in {"malformed", "event"}
            return topics.told(error, error.id), error.id is None, short(str(error))
        assert fields is not None, ask
        about = {"answer": ask.number, "renew": ask.message}.get(ask.action, ask.topic)
        assert (about, ask.id) == (fields[ask.action], fields.get("id"))
        info = "" if ask.join is nothing else topics.join(ask.join)
        # 1e400 can be read, not written: it is no JSON to tell others.
        ask = ask._replace(join=nothing) if info == "limit" else ask
        ask = ask if is_finite(ask.data) else ask._replace(data=None)
        # With escapes, for there may be lone surrogates.
        again = json.dumps(written(ask, nothing))
        assert parse(again) == ask, again
        name = topics.use_name(ask.topic)
        since = topics.use_cursor(ask.since or ask.before, ask.topic) if ask.since or ask.before else ""
        done = topics.publish(ask) if ask.action == "publish" and name == "named" else ""
        return ask.action, ask.id is None, name, since, done, info, ask.watch, ask.key is None

    return check


TEXTS = [
    # docs/use/rawws.v1.md
    '{"id": 1, "subscribe": "chat"}',
    '{"id": 2, "unsubscribe": "chat"}',
    '{"id": 3, "publish": "chat", "data": "Hello", "key": "greeting"}',
    '{"id": 3, "publish": "chat", "data": "{\\"x\\": [1, \\"[,\\"]}", "json": true, "event": "move"}',
    '{"id": 4, "presence": "chat"}',
    '{"id": 5, "renew": "a token"}',
    '{"id": 6, "call": "f", "data": {"x": [1, null]}}',
    '{"answer": 7, "data": {"name": "Ann"}}',
    '{"answer": 7, "error": "busy", "reason": "later"}',
    '{"id": 5, "history": "chat", "before": "0123456789ab:2", "limit": 10}',
    '{"subscribe": "chat", "since": "0123456789ab:1", "join": {"name": "Ann"}, "watch": true}',
    '{"subscribe": "a/b c", "since": "chat=0123456789ab:1&a/b%20c=0123456789ab:2"}',
    '{"id": 9007199254740991, "publish": "Gr\u00fc\u00dfe \u20ac\U0001f600", "base64": "AP8="}',
    '{"publish": "chat", "base64": ""}',
    '{"publish": "chat", "data": "\u2028\\u2028\\ud83d\\ude00"}',
    '{"subscribe": "chat", "since": "earliest", "join": null}',
    '{"subscribe": "chat", "since": "0123456789ab:4", "join": [1, -0.0, 1e5, true, {"": {}}]}',
    '{"subscribe": "chat", "since": "ffffffffffff:17", "join": ""}',
    # What is none.
    "",
    "{",
    "[1]",
    '{"id": 1}',
    '{"id": 1, "subscribe": "a", "subscribe": "b"}',
    '{"id": 1, "subscribe": "a", "join": {"x": 1, "x": 1}}',
    '{"id": 1, "subscribe": "a", "publish": "a", "data": ""}',
    '{"id": 1, "subscribe": "a", "sinc": "x"}',
    '{"id": 1, "publish": "a"}',
    '{"id": 1, "publish": "a", "data": "x", "base64": "eA=="}',
    '{"id": 1, "publish": "a", "data": "\\ud800"}',
    '{"id": 1, "publish": "a", "data": "x", "key": "\\udfff"}',
    '{"id": 1, "publish": "a", "base64": "e"}',
    '{"id": 1, "publish": "a", "base64": "", "json": true}',
    '{"id": 1, "publish": "a", "data": "NaN", "json": true}',
    '{"id": 1, "publish": "a", "data": "", "event": ""}',
    '{"id": 1, "publish": "a", "data": "", "event": "\\ud800"}',
    '{"id": 1.0, "subscribe": "a"}',
    '{"id": true, "subscribe": "a"}',
    '{"id": 9007199254740992, "subscribe": "a"}',
    '{"id": 1, "subscribe": "a", "watch": 1}',
    '{"id": 1, "subscribe": "a", "join": NaN}',
    '{"id": 1, "subscribe": "a", "join": 1e400}',
    '{"id": 1, "subscribe": "a", "join": "\\ud800"}',
    '{"id": 1, "subscribe": ""}',
    '{"id": 1, "subscribe": "a\\u0000b"}',
    '{"id": 1, "subscribe": "a", "since": "nonsense"}',
    '{"id": 1, "subscribe": "a", "since": "0123456789ab:0000000000000000001"}',
    '{"id": 1, "publish": "a", "data": "' + "x" * (MAX_SIZE + 1) + '"}',
    '{"id": 1, "publish": "' + "x" * 256 + '", "data": ""}',
    '{"id": 1, "publish": "a", "data": "", "key": "' + "\u00e9" * 128 + '"}',
]
SEEDS = [text.encode() for text in TEXTS]
WORDS = [
    b'"id":1,', b'"subscribe":"a"', b'"unsubscribe":"a"', b'"publish":"a"', b'"presence":"a"', b'"since":"',
    b'"join":', b'"watch":true', b'"data":"x"', b'"base64":"AP8="', b'"key":"k"', b"{", b"}", b"[", b"]", b'"', b",",
    b":", b"null", b"true", b"false", b"NaN", b"-Infinity", b"1e400", b"-0", b"0", b"9007199254740991", b"\\",
    b"\\ud800", b"\\udc00", b"\\u0000", b"\\u0130", b"0123456789ab:", b":1", b"earliest", b"&", b"=", b"%61", b"%ff",
    b"chat=0123456789ab:2", b"\xc2\xa0", b"\xe2\x80\xa8", b"\xf0\x9f\x98\x80", b"\xff", b"\xd9\xa1",
]  # fmt: skip
TARGET = Target(make, SEEDS, WORDS)
