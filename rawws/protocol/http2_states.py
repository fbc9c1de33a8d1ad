"""HTTP/2 states: how far a stream is on the way to its end, and what moves it (RFC 9113 section 5.1).

The two states of figure 2 that are not here, "reserved (local)" and "reserved (remote)", are those of pushed streams:
this client forbids push, and this server does not push.
"""

from __future__ import annotations

import enum

__all__ = ["STREAM_TRANSITIONS", "StreamState", "StreamStep"]


class StreamState(enum.IntEnum):
    """The states of figure 2."""

    IDLE = 0
    OPEN = 1
    HALF_CLOSED_LOCAL = 2
    HALF_CLOSED_REMOTE = 3
    CLOSED = 4


# The same as plain numbers: the compiled twin has those of `http2_numbers.pxd` in their place.
IDLE, OPEN, HALF_CLOSED_LOCAL, HALF_CLOSED_REMOTE, CLOSED = map(int, StreamState)


class StreamStep(enum.IntEnum):
    """What moves a stream from one state to the next: the frames and flags of figure 2, from either side."""

    SEND_HEADERS = 0
    RECEIVE_HEADERS = 1
    SEND_END = 2
    RECEIVE_END = 3
    SEND_RESET = 4
    RECEIVE_RESET = 5


# What is not in it cannot happen.
STREAM_TRANSITIONS: dict[StreamState, dict[StreamStep, StreamState]] = {
    # "Sending a HEADERS frame as a client, or receiving a HEADERS frame as a server, causes the stream to become
    # "open"."
    StreamState.IDLE: {StreamStep.SEND_HEADERS: StreamState.OPEN, StreamStep.RECEIVE_HEADERS: StreamState.OPEN},
    # "From this state, either endpoint can send a frame with an END_STREAM flag set, which causes the stream to
    # transition into one of the "half-closed" states." "Either endpoint can send a RST_STREAM frame from this state,
    # causing it to transition immediately to "closed"."
    StreamState.OPEN: {
        StreamStep.SEND_HEADERS: StreamState.OPEN, StreamStep.RECEIVE_HEADERS: StreamState.OPEN,
        StreamStep.SEND_END: StreamState.HALF_CLOSED_LOCAL, StreamStep.RECEIVE_END: StreamState.HALF_CLOSED_REMOTE,
        StreamStep.SEND_RESET: StreamState.CLOSED, StreamStep.RECEIVE_RESET: StreamState.CLOSED,
    },
    # "A stream transitions from this state to "closed" when a frame is received with the END_STREAM flag set or when
    # either peer sends a RST_STREAM frame."
    StreamState.HALF_CLOSED_LOCAL: {
        StreamStep.RECEIVE_HEADERS: StreamState.HALF_CLOSED_LOCAL, StreamStep.RECEIVE_END: StreamState.CLOSED,
        StreamStep.SEND_RESET: StreamState.CLOSED, StreamStep.RECEIVE_RESET: StreamState.CLOSED,
    },
    # "A stream can transition from this state to "closed" by sending a frame with the END_STREAM flag set or when
    # either peer sends a RST_STREAM frame."
    StreamState.HALF_CLOSED_REMOTE: {
        StreamStep.SEND_HEADERS: StreamState.HALF_CLOSED_REMOTE, StreamStep.SEND_END: StreamState.CLOSED,
        StreamStep.SEND_RESET: StreamState.CLOSED, StreamStep.RECEIVE_RESET: StreamState.CLOSED,
    },
    # "The "closed" state is the terminal state."
    StreamState.CLOSED: {},
}  # fmt: skip
