"""Closing: the payload of a Close frame to its code and reason, and back (RFC 6455 sections 5.5.1 and 7.4)."""

from __future__ import annotations

from rawws.errors import Close, LocalProtocolError, RemoteProtocolError

from .opcodes import CloseCode

__all__ = ["close_reason", "is_sendable", "parse_close", "serialize_close"]

# What stands for an empty payload.
NO_STATUS = int(CloseCode.NO_STATUS_RCVD)


def is_sendable(code: int) -> bool:
    """Tell whether a Close frame may bear this code (RFC 6455 section 7.4, and the IANA registry for 1012 to 1014)."""
    # 7.4.1: 1004, 1005, 1006 and 1015 are reserved and "MUST NOT be set as a status code in a Close control frame by an
    # endpoint". 7.4.2: "Status codes in the range 0-999 are not used", "1000-2999 are reserved for definition by this
    # protocol", 3000-3999 are registered, 4000-4999 private.
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def parse_close(payload: bytes) -> Close:
    """Return the code and reason of a received Close frame; 1005 stands for an empty one.

    Raises RemoteProtocolError: 1002 for an impossible payload or code, 1007 for a reason that is not UTF-8.
    """
    if not payload:
        return Close(NO_STATUS, "")
    # 5.5.1: "If there is a body, the first two bytes of the body MUST be a 2-byte unsigned integer (in network byte
    # order) representing a status code".
    if len(payload) == 1:
        raise RemoteProtocolError(
            CloseCode.PROTOCOL_ERROR, "close frame payload is 1 byte, allowed are none, or 2 and more"
        )
    code = int.from_bytes(payload[:2], "big")
    if not is_sendable(code):
        raise RemoteProtocolError(
            CloseCode.PROTOCOL_ERROR, f"close code is {code}, allowed are 1000-1003, 1007-1014 and 3000-4999"
        )
    # 5.5.1: "Following the 2-byte integer, the body MAY contain UTF-8-encoded data".
    try:
        return Close(code, payload[2:].decode("utf-8"))
    except UnicodeDecodeError:
        reason = "the reason in a close frame is not valid UTF-8"
        raise RemoteProtocolError(CloseCode.INVALID_DATA, reason) from None


def serialize_close(code: int, reason: str) -> bytes:
    """Return the payload of a Close frame. Raises LocalProtocolError if it may not be sent."""
    if not isinstance(code, int):
        raise TypeError(f"close code is {type(code).__name__}, allowed is int")
    if not isinstance(reason, str):
        raise TypeError(f"close reason is {type(reason).__name__}, allowed is str")
    if code == NO_STATUS and not reason:
        return b""
    if not is_sendable(code):
        raise LocalProtocolError(f"close code is {code}, allowed are 1000-1003, 1007-1014 and 3000-4999")
    try:
        encoded = reason.encode("utf-8")
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"close reason has a lone surrogate at index {error.start}") from None
    # 5.5: "All control frames MUST have a payload length of 125 bytes or less"; two of them are the code.
    if len(encoded) > 123:
        raise LocalProtocolError(f"close reason is {len(encoded)} bytes in UTF-8, limit 123")
    return code.to_bytes(2, "big") + encoded


def close_reason(reason: str) -> str:
    """Return as much of a reason as a Close frame has room for (5.5): 125 bytes, two of them for the code."""
    return reason.encode("utf-8", "replace")[:123].decode("utf-8", "ignore")
