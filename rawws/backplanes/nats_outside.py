"""NATS from outside: requests of programs that are no hub to publications, which any hub of the prefix answers.

A request goes to `PREFIX.publish.NAME`, the name of the topic percent-encoded, also its dots; its payload is the
message. It may have headers, `Rawws-Key`, `Rawws-Event` and `Rawws-Json: true`, with values that are percent-encoded,
too. The answer is JSON: `{"cursor": "EPOCH:OFFSET"}`, or `{"error": CODE, "reason": TEXT}`.

Laws:
1. Of several hubs, one takes a request (a queue group of NATS).
2. What has no answer may have been published: there is no origin by which it would be known again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, final
from urllib.parse import unquote

from rawws.topics.backplane import BackplaneAway, TopicUnavailable, new_answer
from rawws.topics.names import TopicError, check_key, check_name
from rawws.topics.payloads import check_event, extra_of, parse_json

from .nats_records import BYTES, OUTSIDE, TEXT
from .nats_writer import Write

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from nats.aio.msg import Msg

    from rawws.topics.backplane import Position

    from .nats_line import NatsLine
    from .nats_writer import NatsWriter
    from .session import EngineSession

__all__ = ["NatsOutside"]

# So many are answered at a time, with so many bytes of messages, and further ones refused: they take memory of the hub
# that answers. One alone is never too large: NATS has a limit of its own for that.
MAX_WAITING = 1000
MAX_WAITING_SIZE = 16 << 20


@final
class NatsOutside:
    """Takes requests on the line of a hub, and has the writer publish them."""

    def __init__(self, prefix: str, session: EngineSession, writer: NatsWriter) -> None:
        self._prefix = prefix
        self._session = session
        self._writer = writer
        # Those under way, and the bytes of their messages.
        self._waiting: set[asyncio.Future[Position]] = set()
        self._size = 0

    def begin(self, line: NatsLine) -> None:
        """Take requests: where this user has no right to, others do that."""
        line.subscribe(f"{self._prefix}.publish.*", lambda message: self._take(line, message), queue=self._prefix)

    def _take(self, line: NatsLine, message: Msg) -> None:
        try:
            if len(self._waiting) >= MAX_WAITING:
                raise TopicError("limit", f"{MAX_WAITING} requests are under way, allowed are more when these are done")
            size = self._size + len(message.data)
            if self._waiting and size > MAX_WAITING_SIZE:
                raise TopicError("limit", f"requests have {size} bytes of messages under way, limit {MAX_WAITING_SIZE}")
            topic, write = self._write_of(message)
        except (TopicError, ValueError) as error:
            code = error.code if isinstance(error, TopicError) else "malformed"
            answer_to(line, message.reply, {"error": code, "reason": str(error)})
            return
        self._waiting.add(write.answer)
        self._size = size
        # The message itself has headers of any size, which nobody needs any more.
        reply, taken = message.reply, len(message.data)
        write.answer.add_done_callback(lambda done: self._answer(line, reply, taken, done))
        self._writer.add(topic, write)

    def _write_of(self, message: Msg) -> tuple[str, Write]:
        """Return what is to be published. Raises TopicError and ValueError for what cannot be."""
        topic = unquote(message.subject.rpartition(".")[2], errors="strict")
        check_name(topic)
        headers: Mapping[str, str] = message.headers or {}
        key, event, is_json = (headers.get(f"Rawws-{name}") for name in ("Key", "Event", "Json"))
        key = None if key is None else unquote(key, errors="strict")
        event = None if event is None else unquote(event, errors="strict")
        check_key(key)
        check_event(event)
        if is_json is not None:
            parse_json(message.data.decode())
        try:
            message.data.decode()
            kind = TEXT
        except UnicodeDecodeError:
            kind = BYTES
        extra = extra_of(event, is_json=is_json is not None)
        return topic, Write(new_answer(self._session.loop), kind, OUTSIDE, 0, key, extra, message.data)

    def _answer(self, line: NatsLine, reply: str, size: int, done: asyncio.Future[Position]) -> None:
        self._waiting.discard(done)
        self._size -= size
        error = done.exception()
        if isinstance(error, TopicUnavailable):
            answer_to(line, reply, {"error": "unavailable", "reason": error.reason})
        elif not isinstance(error, BackplaneAway):
            place = done.result()
            answer_to(line, reply, {"cursor": f"{place.epoch}:{place.offset}"})


def answer_to(line: NatsLine, reply: str, answer: dict[str, str]) -> None:
    """Answer a request, where that is one."""
    if reply:
        line.send(reply, json.dumps(answer).encode())
