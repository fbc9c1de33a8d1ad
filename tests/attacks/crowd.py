"""A crowd: WebSockets that are opened and kept, from addresses of their own; it does what its input says.

`python -m tests.attacks.crowd PORT SOURCE COUNT` prints `open N`; then, for each line of its input, an echo over each
connection, and `alive N`. It ends with its input.
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress

from .witness import EXPECTED, REQUEST, SENT, receive


def connect(port: int, source: str) -> socket.socket | None:
    """Open a WebSocket; return None where the server refuses it."""
    sock = socket.socket()
    sock.settimeout(60)
    sock.bind((source, 0))
    head = b""
    with suppress(ConnectionError):
        sock.connect(("127.0.0.1", port))
        sock.sendall(REQUEST)
        while not head.endswith(b"\r\n\r\n") and (piece := sock.recv(1000)):
            head += piece
    if head.startswith(b"HTTP/1.1 101 "):
        return sock
    sock.close()
    refused[head[:12]] = refused.get(head[:12], 0) + 1
    return None


def alive(sock: socket.socket) -> bool:
    """Tell whether an echo comes back."""
    sock.sendall(SENT)
    return receive(sock) == EXPECTED


refused: dict[bytes, int] = {}

if __name__ == "__main__":
    port, source, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    socks = [sock for _ in range(count) if (sock := connect(port, source)) is not None]
    print("open", len(socks), refused.get(b"HTTP/1.1 503", 0), flush=True)
    for _ in sys.stdin:
        print("alive", sum(map(alive, socks)), flush=True)
