"""HTTP/2, sending: streams and what goes out on them (RFC 9113 sections 5, 6 and 8).

Laws:
1. Nothing waits here to be sent but frames: who has more content than `sendable` allows keeps it.
2. What the state of a stream or the peer's settings forbid raises `LocalProtocolError`, and nothing is sent.
"""

from __future__ import annotations

from rawws.errors import Http2Error, LocalProtocolError

from . import http2_codes as codes
from . import http2_states as states
from .connection import Role
from .hpack import Field, HpackEncoder
from .http2_blocks import write_block
from .http2_codes import ErrorCode, SettingCode
from .http2_frames import Http2FrameWriter
from .http2_limits import Budget, Http2Limits
from .http2_messages import request_fields, response_fields, trailer_fields
from .http2_settings import serialize_settings
from .http2_states import StreamState, StreamStep
from .http2_streams import Http2Stream
from .http11 import Headers, Request

__all__ = ["PREFACE", "Http2Sender"]

# 3.4: "The client connection preface starts with a sequence of 24 octets".
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# 6.5.2 and 6.9.2: what holds until SETTINGS say otherwise.
DEFAULT_WINDOW = 65535
DEFAULT_FRAME_SIZE = 16384
MAX_WINDOW = MAX_STREAM_ID = (1 << 31) - 1
# DATA that fills the window of the peer is worth a frame of its that carries nothing for each so many octets.
SMALL = 128
# How many ended streams are remembered with how they ended; of those before, frames are refused one by one.
REMEMBERED = 256
# How a stream ended: as agreed, by a RST_STREAM of this side, or by one of the peer.
ENDED, RESET_SENT, RESET_RECEIVED = 0, 1, 2


