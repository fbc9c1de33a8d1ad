"""Both instances of a gateway are restarted, one after the other: how long clients are away, and what they miss.

The instances are of one Redis, behind an haproxy that asks each whether it is ready, as the pages on both say. Clients
are pusher-js in Node. A server publishes all the while at the instance that is not restarted.
"""

from __future__ import annotations

import asyncio
import json
import signal
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from tests.backplanes.engines import RedisEngine
from tests.gateway.own_running import http
from tests.gateway.running import APP, KEY, NODE, SECRET, app_file
from tests.processes import Process, find_node, find_program, free_port

from .rounds import HOST

__all__ = ["restart"]

EVENTS: Final = 20  # a second
GRACE: Final = 2  # of an instance that ends, in seconds: twice what the balancer takes to see it
SETTLED: Final = 2.0  # from a restart to the next, in seconds
PATIENCE: Final = 60

BALANCER: Final = """
global
    maxconn 8000

defaults
    mode http
    timeout connect 5s
    timeout http-request 10s
    timeout client 60s
    timeout server 60s
    timeout tunnel 1h

frontend site
    bind {host}:{port}
    default_backend gateway

backend gateway
    balance leastconn
    option httpchk
    http-check send meth GET uri /readyz ver HTTP/1.1 hdr Host localhost
    default-server check inter 1s fall 1 rise 1
{servers}
"""


class Rolling:
    """Two instances, each on ports of its own, in a folder."""

    def __init__(self, folder: Path, cpu: int, engine: str) -> None:
        self.folder = folder
        self.cpu = cpu
        self.ports = [free_port(), free_port()]
        self.probes = [free_port(), free_port()]
        for number, (port, probe) in enumerate(zip(self.ports, self.probes, strict=True)):
            head = f'[gateway]\nlisten = ["{HOST}:{port}"]\nadmin = "{HOST}:{probe}"\nbackplane = "{engine}"'
            (folder / f"{number}.toml").write_text(app_file(head=head))
        self.processes = [self.start(number) for number in range(2)]

    def start(self, number: int) -> Process:
        """Start an instance, and return when it serves."""
        command = ["taskset", "-c", str(self.cpu), sys.executable, "-m", "rawws", "gateway", f"{number}.toml"]
        made = Process([*command, "--drain-grace", str(GRACE), "--log-level", "warning"], cwd=self.folder)
        made.wait_for(lambda text: "Ctrl-C ends it" in text, "it listens")
        return made

    def restart(self, number: int) -> None:
        """End an instance as an operator does, and start it anew."""
        self.processes[number].send_signal(signal.SIGTERM)
        self.processes[number].result(PATIENCE)
        self.processes[number] = self.start(number)

    def stop(self) -> None:
        """End both."""
        for each in self.processes:
            each.stop()

    def balanced(self, port: int) -> str:
        """Return the configuration of a balancer."""
        pairs = enumerate(zip(self.ports, self.probes, strict=True))
        servers = [f"    server s{number} {HOST}:{at} check port {probe}" for number, (at, probe) in pairs]
        return BALANCER.format(host=HOST, port=port, servers="\n".join(servers))


async def restart(cpu: int, count: int) -> None:
    """Print how long so many clients are away while both instances are restarted, and what they miss."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        engine = RedisEngine(Path(name), "--appendonly", "no")
        running.callback(engine.end)
        rolling = Rolling(Path(name), cpu, engine.url)
        running.callback(rolling.stop)
        front = free_port()
        (Path(name) / "haproxy.cfg").write_text(rolling.balanced(front))
        program = find_program("haproxy", "apt-get install haproxy")
        running.enter_context(Process([program, "-db", "-f", Path(name) / "haproxy.cfg"], listens=front))
        async with clients_of(front, count) as node:
            published, took = await publish_while_restarting(rolling)
            assert node.stdout is not None
            clients = json.loads(await node.stdout.readline())
    tell(clients, published, took)


@asynccontextmanager
async def clients_of(port: int, count: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run so many clients in one Node, which are in their channel."""
    given = {"app": APP, "key": KEY, "secret": SECRET, "ports": [port], "clients": count, "patience": PATIENCE}
    node = await asyncio.create_subprocess_exec(
        find_node(), "away.mjs", json.dumps(given), cwd=NODE, stdout=PIPE, limit=1 << 30
    )
    try:
        assert node.stdout is not None
        assert await node.stdout.readline() == b"there\n"
        yield node
    finally:
        if node.returncode is None:
            node.kill()
        await node.wait()


async def publish_while_restarting(rolling: Rolling) -> tuple[int, list[float]]:
    """Restart both instances while a server publishes; return how many events there were, and how long each took."""
    ended, number, took, at = asyncio.Event(), 0, list[float](), 1
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(http(at, Authorization=f"Bearer {SECRET}")) for at in rolling.ports]

        async def publish(event: str, data: object) -> None:
            body = {"channel": "room", "event": event, "data": data}
            answer = await servers[at].post(f"/v1/apps/{APP}/publish", json=body)
            answer.raise_for_status()

        async def keep_publishing() -> None:
            nonlocal number
            began = time.perf_counter()
            while not ended.is_set():
                number += 1
                await publish("tick", number)
                await asyncio.sleep(max(0.0, began + number / EVENTS - time.perf_counter()))

        async with asyncio.TaskGroup() as group:
            group.create_task(keep_publishing())
            for restarted in range(2):
                at = 1 - restarted
                await asyncio.sleep(SETTLED)
                began = time.perf_counter()
                await asyncio.to_thread(rolling.restart, restarted)
                took.append(time.perf_counter() - began)
            await asyncio.sleep(SETTLED)
            ended.set()
        await publish("over", number)
    return number, took


def tell(clients: list[dict[str, Any]], published: int, took: list[float]) -> None:
    """Print what the clients say."""
    away = [one / 1000 for each in clients for one in each["away"]]
    back = sum(each["over"] is not None for each in clients)
    codes = ", ".join(sorted({str(code) for each in clients for code in each["codes"]}))
    # What stands between the first and the last of one time in the channel, and was not heard.
    missed = sum(stay[-1] - stay[0] + 1 - len(stay) for each in clients for stay in each["stays"] if stay)
    while_away = sum(published - sum(map(len, each["stays"])) for each in clients) - missed
    print(f"restart:  {back} of {len(clients)} clients are back, who were away {len(away)} times: ", end="")
    print(f"{statistics.median(away):.2f} s in the middle, {max(away):.2f} s at most (told {codes}); ", end="")
    print(f"of {published} events each missed {while_away / len(clients):.1f} while it was away, and ", end="")
    print(f"{missed} were missed by those who were there; the restarts took {took[0]:.1f} and {took[1]:.1f} s")
