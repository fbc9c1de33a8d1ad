"""Resume torture: clients change transport and server at random while servers are killed and started again.

Invariant: the log of each client is that of the publisher, in its order, nothing twice; or the client was told that it
cannot be recovered, and from there on its log is the end of the publisher's. `RAWWS_TORTURE_SECONDS` says for how long.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest

import rawws
from rawws.topics.backplane_urls import backplane_class
from tests.backplanes.engines import SERVERS
from tests.processes import LOOPBACK, Process, free_port
from tests.server.peers import eventually, run

SECONDS: Final = float(os.environ.get("RAWWS_TORTURE_SECONDS", "15"))
CLIENTS: Final = 50
COUNT: Final = 2
TOPIC: Final = "torture & co"


class Client:
    """Who follows the topic over whatever it gets; it keeps its cursor and its log."""

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports
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
            await ws.send(json.dumps({"id": 1, "subscribe": TOPIC, "since": self.cursor}))
            self.resumed["websocket"] += 1
            async for message in ws:
                self.take(json.loads(message))

    async def stream(self, port: int) -> None:
        url = f"http://{LOOPBACK}:{port}/stream?topic={quote(TOPIC)}&since={quote(self.cursor)}"
        # One that is only dropped ends when it is collected.
        async with rawws.events(url) as events:
            async for event in events:
                data = event.data or ""
                self.take(json.loads(data))
                self.resumed["stream"] += "recovered" in data

    async def poll(self, port: int) -> None:
        while True:
            target = f"/poll?topic={quote(TOPIC)}&since={quote(self.cursor)}&timeout=1"
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


async def kill_and_start(ports: list[int], url: str, until: float) -> int:
    """Have servers die and come back, one at a time, and return how often."""

    def start(port: int) -> Process:
        return Process([sys.executable, "-m", "tests.backplanes.program", url, "3", str(port)], listens=True)

    servers = [await asyncio.to_thread(start, port) for port in ports]
    killed = 0
    try:
        # On a slow machine it takes longer to start them than to kill them.
        while asyncio.get_running_loop().time() < until or killed <= SECONDS / 5:
            await asyncio.sleep(random.uniform(0.5, 2))
            number = random.randrange(len(ports))
            os.kill(servers[number].pid, signal.SIGKILL)
            await asyncio.to_thread(servers[number].stop)
            killed += 1
            await asyncio.sleep(random.uniform(0, 0.5))
            servers[number] = await asyncio.to_thread(start, ports[number])
        await asyncio.sleep(3)
        return killed
    finally:
        for server in servers:
            await asyncio.to_thread(server.stop)


async def publish(hub: rawws.Hub, log: list[int], until: float) -> None:
    while asyncio.get_running_loop().time() < until:
        for _ in range(random.randrange(5)):
            log.append(len(log))
            hub.publish(TOPIC, str(log[-1]))
        await asyncio.sleep(0.02)


def sockets() -> set[str]:
    """Return those that this process has open."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing is gone
            found.add(str(Path(f"/proc/self/fd/{name}").readlink()))
    return {name for name in found if name.startswith("socket:")}


async def torture(url: str) -> tuple[list[int], list[Client], int]:
    ports = [free_port() for _ in range(COUNT)]
    clients = [Client(ports) for _ in range(CLIENTS)]
    history = rawws.History(count=10_000, size=64 << 20)
    until = asyncio.get_running_loop().time() + SECONDS
    log: list[int] = []
    before = sockets()
    async with rawws.Hub(backplane=backplane_class(url)(url, lease=3), history=history) as hub:
        tasks = [asyncio.create_task(client.run()) for client in clients]
        publishing = asyncio.create_task(publish(hub, log, until))
        killed = await kill_and_start(ports, url, until)
        await publishing
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, asyncio.CancelledError), result
        assert hub.stats().lost == hub.stats().unsent == 0
    # What was cut off ends by itself.
    await eventually(lambda: sockets() <= before)
    return log, clients, killed


@pytest.mark.parametrize("server", SERVERS)
def test_every_client_has_the_log_of_the_publisher_or_was_told_that_it_has_not(server: str, tmp_path: Path) -> None:
    engine = SERVERS[server](tmp_path)
    try:
        log, clients, killed = run(torture(engine.url), 2 * SECONDS + 240)
    finally:
        engine.end()
    declared = sum(len(client.told) for client in clients)
    resumed = {name: sum(client.resumed[name] for client in clients) for name in clients[0].resumed}
    print(f"{len(log)} publications, {CLIENTS} clients, {killed} kills, resumed {resumed}, {declared} declared")
    assert killed > SECONDS / 5
    assert all(count > SECONDS for count in resumed.values())
    for client in clients:
        begin = client.told[-1] if client.told else 0
        part = client.log[begin:]
        assert part == log[len(log) - len(part) :]
        assert client.told or part == log
        for start, end in zip([0, *client.told], [*client.told, len(client.log)], strict=True):
            assert client.log[start:end] == sorted(set(client.log[start:end]))
    # Nobody loses its place to a server that dies: the engine lives on, and keeps all.
    assert declared == 0
