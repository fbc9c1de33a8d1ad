"""rawws: a WebSocket server and client from one readable source, interpreted or at C speed."""

from __future__ import annotations

from . import _twins as _twins  # isort: skip - chooses the twin, so it comes first

from ._version import __version__ as __version__
from .client import connect, unix_connect
from .errors import (
    Close,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    HandshakeError,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
    LocalProtocolError,
    NegotiationError,
    ProxyError,
    RawwsError,
    RemoteProtocolError,
    SecurityError,
    WebSocketException,
)
from .protocol.connection import State
from .protocol.deflate import Compression
from .protocol.http11 import Headers, Request
from .protocol.opcodes import CloseCode, Opcode
from .responses import Response
from .server import Handler, Server, run, serve, unix_serve
from .websocket import WebSocket, broadcast

__all__ = [
    "Close",
    "CloseCode",
    "Compression",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "Handler",
    "HandshakeError",
    "Headers",
    "InvalidHandshake",
    "InvalidMessage",
    "InvalidStatus",
    "InvalidURI",
    "InvalidUpgrade",
    "LocalProtocolError",
    "NegotiationError",
    "Opcode",
    "ProxyError",
    "RawwsError",
    "RemoteProtocolError",
    "Request",
    "Response",
    "SecurityError",
    "Server",
    "State",
    "WebSocket",
    "WebSocketException",
    "broadcast",
    "connect",
    "run",
    "serve",
    "unix_connect",
    "unix_serve",
]
