"""Connection: octets to events and back, with the state of section 7 (RFC 6455 sections 5, 6 and 7).

The core without I/O, for both roles. Give it what was read: `receive(data)`, then `next_event()` until None. Ask it to
send: `send`, `ping`, `pong`, `close`. After either, write what `data_to_send()` returns.

    connection = Connection(Role.SERVER)
    connection.receive(data)
    while (event := connection.next_event()) is not None:
        ...                               # str, bytes, Fragment, Ping, Pong or Close
    sock.sendall(b"".join(connection.data_to_send()))
"""

from __future__ import annotations

import enum
import os
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from rawws.errors import (
    Close,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    LocalProtocolError,
    RemoteProtocolError,
)

from . import masking, opcodes, phases
from .closing import close_reason, parse_close, serialize_close
from .deflate import DeflateJob
from .frames import FrameReader, FrameWriter
from .messages import UNLIMITED, Fragment, MessageReader
from .opcodes import CloseCode
from .phases import TRANSITIONS, Phase, State, Step, state_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from .deflate import PerMessageDeflate

__all__ = ["Connection", "ConnectionEvent", "Inflated", "Ping", "Pong", "Role"]

# Masking keys are drawn this many bytes at a time: one system call for 256 of them.
KEY_BLOCK = 1024
# So many bytes wait behind a message that is compressed in steps; where they would be more, it is compressed at once.
BEHIND = 1 << 20
# 7.4.1: 1000 "indicates a normal closure", 1001 that an endpoint is "going away"; 1005 stands for no code.
AS_AGREED = frozenset({CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY, CloseCode.NO_STATUS_RCVD})


class Role(enum.Enum):
    """Which side of the connection this is."""

    SERVER = "server"
    CLIENT = "client"


class Ping(NamedTuple):
    """A Ping came; its Pong is among the data to send."""

    payload: bytes


class Pong(NamedTuple):
    """A Pong came."""

    payload: bytes


class Inflated(NamedTuple):
    """A piece of a large message was inflated, where `piece_size` of the extension is set: call `next_event` again."""

    size: int


ConnectionEvent = str | bytes | Fragment | Inflated | Ping | Pong | Close


