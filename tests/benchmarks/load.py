"""The load: prepared bytes out, counted and compared bytes in, one epoll, no WebSocket library.

It polls without sleeping, so that no server pays for waking it up, and reads a reply when it is whole, so that no
server pays for being watched while it writes. It compares every byte: `bytes.startswith` at an offset is one `memcmp`.
What the load itself costs is measured and reported.
"""

import select
import socket
import ssl
import struct
import time
import zlib
from typing import Final, Self, final

from .scenarios import ACCEPT, Scenario, exchange, upgrade

BIND_ADDRESS_NO_PORT: Final = 24  # linux/in.h: choose the port at connect, when the whole 4-tuple is known
PER_ADDRESS: Final = 4000  # an address pair has some 28,000 ports; clients come from 127.0.0.2, .3, ...
AT_ONCE: Final = 32  # handshakes in flight
PATIENCE: Final = 20.0  # seconds without any reply
WHOLE: Final = 65536  # bytes of the largest reply that is awaited whole; more could fill the socket's buffer
WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class WrongReplyError(Exception):
    """The server's answer is not the right one, or none came."""


@final
class Client:
    """One connection, as little as possible."""

    __slots__ = ("got", "pending", "recv", "send", "sent", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.recv, self.send = sock, sock.recv, sock.send
        self.got = 0  # bytes of the reply that comes in
        self.sent = 0.0  # when the request left; 0.0 when none is out
        self.pending: memoryview | None = None  # what the kernel did not take of it


@final
class Load:
    """All connections to one server, and the bytes that they exchange with it."""

    __slots__ = ("asked", "clients", "epoll", "extension", "idle", "latencies", "reply", "scenario", "tls")

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.asked = exchange(scenario)
        self.reply = self.asked.reply
        self.clients: dict[int, Client] = {}
        self.epoll = select.epoll()
        self.latencies: list[float] = []
        self.idle = 0.0  # seconds spent in polls that found nothing
        self.extension = ""
        self.tls = ssl.create_default_context() if scenario.tls else None
        if self.tls:
            self.tls.check_hostname = False
            self.tls.verify_mode = ssl.CERT_NONE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.clients.values():  # reset each: no TIME_WAIT is left for the next server
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sock.close()
        self.epoll.close()

    def _connect(self, port: int) -> Client:
        sock = socket.socket()
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.IPPROTO_IP, BIND_ADDRESS_NO_PORT, 1)
        sock.bind((f"127.0.0.{2 + len(self.clients) // PER_ADDRESS}", 0))
        sock.connect(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls:
            sock = self.tls.wrap_socket(sock)
        sock.setblocking(False)
        client = self.clients[sock.fileno()] = Client(sock)
        self.epoll.register(sock.fileno(), select.EPOLLIN)
        return client

    def open(self, port: int, count: int) -> list[float]:
        """Open `count` connections, `AT_ONCE` handshakes at a time; return the seconds that each handshake took."""
        request = upgrade(self.scenario, port)
        took: list[float] = []
        for start in range(0, count, AT_ONCE):
            waiting: dict[int, tuple[Client, float, bytearray]] = {}
            for _ in range(min(AT_ONCE, count - start)):
                began = time.perf_counter()
                client = self._connect(port)
                client.send(request)
                waiting[client.sock.fileno()] = client, began, bytearray()
            deadline = time.perf_counter() + PATIENCE
            while waiting:
                for fd, _ in self.epoll.poll(0):
                    client, began, head = waiting[fd]
                    head += self._read(client)
                    if head.endswith(b"\r\n\r\n"):
                        self._check(head.decode("latin-1"))
                        took.append(time.perf_counter() - began)
                        del waiting[fd]
                if time.perf_counter() > deadline:
                    raise WrongReplyError(f"{len(waiting)} handshakes were not answered")
        return took

    def _read(self, client: Client) -> bytes:
        try:
            data = client.recv(65536)
        except WOULD_BLOCK:
            return b""
        if not data:
            raise WrongReplyError("the server closed the connection")
        return data

    def _check(self, head: str) -> None:
        status, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if not status.startswith("HTTP/1.1 101") or headers.get("sec-websocket-accept") != ACCEPT:
            raise WrongReplyError(f"handshake: {status!r}")
        self.extension = headers.get("sec-websocket-extensions", "")
        if self.scenario.deflate is not ("server_no_context_takeover" in self.extension):
            raise WrongReplyError(f"extensions: {self.extension!r}")

    def learn(self) -> None:
        """Make the first compressed reply the model, once it inflates to the truth.

        Without context takeover every later reply must be the same bytes, on every connection.
        """
        client = next(iter(self.clients.values()))
        client.send(self.asked.request)
        data = bytearray()
        deadline = time.perf_counter() + PATIENCE
        while len(data) < 4 or len(data) < 4 + int.from_bytes(data[2:4], "big"):
            data += self._read(client)
            if time.perf_counter() > deadline:
                raise WrongReplyError(f"no compressed reply of a medium frame, only {bytes(data[:40])!r}")
        inflated = zlib.decompressobj(wbits=-15).decompress(bytes(data[4:]) + b"\x00\x00\xff\xff")
        if data[0] != 0xC1 or data[1] != 126 or inflated != self.asked.payloads[0]:
            raise WrongReplyError(f"the compressed reply is not the message: {bytes(data[:40])!r}")
        self.reply = bytes(data)

    def await_whole_replies(self) -> None:
        """Let the kernel report a reply when it is there to its last byte, where the socket's buffer can hold it."""
        if len(self.reply) <= WHOLE and not self.tls:
            for client in self.clients.values():
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, len(self.reply))

    def run(self, seconds: float, *, once: bool = False) -> int:
        """Keep every connection busy for `seconds`; return the number of right replies (each of a whole batch).

        With `once`, each connection asks once, and all must be answered in that time. Longer than a function should be:
        this loop must cost less than the servers that it measures (`load us` in the report).
        """
        clock, poll, clients = time.perf_counter, self.epoll.poll, self.clients
        request, reply, took = self.asked.request, self.reply, self.latencies.append
        asked, size, done, idle = len(request), len(reply), 0, 0.0
        for client in clients.values():
            if not client.sent:
                self._ask(client)
        now = last = clock()
        deadline = now + seconds
        while now < deadline:
            ready = poll(0)
            if not ready:
                before, now = now, clock()
                idle += now - before
                if now - last > PATIENCE:
                    raise WrongReplyError(f"no reply for {PATIENCE:.0f} s")
            for fd, events in ready:
                client = clients[fd]
                if client.pending is not None and events & select.EPOLLOUT:
                    self._ask(client)
                if not events & ~select.EPOLLOUT:
                    continue
                try:
                    data = client.recv(size - client.got)
                except WOULD_BLOCK:
                    continue
                if data != reply:
                    if not data or not reply.startswith(data, client.got):
                        raise WrongReplyError(f"after {client.got} bytes of a reply came {data[:40]!r}")
                    client.got += len(data)
                    if client.got < size:
                        continue
                    client.got = 0
                last = now = clock()
                took(now - client.sent)
                done += 1
                if once:
                    client.sent = 0.0
                    if done == len(clients):
                        return done
                    continue
                client.sent = now
                try:
                    written = client.send(request)
                except WOULD_BLOCK:
                    written = 0
                if written != asked:
                    client.pending = memoryview(request)[written:]
                    self.epoll.modify(fd, select.EPOLLIN | select.EPOLLOUT)
            if ready:
                now = clock()
        self.idle = idle
        if once:
            raise WrongReplyError(f"{len(clients) - done} of {len(clients)} connections were not answered")
        return done

    def _ask(self, client: Client) -> None:
        """Send a request, or what is left of one."""
        if client.pending is None:
            client.sent = time.perf_counter()
            client.pending = memoryview(self.asked.request)
        try:
            client.pending = client.pending[client.send(client.pending) :] or None
        except WOULD_BLOCK:
            return
        finally:
            waiting = select.EPOLLOUT if client.pending else 0
            self.epoll.modify(client.sock.fileno(), select.EPOLLIN | waiting)
