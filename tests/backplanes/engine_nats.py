"""A NATS server with JetStream to test backplanes with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import Any, Self, final

from rawws.backplanes.nats import NatsBackplane
from rawws.backplanes.nats_records import quoted
from tests.processes import LOOPBACK, PATIENCE, Process, find_installed, free_port

__all__ = ["NatsEngine", "Talk"]

# What replaces somebody who left is held for a second.
ENTRIES_END = 5.0


@final
class Talk:
    """A connection to a NATS server in the test's own words: requests, one after the other."""

    def __init__(self, port: int, login: str = "") -> None:
        self.socket = socket.create_connection((LOOPBACK, port), timeout=20)
        self.file = self.socket.makefile("rb")
        self.info: dict[str, Any] = json.loads(self.file.readline().removeprefix(b"INFO "))
        options: dict[str, Any] = {
            "verbose": False,
            "headers": True,
            "no_responders": True,
            "lang": "test",
            "version": "1",
        }
        if login:
            options["user"], options["pass"] = login.split(":")
        self.socket.sendall(b"CONNECT %b\r\nSUB _INBOX.test 1\r\nPING\r\n" % json.dumps(options).encode())
        self.line()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def line(self) -> bytes:
        """Return what the server says next but for its pings."""
        while True:
            found = self.file.readline()
            assert found, "the server ended the connection"
            if found == b"PING\r\n":
                self.socket.sendall(b"PONG\r\n")
            elif not found.startswith(b"INFO "):
                return found

    def tell(self, subject: str, data: bytes = b"", headers: str = "", reply: str = "") -> None:
        """Publish a message."""
        words = f"{subject} {reply}".strip().encode()
        if headers:
            head = b"NATS/1.0\r\n%b\r\n\r\n" % headers.encode()
            self.socket.sendall(b"HPUB %b %d %d\r\n%b%b\r\n" % (words, len(head), len(head + data), head, data))
        else:
            self.socket.sendall(b"PUB %b %d\r\n%b\r\n" % (words, len(data), data))

    def ask(self, subject: str, data: bytes = b"", headers: str = "") -> tuple[str, bytes]:
        """Publish a message, and return the headers and the data of its answer."""
        self.tell(subject, data, headers, "_INBOX.test")
        verb, *_, size = self.line().split()
        assert verb in {b"MSG", b"HMSG"}, verb
        body = self.file.read(int(size) + 2)[:-2]
        head, _, rest = body.partition(b"\r\n\r\n") if verb == b"HMSG" else (b"", b"", body)
        return head.decode(), rest

    def api(self, call: str, **request: Any) -> dict[str, Any]:
        """Ask JetStream."""
        found: dict[str, Any] = json.loads(
            self.ask(f"$JS.API.{call}", json.dumps(request).encode() if request else b"")[1]
        )
        return found


@final
class NatsEngine:
    """A nats-server on a free port, with a folder of its own; what it answers is on its disk."""

    def __init__(
        self, folder: Path, config: str = "", sync: str = "always", limits: str = "", **arguments: Any
    ) -> None:
        self.folder = folder / "nats"
        self.port = free_port()
        self.config = folder / "nats.conf"
        # Its metafiles are written to the disk as well: what is faster loses what it answered.
        self.config.write_text(
            f"listen: {LOOPBACK}:{self.port}\n"
            f'jetstream {{ store_dir: "{self.folder}", sync_interval: {sync}, {limits} }}\n{config}',
            encoding="utf-8",
        )
        self.command = [find_installed("nats-server"), "-c", str(self.config)]
        self.arguments = {"keeps": sync == "always", **arguments}
        self.process: Process | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"nats://{LOOPBACK}:{self.port}"

    def backplane(self) -> NatsBackplane:
        return NatsBackplane(**{"url": self.url, "timeout": PATIENCE, **self.arguments})

    def kill(self, *, forget: bool = False) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.stop()
        self.process = None
        if forget:
            shutil.rmtree(self.folder)

    def start(self) -> None:
        self.process = Process(self.command, listens=self.port)

    def talk(self, login: str = "") -> Talk:
        """Connect to it."""
        return Talk(self.port, login)

    @property
    def prefix(self) -> str:
        return str(self.arguments.get("prefix", "rawws"))

    def spoil(self, topic: str) -> None:
        with self.talk() as talk:
            talk.ask(f"{self.prefix}.topics.{quoted(topic)}", b"of another program")

    def mend(self, topic: str) -> None:
        with self.talk() as talk:
            talk.api(f"STREAM.PURGE.{self.prefix}-topics", filter=f"{self.prefix}.topics.{quoted(topic)}")

    def names(self) -> int:
        deadline = time.monotonic() + ENTRIES_END
        while True:
            with self.talk() as talk:
                topics = talk.api(f"STREAM.INFO.{self.prefix}-topics")["state"]["num_subjects"]
                present = talk.api(f"STREAM.INFO.{self.prefix}-presence")["state"].get("num_subjects", 0)
            # One subject is that of the starts.
            if not present or time.monotonic() > deadline:
                return int(topics) - 1 + int(present)
            time.sleep(0.05)

    def end(self) -> None:
        if self.process is not None:
            self.process.stop()
