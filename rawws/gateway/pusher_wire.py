"""Pusher on the wire: publications and notices to the messages of protocol 7."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Final

import rawws
from rawws.protocol.closing import close_reason
from rawws.topics import Notice

from .model import GatewayConnection

if TYPE_CHECKING:
    from rawws.topics import Publication

__all__ = ["MESSAGE", "SpokenConnection", "message_of", "spell", "spell_notice"]


# What a publication without a name is called.
MESSAGE: Final = "message"


def spell(publication: Publication) -> str:
    """Return what clients get of a publication, made once for all of them."""
    data: Any = publication.message
    text = data if publication.is_json else json.dumps(data if isinstance(data, str) else data.decode("latin-1"))
    channel = json.dumps(publication.topic.partition("/")[2])
    user = "" if publication.user is None else f',"user_id":{json.dumps(publication.user)}'
    return f'{{"event":{json.dumps(publication.event or MESSAGE)},"channel":{channel},"data":{text}{user}}}'


def spell_notice(notice: Publication) -> str:
    """Return what clients get of somebody who came or went."""
    assert isinstance(notice, Notice) and notice.present is not None  # noqa: PT018, S101 - for mypy
    present, channel = notice.present, notice.topic.partition("/")[2]
    if notice.event == "join":
        return message_of("pusher_internal:member_added", {"user_id": present.user, "user_info": present.info}, channel)
    return message_of("pusher_internal:member_removed", {"user_id": present.user}, channel)


def message_of(event: str, data: Any = None, channel: str | None = None) -> str:
    """Return a message of the protocol's own: its data is a string of JSON."""
    message = {"event": event}
    if data is not None:
        message["data"] = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    if channel is not None:
        message["channel"] = channel
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))


class SpokenConnection(GatewayConnection):
    """A connection that is told of things in the protocol's own events."""

    def tell(self, event: str, data: Any = None, channel: str | None = None) -> None:
        """Send a message of the protocol's own."""
        self.write(message_of(event, data, channel))

    def complain(self, code: int | None, message: str) -> None:
        """Tell that something is wrong, and go on."""
        self.tell("pusher:error", {"code": code, "message": message})

    def refuse(self, code: int, message: str) -> None:
        """Tell that something is wrong, and close; the Close frame has as much of the message as fits into it."""
        with contextlib.suppress(rawws.ConnectionClosed):
            self.complain(code, message)
        self.close(code, close_reason(message))
