"""`python -m tests.benchmarks.admin`: what it costs to look into 2,000 connections of 4 workers, live.

CPU of the workers, and of the processes beside them, as a share of one core: while nobody looks, while the stream of
the page is read, and while `top` asks. Each for some seconds, by the kernel's clock of each process.
"""

import asyncio
import json
import re
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import httpx

import rawws
from tests.processes import Process

PROGRAM: Final = """
import rawws

hub = rawws.Hub(authorize=lambda *_: True)


async def talk(ws):
    await hub.serve(ws)
"""
CONNECTIONS: Final = 2000
WORKERS: Final = 4
TOPICS: Final = 50
# Of one core.
GOAL: Final = 0.01


def spent(pid: int) -> float:
    """Return the CPU seconds of a process."""
    return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="utf-8").split()[0]) / 1e9


def children(pid: int) -> set[int]:
    """Return the processes that a process started."""
    return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()))


async def measure(groups: dict[str, set[int]], seconds: float) -> dict[str, float]:
    """Return the share of one core that each group of processes takes."""
    before = {name: sum(map(spent, pids)) for name, pids in groups.items()}
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    return {name: (sum(map(spent, pids)) - before[name]) / took for name, pids in groups.items()}


async def follow(url: str, count: list[int]) -> None:
    """Read the stream as a page does."""
    async with rawws.events(f"{url}/v1/stream") as events:
        async for event in events:
            assert json.loads(event.data or "")["connections"] == CONNECTIONS
            count[0] += 1


async def ask(url: str) -> None:
    """Ask as `rawws top` does."""
    async with httpx.AsyncClient(base_url=url) as client:
        while True:
            await client.get("/v1/status")
            found = await client.get("/v1/connections", params={"limit": 20, "sort": "waiting"})
            assert found.json()["total"] == CONNECTIONS
            await asyncio.sleep(3)


async def connect_all(url: str) -> list[rawws.WebSocket]:
    """Return the connections, each subscribed to a topic."""
    opened: list[rawws.WebSocket] = []
    for number in range(CONNECTIONS):
        ws = await rawws.connect(url, subprotocols=["rawws.v1"], compression=None, ping_interval=None)
        await ws.send(json.dumps({"id": 1, "subscribe": f"topic {number % TOPICS}"}))
        await ws.recv()
        opened.append(ws)
    return opened


async def run(process: Process, seconds: float) -> bool:
    """Measure, print, and tell whether the goal is reached."""
    url, admin = (re.findall(pattern, process.output)[0] for pattern in (r"(ws://\S+)", r"admin at (\S+)"))
    opened = await connect_all(url)
    async with httpx.AsyncClient(base_url=admin) as client:
        status = (await client.get("/v1/status")).json()
    assert status["connections"] == CONNECTIONS
    workers = {each["pid"] for each in status["workers"]}
    groups = {"workers": workers, "beside": children(process.pid) - workers}
    count = [0]
    results = {"nobody looks": await measure(groups, seconds)}
    for name, look in (("the page", follow(admin, count)), ("rawws top", ask(admin))):
        task = asyncio.create_task(look)
        await asyncio.sleep(2)
        results[name] = await measure(groups, seconds)
        assert not task.done(), task
        task.cancel()
    print(f"{CONNECTIONS} connections, {WORKERS} workers, {TOPICS} topics; shares of one core, in %")
    idle = sum(results["nobody looks"].values())
    good = True
    for name, shares in results.items():
        more = sum(shares.values()) - idle
        good = good and more < GOAL
        told = ", ".join(f"{group} {100 * share:5.2f}" for group, share in shares.items())
        print(f"  {name:17} {told}, more than nobody {100 * more:5.2f}")
    print(f"  the page was told {count[0]} times; the goal is less than {100 * GOAL:g} more: {'yes' if good else 'no'}")
    for ws in opened:
        ws.abort()
    return good


def main() -> int:
    """Start the server, and measure."""
    seconds = float(sys.argv[1]) if sys.argv[1:] else 10.0
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "talk.py").write_text(PROGRAM, encoding="utf-8")
        options = ["--workers", str(WORKERS), "--port", "0", "--subprotocols", "rawws.v1", "--admin", "127.0.0.1:0"]
        command = [sys.executable, "-m", "rawws", "serve", "talk:talk", *options, "--log-level", "warning"]
        with Process(command, cwd=Path(folder)) as process:
            process.wait_for(lambda text: "Ctrl-C ends it" in text, "it listens")
            return 0 if asyncio.run(run(process, seconds)) else 1


if __name__ == "__main__":
    sys.exit(main())
