"""HTTP/2: octets to events of many streams, and back (RFC 9113, RFC 8441).

The core without I/O, for both roles. Give it what was read: `receive(data)`, then `next_event()` until None. Ask it to
send: `request`, `respond`, `send_data`, `reset` and others. After either, write what `data_to_send()` returns.

    connection = Http2Endpoint(Role.SERVER)
    connection.receive(data)
    while (event := connection.next_event()) is not None:
        ...                               # RequestReceived, DataReceived, StreamReset, ...
    sock.sendall(b"".join(connection.data_to_send()))

Laws:
1. A frame costs the same however many streams there are, and what is held is bounded by `Http2Limits`.
2. The connection's window is given back at once, a stream's as its application takes what came: a stream whose reader
   sleeps stops itself, and no other.
"""

from __future__ import annotations

from collections import deque

from rawws.errors import HandshakeError, Http2Error

from . import http2_codes as codes
from .connection import Role
from .hpack import Field, HpackDecoder
from .http2_blocks import HeaderBlock
from .http2_codes import ErrorCode, SettingCode
from .http2_events import (
    DataReceived,
    GoAwayReceived,
    HeadersTooLarge,
    Http2Event,
    PingAcknowledged,
    RequestReceived,
    ResponseReceived,
    SettingsReceived,
    StreamReset,
    TrailersReceived,
    WindowOpened,
)
from .http2_frames import Http2FrameReader
from .http2_limits import Http2Limits
from .http2_messages import parse_request_fields, parse_response_fields, parse_trailers
from .http2_sending import (
    DEFAULT_FRAME_SIZE,
    ENDED,
    MAX_STREAM_ID,
    MAX_WINDOW,
    PREFACE,
    RESET_RECEIVED,
    RESET_SENT,
    Http2Sender,
)
from .http2_settings import parse_settings
from .http2_states import StreamStep
from .http2_streams import Http2Stream
from .http11 import Headers, content_length

__all__ = ["DEFAULT_HTTP2_LIMITS", "Http2Endpoint"]

DEFAULT_HTTP2_LIMITS = Http2Limits()


