"""The innocent client: echoes until its input ends, then what it saw, as JSON. It imports nothing of ours."""

from __future__ import annotations

import json
import select
import socket
import sys
import time

PAYLOAD = b"innocent" * 8
# Masked with zeros: the payload stands as it is.
SENT = b"\x82" + bytes([0x80 | len(PAYLOAD)]) + bytes(4) + PAYLOAD
EXPECTED = b"\x82" + bytes([len(PAYLOAD)]) + PAYLOAD
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
PAUSE = 0.002
# A server that is silent for so long hangs.
HANGS = 30.0


def read(sock: socket.socket, size: int) -> bytes:
    """Return so many bytes."""
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise ConnectionError("the server closed the connection of an innocent client")
        data += piece
    return data


def receive(sock: socket.socket) -> bytes:
    """Return the next frame that is no Ping; answer those before it."""
    while (head := read(sock, 2))[0] == 0x89:
        sock.sendall(bytes([0x8A, 0x80 | head[1]]) + bytes(4) + read(sock, head[1]))
    return head + read(sock, head[1])


def main(port: int) -> None:
    """Measure until the input ends."""
    with socket.create_connection(("127.0.0.1", port), HANGS) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(REQUEST)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += read(sock, 1)
        print("ready", flush=True)
        times: list[float] = []
        while not select.select([sys.stdin], [], [], PAUSE)[0]:
            began = time.perf_counter()
            sock.sendall(SENT)
            came = receive(sock)
            if came != EXPECTED:
                raise ValueError(f"{came!r} came, which is no echo of what was sent")
            times.append(time.perf_counter() - began)
    times.sort()
    ranks = {"p50": 0.5, "p99": 0.99, "max": 1.0}
    seen = {name: round(1000 * times[int(rank * (len(times) - 1))], 2) for name, rank in ranks.items()}
    print(json.dumps({"echoes": len(times), **seen}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
