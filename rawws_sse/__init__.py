"""rawws_sse: Server-Sent Events to bytes and back, for any server, client and framework (WHATWG HTML section 9.2)."""

from __future__ import annotations

from . import _twins as _twins  # isort: skip - chooses the twin, so it comes first

from .decoder import MAX_SIZE, Decoder
from .encoder import MAX_RETRY, encode
from .event import Event, EventTooLarge
from .stream import decode_stream, encode_stream

__all__ = [
    "MAX_RETRY",
    "MAX_SIZE",
    "Decoder",
    "Event",
    "EventTooLarge",
    "decode_stream",
    "encode",
    "encode_stream",
]
