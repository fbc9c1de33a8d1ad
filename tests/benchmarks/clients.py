"""`python -m tests.benchmarks.clients`: one connection, 256 B request-reply; CPU of the client process per message.

Each client is a fresh process on one core, in front of the same server on the other. Rounds are interleaved, the report
shows medians, and ratios to the callback client of rawws.
"""
# mypy: disable-error-code="import-not-found, import-untyped"

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from .process import SERVERS, ServerProcess
from .rounds import HOST, Program, cores, interleave, options, verdict
from .scenarios import SCENARIOS, frame, upgrade

MODULE: Final = f"{__package__}.clients"
MESSAGE: Final = "request-reply, " * 17 + "!"  # 256 characters
REQUEST: Final = frame(0x81, MESSAGE.encode(), b"\x12\x34\x56\x78")
REPLY: Final = frame(0x81, MESSAGE.encode())
WARM: Final = 2000
GOALS: Final = (("rawws", "picows", 1.0), ("rawws-coroutine", "websockets", 0.5))


class Clock:
    """Counts replies; after some to warm up, and the seconds that it was given, it ends the run."""

    def __init__(self, seconds: float, done: Callable[[], object]) -> None:
        self.seconds = seconds
        self.done = done
        self.count = -WARM
        self.cpu = self.until = 0.0

    def tick(self, right: bool) -> bool:
        """Count a reply; return whether another request is wanted."""
        if not right:
            sys.exit("a wrong reply came")
        self.count += 1
        if self.count == 0:
            self.until, self.cpu = time.perf_counter() + self.seconds, time.process_time()
        if self.count > 0 and self.count & 0xFF == 0 and time.perf_counter() >= self.until:
            print((time.process_time() - self.cpu) * 1e6 / self.count)
            self.done()
            return False
        return True


async def limit(port: int, seconds: float) -> None:
    """Count bytes: what the loop and the kernel take, and nothing else."""
    over = asyncio.get_running_loop().create_future()
    clock = Clock(seconds, lambda: over.set_result(None))

    class Limit(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            self.open = False
            transport.write(upgrade(SCENARIOS["echo-1"], port))

        def data_received(self, data: bytes) -> None:
            if self.open and not clock.tick(data == REPLY):
                return
            self.open = True
            self.transport.write(REQUEST)

    await asyncio.get_running_loop().create_connection(Limit, HOST, port)
    await over


async def rawws(port: int, seconds: float) -> None:
    import rawws  # noqa: PLC0415

    over = asyncio.get_running_loop().create_future()
    clock = Clock(seconds, lambda: over.set_result(None))

    class Client(rawws.Handler):
        def on_open(self, ws: rawws.WebSocket) -> None:
            ws.send(MESSAGE)

        def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
            if clock.tick(message == MESSAGE):
                ws.send(MESSAGE)

    async with rawws.connect(f"ws://{HOST}:{port}", handler=Client(), compression=None, ping_interval=None):
        await over


async def rawws_coroutine(port: int, seconds: float) -> None:
    import rawws  # noqa: PLC0415

    async with rawws.connect(f"ws://{HOST}:{port}", compression=None, ping_interval=None) as ws:
        await ask(ws, seconds)


async def websockets(port: int, seconds: float) -> None:
    from websockets.asyncio.client import connect  # noqa: PLC0415

    async with connect(f"ws://{HOST}:{port}", compression=None, ping_interval=None) as ws:
        await ask(ws, seconds)


async def ask(ws: Any, seconds: float) -> None:
    """Request and await the reply, with the interface of websockets."""
    clock = Clock(seconds, int)
    wanted = True
    while wanted:
        await ws.send(MESSAGE)
        wanted = clock.tick(await ws.recv() == MESSAGE)


async def picows(port: int, seconds: float) -> None:
    import picows  # noqa: PLC0415

    over = asyncio.get_running_loop().create_future()
    clock = Clock(seconds, lambda: over.set_result(None))
    message = MESSAGE.encode()

    class Client(picows.WSListener):  # type: ignore[misc, unused-ignore]
        def on_ws_connected(self, transport: Any) -> None:
            transport.send(picows.WSMsgType.TEXT, message)

        def on_ws_frame(self, transport: Any, received: Any) -> None:
            if clock.tick(received.get_payload_as_utf8_text() == MESSAGE):
                transport.send(picows.WSMsgType.TEXT, message)

    await picows.ws_connect(Client, f"ws://{HOST}:{port}")
    await over


CLIENTS: Final[dict[str, Program]] = {
    "rawws": rawws,
    "rawws-coroutine": rawws_coroutine,
    "limit": limit,
    "picows": picows,
    "websockets": websockets,
}


def measure(name: str, port: int, seconds: float, cpu: int) -> float:
    """Return the microseconds of CPU per message."""
    command = [sys.executable, "-m", MODULE, "--be", name, "--port", str(port)]
    command += ["--seconds", str(seconds), "--cpu", str(cpu)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60 + seconds, check=False)
    if ran.returncode:
        sys.exit(f"the client {name} failed: {ran.stderr.strip().splitlines()[-1:]}")
    return float(ran.stdout)


def main() -> None:
    given = options(MODULE, __doc__, CLIENTS, rounds=5, seconds=1.0)
    first, last = cores()
    with (
        tempfile.TemporaryDirectory() as folder,
        ServerProcess.of(SERVERS["rawws"], SCENARIOS["echo-1"], first, Path(folder)) as server,
    ):
        costs = interleave(CLIENTS, given.rounds, lambda name: measure(name, server.port, given.seconds, last))
    medians = {name: statistics.median(found) for name, found in costs.items()}
    print(f"{'client':18}{'CPU us':>8}{'x':>7}{'spread':>8}")
    for name, median in sorted(medians.items(), key=lambda item: item[1]):
        spread = (max(costs[name]) - min(costs[name])) / median
        print(f"{name:18}{median:8.2f}{median / medians['rawws']:7.2f}{spread:8.0%}")
    for name, other, goal in GOALS:
        verdict(f"{name} / {other}", medians[name] / medians[other], goal)


if __name__ == "__main__":
    main()
