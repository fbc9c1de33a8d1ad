"""HTTP/2 events: what a connection tells its owner (RFC 9113 sections 5, 6 and 8)."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from .http2_streams import Http2Stream
from .http11 import Headers, Request

__all__ = [
    "DataReceived",
    "GoAwayReceived",
    "HeadersTooLarge",
    "Http2Event",
    "PingAcknowledged",
    "RequestReceived",
    "ResponseReceived",
    "SettingsReceived",
    "StreamReset",
    "TrailersReceived",
    "WindowOpened",
]


class RequestReceived(NamedTuple):
    """A request came, on a server. `protocol` is that of an extended CONNECT (RFC 8441), None for all others.

    The Host of `request` is its authority, and its version is "2"; the path of a plain CONNECT is empty.
    """

    stream: Http2Stream
    request: Request
    scheme: str
    protocol: str | None
    end_stream: bool


class HeadersTooLarge(NamedTuple):
    """A request came whose header fields are `size` octets, more than the limit: answer it with 431."""

    stream: Http2Stream
    size: int
    end_stream: bool


class ResponseReceived(NamedTuple):
    """A response came, on a client; one with a status below 200 is followed by another."""

    stream: Http2Stream
    status: int
    headers: Headers
    end_stream: bool


class TrailersReceived(NamedTuple):
    """Trailer fields came, and with them the end of what the peer sends on the stream."""

    stream: Http2Stream
    headers: Headers


class DataReceived:
    """Content came: `data` is a view of the buffer that was lent to the connection, and means nothing afterwards.

    Give its octets back by `Http2Endpoint.acknowledge` once the application took them.
    """

    __slots__ = ("data", "end_stream", "stream")

    def __init__(self, stream: Http2Stream, data: memoryview | bytes, end_stream: bool) -> None:
        self.stream = stream
        self.data = data
        self.end_stream = end_stream


class StreamReset(NamedTuple):
    """The stream ended before its time: the peer reset it, or this side did because of what came (not `remote`)."""

    stream: Http2Stream
    error_code: int
    reason: str
    remote: bool


class WindowOpened(NamedTuple):
    """There is room again where there was none: of a stream, or of the connection, where `stream` is None."""

    stream: Http2Stream | None


class SettingsReceived(NamedTuple):
    """Settings of the peer came, and are in force; the windows of all streams may have changed."""

    settings: dict[int, int]


class PingAcknowledged(NamedTuple):
    """The answer to a PING came."""

    payload: bytes


class GoAwayReceived(NamedTuple):
    """The peer takes no more streams: what was asked on those after `last_stream_id` can be asked elsewhere."""

    last_stream_id: int
    error_code: int
    debug_data: bytes


Http2Event: TypeAlias = (
    RequestReceived
    | HeadersTooLarge
    | ResponseReceived
    | TrailersReceived
    | DataReceived
    | StreamReset
    | WindowOpened
    | SettingsReceived
    | PingAcknowledged
    | GoAwayReceived
)
