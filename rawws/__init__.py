"""rawws: a WebSocket server and client from one readable source, interpreted or at C speed."""

from __future__ import annotations

from . import _twins as _twins  # isort: skip - chooses the twin, so it comes first

from rawws_sse import Event

from ._version import __version__ as __version__
from .client import connect, unix_connect
from .errors import (
    Close,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    HandshakeError,
    InvalidContentType,
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
from .event_stream import EventStream
from .events import events
from .handlers import Handler
from .long_poll import LongPoll
from .protocol.connection import State
from .protocol.deflate import Compression
from .protocol.http11 import Headers, Request
from .protocol.opcodes import CloseCode, Opcode
from .requests import HttpRequest
from .responses import Response
from .routes import Route, Routes
from .server import Server, run, serve, unix_serve
from .websocket import WebSocket, broadcast

__all__ = [
    "Close",
    "CloseCode",
    "Compression",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "Event",
    "EventStream",
    "Handler",
    "HandshakeError",
    "Headers",
    "HttpRequest",
    "InvalidContentType",
    "InvalidHandshake",
    "InvalidMessage",
    "InvalidStatus",
    "InvalidURI",
    "InvalidUpgrade",
    "LocalProtocolError",
    "LongPoll",
    "NegotiationError",
    "Opcode",
    "ProxyError",
    "RawwsError",
    "RemoteProtocolError",
    "Request",
    "Response",
    "Route",
    "Routes",
    "SecurityError",
    "Server",
    "State",
    "WebSocket",
    "WebSocketException",
    "broadcast",
    "connect",
    "events",
    "run",
    "serve",
    "unix_connect",
    "unix_serve",
]
