"""starlette: an EventStream as a Response of Starlette's, which endpoints of FastAPI return.

An endpoint of Starlette may return an `EventStream` itself, which is an ASGI application; FastAPI makes JSON of all
that is no Response.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

    from rawws.http.event_stream import EventStream

__all__ = ["event_stream_response"]


def event_stream_response(stream: EventStream) -> Response:
    """Return a response that sends the events, up to the end of the stream or of the client."""
    return response_class()(stream)


@cache
def response_class() -> Callable[[EventStream], Response]:
    """Return the class of such responses, made where there is a Starlette."""
    from starlette.responses import Response  # noqa: PLC0415 - only who has it calls this

    class EventStreamResponse(Response):
        def __init__(self, stream: EventStream) -> None:
            super().__init__(media_type="text/event-stream")
            self.stream = stream

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.stream(scope, receive, send)
            if self.background is not None:
                await self.background()

    return EventStreamResponse