class Http2Sender:
    """The half of an `Http2Endpoint` that sends. `streams` are those that are not closed, by their number."""

    __slots__ = (
        "closed", "connection_window", "encoder", "error", "goaway_received", "goaway_sent", "highest_id",
        "idle_frames", "initial_receive_window", "initial_send_window", "limits", "max_send_frame", "next_id",
        "peer_connect_protocol", "peer_max_streams", "resets", "send_window", "server", "streams", "writer", "writes",
    )  # fmt: skip

    def __init__(self, role: Role, limits: Http2Limits, connect_protocol: bool) -> None:
        self.server = role is Role.SERVER
        self.limits = limits
        self.writer = Http2FrameWriter()
        # How often what waited was taken to be written.
        self.writes = 0
        self.encoder = HpackEncoder()
        self.streams: dict[int, Http2Stream] = {}
        self.closed: dict[int, int] = {}
        self.error: Http2Error | None = None
        # The last stream that the peer opened, the next that this side may open, and the last of each that GOAWAY
        # allows.
        self.highest_id = 0
        self.next_id = 1
        self.goaway_sent = self.goaway_received = MAX_STREAM_ID + 1
        self.initial_send_window = self.initial_receive_window = DEFAULT_WINDOW
        self.max_send_frame = DEFAULT_FRAME_SIZE
        self.peer_max_streams = MAX_STREAM_ID
        self.peer_connect_protocol = False
        self.send_window = DEFAULT_WINDOW
        # 6.9.2: no SETTINGS make it smaller than it is at first.
        self.connection_window = max(limits.connection_window, DEFAULT_WINDOW)
        self.idle_frames = Budget("frames that carry nothing", limits.idle_frames, limits.idle_frames_rate)
        self.resets = Budget("streams that end unanswered", limits.resets, limits.resets_rate)
        self.begin(connect_protocol)

    def begin(self, connect_protocol: bool) -> None:
        """Send what a connection begins with."""
        # 3.4: the client's sequence "MUST be followed by a SETTINGS frame"; "The server connection preface consists of
        # a potentially empty SETTINGS frame (Section 6.5) that MUST be the first frame the server sends".
        settings = {
            SettingCode.INITIAL_WINDOW_SIZE: self.limits.window,
            SettingCode.MAX_HEADER_LIST_SIZE: self.limits.max_header_list,
            # RFC 9218 2.1: priorities are those of that RFC; the frames of RFC 7540 are read and dropped.
            SettingCode.NO_RFC7540_PRIORITIES: 1,
        }
        if self.server:
            settings[SettingCode.MAX_CONCURRENT_STREAMS] = self.limits.max_streams
            if connect_protocol:
                settings[SettingCode.ENABLE_CONNECT_PROTOCOL] = 1
        else:
            # 8.4: "A client cannot push." And this one wants none: 6.5.2: "a client [...] that has both set this
            # parameter to 0 and had it acknowledged MUST treat the receipt of a PUSH_PROMISE frame as a connection
            # error".
            settings[SettingCode.ENABLE_PUSH] = 0
            self.writer.append(PREFACE)
        self.writer.write(codes.SETTINGS, 0, 0, serialize_settings(settings))
        # 6.9.2: "The connection flow-control window can only be changed using WINDOW_UPDATE frames."
        if self.connection_window > DEFAULT_WINDOW:
            self.write_number(codes.WINDOW_UPDATE, 0, self.connection_window - DEFAULT_WINDOW)

    def request(
        self, request: Request, *, scheme: str = "https", protocol: str | None = None, end_stream: bool = True
    ) -> Http2Stream:
        """Send a request on a new stream, and return that; a client's. Its Host is the authority.

        `protocol` makes it an extended CONNECT. Raises LocalProtocolError where `may_request` is False, for a protocol
        that the server did not offer, and for what is no request.
        """
        if not self.may_request():
            raise LocalProtocolError("no stream can be opened now: may_request() tells so")
        # RFC 8441 3: only "Upon receipt of SETTINGS_ENABLE_CONNECT_PROTOCOL with a value of 1, a client MAY use the
        # Extended CONNECT".
        if protocol is not None and not self.peer_connect_protocol:
            raise LocalProtocolError("the server offers no extended CONNECT")
        fields = request_fields(request, scheme, protocol)
        stream = Http2Stream(self.next_id, self.initial_send_window, self.initial_receive_window)
        stream.known = True
        stream.head_only = request.method == "HEAD"
        stream.tunnel = request.method == "CONNECT"
        self.next_id += 2
        self.streams[stream.id] = stream
        self.send_fields(stream, fields, end_stream)
        stream.answered = True
        return stream

    def may_request(self) -> bool:
        """Tell whether a client may open a stream now."""
        room = len(self.streams) < self.peer_max_streams and self.next_id <= MAX_STREAM_ID
        return room and not self.server and self.error is None and self.goaway_received > MAX_STREAM_ID

    def respond(self, stream: Http2Stream, status: int, headers: Headers, end_stream: bool = False) -> None:
        """Send a response, a server's: any number with a status below 200, and one other."""
        fields = response_fields(status, headers)
        if stream.answered or (end_stream and status < 200):
            raise LocalProtocolError(f"stream {stream.id} cannot be answered with status {status} now")
        self.send_fields(stream, fields, end_stream)
        stream.answered = status >= 200
        stream.answered_at = self.writes

    def send_trailers(self, stream: Http2Stream, headers: Headers) -> None:
        """Send trailer fields, which end the stream."""
        self.check_answered(stream)
        if stream.tunnel:
            raise LocalProtocolError(f"stream {stream.id} is one of CONNECT, which has no trailers")
        self.send_fields(stream, trailer_fields(headers), True)

    def send_fields(self, stream: Http2Stream, fields: list[Field], end_stream: bool) -> None:
        """Send a header block."""
        if (stream.state != states.IDLE and not stream.may_send()) or self.error is not None:
            raise LocalProtocolError(
                f"stream {stream.id} is {StreamState(stream.state).name}, nothing can be sent on it"
            )
        block = self.encoder.encode(fields)
        stream.step(StreamStep.SEND_HEADERS)
        write_block(self.writer, stream.id, block, codes.END_STREAM if end_stream else 0, self.max_send_frame)
        if end_stream:
            self.send_end(stream)

    def sendable(self, stream: Http2Stream) -> int:
        """Return how many octets of content may be sent on a stream now."""
        return max(0, min(stream.send_window, self.send_window))

    def send_data(self, stream: Http2Stream, data: bytes, end_stream: bool = False) -> None:
        """Send content, in one frame or as many as the peer's largest needs.

        Raises LocalProtocolError for more than `sendable` allows, before the response, and once the stream ended.
        """
        self.check_answered(stream)
        length = len(data)
        # 6.9.1: "The sender MUST NOT send a flow-controlled frame with a length that exceeds the space available in
        # either of the flow-control windows advertised by the receiver."
        if length and (length > stream.send_window or length > self.send_window):
            raise LocalProtocolError(f"content is {length} bytes, the windows allow {self.sendable(stream)}")
        largest = self.max_send_frame
        at = 0
        while length - at > largest:
            self.writer.write(codes.DATA, 0, stream.id, data[at : at + largest])
            at += largest
        self.writer.write(codes.DATA, codes.END_STREAM if end_stream else 0, stream.id, data[at:] if at else data)
        stream.send_window -= length
        self.send_window -= length
        # What the peer's window cut to a few octets earns as little as it is: who opens a window by one octet at a time
        # (CVE-2019-9511) has this side write a frame for each.
        is_cut = stream.send_window <= 0 or self.send_window <= 0
        self.idle_frames.earn(min(2.0, length / SMALL) if is_cut else 2.0)
        if end_stream:
            self.send_end(stream)

    def check_answered(self, stream: Http2Stream) -> None:
        """Raise LocalProtocolError where a stream takes no content of this side."""
        if not stream.may_send() or not stream.answered or self.error is not None:
            raise LocalProtocolError(f"stream {stream.id} is {StreamState(stream.state).name}, it takes no content now")

    def send_end(self, stream: Http2Stream) -> None:
        """Note that this side's part of a stream is over."""
        stream.step(StreamStep.SEND_END)
        self.forget_closed(stream, ENDED)

    def reset(self, stream: Http2Stream, error_code: int = ErrorCode.CANCEL) -> None:
        """End a stream before its time; one that is closed is left alone."""
        if stream.state != states.CLOSED and self.error is None:
            self.write_number(codes.RST_STREAM, stream.id, error_code)
            stream.step(StreamStep.SEND_RESET)
            self.forget_closed(stream, RESET_SENT)

    def acknowledge(self, stream: Http2Stream, count: int) -> None:
        """Give the peer room for so many octets more: the application took them.

        What is small is gathered until it is half of the window.
        """
        stream.given += count
        if stream.given and stream.given * 2 >= stream.target and stream.may_receive() and self.error is None:
            stream.receive_window += stream.given
            self.write_number(codes.WINDOW_UPDATE, stream.id, stream.given)
            stream.given = 0

    def widen(self, stream: Http2Stream, window: int) -> None:
        """Let the receive window of a stream grow to so many octets, for a large message; it never shrinks."""
        more = min(window, MAX_WINDOW) - stream.target
        if more > 0:
            stream.target += more
            stream.given += more
            self.acknowledge(stream, 0)

    def ping(self, payload: bytes) -> None:
        """Send a PING of eight octets; its answer is a PingAcknowledged."""
        if len(payload) != 8:
            raise LocalProtocolError(f"ping payload is {len(payload)} bytes, needed are 8")
        self.writer.write(codes.PING, 0, 0, payload)

    def write_number(self, kind: int, stream_id: int, number: int) -> None:
        """Send a frame whose payload is a number of 32 bits."""
        self.writer.write(kind, 0, stream_id, int(number).to_bytes(4, "big"))

    def data_to_send(self) -> list[bytes]:
        """Return the octets to write, in order, and forget them."""
        self.writes += 1
        return self.writer.take()

    def pending(self) -> int:
        """Return how many bytes wait to be written."""
        return self.writer.size()

    def forget_closed(self, stream: Http2Stream, how: int) -> None:
        """Drop a stream if it is closed now."""
        if stream.state == states.CLOSED:
            del self.streams[stream.id]
            self.remember(stream.id, how)

    def remember(self, stream_id: int, how: int) -> None:
        """Note how a stream ended, for frames that come late."""
        self.closed[stream_id] = how
        if len(self.closed) > REMEMBERED:
            del self.closed[next(iter(self.closed))]

    def go_away(self, last_stream_id: int | None = None, error_code: int = ErrorCode.NO_ERROR) -> None:
        """Take no more streams: those after `last_stream_id`, or after the last that came, are ignored.

        To lose no request, send it first with 2**31 - 1, and without a number once the peer must have seen that.
        """
        self.write_goaway(self.highest_id if last_stream_id is None else last_stream_id, error_code, b"")

    def write_goaway(self, last_stream_id: int, error_code: int, debug_data: bytes) -> None:
        """Send a GOAWAY frame."""
        # 6.8: "Endpoints MUST NOT increase the value they send in the last stream identifier".
        self.goaway_sent = min(self.goaway_sent, last_stream_id)
        numbers = self.goaway_sent.to_bytes(4, "big") + int(error_code).to_bytes(4, "big")
        self.writer.write(codes.GOAWAY, 0, 0, numbers + debug_data)
