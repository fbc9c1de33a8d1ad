"""HTTP/2 streams: one exchange of a connection, its state and its two windows (RFC 9113 sections 5.1 and 5.2)."""

from __future__ import annotations

from . import http2_states as states
from .http2_states import STREAM_TRANSITIONS, StreamState, StreamStep

__all__ = ["Http2Stream"]


class Http2Stream:
    """One stream. `owner` is the caller's: what stands on the stream is found there without another table.

    `send_window` and `receive_window` are in octets; the first may be below 0 (section 6.9.2). What the peer sent is
    given back by `Http2Endpoint.acknowledge`.
    """

    __slots__ = (
        "answered", "answered_at", "content_length", "given", "head_only", "headers_received", "id", "known", "owner",
        "receive_window", "received", "send_window", "state", "target", "tunnel",
    )  # fmt: skip

    def __init__(self, id: int, send_window: int, receive_window: int) -> None:  # noqa: A002 - the word of the RFC
        self.id = id
        self.state = states.IDLE
        self.owner: object = None
        self.send_window = send_window
        self.receive_window = receive_window
        # What the receive window is to come back to, and what was taken since it was last given back.
        self.target = receive_window
        self.given = 0
        # What Content-Length announced, -1 where it did not, and what came of the content.
        self.content_length = -1
        self.received = 0
        # The final headers came, or were sent; a response to HEAD has no content whatever it announces.
        self.headers_received = False
        self.answered = False
        # Of which write of the connection the answer is a part.
        self.answered_at = 0
        # Its owner was told of it.
        self.known = False
        self.head_only = False
        # It is one of CONNECT: DATA is no content, and there are no trailers.
        self.tunnel = False

    def step(self, step: StreamStep) -> None:
        """Go where the table says."""
        self.state = int(STREAM_TRANSITIONS[StreamState(self.state)][step])

    def may_receive(self) -> bool:
        """Tell whether the peer may send HEADERS and DATA."""
        return self.state == states.OPEN or self.state == states.HALF_CLOSED_LOCAL

    def may_send(self) -> bool:
        """Tell whether this side may send HEADERS and DATA."""
        return self.state == states.OPEN or self.state == states.HALF_CLOSED_REMOTE
