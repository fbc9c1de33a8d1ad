"""HTTP/2 limits: what a peer may make this side hold and do (RFC 9113 section 10.5).

A connection has no clock. What is limited by time is a `Budget`, which `Http2Endpoint.elapse` fills up again; whoever
owns the connection calls it now and then, as often as it likes.
"""

from __future__ import annotations

from typing import NamedTuple

from rawws.errors import Http2Error

from .http2_codes import ErrorCode

__all__ = ["Budget", "Http2Limits"]


class Http2Limits(NamedTuple):
    """How much of each a connection takes."""

    # All that a browser has for all of its tabs: 100, as most take, makes pages with event streams hang.
    max_streams: int = 256
    # 6.5.2: the octets of names and values, and 32 for each field: of one head of HTTP/1.1. A request over it can still
    # be answered with 431, up to twice as much in compressed octets, and behind that the connection ends.
    max_header_list: int = 16384
    # CONTINUATION frames of one block (CVE-2024-27316 and its kin): browsers send none, since a block fits into 16 KiB.
    max_continuations: int = 8
    # 6.9.2: the initial window of a stream, which is what is held of one whose application does not read.
    window: int = 65535
    # What a peer may send before anything comes back: of all streams together, and given back at once.
    connection_window: int = 1048576
    # Frames that ask for nothing and carry nothing: SETTINGS, and each that is in them, PING, PRIORITY, WINDOW_UPDATE,
    # GOAWAY, empty DATA, and unknown ones (CVE-2019-9512, 9513, 9515, 9518). So many at once, as in nghttp2, so many
    # each second; one DATA frame that is sent earns two, for who receives much gives much back, and less where the
    # peer's window made it small.
    idle_frames: int = 1000
    idle_frames_rate: float = 100.0
    # Streams that end before their answer is written: the peer resets them (CVE-2023-44487), or has this side do it
    # (CVE-2025-8671). As many at once as can be open, for a tab may be closed; so many each second.
    resets: int = 256
    resets_rate: float = 20.0
    # Settings in one frame: there are eight.
    max_settings: int = 32


class Budget:
    """How many more of something may come: `burst` at once, and `rate` each second."""

    __slots__ = ("burst", "left", "rate", "what")

    def __init__(self, what: str, burst: int, rate: float) -> None:
        self.what = what
        self.burst = burst
        self.rate = rate
        self.left = float(burst)

    def spend(self) -> None:
        """Count one. Raises `Http2Error` (ENHANCE_YOUR_CALM) where there is none left."""
        # 10.5: "An endpoint MAY treat activity that is suspicious as a connection error (Section 5.4.1) of type
        # ENHANCE_YOUR_CALM."
        if self.left < 1:
            raise Http2Error(
                ErrorCode.ENHANCE_YOUR_CALM, f"over {self.burst} {self.what} at once, or {self.rate:g} each second"
            )
        self.left -= 1

    def earn(self, count: float) -> None:
        """Allow so many more, up to the burst."""
        self.left = min(self.left + count, float(self.burst))
