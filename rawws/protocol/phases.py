"""Phases: how far a connection is on the way to its end, and what moves it (RFC 6455 section 7)."""

from __future__ import annotations

import enum

__all__ = ["TRANSITIONS", "Phase", "State", "Step", "state_of"]


class State(enum.IntEnum):
    """The states that an application sees, with the numbers of the browsers' `readyState`."""

    CONNECTING = 0
    OPEN = 1
    CLOSING = 2
    CLOSED = 3


class Phase(enum.IntEnum):
    """The states of section 7: how far the closing handshake is."""

    OPEN = 0
    CLOSE_SENT = 1
    # From here on nothing is received. In these two the application may still answer what came before.
    CLOSE_RECEIVED = 2
    VIOLATED = 3
    CLOSE_DONE = 4
    FAILED = 5
    ENDED = 6


# The same as plain numbers: the compiled twin has those of `numbers.pxd` in their place.
OPEN, CLOSE_SENT, CLOSE_RECEIVED, VIOLATED, CLOSE_DONE, FAILED, ENDED = map(int, Phase)


class Step(enum.IntEnum):
    """What moves a connection from one phase to the next."""

    SEND_CLOSE = 0
    RECEIVE_CLOSE = 1
    RECEIVE_VIOLATION = 2
    FAIL = 3
    END = 4


# The whole of section 7. What is not in it cannot happen.
TRANSITIONS: dict[Phase, dict[Step, Phase]] = {
    # 7.1.2, _Start the WebSocket Closing Handshake_, from this side or the other, and 7.1.7, _Fail the WebSocket
    # Connection_, for what the peer did or for another reason.
    Phase.OPEN: {
        Step.SEND_CLOSE: Phase.CLOSE_SENT, Step.RECEIVE_CLOSE: Phase.CLOSE_RECEIVED,
        Step.RECEIVE_VIOLATION: Phase.VIOLATED, Step.FAIL: Phase.FAILED, Step.END: Phase.ENDED,
    },
    # 7.1.3: "Once a Close frame has been sent and received, the WebSocket closing handshake is complete".
    Phase.CLOSE_SENT: {
        Step.RECEIVE_CLOSE: Phase.CLOSE_DONE, Step.RECEIVE_VIOLATION: Phase.FAILED,
        Step.FAIL: Phase.FAILED, Step.END: Phase.ENDED,
    },
    Phase.CLOSE_RECEIVED: {Step.SEND_CLOSE: Phase.CLOSE_DONE, Step.FAIL: Phase.FAILED, Step.END: Phase.ENDED},
    Phase.VIOLATED: {Step.FAIL: Phase.FAILED, Step.END: Phase.ENDED},
    # 7.1.1, _Close the WebSocket Connection_: only the end of TCP is left.
    Phase.CLOSE_DONE: {Step.END: Phase.ENDED},
    Phase.FAILED: {Step.END: Phase.ENDED},
    Phase.ENDED: {},
}  # fmt: skip


def state_of(phase: int) -> State:
    """Return what the application sees of a phase."""
    return State.OPEN if phase == OPEN else State.CLOSED if phase == ENDED else State.CLOSING
