"""Relay: a thread that passes connections on to a server and counts the bytes of each way, by the path asked for."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections import Counter
from typing import Final, Self, final

from tests.processes import LOOPBACK

__all__ = ["Relay"]

CHUNK: Final = 65536


@final
class Relay(socketserver.ThreadingTCPServer):
    """`with Relay(server_port) as relay:`; clients connect to `relay.port`.

    `relay.to_server["/path"]` and `relay.to_client["/path"]` are in bytes, with the handshake.
    """

    daemon_threads = True

    def __init__(self, target: int) -> None:
        super().__init__((LOOPBACK, 0), Handler)
        self.target: Final = target
        self.to_server: Final[Counter[str]] = Counter()
        self.to_client: Final[Counter[str]] = Counter()
        self.port: Final[int] = self.server_address[1]
        self._thread: Final = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class Handler(socketserver.BaseRequestHandler):
    """One connection: two threads that copy, until both sides have ended."""

    server: Relay
    request: socket.socket

    def handle(self) -> None:
        """Read the request line, then copy both ways."""
        with socket.create_connection((LOOPBACK, self.server.target)) as server:
            first = self.request.recv(CHUNK)
            path = first.split(b" ", 2)[1].decode() if first.count(b" ") > 1 else ""
            self.server.to_server[path] += len(first)
            server.sendall(first)
            back = threading.Thread(target=copy, args=(server, self.request, self.server.to_client, path))
            back.start()
            copy(self.request, server, self.server.to_server, path)
            back.join()


def copy(source: socket.socket, target: socket.socket, counted: Counter[str], path: str) -> None:
    """Copy until the source ends, then end the target; a side that is reset ends too."""
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            counted[path] += len(data)
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
