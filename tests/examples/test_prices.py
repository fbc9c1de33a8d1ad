"""The price feed and a client that reads ten times a second: its latest prices are right, and memory stays flat."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from tests.examples.parts import example
from tests.processes import LOOPBACK, Process, eventually

# A tenth of what the feed sends: 10 reads a second of 4 KiB, about 40 changes each.
READ = 4096


def resident(process: Process) -> int:
    """Return how much memory a process has, in KiB."""
    found = re.search(r"^VmRSS:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def stats(port: int | None) -> dict[str, Any]:
    found = httpx.get(f"http://{LOOPBACK}:{port}/stats", trust_env=False, timeout=60).json()
    assert isinstance(found, dict)
    return found


def prices_of(port: int | None) -> tuple[dict[str, float], int]:
    """Return all prices, and the offset of the last change in them."""
    found = httpx.get(f"http://{LOOPBACK}:{port}/prices", trust_env=False, timeout=60).json()
    return found["prices"], int(found["cursor"].partition(":")[2])


class Slow:
    """A WebSocket over a small receive buffer, which is read when it is asked to be."""

    def __init__(self, port: int | None) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, READ)
        self.socket.settimeout(60)
        self.socket.connect((LOOPBACK, port))
        self.socket.sendall(
            b"GET /topics HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Protocol: rawws.v1\r\n\r\n"
        )
        text = json.dumps({"id": 1, "subscribe": "prices"}).encode()
        # A masking key of zeros changes nothing.
        self.socket.sendall(bytes([0x81, 0x80 | len(text)]) + bytes(4) + text)
        self.octets = bytearray()
        while b"\r\n\r\n" not in self.octets:
            self.octets += self.socket.recv(READ)
        del self.octets[: self.octets.index(b"\r\n\r\n") + 4]
        # Of each symbol, the offset of the last change that came, and the price.
        self.latest: dict[str, tuple[int, float]] = {}
        self.newest = 0
        self.count = 0

    def close(self) -> None:
        self.socket.close()

    def read(self) -> int:
        """Read once, and take what is whole; return how many changes it was."""
        data = self.socket.recv(READ)
        assert data, "the server gave this client up"
        self.octets += data
        before = self.count
        while len(self.octets) >= 4:
            short = self.octets[1] & 0x7F
            at = 4 if short == 126 else 2
            size = int.from_bytes(self.octets[2:4], "big") if short == 126 else short
            if len(self.octets) < at + size:
                break
            if self.octets[0] & 0x0F == 1:
                self.take(json.loads(self.octets[at : at + size]))
            del self.octets[: at + size]
        return self.count - before

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true, and read once in five seconds: who reads nothing is taken for dead."""

        last = time.monotonic()

        def look() -> bool:
            nonlocal last
            if time.monotonic() - last > 5:
                self.read()
                last = time.monotonic()
            return condition()

        eventually(look)

    def take(self, envelope: dict[str, Any]) -> None:
        if "data" in envelope:
            self.count += 1
            self.newest = int(envelope["cursor"].partition(":")[2])
            symbol, price = envelope["data"].split()
            self.latest[symbol] = self.newest, float(price)


def test_a_reader_of_ten_times_a_second_has_the_latest_prices_and_costs_no_memory() -> None:
    with example("prices") as process, closing(Slow(process.port)) as slow:
        memory: list[int] = []
        waiting: list[int] = []
        begun = stats(process.port)["published"]
        for turn in range(1, 61):
            slow.read()
            memory.append(resident(process))
            waiting.append(stats(process.port)["waiting"])
            # A tenth of a second, where the machine has time for all that is to be published.
            time.sleep(0.1)
            slow.wait_for(lambda due=begun + 1000 * turn: stats(process.port)["published"] >= due)  # type: ignore[misc]
        found = stats(process.port)
        # It reads far less than is published; what it does not read is replaced, not gathered.
        assert slow.count < 0.2 * (found["published"] - begun)
        assert found["conflated"] > 10_000
        assert found["closed"] == 0
        assert max(waiting) <= 1000
        third = len(memory) // 3
        assert max(memory[2 * third :]) - max(memory[third : 2 * third]) < 4096, memory

        # It reads past a cursor, and all that waited then. What it has of each price is the latest up to there, or a
        # later one. (On a machine that is busy, something waits for it all the time.)
        prices, cursor = prices_of(process.port)
        deadline = time.monotonic() + 120
        while slow.newest <= cursor:
            slow.read()
            assert time.monotonic() < deadline, f"it is at {slow.newest} after 120 s, the feed was at {cursor} before"
        end = slow.count + 2000
        while slow.count < end:
            slow.read()
        assert set(slow.latest) == set(prices)
        outdated = {symbol for symbol, (at, price) in slow.latest.items() if at <= cursor and price != prices[symbol]}
        assert outdated == set()
