"""Drain: `python -m tests.soak.drain --connections 5000`: SIGTERM under load, and what became of each connection.

Each client has one message under way. The server notes the last one of each that its handler got, and says so at its
end: a message that the server accepted and whose answer the client did not get before the Close frame is lost.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import os
import resource
import signal
import sys
import time
from typing import Any

import rawws
from rawws.net.loops import loop_factory
from tests.processes import Process

# Clients come from several addresses, for a pair of addresses has some 28,000 ports.
PER_ADDRESS = 4000
AT_ONCE = 100
SLACK = 15.0


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    words = argparse.ArgumentParser(prog="python -m tests.soak.drain", description=__doc__.partition("\n")[0])
    plan = rawws.Drain()
    words.add_argument("--connections", type=int, default=5000)
    words.add_argument("--stubborn", type=int, default=0, help="of them, connections whose handler does not end")
    words.add_argument("--batch", type=int, default=plan.batch)
    words.add_argument("--interval", type=float, default=plan.interval)
    words.add_argument("--timeout", type=float, default=plan.timeout)
    words.add_argument("--pause", type=float, default=0.25, help="between two messages of a client, in seconds")
    words.add_argument("--work", type=float, default=0.01, help="of the handler with a message, in seconds")
    words.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    return words


async def serve(options: argparse.Namespace) -> None:
    """Be the server; print what it accepted."""
    accepted: dict[str, int] = {}

    async def handler(ws: rawws.WebSocket) -> None:
        async for message in ws:
            name, number, stubborn = str(message).split()
            accepted[name] = int(number)
            await asyncio.sleep(options.work)
            await ws.send(message)
            if stubborn == "True":
                await asyncio.sleep(3600)

    plan = rawws.Drain(batch=options.batch, interval=options.interval, timeout=options.timeout)
    async with rawws.serve(handler, "127.0.0.1", 0, backlog=4096, drain=plan) as server:
        told = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
        print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await told.wait()
        began = time.monotonic()
        await server.drain()
        took = time.monotonic() - began
    stats = server.stats()
    print(json.dumps({"took": took, "accepted": accepted, "drained": stats.drained, "aborted": stats.aborted}))


class Client:
    """One connection, with one message under way."""

    def __init__(self, number: int, port: int, options: argparse.Namespace) -> None:
        self.name = str(number)
        self.number = number
        self.port = port
        self.stubborn = number < options.stubborn
        self.pause = options.pause
        self.answered = -1
        self.end: tuple[int, str] | None = None
        self.ended_at = 0.0

    async def run(self, ready: asyncio.Semaphore, opened: asyncio.Event) -> None:
        """Ask and compare, until the server ends it."""
        address = f"127.0.0.{2 + self.number // PER_ADDRESS}", 0
        url = f"ws://127.0.0.1:{self.port}"
        async with ready:
            ws = await rawws.connect(url, local_addr=address, compression=None, open_timeout=60, ping_interval=None)
        try:
            while True:
                message = f"{self.name} {self.answered + 1} {self.stubborn}"
                await ws.send(message)
                came = await ws.recv()
                if came != message:
                    raise SystemExit(f"{message} came back as {came!r}")
                self.answered += 1
                opened.set()
                await asyncio.sleep(self.pause)
        except rawws.ConnectionClosed as closed:
            self.end = closed.rcvd
            self.ended_at = time.monotonic()
            await ws.wait_closed()


async def load(process: Process, options: argparse.Namespace) -> dict[str, Any]:
    """Connect, have the server drain in the middle of it, and return what became of the clients."""
    assert process.port is not None
    clients = [Client(number, process.port, options) for number in range(options.connections)]
    ready, opened = asyncio.Semaphore(AT_ONCE), [asyncio.Event() for _ in clients]
    tasks = [asyncio.create_task(client.run(ready, event)) for client, event in zip(clients, opened, strict=True)]
    await asyncio.gather(*(event.wait() for event in opened))
    await asyncio.sleep(2 * options.pause)
    process.send_signal(signal.SIGTERM)
    told_at = time.monotonic()
    await asyncio.gather(*tasks)
    return {
        "ends": collections.Counter(client.end for client in clients),
        "answered": {client.name: client.answered for client in clients},
        "when": sorted(client.ended_at - told_at for client in clients),
    }


def main(arguments: list[str] | None = None) -> int:
    """Run and print; return 1 where anything was lost or late."""
    options = parser().parse_args(arguments)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    words = sys.argv[1:] if arguments is None else arguments
    if options.serve:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(serve(options))
        return 0
    with Process([sys.executable, "-m", "tests.soak.drain", "--serve", *words], listens=True) as process:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            found = runner.run(load(process, options))
        process.result(options.timeout + 10)
        said = json.loads(process.output.splitlines()[-1])
    lost = [name for name, number in said["accepted"].items() if number > found["answered"][name]]
    told = found["ends"][(1001, "")]
    others = sum(found["ends"].values()) - told
    when = found["when"]
    print(f"{options.connections} connections, each with a message every {options.pause:g} s, {os.cpu_count()} cores")
    print(f"{told} Close frames 1001, {others} other ends, {len(lost)} accepted messages without an answer")
    print(f"{said['drained']} told to go, {said['aborted']} aborted, in {said['took']:.2f} s of {options.timeout:g}")
    print(
        "clients noticed after",
        ", ".join(f"{when[len(when) * at // 100]:.2f} s ({at} %)" for at in (1, 25, 50, 75, 99)),
    )
    return 1 if lost or others or said["took"] > options.timeout + SLACK else 0


if __name__ == "__main__":
    sys.exit(main())
