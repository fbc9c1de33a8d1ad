"""HTTP/2 settings: the payload of a SETTINGS frame to its settings, and back (RFC 9113 section 6.5, RFC 8441)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rawws.errors import Http2Error

from .http2_codes import ErrorCode, SettingCode

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["parse_settings", "serialize_settings"]

MAX_WINDOW = (1 << 31) - 1
MIN_FRAME_SIZE, MAX_FRAME_SIZE = 1 << 14, (1 << 24) - 1
# The settings that have two values.
SWITCHES = frozenset((
    SettingCode.ENABLE_PUSH, SettingCode.ENABLE_CONNECT_PROTOCOL, SettingCode.NO_RFC7540_PRIORITIES,
))  # fmt: skip


def parse_settings(payload: bytes, max_settings: int) -> list[tuple[int, int]]:
    """Return the settings in their order, with those that nobody knows. Raises `Http2Error`."""
    count = len(payload) // 6
    if count > max_settings:
        raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, f"a SETTINGS frame has {count} settings, limit {max_settings}")
    # 6.5.3: "The values in the SETTINGS frame MUST be processed in the order they appear, with no other frame
    # processing between values."
    settings = []
    for at in range(0, len(payload), 6):
        code = int.from_bytes(payload[at : at + 2], "big")
        value = int.from_bytes(payload[at + 2 : at + 6], "big")
        check_setting(code, value)
        settings.append((code, value))
    return settings


def check_setting(code: int, value: int) -> None:
    """Raise `Http2Error` unless a setting may have this value (section 6.5.2)."""
    # "The initial value of SETTINGS_ENABLE_PUSH is 1. [...] Any value other than 0 or 1 MUST be treated as a connection
    # error (Section 5.4.1) of type PROTOCOL_ERROR." RFC 8441 3 and RFC 9218 2.1: "The value of the parameter MUST be 0
    # or 1."
    if code in SWITCHES and value > 1:
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"{SettingCode(code).name} is {value}, allowed are 0 and 1")
    # "Values above the maximum flow-control window size of 2^31-1 MUST be treated as a connection error (Section 5.4.1)
    # of type FLOW_CONTROL_ERROR."
    if code == SettingCode.INITIAL_WINDOW_SIZE and value > MAX_WINDOW:
        raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE is {value}, limit {MAX_WINDOW}")
    # "The value advertised by an endpoint MUST be between this initial value and the maximum allowed frame size (2^24-1
    # or 16,777,215 octets), inclusive. Values outside this range MUST be treated as a connection error".
    if code == SettingCode.MAX_FRAME_SIZE and not MIN_FRAME_SIZE <= value <= MAX_FRAME_SIZE:
        raise Http2Error(
            ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE is {value}, allowed is {MIN_FRAME_SIZE}..{MAX_FRAME_SIZE}"
        )


def serialize_settings(settings: Mapping[SettingCode, int]) -> bytes:
    """Return the payload of a SETTINGS frame."""
    return b"".join([code.to_bytes(2, "big") + value.to_bytes(4, "big") for code, value in settings.items()])
