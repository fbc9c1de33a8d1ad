"""Opcodes and close codes: the numbers of the wire and their names (RFC 6455 sections 5.2 and 7.4)."""

from __future__ import annotations

import enum

__all__ = ["CloseCode", "Opcode"]

# The bits of the first octet of a frame (5.2); CONTROL is the one of an opcode that those of control frames have (5.5).
FIN, RSV1, RSV2_RSV3, OPCODE, CONTROL = 0x80, 0x40, 0x30, 0x0F, 0x08
# Those of the second.
MASK, LENGTH = 0x80, 0x7F
# A payload of up to so many octets has its length there.
SHORT = 125


@enum.unique
class Opcode(enum.IntEnum):
    """What a frame is (RFC 6455 section 5.2). 0x8 and above are control frames."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


# The same as plain numbers: the compiled twin has those of `numbers.pxd` in their place.
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = map(int, Opcode)


@enum.unique
class CloseCode(enum.IntEnum):
    """Why a connection ended (RFC 6455 section 7.4.1 and the IANA registry of close codes)."""

    NORMAL_CLOSURE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    # 1005, 1006 and 1015 are told to the application and never stand in a Close frame.
    NO_STATUS_RCVD = 1005
    ABNORMAL_CLOSURE = 1006
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015
