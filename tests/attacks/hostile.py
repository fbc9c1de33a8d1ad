"""Hostile clients: sockets that write bytes, and go on where a good client would stop."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

__all__ = ["HANGS", "HOST", "answer", "flood", "frame", "hold", "plain", "request", "until_closed", "upgrade"]

HOST = "127.0.0.1"
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
# A server that takes nothing for so long pauses reading: that is its answer.
STALLS = 0.4
HANGS = 30.0


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv1: bool = False, length: int | None = None
) -> bytes:
    """Return a frame that is masked with zeros; `length` is what its header says, whatever follows."""
    length = len(payload) if length is None else length
    first = opcode | (0x80 if fin else 0) | (0x40 if rsv1 else 0)
    size = (
        bytes([0x80 | length])
        if length < 126
        else b"\xfe" + struct.pack("!H", length)
        if length < 65536
        else b"\xff" + struct.pack("!Q", length)
    )
    return bytes([first]) + size + bytes(4) + payload


def request(path: str = "/", *fields: bytes, line: bytes = b"") -> bytes:
    """Return the request of a handshake."""
    lines = [
        line or b"GET " + path.encode() + b" HTTP/1.1",
        b"Host: localhost",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Key: " + KEY,
        b"Sec-WebSocket-Version: 13",
        *fields,
    ]
    return b"\r\n".join([*lines, b"", b""])


def plain(port: int, *, narrow: bool = False, source: str = "") -> socket.socket:
    """Connect; `narrow` has the smallest receive buffer."""
    sock = socket.socket()
    if narrow:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    if source:
        sock.bind((source, 0))
    sock.settimeout(HANGS)
    sock.connect((HOST, port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def upgrade(port: int, path: str = "/", *fields: bytes, source: str = "") -> socket.socket:
    """Connect and shake hands."""
    sock = plain(port, narrow=True, source=source)
    try:
        sock.sendall(request(path, *fields))
        head = b""
        while not head.endswith(b"\r\n\r\n") and (piece := sock.recv(1)):
            head += piece
        if not head.startswith(b"HTTP/1.1 101 "):
            raise ConnectionError(f"no handshake, but {head!r}")
    except BaseException:
        sock.close()
        raise
    return sock


@contextmanager
def hold(make: Callable[[], socket.socket], count: int) -> Iterator[list[socket.socket]]:
    """Make so many sockets, and close them at the end."""
    with ExitStack() as stack:
        yield [stack.enter_context(make()) for _ in range(count)]


def flood(socks: Sequence[socket.socket], data: bytes, times: int = 1, *, stalls: float = STALLS) -> None:
    """Send so often and read nothing, until all is out, or the server takes no more for `stalls` s, or has closed."""
    block = memoryview(data * max(1, 65536 // len(data)))
    left = dict.fromkeys(socks, len(data) * times)
    at = dict.fromkeys(socks, 0)
    for sock in socks:
        sock.setblocking(False)
    last = time.monotonic()
    while left and time.monotonic() - last < stalls:
        for sock in select.select([], list(left), [], 0.05)[1]:
            try:
                sent = sock.send(block[at[sock] : at[sock] + left[sock]])
            except BlockingIOError:
                continue
            except OSError:
                del left[sock]
                continue
            last = time.monotonic()
            at[sock] = (at[sock] + sent) % len(block)
            left[sock] -= sent
            if not left[sock]:
                del left[sock]


def until_closed(sock: socket.socket) -> bytes:
    """Read until the server closes, and return what came. A server that does not is found by the timeout."""
    sock.settimeout(HANGS)
    data = b""
    with suppress(ConnectionError):
        while piece := sock.recv(65536):
            data += piece
    return data


def answer(port: int, data: bytes) -> bytes:
    """Send bytes, and return all that the server answers until it closes."""
    with plain(port) as sock:
        # It may have closed before all was sent.
        with suppress(ConnectionError):
            sock.sendall(data)
        return until_closed(sock)
