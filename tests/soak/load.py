"""Load: clients of every kind, each of which checks what it gets, and comes back when its connection is lost."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import random
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from itertools import repeat
from typing import Any, Final, final

import rawws

__all__ = ["Load", "fetch"]

# A stall of the proxy takes two seconds, and some may follow each other; an answer that takes longer is lost.
PATIENCE: Final = 60.0
# What the network does to a client, which is no fault of the server.
LOST: Final = (rawws.ConnectionClosed, rawws.HandshakeError, OSError, EOFError, asyncio.IncompleteReadError)
HANDSHAKE: Final = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Fault(Exception):
    """What must never happen."""


@final
class Load:
    """All clients: `faults` is what went wrong, `counts` what was done, `latencies` the last round trips."""

    def __init__(self, direct: int, plain: int, secure: int, tls: ssl.SSLContext, seed: int) -> None:
        self.direct, self.plain, self.secure = direct, plain, secure
        self.tls = tls
        self.dice = random.Random(seed)
        self.faults: list[str] = []
        self.counts: collections.Counter[str] = collections.Counter()
        self.latencies: list[float] = []

    def clients(self, scale: int) -> list[Callable[[], Awaitable[None]]]:
        """Return what to run, again and again: `scale` of each kind."""
        kinds: list[Callable[[], Awaitable[None]]] = []
        for number in range(scale):
            kinds += [lambda secure=bool(number % 2): self.echo(secure, None)]  # type: ignore[misc]
            kinds += [lambda secure=bool(number % 2): self.echo(secure, "deflate")]  # type: ignore[misc]
            kinds += [Follower(self, "hub").socket, Follower(self, "events").events, Follower(self, "poll").poll]
            kinds += [self.slow, self.kill]
        return kinds

    async def run(self, scale: int, seconds: float) -> None:
        """Run all clients for so long."""
        tasks = [asyncio.create_task(self._again(client)) for client in self.clients(scale)]
        tasks.append(asyncio.create_task(self._again(self.probe)))
        await asyncio.sleep(seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _again(self, client: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await client()
            except Fault as fault:
                self.faults.append(str(fault))
            except TimeoutError:
                self.faults.append(f"{getattr(client, '__qualname__', client)}: no answer in {PATIENCE:g} s")
            except LOST as error:
                self.lose(error)
            except Exception as error:
                self.faults.append(repr(error))
                raise
            await asyncio.sleep(self.dice.uniform(0.01, 0.3))

    def lose(self, error: BaseException) -> None:
        """Take note of a connection that was lost; a refusal is a fault."""
        status = error.status if isinstance(error, rawws.HandshakeError) else 0
        if status:
            self.faults.append(f"the server refused: {error}")
        self.counts[f"lost by {type(error).__name__}"] += 1

    def connect(self, path: str, *, secure: bool, **options: Any) -> Any:
        """Connect by the proxy."""
        if secure:
            return rawws.connect(f"wss://127.0.0.1:{self.secure}{path}", ssl=self.tls, **options)
        return rawws.connect(f"ws://127.0.0.1:{self.plain}{path}", **options)

    def message(self) -> str | bytes:
        """Return a message that no other one is equal to."""
        size = self.dice.choice((1, 100, 1000, 10_000, self.dice.randrange(200_000)))
        if self.dice.random() < 0.5:
            return self.dice.randbytes(8) + self.dice.randbytes(max(1, size // 4)) * 4
        return f"{self.dice.random()} " + "Grüße " * (size // 7)

    # -- the kinds of clients

    async def echo(self, secure: bool, compression: str | None) -> None:
        """Send, and compare what comes back; end in one of several ways."""
        async with self.connect("/echo", secure=secure, compression=compression) as ws:
            for _ in range(self.dice.randrange(1, 200)):
                messages = [self.message() for _ in range(self.dice.randrange(1, 9))]
                for message in messages:
                    await ws.send(message)
                for message in messages:
                    async with asyncio.timeout(PATIENCE):
                        came = await ws.recv()
                    if came != message:
                        raise Fault(f"echo: {message[:40]!r} of {len(message)} came back as {came[:40]!r}")
                    self.counts["echoes"] += 1
                await asyncio.sleep(self.dice.uniform(0, 0.1))
            if self.dice.random() < 0.5:
                self.counts["aborted"] += 1
                ws.abort()

    async def slow(self) -> None:
        """Subscribe to a flood and do not read it for a while."""
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.direct))
        reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
        try:
            writer.write(HANDSHAKE.format(path="/flood").encode())
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.sleep(self.dice.uniform(2, 15))
            self.counts["slow readers"] += 1
        finally:
            writer.transport.abort()

    async def kill(self) -> None:
        """Begin something and go away without a word."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.plain)
        whole = HANDSHAKE.format(path="/echo").encode() + b"\x82\xfe\x40\x00abcd" + self.dice.randbytes(16384)
        writer.write(whole[: self.dice.randrange(len(whole))])
        await asyncio.sleep(self.dice.uniform(0, 0.2))
        writer.transport.abort()
        self.counts["killed"] += 1

    async def probe(self) -> None:
        """Measure the round trip of a client whose network is well."""
        async with rawws.connect(f"ws://127.0.0.1:{self.direct}/echo") as ws:
            while True:
                began = time.perf_counter()
                await ws.send("probe")
                await ws.recv()
                self.latencies.append(time.perf_counter() - began)
                await asyncio.sleep(0.02)


