"""Torture: clients change transport and server at random while servers, and the engine, are killed and started again.

Invariant: the log of each client is that of the publisher, in its order, nothing twice; or the client was told that it
cannot be recovered, and from there on its log is the end of the publisher's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import secrets
import signal
import socket
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, Self
from urllib.parse import quote

import rawws
from rawws.topics.backplane_urls import backplane_class
from tests.processes import LOOPBACK, Process, free_port
from tests.server.peers import DEADLINE, eventually

__all__ = ["CLIENTS", "KILLS", "Client", "Outcome", "Victim", "sockets", "torture"]

# What becomes of the engine: it lives, or is killed and has its data when it is started again, or lacks them each
# second time.
KILLS: Final = ("never", "keep", "forget")
CLIENTS: Final = 50
COUNT: Final = 2
# An engine may have what was said in the last torture.
TOPIC: Final = "torture & co {}"


class Victim(Protocol):
    """An engine that is killed."""

    @property
    def url(self) -> str:
        """Return what `Hub(backplane=...)` takes."""

    def kill(self, *, forget: bool = False) -> None:
        """Kill it, or that part of it which is written to; with `forget`, the data of that are gone."""

    def start(self) -> None:
        """Start it again."""

    def end(self) -> None:
        """Leave nothing behind."""


class Client:
    """Who follows the topic over whatever it gets; it keeps its cursor and its log."""

    def __init__(self, ports: list[int], topic: str) -> None:
        self.ports = ports
        self.topic = topic
        self.cursor = "earliest"
        self.log: list[int] = []
        # Where in the log it was told that something is missing, and how often it came back by which transport.
        self.told: list[int] = []
        self.resumed = dict.fromkeys(("websocket", "stream", "poll"), 0)

    def take(self, envelope: dict[str, Any]) -> None:
        if "error" in envelope:
            raise AssertionError(envelope)
        if not envelope.get("recovered", True):
            self.told.append(len(self.log))
        if "data" in envelope:
            self.log.append(int(envelope["data"]))
        self.cursor = envelope["cursor"]

    async def run(self) -> None:
        while True:
            name = random.choice([*self.resumed])
            port = random.choice(self.ports)
            with contextlib.suppress(TimeoutError, OSError, rawws.RawwsError):
                async with asyncio.timeout(random.uniform(0.05, 2)):
                    await getattr(self, name)(port)
            await asyncio.sleep(random.uniform(0, 0.1))

    async def websocket(self, port: int) -> None:
        async with rawws.connect(f"ws://{LOOPBACK}:{port}/ws", subprotocols=["rawws.v1"], close_timeout=0.1) as ws:
            await ws.send(json.dumps({"id": 1, "subscribe": self.topic, "since": self.cursor}))
            self.resumed["websocket"] += 1
            async for message in ws:
                self.take(json.loads(message))

    async def stream(self, port: int) -> None:
        url = f"http://{LOOPBACK}:{port}/stream?topic={quote(self.topic)}&since={quote(self.cursor)}"
        async with rawws.events(url) as stream:
            async for event in stream:
                data = event.data or ""
                self.take(json.loads(data))
                self.resumed["stream"] += "recovered" in data

    async def poll(self, port: int) -> None:
        while True:
            target = f"/poll?topic={quote(self.topic)}&since={quote(self.cursor)}&timeout=1"
            head, body = await answer_of(port, target)
            if head.startswith("HTTP/1.1 204"):
                continue
            assert head.startswith("HTTP/1.1 200"), head
            length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
            if len(body) < length:
                raise ConnectionResetError
            answer = json.loads(body)
            if not answer["recovered"]:
                self.told.append(len(self.log))
            self.log += [int(each["data"]) for each in answer["publications"]]
            self.cursor = answer["cursor"]
            self.resumed["poll"] += 1


async def answer_of(port: int, target: str) -> tuple[str, bytes]:
    """Get the target, and return the head and the body of the answer as far as they came.

    By a socket of its own, which is closed at once: a stream of asyncio may outlive a cancellation.
    """
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, (LOOPBACK, port))
        await loop.sock_sendall(sock, f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while part := await loop.sock_recv(sock, 65536):
            answer += part
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        raise ConnectionResetError
    return head.decode(), body


def resumed(clients: list[Client]) -> dict[str, int]:
    """Return how often clients came back by each transport."""
    return {name: sum(client.resumed[name] for client in clients) for name in clients[0].resumed}


class Outcome(NamedTuple):
    """What was published, who heard it, and how often servers and the engine were killed."""

    log: list[int]
    clients: list[Client]
    server_kills: int
    engine_kills: int

    @property
    def declared(self) -> int:
        """How often a client was told that something is missing."""
        return sum(len(client.told) for client in self.clients)

    @property
    def resumed(self) -> dict[str, int]:
        """How often clients came back by each transport."""
        return resumed(self.clients)

    def faults(self) -> list[str]:
        """Return what is wrong with the log of each client."""
        return [f"client {number}: {fault}" for number, each in enumerate(self.clients) for fault in self._faults(each)]

    def _faults(self, client: Client) -> list[str]:
        begin = client.told[-1] if client.told else 0
        part = client.log[begin:]
        if part == self.log[len(self.log) - len(part) :] and (client.told or part == self.log):
            bounds = zip([0, *client.told], [*client.told, len(client.log)], strict=True)
            parts = [client.log[start:end] for start, end in bounds]
            return [f"{each} is told in no order, or twice" for each in parts if each != sorted(set(each))]
        gaps = [f"{one} and then {two}" for one, two in pairwise(part) if two != one + 1]
        return [f"told at {client.told}, then {part[:1]} to {part[-1:]} of {len(self.log)}: {gaps[:5]}"]


class Servers:
    """The servers at some ports, which die and come back one at a time."""

    def __init__(self, ports: list[int], url: str) -> None:
        self.ports = ports
        self.url = url
        self.running: dict[int, Process] = {}
        self.kills = 0
        self.over = False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self.running.values():
            await asyncio.to_thread(process.stop)

    async def start(self) -> None:
        """Start those that do not run."""
        for port in self.ports:
            if port not in self.running:
                command = [sys.executable, "-m", "tests.backplanes.program", self.url, "3", str(port)]
                self.running[port] = await asyncio.to_thread(partial(Process, command, listens=True))

    async def kill(self) -> None:
        """Kill one and start it again, until it is over."""
        while not self.over:
            await asyncio.sleep(random.uniform(0.5, 2))
            port = random.choice(self.ports)
            process = self.running.pop(port)
            os.kill(process.pid, signal.SIGKILL)
            process.stop()
            self.kills += 1
            await asyncio.sleep(random.uniform(0, 0.5))
            await self.start()


async def kill_engine(engine: Victim, hub: rawws.Hub, kills: str, until: float) -> int:
    """Have the engine die and come back until a time, and return how often."""
    loop = asyncio.get_running_loop()
    killed = 0
    while kills != "never" and loop.time() < until:
        if random.random() < 0.5:
            # At the moment when servers find out what they missed.
            await eventually(lambda: not hub.stats().degraded)
            await asyncio.sleep(random.uniform(0, 0.3))
        else:
            await asyncio.sleep(random.uniform(1, 6))
        await asyncio.to_thread(engine.kill, forget=kills == "forget" and killed % 2 == 1)
        killed += 1
        await asyncio.sleep(random.uniform(0, 1))
        await asyncio.to_thread(engine.start)
    return killed


async def publish(hub: rawws.Hub, topic: str, log: list[int]) -> None:
    """Publish until this is cancelled."""
    while True:
        for _ in range(random.randrange(5)):
            log.append(len(log))
            hub.publish(topic, str(log[-1]))
        await asyncio.sleep(0.02)


def sockets() -> set[str]:
    """Return those that this process has open."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing is gone
            found.add(str(Path(f"/proc/self/fd/{name}").readlink()))
    return {name for name in found if name.startswith("socket:")}


