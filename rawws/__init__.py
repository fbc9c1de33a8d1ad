"""rawws: a WebSocket server and client from one readable source, interpreted or at C speed."""

from __future__ import annotations

from . import _twins as _twins  # isort: skip - chooses the twin, so it comes first

from importlib import import_module
from typing import TYPE_CHECKING

from rawws_sse import Event

from ._version import __version__ as __version__
from .client.connect import connect, unix_connect
from .client.events import events
from .errors import (
    Close,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    HandshakeError,
    HttpError,
    HubError,
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
from .http.event_stream import EventStream
from .http.long_poll import LongPoll
from .http.requests import HttpRequest
from .http.responses import Response
from .http.routes import Route, Routes
from .net.broadcast import broadcast
from .net.handlers import Handler
from .net.websocket import WebSocket
from .protocol.deflate import Compression
from .protocol.http11 import Headers, Request
from .protocol.opcodes import CloseCode, Opcode
from .protocol.phases import State
from .server.probes import Readiness, healthz, readyz
from .server.run import run
from .server.server import Server, serve, unix_serve
from .server.shutdown import Drain

if TYPE_CHECKING:
    from .client.envelopes import TopicMember
    from .client.options import HubState
    from .client.subscriptions import ReceivedPublication, SubscriptionStart, TopicHistory, TopicPresence
    from .client.topics import HubClient, TopicSubscription
    from .topics import CallError, CursorError, History, Hub, HubHandler, Identity, Policy, Refused, TopicError

__all__ = [
    "CallError",
    "Close",
    "CloseCode",
    "Compression",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "CursorError",
    "Drain",
    "Event",
    "EventStream",
    "Handler",
    "HandshakeError",
    "Headers",
    "History",
    "HttpError",
    "HttpRequest",
    "Hub",
    "HubClient",
    "HubError",
    "HubHandler",
    "HubState",
    "Identity",
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
    "Policy",
    "ProxyError",
    "RawwsError",
    "Readiness",
    "ReceivedPublication",
    "Refused",
    "RemoteProtocolError",
    "Request",
    "Response",
    "Route",
    "Routes",
    "SecurityError",
    "Server",
    "State",
    "SubscriptionStart",
    "TopicError",
    "TopicHistory",
    "TopicMember",
    "TopicPresence",
    "TopicSubscription",
    "WebSocket",
    "WebSocketException",
    "broadcast",
    "connect",
    "events",
    "healthz",
    "readyz",
    "run",
    "serve",
    "unix_connect",
    "unix_serve",
]

TOPICS = ("CallError", "CursorError", "History", "Hub", "HubHandler", "Identity", "Policy", "Refused", "TopicError")
# Where the names are that are imported when they are first asked for.
LAZY = {
    **dict.fromkeys(TOPICS, "rawws.topics"),
    **dict.fromkeys(("HubClient", "TopicSubscription"), "rawws.client.topics"),
    **dict.fromkeys(
        ("ReceivedPublication", "SubscriptionStart", "TopicHistory", "TopicPresence"), "rawws.client.subscriptions"
    ),
    "HubState": "rawws.client.options",
    "TopicMember": "rawws.client.envelopes",
}


def __getattr__(name: str) -> object:
    """Import what belongs to topics when it is first asked for: whoever needs none starts a tenth faster."""
    if name not in LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(LAZY[name]), name)