class Connection:
    """One end of a WebSocket connection whose opening handshake is done.

    `max_size` limits a received message in bytes, after decompression; None means no limit. `writers` is a list that
    connections may share, where an idle FrameWriter waits for its next use. `random` returns that many random bytes.
    """

    __slots__ = (
        "_keys", "_keys_used", "_random", "backlog", "behind", "close_rcvd", "close_sent", "deflate", "frames",
        "hold_pongs", "masks", "messages", "phase", "pong_held", "rcvd_then_sent", "violation", "writer", "writers",
    )  # fmt: skip

    def __init__(
        self,
        role: Role,
        max_size: int | None = 1 << 20,
        deflate: PerMessageDeflate | None = None,
        writers: list[FrameWriter] | None = None,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.masks = role is Role.CLIENT
        self.frames = FrameReader(role is Role.SERVER, deflate is not None)
        if max_size is not None and max_size < 0:
            raise ValueError(f"max_size is {max_size} bytes, allowed are 0 and more, or None")
        self.messages = MessageReader(UNLIMITED if max_size is None else min(max_size, UNLIMITED), deflate)
        self.deflate = deflate
        self.writers = [] if writers is None else writers
        self.writer: FrameWriter | None = None
        # A message that is compressed in steps, and the frames that wait behind it, as `hold` took them.
        self.backlog: deque[tuple[int, bytes | DeflateJob]] | None = None
        self.behind = 0
        self.phase = phases.OPEN
        self.close_sent: Close | None = None
        self.close_rcvd: Close | None = None
        self.rcvd_then_sent: bool | None = None
        self.violation: RemoteProtocolError | None = None
        self.hold_pongs = False
        self.pong_held: bytes | None = None
        self._random = random
        self._keys, self._keys_used = b"", 0

    def limit(self, max_size: int | None, max_frame_size: int | None, text_only: bool) -> None:
        """Read no messages and no frames that are larger (1009), and no binary ones with `text_only` (1003).

        Sizes are in bytes, None for those that were allowed before. It holds from the next frame on.
        """
        for name, size in (("max_size", max_size), ("max_frame_size", max_frame_size)):
            if size is not None and size < 0:
                raise ValueError(f"{name} is {size} bytes, allowed are 0 and more, or None")
        messages = self.messages
        messages.limit(
            messages.max_size if max_size is None else min(max_size, UNLIMITED),
            messages.max_frame_size if max_frame_size is None else min(max_frame_size, UNLIMITED),
            text_only,
        )

    def receive(self, data: bytes) -> None:
        """Take what was read from the peer; then call `next_event` until it returns None."""
        self.receive_buffer(bytearray(data), len(data))

    def receive_buffer(self, buffer: bytearray, end: int) -> None:
        """Take `buffer[:end]` without a copy: it is changed in place, and lent until `keep_buffer`."""
        self.frames.feed(buffer, end)

    def keep_buffer(self) -> None:
        """End the loan: copy what `next_event` did not read yet."""
        self.frames.keep()

    def next_event(self) -> ConnectionEvent | None:
        """Return the next message or control event, None when more data is needed.

        A message is a str or bytes. Pings are answered here. Raises RemoteProtocolError where the peer broke the
        protocol. After that, or after a Close, all that follows is ignored; what came before can still be answered,
        until `settle` or `data_to_send` writes this side's Close frame.
        """
        frames = self.frames
        messages = self.messages
        try:
            while self.phase <= phases.CLOSE_SENT:
                if messages.inflating:
                    message = messages.receive_rest()
                elif frames.position == frames.end:
                    return None
                else:
                    if not frames.in_frame:
                        if messages.opcode == 0 and messages.short and not messages.streaming:
                            message = frames.take_short()
                            if message is not None:
                                return message
                        if not frames.read_header(messages.opcode != 0):
                            return None
                        if frames.first & opcodes.CONTROL == 0:
                            messages.begin_frame(frames)
                    if frames.first & opcodes.CONTROL:
                        if not frames.has_payload():
                            return None
                        return self.receive_control(frames.first & opcodes.OPCODE, frames.take_bytes())
                    if frames.remaining > 0 and frames.position == frames.end:
                        return None
                    message = messages.receive(frames)
                if message is not None:
                    return message
                if messages.inflating and self.deflate is not None:
                    return Inflated(self.deflate.piece_size)
        except UnicodeDecodeError:
            raise self.violated(CloseCode.INVALID_DATA, "a text message is not valid UTF-8") from None
        except RemoteProtocolError as error:
            self.violated(error.close_code, error.reason)
            raise
        # 1.4: after the Close frame of the peer there is no more data. 7.1.7: after a failure, an endpoint "MUST NOT
        # continue to attempt to process data (including a responding Close frame) from the remote endpoint".
        frames.discard()
        return None

    def violated(self, close_code: int, reason: str) -> RemoteProtocolError:
        """Read no more, for the peer broke the protocol; return the error that says how."""
        # Another one is kept: by its traceback, one that was raised holds the message.
        self.violation = RemoteProtocolError(close_code, reason)
        self.step(Step.RECEIVE_VIOLATION)
        self.frames.discard()
        return RemoteProtocolError(close_code, reason)

    def receive_control(self, opcode: int, payload: bytes) -> ConnectionEvent:
        """Do what a control frame asks for."""
        if opcode == opcodes.PING:
            # 5.5.2: "Upon receipt of a Ping frame, an endpoint MUST send a Pong frame in response, unless it already
            # received a Close frame." 5.5.3: it "may elect to send a Pong frame for only the most recently processed
            # Ping frame" if it has not sent the earlier ones yet.
            if self.phase == phases.OPEN:
                if self.hold_pongs:
                    self.pong_held = payload
                else:
                    self.write(opcodes.FIN | opcodes.PONG, payload)
            return Ping(payload)
        if opcode == opcodes.PONG:
            return Pong(payload)
        close = parse_close(payload)
        self.close_rcvd = close
        self.rcvd_then_sent = self.close_sent is None
        self.step(Step.RECEIVE_CLOSE)
        return close

    def has_unprocessed(self) -> bool:
        """Tell whether `next_event` may have another message of what was received."""
        return self.phase == phases.OPEN and (self.messages.inflating or self.frames.position < self.frames.end)

    def receive_eof(self) -> None:
        """End the connection, with or without a closing handshake, and drop a message that is not complete."""
        if self.phase != phases.ENDED:
            self.step(Step.END)
        self.messages.drop()
        self.backlog = None

    def send(self, message: str | bytes, compress: bool | None = None) -> None:
        """Send a message in one frame. `compress` overrides the threshold of the extension, if one was negotiated.

        Raises ConnectionClosed once a Close frame was sent, TypeError for anything but str and bytes, and
        LocalProtocolError for a str that has no UTF-8.
        """
        if isinstance(message, str):
            text = message if type(message) is str else str.__str__(message)
            try:
                payload = masking.encode(text)
            except UnicodeEncodeError as error:
                raise LocalProtocolError(f"message has a lone surrogate at index {error.start}") from None
            first = opcodes.FIN | opcodes.TEXT
        elif isinstance(message, bytes):
            payload = message if type(message) is bytes else bytes(message)
            first = opcodes.FIN | opcodes.BINARY
        else:
            raise TypeError(f"message is {type(message).__name__}, allowed are str and bytes")
        if self.phase != phases.OPEN and not self.may_send():
            raise self.closed()
        if self.deflate is not None:
            if len(payload) >= self.deflate.threshold if compress is None else compress:
                # RFC 7692 7.2.1: the first frame of a compressed message has the "Per-Message Compressed" bit, rsv1.
                first |= opcodes.RSV1
                payload = masking.octets_of(payload)
                if len(payload) > self.deflate.piece_size or self.backlog is not None:
                    self.hold(first, self.deflate.begin(payload))
                    return
                payload = self.deflate.compress(payload)
        if self.backlog is None:
            self.write(first, payload)
        else:
            self.hold(first, payload)

    def send_fragment(self, opcode: int, payload: bytes, final: bool) -> None:
        """Send one frame of a message in fragments, all but the first a CONTINUATION. The caller keeps their order."""
        if not self.may_send():
            raise self.closed()
        self.put((opcodes.FIN if final else 0) | opcode, payload)

    def send_frames(self, octets: bytes) -> None:
        """Send whole messages that were encoded for many connections (unmasked: from a server only)."""
        if not self.may_send():
            raise self.closed()
        if self.backlog is None:
            self.gather().append(octets)
        else:
            self.hold(0, octets)

    def send_job(self, opcode: int, job: DeflateJob) -> None:
        """Send a message that is compressed in steps, for many connections maybe. Raises as `send` does."""
        if not self.may_send():
            raise self.closed()
        self.hold(opcodes.FIN | opcodes.RSV1 | opcode, job)

    def hold(self, first: int, payload: bytes | DeflateJob) -> None:
        """Have a frame, or with `first` 0 octets that are frames, wait for `deflate_piece`, in the order of all."""
        if self.backlog is not None:
            self.behind += payload.size if isinstance(payload, DeflateJob) else len(payload)
            if self.behind > BEHIND:
                while self.deflate_piece():
                    pass
        if self.backlog is None:
            self.backlog = deque()
            self.behind = 0
        self.backlog.append((first, payload))

    def deflate_piece(self) -> bool:
        """Do one step of compressing what waits, and gather the frames that it holds up; return False at the end."""
        backlog = self.backlog
        if backlog is None:
            return False
        stepped = False
        while backlog:
            first, payload = backlog[0]
            if isinstance(payload, DeflateJob):
                if stepped:
                    return True
                stepped = True
                payload.step()
                if payload.octets is None:
                    return True
                payload = payload.octets
            backlog.popleft()
            if first:
                self.write(first, payload)
            else:
                self.gather().append(payload)
        self.backlog = None
        return False

    def put(self, first: int, payload: bytes) -> None:
        """Send a frame behind all that waits."""
        if self.backlog is None:
            self.write(first, payload)
        else:
            self.hold(first, payload)

    def ping(self, payload: bytes) -> None:
        """Send a Ping. Raises ConnectionClosed once a Close frame was sent, LocalProtocolError for over 125 bytes."""
        if len(payload) > 125:
            raise LocalProtocolError(f"ping payload is {len(payload)} bytes, limit 125")
        if not self.may_send():
            raise self.closed()
        self.write(opcodes.FIN | opcodes.PING, payload)

    def pong(self, payload: bytes) -> None:
        """Send a Pong that nobody asked for. Raises as `ping` does."""
        if len(payload) > 125:
            raise LocalProtocolError(f"pong payload is {len(payload)} bytes, limit 125")
        if not self.may_send():
            raise self.closed()
        self.write(opcodes.FIN | opcodes.PONG, payload)

    def release_pong(self) -> None:
        """Send the Pong that was held while `hold_pongs` was set."""
        self.hold_pongs = False
        payload = self.pong_held
        if payload is not None:
            self.pong_held = None
            if self.phase == phases.OPEN:
                self.write(opcodes.FIN | opcodes.PONG, payload)

    def may_send(self) -> bool:
        """Tell whether frames may be sent: until this side's Close frame, even after the peer's."""
        # 5.5.1: "The application MUST NOT send any more data frames after sending a Close frame." It "MAY delay sending
        # a Close frame until its current message is sent".
        return self.phase == phases.OPEN or self.phase == phases.CLOSE_RECEIVED or self.phase == phases.VIOLATED

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Start the closing handshake (section 7.1.2); once started, from either side, do nothing.

        Raises LocalProtocolError for a code or a reason that may not be sent. The peer's Close comes as an event.
        """
        payload = serialize_close(code, reason)
        if self.phase == phases.OPEN or self.phase == phases.CLOSE_RECEIVED:
            self.send_close(code, reason, payload)

    def settle(self) -> None:
        """Answer the peer's Close, or its violation of the protocol, with the Close frame of this side."""
        if self.phase == phases.CLOSE_RECEIVED and self.close_rcvd is not None:
            # 5.5.1: "If an endpoint receives a Close frame and did not previously send a Close frame, the endpoint MUST
            # send a Close frame in response. (When sending a Close frame in response, the endpoint typically echos the
            # status code it received.)" The reason goes back with it: web pages, and their tests, look for it.
            close = self.close_rcvd
            self.send_close(close.code, close.reason, serialize_close(close.code, close.reason))
        elif self.phase == phases.VIOLATED and self.violation is not None:
            self.fail(self.violation.close_code, self.violation.reason)

    def fail(self, code: int, reason: str) -> None:
        """Fail the connection (section 7.1.7): send a Close frame if none was sent, and ignore what comes."""
        if self.phase <= phases.VIOLATED:
            # 7.1.7: an endpoint "SHOULD send a Close frame with an appropriate status code (Section 7.4) before
            # proceeding to _Close the WebSocket Connection_".
            reason = close_reason(reason)
            payload = serialize_close(code, reason)
            self.step(Step.FAIL)
            self.frames.discard()
            if self.close_sent is None:
                self.close_sent = Close(int(code), reason)
                self.put(opcodes.FIN | opcodes.CLOSE, payload)

    def send_close(self, code: int, reason: str, payload: bytes) -> None:
        """Send the one Close frame of this side."""
        self.close_sent = Close(int(code), reason)
        self.step(Step.SEND_CLOSE)
        self.put(opcodes.FIN | opcodes.CLOSE, payload)

    def write(self, first: int, payload: bytes) -> None:
        """Gather a frame for the next `data_to_send`."""
        writer = self.gather() if self.writer is None else self.writer
        writer.write(first, payload, self.masks, self.next_key() if self.masks else 0)

    def gather(self) -> FrameWriter:
        """Return where frames are gathered."""
        if self.writer is None:
            self.writer = self.writers.pop() if self.writers else FrameWriter()
        return self.writer

    def next_key(self) -> int:
        """Return a fresh masking key."""
        # 10.3: "Clients MUST choose a new masking key for each frame, using an algorithm that cannot be predicted by
        # end applications that provide data." 5.3: it "MUST be derived from a strong source of entropy".
        if self._keys_used == len(self._keys):
            keys = self._random(KEY_BLOCK)
            if len(keys) != KEY_BLOCK:
                raise ValueError(f"random returned {len(keys)} bytes, asked were {KEY_BLOCK}")
            self._keys = keys
            self._keys_used = 0
        used = self._keys_used
        self._keys_used = used + 4
        return int.from_bytes(self._keys[used : used + 4], "little")

    def data_to_send(self) -> list[bytes]:
        """Return the octets to write, in order, and forget them."""
        self.settle()
        return self.take_data()

    def take_data(self) -> list[bytes]:
        """Return the octets that were gathered so far, without `settle`."""
        writer = self.writer
        if writer is None:
            return []
        self.writer = None
        chunks = writer.take()
        self.writers.append(writer)
        return chunks

    def pending(self) -> int:
        """Return how many bytes were gathered."""
        return 0 if self.writer is None else self.writer.sealed + self.writer.length

    def step(self, step: Step) -> None:
        """Go where the table says."""
        self.phase = int(TRANSITIONS[Phase(self.phase)][step])

    @property
    def state(self) -> State:
        """The state as the application sees it."""
        return state_of(self.phase)

    def closed(self) -> ConnectionClosed:
        """Return the exception that says how the connection closes or closed."""
        codes = {
            CloseCode.ABNORMAL_CLOSURE if close is None else close.code for close in (self.close_rcvd, self.close_sent)
        }
        kind = ConnectionClosedOK if codes <= AS_AGREED else ConnectionClosedError
        return kind(self.close_rcvd, self.close_sent, self.rcvd_then_sent)