async def torture(engine: Victim, seconds: float, kills: str = "never") -> Outcome:
    """Do it for so many seconds, and then until all have heard what was published last."""
    loop = asyncio.get_running_loop()
    ports = [free_port() for _ in range(COUNT)]
    topic = TOPIC.format(secrets.token_hex(4))
    clients = [Client(ports, topic) for _ in range(CLIENTS)]
    history = rawws.History(count=10_000, size=64 << 20)
    until = loop.time() + seconds
    log: list[int] = []
    before = sockets()
    async with rawws.Hub(backplane=backplane_class(engine.url)(engine.url, lease=3), history=history) as hub:
        tasks = [asyncio.create_task(client.run()) for client in clients]
        publishing = asyncio.create_task(publish(hub, topic, log))
        async with Servers(ports, engine.url) as servers:
            killing = asyncio.create_task(servers.kill())
            try:
                engine_kills = await kill_engine(engine, hub, kills, until)
                await asyncio.sleep(max(0, until - loop.time()))
                # Where the machine is slow, that takes longer.
                await eventually(
                    lambda: servers.kills > seconds / 5 and min(resumed(clients).values()) > seconds, 2 * DEADLINE
                )
                servers.over = True
                await killing
            finally:
                killing.cancel()
            # All are at a place of now before the last is said: who is told there that something is missing hears more.
            mark = len(log)
            await eventually(lambda: all(client.log and client.log[-1] >= mark for client in clients))
            publishing.cancel()
            await asyncio.wait({publishing})
            await eventually(lambda: all(client.log[-1] == log[-1] for client in clients))
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert isinstance(result, asyncio.CancelledError), result
        # Clients may hear of a publication before its own hub knows that the engine has it.
        await eventually(lambda: not hub.stats().unsent)
        assert hub.stats().lost == 0, hub.stats()
    # What was cut off ends by itself.
    await eventually(lambda: sockets() <= before)
    return Outcome(log, clients, servers.kills, engine_kills)