@final
class Follower:
    """A subscriber to the numbers; over all its connections it gets each once, in their order."""

    def __init__(self, load: Load, name: str) -> None:
        self.load = load
        self.name = name
        self.cursor = ""
        self.last: int | None = None

    def take(self, publication: dict[str, Any], cursor: str) -> None:
        """Check that this number follows the last one."""
        number = int(publication["data"])
        if self.last is not None and number != self.last + 1:
            raise Fault(f"{self.name}: after {self.last} came {number}")
        self.last, self.cursor = number, cursor
        self.load.counts[self.name] += 1

    def begin(self, answer: dict[str, Any]) -> None:
        """Check that nothing is missing behind the cursor that was asked for."""
        if not answer.get("recovered"):
            raise Fault(f"{self.name}: it is not known what came since {self.cursor}: {answer}")

    async def socket(self) -> None:
        """Follow by a WebSocket, for a while."""
        secure = self.load.dice.random() < 0.5
        async with self.load.connect("/hub", secure=secure, subprotocols=["rawws.v1"]) as ws:
            await ws.send(json.dumps({"id": 1, "subscribe": "ticks", "since": self.cursor or "earliest"}))
            async with asyncio.timeout(PATIENCE):
                self.begin(json.loads(await ws.recv()))
            for _ in range(self.load.dice.randrange(1, 500)):
                async with asyncio.timeout(PATIENCE):
                    publication = json.loads(await ws.recv())
                self.take(publication, publication["cursor"])

    async def events(self) -> None:
        """Follow by an event stream, which comes back by itself."""
        url = f"http://127.0.0.1:{self.load.plain}/events?topic=ticks"
        url += "" if self.cursor else "&since=earliest"
        async with rawws.events(
            url, last_event_id=self.cursor, reconnect_delays=lambda: repeat(0.05), read_timeout=PATIENCE
        ) as feed:
            count = self.load.dice.randrange(1, 500)
            async for event in feed:
                if not event.data:
                    continue
                body = json.loads(event.data)
                if "recovered" in body:
                    self.begin(body)
                    continue
                self.take(body, event.id or "")
                count -= 1
                if not count:
                    break

    async def poll(self) -> None:
        """Follow by one poll."""
        since = self.cursor or "earliest"
        status, body = await fetch(self.load.plain, f"/poll?topic=ticks&since={since.replace('&', '%26')}&timeout=5")
        if status == 204:
            return
        if status != 200:
            raise Fault(f"poll: the status is {status}: {body[:200]!r}")
        answer = json.loads(body)
        self.begin(answer)
        for publication in answer["publications"]:
            self.take(publication, publication["cursor"])


async def fetch(port: int, target: str) -> tuple[int, bytes]:
    """Return the status and the body of a response; raise OSError where it does not come whole."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        async with asyncio.timeout(PATIENCE):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = head.partition("content-length: ")[2].partition("\r\n")[0]
            body = await reader.readexactly(int(length or 0))
        return int(head.split(" ")[1]), body
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
