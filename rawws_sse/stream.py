"""Streams: asynchronous iterables of events to those of bytes and back, for any framework (WHATWG HTML section 9.2).

Law: whoever leaves the stream ends its source, too, at once: what a generator says in `finally` is done by then.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator

from .decoder import Decoder
from .encoder import encode
from .event import Event

__all__ = ["decode_stream", "encode_stream"]


async def encode_stream(events: AsyncIterable[Event | str]) -> AsyncIterator[bytes]:
    """Yield each event, or str, as bytes: the body of a response of the type text/event-stream."""
    source = aiter(events)
    try:
        async for event in source:
            yield encode(event)
    finally:
        await _close(source)


async def decode_stream(pieces: AsyncIterable[bytes], decoder: Decoder | None = None) -> AsyncIterator[Event]:
    """Yield the events of the body of a response, as they come.

    A decoder of your own has `last_event_id` and `retry` at the end, and goes on with the next response. Raises
    EventTooLarge.
    """
    decoder = Decoder() if decoder is None else decoder
    source = aiter(pieces)
    try:
        async for piece in source:
            for event in decoder.receive(piece):
                yield event
        decoder.receive_eof()
    finally:
        await _close(source)


async def _close(source: AsyncIterator[object]) -> None:
    """End a generator; other iterators have nothing to end."""
    aclose = getattr(source, "aclose", None)
    if aclose is not None:
        await aclose()
