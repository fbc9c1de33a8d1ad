"""rawws: a WebSocket server and client from one readable source, interpreted or at C speed."""

from __future__ import annotations

from . import _twins  # isort: skip - chooses the twin, so it comes first

from .errors import (
    Close,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    HandshakeError,
    LocalProtocolError,
    RawwsError,
    RemoteProtocolError,
)
from .protocol.connection import State
from .protocol.deflate import Compression
from .protocol.http11 import Headers, Request
from .protocol.opcodes import CloseCode, Opcode
from .responses import Response
from .server import Handler, Server, run, serve
from .websocket import WebSocket

__all__ = [
    "Close",
    "CloseCode",
    "Compression",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "HandshakeError",
    "Handler",
    "Headers",
    "LocalProtocolError",
    "Opcode",
    "RawwsError",
    "RemoteProtocolError",
    "Request",
    "Response",
    "Server",
    "State",
    "WebSocket",
    "run",
    "serve",
]
