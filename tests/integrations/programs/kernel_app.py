"""Jupyter: a kernel's messages in binary, as its subprotocol v1.kernel.websocket.jupyter.org frames them.

A message is a little-endian count of offsets, those, and what they separate: the channel, four parts in JSON, and
buffers in octets, which a kernel sends for widgets and images.
"""

from __future__ import annotations

import json
import struct
from itertools import pairwise
from typing import Any

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

SUBPROTOCOL = "v1.kernel.websocket.jupyter.org"
Message = tuple[str, list[Any], list[bytes]]


def pack(channel: str, parts: list[Any], buffers: list[bytes]) -> bytes:
    pieces = [channel.encode(), *(json.dumps(part).encode() for part in parts), *buffers]
    offsets = [8 * (len(pieces) + 2)]
    for piece in pieces:
        offsets.append(offsets[-1] + len(piece))
    return struct.pack(f"<{len(offsets) + 1}Q", len(offsets), *offsets) + b"".join(pieces)


def unpack(message: bytes) -> Message:
    (count,) = struct.unpack_from("<Q", message)
    offsets = struct.unpack_from(f"<{count}Q", message, 8)
    pieces = [message[start:stop] for start, stop in pairwise(offsets)]
    return pieces[0].decode(), [json.loads(piece) for piece in pieces[1:5]], pieces[5:]


async def kernel(ws: WebSocket) -> None:
    await ws.accept(subprotocol=SUBPROTOCOL)
    async for message in ws.iter_bytes():
        channel, (header, _, metadata, content), buffers = unpack(message)
        for state in ("busy", "idle"):
            status = [{"msg_type": "status"}, header, {}, {"execution_state": state}]
            await ws.send_bytes(pack("iopub", status, []))
            if state == "busy":
                reply = [{"msg_type": "execute_reply"}, header, metadata, content]
                await ws.send_bytes(pack(channel, reply, [buffer[::-1] for buffer in buffers]))


app = Starlette(routes=[WebSocketRoute("/api/kernels/{id}/channels", kernel)])