class Http2Endpoint(Http2Sender):
    """One end of an HTTP/2 connection.

    `connect_protocol` has a server offer extended CONNECT (RFC 8441): only if there is a WebSocket to connect to.
    `error` is what the connection failed with.
    """

    __slots__ = (
        "block", "connect_protocol", "data_stream", "decoder", "events", "frames", "given", "preface_left",
        "settings_left",
    )  # fmt: skip

    def __init__(
        self, role: Role, limits: Http2Limits = DEFAULT_HTTP2_LIMITS, *, connect_protocol: bool = False
    ) -> None:
        super().__init__(role, limits, connect_protocol)
        self.connect_protocol = connect_protocol
        self.frames = Http2FrameReader(DEFAULT_FRAME_SIZE)
        self.decoder = HpackDecoder(limits.max_header_list)
        self.events: deque[Http2Event] = deque()
        self.block = HeaderBlock(limits)
        # Where the content of the current DATA frame goes, None for nowhere.
        self.data_stream: Http2Stream | None = None
        self.preface_left = PREFACE if self.server else b""
        # SETTINGS frames of this side that the peer did not acknowledge; -1 until its own first ones came.
        self.settings_left = -1
        self.given = 0

    # -- what comes

    def receive(self, data: bytes) -> None:
        """Take what was read from the peer; then call `next_event` until it returns None."""
        self.receive_buffer(bytearray(data), len(data))

    def receive_buffer(self, buffer: bytearray, end: int) -> None:
        """Take `buffer[:end]` without a copy: it is lent until `keep_buffer`."""
        self.frames.feed(buffer, end)

    def keep_buffer(self) -> None:
        """End the loan: copy what `next_event` did not read yet."""
        self.frames.keep()

    def elapse(self, seconds: float) -> None:
        """Say that so much time went by: what is limited by time may come again."""
        self.idle_frames.earn(self.idle_frames.rate * seconds)
        self.resets.earn(self.resets.rate * seconds)

    def next_event(self) -> Http2Event | None:
        """Return the next event, None when more data is needed.

        What needs no decision is answered here: SETTINGS, PING, streams that break the protocol. Raises `Http2Error`
        where the peer broke the protocol for the whole connection: the GOAWAY is among the data to send, all streams
        are over, and what follows is ignored.
        """
        frames = self.frames
        try:
            while not self.events:
                if self.error is not None:
                    frames.discard()
                    return None
                if not frames.in_frame:
                    if self.preface_left and not self.read_preface():
                        return None
                    if not frames.read_header():
                        return None
                    self.begin_frame()
                if frames.kind == codes.DATA:
                    data = frames.take_view()
                    stream = self.data_stream
                    if stream is not None and stream.may_receive():
                        over = not frames.in_frame and frames.flags & codes.END_STREAM != 0
                        if data is not None or over:
                            if over:
                                self.receive_end(stream)
                            return DataReceived(stream, b"" if data is None else data, over)
                    if frames.in_frame and not self.events:
                        return None
                elif not frames.has_payload():
                    return None
                else:
                    self.receive_frame()
            return self.events.popleft()
        except Http2Error as error:
            self.fail(Http2Error(error.error_code, error.reason))  # a traceback would hold what came
            raise

    def read_preface(self) -> bool:
        """Read the octets that a client begins with; return False where they are not all there yet."""
        frames = self.frames
        count = min(len(self.preface_left), frames.end - frames.position)
        octets = bytes(frames.buffer[frames.position : frames.position + count])
        # 3.4: "Clients and servers MUST treat an invalid connection preface as a connection error (Section 5.4.1) of
        # type PROTOCOL_ERROR."
        if octets != self.preface_left[:count]:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "the connection does not begin with the preface of HTTP/2")
        frames.position += count
        self.preface_left = self.preface_left[count:]
        return not self.preface_left

    def begin_frame(self) -> None:
        """Judge a frame by its header and by what came before it."""
        frames = self.frames
        kind = frames.kind
        if self.settings_left < 0:
            # 3.4: the first frame is SETTINGS, and none that acknowledges.
            if kind != codes.SETTINGS or frames.flags & codes.ACK:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"the first frame is of type {kind:#x}, it must be SETTINGS")
            self.settings_left = 1
        # 4.3: a field block "MUST be transmitted as a contiguous sequence of frames, with no interleaved frames of any
        # other type or from any other stream." 6.10: "A recipient MUST treat the receipt of any other type of frame or
        # a frame on a different stream as a connection error (Section 5.4.1) of type PROTOCOL_ERROR."
        inside = self.block.stream_id
        if inside:
            if kind != codes.CONTINUATION or frames.stream_id != inside:
                where = f"of type {kind:#x} on stream {frames.stream_id}"
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"a frame {where} is inside of the header block of {inside}")
        elif kind == codes.CONTINUATION:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "a CONTINUATION frame without a header block to continue")
        if kind == codes.DATA:
            self.begin_data()

    def receive_frame(self) -> None:
        """Do what a frame asks for that is here as a whole."""
        frames = self.frames
        kind = frames.kind
        payload = frames.take()
        if kind == codes.HEADERS:
            self.block.begin(frames.stream_id, frames.flags, payload)
            if frames.flags & codes.END_HEADERS:
                self.end_block()
        elif kind == codes.CONTINUATION:
            self.block.extend(payload)
            if frames.flags & codes.END_HEADERS:
                self.end_block()
        elif kind == codes.RST_STREAM:
            self.receive_reset(frames.stream_id, int.from_bytes(payload, "big"))
        elif kind == codes.PUSH_PROMISE:
            # 8.4: "A client cannot push. Thus, servers MUST treat the receipt of a PUSH_PROMISE frame as a connection
            # error (Section 5.4.1) of type PROTOCOL_ERROR." Clients do that have forbidden it (6.6).
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "a PUSH_PROMISE frame, and nobody may push")
        elif kind == codes.GOAWAY:
            self.receive_goaway(payload)
        else:
            # 4.1: "Implementations MUST ignore and discard frames of unknown types."
            self.idle_frames.spend()
            if kind == codes.SETTINGS:
                self.receive_settings(payload)
            elif kind == codes.WINDOW_UPDATE:
                self.receive_window_update(frames.stream_id, int.from_bytes(payload, "big") & MAX_WINDOW)
            elif kind == codes.PING:
                self.receive_ping(payload)
            elif kind == codes.PRIORITY:
                self.receive_priority(frames.stream_id, payload)

    # -- DATA

    def begin_data(self) -> None:
        """Count a DATA frame, with its padding, in both windows, and find where its content goes."""
        frames = self.frames
        length = frames.length
        self.data_stream = None
        # 6.9: "A receiver that receives a flow-controlled frame MUST always account for its contribution against the
        # connection flow-control window, unless the receiver treats this as a connection error". It is given back at
        # once, so that the peer cannot exceed it by our count; what bounds memory are the windows of the streams.
        self.given += length
        if self.given * 2 >= self.connection_window:
            self.write_number(codes.WINDOW_UPDATE, 0, self.given)
            self.given = 0
        if frames.padding > frames.remaining or (frames.remaining == 0 and not frames.flags & codes.END_STREAM):
            self.idle_frames.spend()
        stream = self.streams.get(frames.stream_id)
        if stream is None:
            self.receive_on_closed(frames.stream_id)
        elif not stream.may_receive():
            # 5.1, half-closed (remote): "If an endpoint receives additional frames, other than WINDOW_UPDATE, PRIORITY,
            # or RST_STREAM, for a stream that is in this state, it MUST respond with a stream error (Section 5.4.2) of
            # type STREAM_CLOSED."
            self.stream_error(stream, ErrorCode.STREAM_CLOSED, "DATA follows the end of the stream")
        elif not stream.headers_received:
            self.stream_error(stream, ErrorCode.PROTOCOL_ERROR, "DATA comes before the header fields")
        else:
            stream.receive_window -= length
            stream.received += frames.remaining
            # 6.9.1: "A receiver MAY respond with a stream error or connection error of type FLOW_CONTROL_ERROR if it is
            # unable to accept a frame."
            if length and stream.receive_window < 0:
                over = f"DATA is {-stream.receive_window} bytes over the window of the stream"
                self.stream_error(stream, ErrorCode.FLOW_CONTROL_ERROR, over)
            elif self.check_length(stream, frames.flags & codes.END_STREAM != 0):
                self.data_stream = stream
                # The application sees nothing of the padding.
                self.acknowledge(stream, length - frames.remaining)

    def check_length(self, stream: Http2Stream, over: bool) -> bool:
        """Tell whether what came of the content fits to Content-Length; where it does not, end the stream."""
        # 8.1.1: "A request or response is also malformed if the value of a content-length header field does not equal
        # the sum of the DATA frame payload lengths that form the content, unless the message is defined as having no
        # content."
        announced = stream.content_length
        if announced < 0 or stream.received == announced or (stream.received < announced and not over):
            return True
        if stream.head_only and stream.received == 0:
            return True
        why = f"the content has {stream.received} bytes{'' if over else ' and more'}, announced were {announced}"
        self.stream_error(stream, ErrorCode.PROTOCOL_ERROR, why)
        return False

    def receive_end(self, stream: Http2Stream) -> None:
        """Take the end of what the peer sends on a stream."""
        stream.step(StreamStep.RECEIVE_END)
        self.forget_closed(stream, ENDED)

    def receive_on_closed(self, stream_id: int) -> None:
        """Take DATA or HEADERS on a stream that is not there: it never was, or it is closed."""
        how = self.closed.get(stream_id)
        if how is None and not self.was_opened(stream_id):
            # 5.1, idle: "Receiving any frame other than HEADERS or PRIORITY on a stream in this state MUST be treated
            # as a connection error (Section 5.4.1) of type PROTOCOL_ERROR."
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"a frame is on stream {stream_id}, which is idle")
        # 5.1, closed: "An endpoint MAY treat receipt of any other type of frame on a closed stream as a connection
        # error (Section 5.4.1) of type STREAM_CLOSED". 5.4.2, of RST_STREAM: "The endpoint that sends a RST_STREAM
        # frame MUST be prepared to receive any frames that were sent or enqueued for sending by the remote peer. These
        # frames can be ignored".
        if how == ENDED:
            raise Http2Error(ErrorCode.STREAM_CLOSED, f"a frame is on stream {stream_id}, which has ended")
        self.idle_frames.spend()
        if how != RESET_SENT and stream_id <= self.goaway_sent:
            self.resets.spend()
            self.write_number(codes.RST_STREAM, stream_id, ErrorCode.STREAM_CLOSED)
            self.remember(stream_id, RESET_SENT)

    def was_opened(self, stream_id: int) -> bool:
        """Tell whether a stream is open or closed, and not idle (section 5.1.1)."""
        if stream_id & 1 == 0:
            return False  # nobody pushes
        return stream_id <= self.highest_id if self.server else stream_id < self.next_id

    # -- HEADERS

    def end_block(self) -> None:
        """Decode a header block that is complete."""
        block = self.block
        stream_id = block.stream_id
        # 4.3: "A receiver MUST terminate the connection with a connection error (Section 5.4.1) of type
        # COMPRESSION_ERROR if it does not decompress a field block." So it is decompressed, whatever becomes of its
        # stream.
        self.receive_block(stream_id, self.decoder.decode(block.take()), block.end_stream)

    def receive_block(self, stream_id: int, fields: list[Field], over: bool) -> None:
        """Take the fields of a header block."""
        stream = self.streams.get(stream_id)
        if stream is None:
            stream = self.accept(stream_id)
            if stream is None:
                return
        elif not stream.may_receive():
            self.stream_error(stream, ErrorCode.STREAM_CLOSED, "HEADERS follow the end of the stream")
            return
        if self.block.self_dependent:
            # RFC 7540 5.3.1: "A stream cannot depend on itself. An endpoint MUST treat this as a stream error".
            self.stream_error(stream, ErrorCode.PROTOCOL_ERROR, "the stream depends on itself")
            return
        too_large = self.decoder.list_size > self.limits.max_header_list
        if too_large and (stream.headers_received or not self.server):
            size, limit = self.decoder.list_size, self.limits.max_header_list
            self.stream_error(
                stream, ErrorCode.ENHANCE_YOUR_CALM, f"the header fields have {size} bytes, limit {limit}"
            )
            return
        try:
            if too_large:
                stream.headers_received = True
                event: Http2Event = HeadersTooLarge(stream, self.decoder.list_size, over)
            else:
                event = self.parse(stream, fields, over)
        except Http2Error as error:
            # 8.1.1: "Malformed requests or responses that are detected MUST be treated as a stream error (Section
            # 5.4.2) of type PROTOCOL_ERROR."
            self.stream_error(stream, error.error_code, error.reason)
            return
        if over:
            if not self.check_length(stream, over):
                return
            self.receive_end(stream)
        stream.known = True
        self.events.append(event)

    def parse(self, stream: Http2Stream, fields: list[Field], over: bool) -> Http2Event:
        """Return the event that these fields are. Raises `Http2Error` where they are malformed."""
        if stream.headers_received:
            # 8.1: "A HEADERS frame without the END_STREAM flag set [after the final response headers or the request]
            # MUST be treated as malformed".
            if not over:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "trailers come without the end of the stream")
            # 8.5: "Frame types other than DATA or stream management frames (RST_STREAM, WINDOW_UPDATE, and PRIORITY)
            # MUST NOT be sent on a connected stream and MUST be treated as a stream error (Section 5.4.2) if received."
            if stream.tunnel:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "trailers come on a stream of CONNECT")
            return TrailersReceived(stream, parse_trailers(fields))
        if self.server:
            request, scheme, protocol = parse_request_fields(fields, self.connect_protocol)
            stream.headers_received = True
            # 8.5: a tunnel has DATA, and no content; its Content-Length means nothing.
            stream.tunnel = request.method == "CONNECT"
            if not stream.tunnel:
                stream.content_length = self.announced(request.headers)
            return RequestReceived(stream, request, scheme, protocol, over)
        status, headers = parse_response_fields(fields)
        if status < 200:
            # 8.1: an interim response has no END_STREAM: "a HEADERS frame with the END_STREAM flag set that carries an
            # informational status code [...] is malformed".
            if over:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"a response of status {status} ends the stream")
        else:
            stream.headers_received = True
            stream.head_only = stream.head_only or status == 304
            stream.tunnel = stream.tunnel and status < 300
            if not stream.tunnel:
                stream.content_length = self.announced(headers)
        return ResponseReceived(stream, status, headers, over)

    def announced(self, headers: Headers) -> int:
        """Return what Content-Length says, -1 where there is none. Raises `Http2Error`."""
        try:
            length = content_length(headers)
        except HandshakeError as error:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, error.reason) from None
        return -1 if length is None else length

    def accept(self, stream_id: int) -> Http2Stream | None:
        """Open the stream of a request that came, or say why there is none."""
        # 5.1.1: "Streams initiated by a client MUST use odd-numbered stream identifiers". "The identifier of a newly
        # established stream MUST be numerically greater than all streams that the initiating endpoint has opened or
        # reserved. [...] An endpoint that receives an unexpected stream identifier MUST respond with a connection
        # error".
        if not self.server or not stream_id & 1 or (stream_id <= self.highest_id and stream_id not in self.closed):
            if self.was_opened(stream_id) and not self.server:
                self.receive_on_closed(stream_id)
                return None
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"HEADERS are on stream {stream_id}, which cannot be opened now")
        if stream_id <= self.highest_id:
            self.receive_on_closed(stream_id)
            return None
        self.highest_id = stream_id
        # 6.8: "the sender can discard frames for streams initiated by the receiver with identifiers higher than the
        # identified last stream."
        if stream_id > self.goaway_sent:
            self.idle_frames.spend()
            self.remember(stream_id, RESET_SENT)
            return None
        # 5.1.2: "An endpoint that receives a HEADERS frame that causes its advertised concurrent stream limit to be
        # exceeded MUST treat this as a stream error (Section 5.4.2) of type PROTOCOL_ERROR or REFUSED_STREAM."
        if len(self.streams) >= self.limits.max_streams:
            self.resets.spend()
            self.write_number(codes.RST_STREAM, stream_id, ErrorCode.REFUSED_STREAM)
            self.remember(stream_id, RESET_SENT)
            return None
        stream = Http2Stream(stream_id, self.initial_send_window, self.initial_receive_window)
        stream.step(StreamStep.RECEIVE_HEADERS)
        self.streams[stream_id] = stream
        return stream

    # -- frames that are no message

    def receive_reset(self, stream_id: int, error_code: int) -> None:
        """Take a RST_STREAM frame."""
        stream = self.streams.get(stream_id)
        if stream is None:
            # 6.4: "RST_STREAM frames MUST NOT be sent for a stream in the "idle" state. If a RST_STREAM frame
            # identifying an idle stream is received, the recipient MUST treat this as a connection error (Section
            # 5.4.1) of type PROTOCOL_ERROR."
            self.check_opened(stream_id)
            self.idle_frames.spend()
            return
        # CVE-2023-44487: what is asked and taken back at once costs the peer nothing, also where the answer was made
        # already and cannot have been seen.
        if self.server and (not stream.answered or stream.answered_at == self.writes):
            self.resets.spend()
        stream.step(StreamStep.RECEIVE_RESET)
        self.forget_closed(stream, RESET_RECEIVED)
        self.events.append(StreamReset(stream, error_code, "the peer reset the stream", True))

    def receive_settings(self, payload: bytes) -> None:
        """Take a SETTINGS frame."""
        if self.frames.flags & codes.ACK:
            # 6.5.3: only from now on what was asked for holds.
            if self.settings_left:
                self.settings_left = 0
                change = self.limits.window - self.initial_receive_window
                self.initial_receive_window += change
                for stream in self.streams.values():
                    stream.receive_window += change
                    stream.target += change
            return
        settings = parse_settings(payload, self.limits.max_settings)
        for code, value in settings:
            self.idle_frames.spend()
            self.apply_setting(code, value)
        # 6.5.3: "Once all values have been processed, the recipient MUST immediately emit a SETTINGS frame with the ACK
        # flag set."
        self.writer.write(codes.SETTINGS, codes.ACK, 0, b"")
        self.events.append(SettingsReceived(dict(settings)))

    def apply_setting(self, code: int, value: int) -> None:
        """Do what a setting of the peer asks for."""
        if code == SettingCode.HEADER_TABLE_SIZE:
            self.encoder.set_limit(value)
        elif code == SettingCode.ENABLE_PUSH:
            # 6.5.2: "A client MUST treat receipt of a SETTINGS frame with SETTINGS_ENABLE_PUSH set to 1 as a connection
            # error (Section 5.4.1) of type PROTOCOL_ERROR."
            if value and not self.server:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "a server sent ENABLE_PUSH 1")
        elif code == SettingCode.MAX_CONCURRENT_STREAMS:
            self.peer_max_streams = value
        elif code == SettingCode.INITIAL_WINDOW_SIZE:
            # 6.9.2: "When the value of SETTINGS_INITIAL_WINDOW_SIZE changes, a receiver MUST adjust the size of all
            # stream flow-control windows that it maintains by the difference between the new value and the old value."
            change = value - self.initial_send_window
            self.initial_send_window = value
            for stream in self.streams.values():
                stream.send_window += change
                # "An endpoint MUST treat a change to SETTINGS_INITIAL_WINDOW_SIZE that causes any flow-control window
                # to exceed the maximum size as a connection error (Section 5.4.1) of type FLOW_CONTROL_ERROR."
                if stream.send_window > MAX_WINDOW:
                    raise Http2Error(
                        ErrorCode.FLOW_CONTROL_ERROR,
                        f"INITIAL_WINDOW_SIZE makes the window of stream {stream.id} too large",
                    )
        elif code == SettingCode.MAX_FRAME_SIZE:
            self.max_send_frame = value
        elif code == SettingCode.ENABLE_CONNECT_PROTOCOL:
            # RFC 8441 3: "A sender MUST NOT send a SETTINGS_ENABLE_CONNECT_PROTOCOL parameter with the value of 0 after
            # previously sending a value of 1."
            if self.peer_connect_protocol and not value:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "ENABLE_CONNECT_PROTOCOL is 0 after it was 1")
            self.peer_connect_protocol = value == 1

    def receive_window_update(self, stream_id: int, increment: int) -> None:
        """Take a WINDOW_UPDATE frame."""
        stream = self.streams.get(stream_id)
        if stream_id and stream is None:
            # 5.1, closed: WINDOW_UPDATE "can be received in this state for a short period".
            self.check_opened(stream_id)
            return
        # 6.9: "A receiver MUST treat the receipt of a WINDOW_UPDATE frame with a flow-control window increment of 0 as
        # a stream error (Section 5.4.2) of type PROTOCOL_ERROR; errors on the connection flow-control window MUST be
        # treated as a connection error". 6.9.1: "If a sender receives a WINDOW_UPDATE that causes a flow-control window
        # to exceed this maximum, it MUST terminate either the stream or the connection, as appropriate."
        window = (self.send_window if stream is None else stream.send_window) + increment
        if increment == 0 or window > MAX_WINDOW:
            code = ErrorCode.FLOW_CONTROL_ERROR if increment else ErrorCode.PROTOCOL_ERROR
            reason = f"WINDOW_UPDATE has an increment of {increment}, to a window of {window}"
            if stream is None:
                raise Http2Error(code, reason)
            self.stream_error(stream, code, reason)
            return
        if stream is None:
            self.send_window = window
        else:
            stream.send_window = window
        if window - increment <= 0 < window:
            self.events.append(WindowOpened(stream))

    def receive_ping(self, payload: bytes) -> None:
        """Take a PING frame."""
        if self.frames.flags & codes.ACK:
            self.events.append(PingAcknowledged(payload))
        else:
            # 6.7: "Receivers of a PING frame that does not include an ACK flag MUST send a PING frame with the ACK flag
            # set in response, with an identical frame payload."
            self.writer.write(codes.PING, codes.ACK, 0, payload)

    def receive_priority(self, stream_id: int, payload: bytes) -> None:
        """Take a PRIORITY frame, which is deprecated (section 5.3.2): only its form is looked at."""
        # 6.3: "A PRIORITY frame with a length other than 5 octets MUST be treated as a stream error (Section 5.4.2) of
        # type FRAME_SIZE_ERROR." RFC 7540 5.3.1: "A stream cannot depend on itself."
        if len(payload) == 5 and int.from_bytes(payload[:4], "big") & MAX_STREAM_ID != stream_id:
            return
        code = ErrorCode.FRAME_SIZE_ERROR if len(payload) != 5 else ErrorCode.PROTOCOL_ERROR
        stream = self.streams.get(stream_id)
        if stream is None:
            raise Http2Error(code, f"a PRIORITY frame of stream {stream_id}, which is not open, is malformed")
        self.stream_error(stream, code, "a PRIORITY frame is malformed")

    def receive_goaway(self, payload: bytes) -> None:
        """Take a GOAWAY frame."""
        self.idle_frames.spend()
        last = int.from_bytes(payload[:4], "big") & MAX_STREAM_ID
        error_code = int.from_bytes(payload[4:8], "big")
        self.goaway_received = min(self.goaway_received, last)
        self.events.append(GoAwayReceived(last, error_code, payload[8:]))
        # 6.8: "Endpoints MUST NOT open additional streams on the connection". Those above the last were not acted on.
        for stream in [stream for stream in self.streams.values() if not self.server and stream.id > last]:
            stream.step(StreamStep.RECEIVE_RESET)
            self.forget_closed(stream, RESET_RECEIVED)
            self.events.append(StreamReset(stream, ErrorCode.REFUSED_STREAM, "the peer went away before", True))

    def check_opened(self, stream_id: int) -> None:
        """Raise `Http2Error` for a frame on a stream that is idle."""
        if not self.was_opened(stream_id):
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"a frame is on stream {stream_id}, which is idle")

    # -- the ends of streams, and of all

    def stream_error(self, stream: Http2Stream, error_code: int, reason: str) -> None:
        """Reset a stream for what came on it (section 5.4.2)."""
        # CVE-2025-8671: whoever breaks a rule has this side do what a RST_STREAM of its own would.
        self.resets.spend()
        self.data_stream = None
        self.reset(stream, error_code)
        if stream.known:
            self.events.append(StreamReset(stream, int(error_code), reason, False))

    def fail(self, error: Http2Error) -> None:
        """End the connection for an error (section 5.4.1): GOAWAY, and nothing after it."""
        if self.error is None:
            self.error = error
            self.events.clear()
            self.frames.discard()
            # 5.4.1: "An endpoint that encounters a connection error SHOULD first send a GOAWAY frame (Section 6.8) with
            # the stream identifier of the last stream that it successfully received from its peer."
            self.write_goaway(self.highest_id, error.error_code, error.reason.encode("utf-8", "replace"))
