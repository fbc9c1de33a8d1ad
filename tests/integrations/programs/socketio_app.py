"""python-socketio: rooms and acknowledgements; REDIS_URL says over which Redis the servers are one."""
# mypy: disable-error-code="import-untyped,no-untyped-call,untyped-decorator"

from __future__ import annotations

import os
from typing import Any

import socketio

sio = socketio.AsyncServer(async_mode="asgi", client_manager=socketio.AsyncRedisManager(os.environ["REDIS_URL"]))
app = socketio.ASGIApp(sio)


@sio.event
async def join(sid: str, room: str) -> str:
    await sio.enter_room(sid, room)
    return f"joined {room}"


@sio.event
async def leave(sid: str, room: str) -> str:
    await sio.leave_room(sid, room)
    return f"left {room}"


@sio.event
async def say(sid: str, room: str, message: Any) -> int:
    await sio.emit("said", message, room=room, skip_sid=sid)
    return len(message)


@sio.event
async def ask(sid: str, question: str) -> list[Any]:
    """Have the client acknowledge, and give its answer back as an acknowledgement of ours."""
    return [await sio.call("question", question, to=sid, timeout=60)]
