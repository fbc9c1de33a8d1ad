"""starlette: an EventStream as a Response of Starlette's."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.background import BackgroundTask
from starlette.responses import Response

import rawws
from rawws.integrations.starlette import event_stream_response


async def test_the_response_is_the_stream_and_then_its_background_task() -> None:
    sent: list[Any] = []
    done: list[str] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    async def events() -> Any:
        yield "a"

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    for task in (None, BackgroundTask(done.append, "done")):
        response = event_stream_response(rawws.EventStream(events()))
        assert isinstance(response, Response)
        response.background = task
        await response(scope, receive, send)  # type: ignore[arg-type]
    assert [event["status"] for event in sent if "status" in event] == [200, 200]
    assert b"".join(event.get("body", b"") for event in sent) == b"data: a\n\n" * 2
    assert done == ["done"]
