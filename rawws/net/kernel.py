"""Kernel: what it is told about a TCP connection, and what it says about the peer (RFC 9293, RFC 5482).

Linux tells and does all of this. Elsewhere there are the probes of a silent connection, and what the kernel has taken
is the most that is known.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import asyncio

__all__ = ["GONE_AFTER", "SendQueue", "gone_after", "notice_vanished", "send_queue"]

# How long a peer may leave what was sent unacknowledged, or a probe unanswered, or its window closed, in seconds: with
# the 15 s between two comments of an event stream, a client that vanished is gone within a minute; and it is as long as
# the keepalive of WebSockets takes (20 s and 20 s). Linux alone takes 15 minutes, or for ever where nothing is sent.
GONE_AFTER = 40
# A connection that is silent is probed after so many seconds, and then again after so many: the third one without an
# answer ends it, or what is above. NATs forget it after 60 s and more.
PROBE_AFTER = 30
PROBE_INTERVAL = 10
PROBES = 3
TCP_OPTIONS = {
    "TCP_KEEPIDLE": PROBE_AFTER,
    # The same on macOS.
    "TCP_KEEPALIVE": PROBE_AFTER,
    "TCP_KEEPINTVL": PROBE_INTERVAL,
    "TCP_KEEPCNT": PROBES,
    # RFC 5482, in milliseconds.
    "TCP_USER_TIMEOUT": GONE_AFTER * 1000,
}
# Nobody waits longer than an hour: Linux takes 32,767 s between probes at the most.
LONGEST = 3600
# Of `struct tcp_info` of Linux, tcpi_bytes_acked and, from 5.4 on, tcpi_snd_wnd, between them tcpi_notsent_bytes.
INFO = struct.Struct("=120xQ16xI80xI")
# asm-generic/ioctls.h: of a unix socket, the bytes that the peer has not read.
SIOCOUTQ = 0x5411


def gone_after(ping_interval: float | None, ping_timeout: float | None) -> float:
    """Return after how many seconds without an acknowledgement a peer is given up: not before the pings give it up.

    Who waits longer for the answer to a ping has peers that are away for longer, in a tunnel.
    """
    return max(GONE_AFTER, ping_interval + ping_timeout if ping_interval and ping_timeout else 0)


def notice_vanished(sock: socket.socket, seconds: float = GONE_AFTER) -> None:
    """Have the kernel end a connection whose peer vanished: this one, or those that a listening socket accepts.

    It is given up after so many seconds without an acknowledgement.
    """
    if sock.family not in {socket.AF_INET, socket.AF_INET6}:
        # Both ends of a unix socket are on this machine: neither vanishes without the other being told.
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in TCP_OPTIONS.items():
            if hasattr(socket, name):
                longer = 1 if name == "TCP_KEEPCNT" else min(seconds, LONGEST) / GONE_AFTER
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), ceil(value * longer))


class SendQueue(NamedTuple):
    """What the kernel says of the bytes that it took to send."""

    # How many the peer's kernel has acknowledged, -1 where that is not said.
    acked: int
    # How many wait here because the peer, or the network, takes no more now; of a unix socket, those that were not
    # read.
    held: int
    # How many it would take now. That grows as the program reads, and where its kernel gives it more room.
    window: int


def send_queue(transport: asyncio.Transport) -> SendQueue:
    """Ask the kernel what became of the bytes that it took, where it is Linux."""
    sock: Any = None
    if sys.platform.startswith("linux") and not transport.is_closing():
        sock = transport.get_extra_info("socket")
    if sock is None:
        return UNKNOWN
    with contextlib.suppress(OSError, ValueError):
        if sock.family in {socket.AF_INET, socket.AF_INET6}:
            info: bytes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, INFO.size)
            return SendQueue(*INFO.unpack(info)) if len(info) == INFO.size else UNKNOWN
        from fcntl import ioctl  # noqa: PLC0415 - there is none on Windows

        return SendQueue(-1, int.from_bytes(ioctl(sock.fileno(), SIOCOUTQ, bytes(4)), sys.byteorder), 0)
    return UNKNOWN


UNKNOWN = SendQueue(-1, 0, 0)
