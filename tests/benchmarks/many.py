"""`python -m tests.benchmarks.many`: 100,000 connections to one process: what each holds, and how long it stands still.

They come from several addresses of the loopback interface, for a pair of addresses has some 28,000 ports. Both sides
stand in one kernel: of what that holds, a server pays half. One process under test, once; some three minutes.
"""

import asyncio
import gc
import resource
import sys
import time
from pathlib import Path
from typing import Any, Final, final

import rawws
from rawws.cli.serve import collect_seldom

from .load import PATIENCE, Load
from .process import ServerProcess
from .rounds import HOST, Program, cores, cpu_per, measure_server, options, verdict
from .scenarios import SCENARIOS, frame

MODULE: Final = f"{__package__}.many"
WARM: Final = 64
SPARE: Final = 200  # descriptors for all else
TICK: Final = 0.002  # seconds between two looks at how late the loop is
NEWS: Final = "n" * 64
GOALS: Final = (("ms still while idle", 50.0), ("ms until an echo during a broadcast", 1000.0))


@final
class Answers(rawws.Handler):
    """Echoes, and does what its only operator asks for."""

    def __init__(self) -> None:
        self.open: set[rawws.WebSocket] = set()
        self.still = 0.0
        self.loop = asyncio.get_running_loop()
        self.look(self.loop.time())

    def look(self, due: float) -> None:
        """Take note of how late the loop is, again and again."""
        now = self.loop.time()
        self.still = max(self.still, now - due)
        self.loop.call_at(now + TICK, self.look, now + TICK)

    def on_open(self, ws: rawws.WebSocket) -> None:
        self.open.add(ws)

    def on_close(self, ws: rawws.WebSocket, *_: object) -> None:
        self.open.discard(ws)

    def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
        if message == "still":
            ws.send(f"{self.still * 1000:.3f}")
            self.still = 0.0
        elif message == "collect":
            began = time.perf_counter()
            gc.collect()
            ws.send(f"{(time.perf_counter() - began) * 1000:.3f}")
        elif message == "all":
            began = time.perf_counter()
            rawws.broadcast(self.open, NEWS)
            ws.send(f"{(time.perf_counter() - began) * 1000:.3f}")
        else:
            ws.send(message)


def program(name: str) -> Program:
    """Return a server whose handlers are callbacks, or coroutines; or callbacks on the loop's transports."""

    async def serve(port: int, _seconds: float) -> None:
        collect_seldom()
        answers = Answers()

        async def coroutine(ws: rawws.WebSocket) -> None:
            answers.on_open(ws)
            async for message in ws:
                answers.on_message(ws, message)

        handler = coroutine if name == "coroutine" else answers
        # The load answers no ping, and is not closed for that.
        options: dict[str, Any] = {"compression": None, "backlog": 1024, "ping_timeout": 600}
        async with rawws.serve(handler, HOST, port, engine="asyncio" if name == "loop" else None, **options) as server:
            await server.serve_forever()

    return serve


SERVERS: Final = {name: program(name) for name in ("callback", "coroutine", "loop")}


@final
class Operator:
    """One connection that asks for what `Answers` does."""

    def __init__(self, port: int) -> None:
        self.load = Load(SCENARIOS["echo-1"])
        self.load.open(port, 1)
        [client] = self.load.clients.values()
        self.sock = client.sock
        self.sock.settimeout(PATIENCE)

    def send(self, word: str) -> None:
        self.sock.sendall(frame(0x81, word.encode(), b"\x12\x34\x56\x78"))

    def answer(self) -> str:
        """Return the next text that comes, which is short."""
        while True:
            head = self.sock.recv(2)
            payload = self.sock.recv(head[1]) if head[1] else b""
            if head[0] == 0x81 and payload.decode() != NEWS:
                return payload.decode()

    def ask(self, word: str) -> float:
        self.send(word)
        return float(self.answer())


def slab() -> int:
    """Return how many bytes the kernel holds for its own objects."""
    text = Path("/proc/meminfo").read_text(encoding="utf-8")
    return int(text.partition("\nSlab:")[2].split()[0]) * 1024


def tell_all(load: Load, operator: Operator, prober: Operator) -> tuple[float, float, float]:
    """Send one message to all; return for how long the call took, when the last had it, and the slowest echo, in ms."""
    missing, worst, asked = set(load.clients), 0.0, 0.0
    prober.sock.setblocking(False)
    began = time.perf_counter()
    operator.send("all")
    while missing:
        for fd, _ in load.epoll.poll(0, 256):
            # A ping may have come before it.
            if load.clients[fd].recv(4096).endswith(NEWS.encode()):
                missing.discard(fd)
        now = time.perf_counter()
        assert now - began < PATIENCE, f"{len(missing)} have nothing"
        try:
            data = prober.sock.recv(4096) if asked else b""
        except BlockingIOError:
            continue
        if not asked or data.endswith(b"echo"):
            worst = max(worst, now - asked if asked else 0.0)
            asked = now
            prober.send("echo")
    last = time.perf_counter() - began
    return float(operator.answer()), last * 1000, worst * 1000


def weigh(server: ServerProcess, count: int, seconds: float) -> dict[str, float]:
    """Return the figures of one server."""
    with Load(SCENARIOS["echo-1"]) as load:
        load.open(server.port, WARM)
        operator, prober = Operator(server.port), Operator(server.port)
        time.sleep(1)
        memory, kernel, found = server.memory(), slab(), {}
        began = time.perf_counter()
        found["us of CPU a handshake"] = cpu_per(server, lambda: len(load.open(server.port, count)))
        found["handshakes a second"] = count / (time.perf_counter() - began)
        time.sleep(1)
        found["KiB of the process each"] = (server.memory() - memory) / count / 1024
        found["KiB of the kernel each, both sides"] = (slab() - kernel) / count / 1024
        operator.ask("still")
        time.sleep(seconds)
        found["ms still while idle"] = operator.ask("still")
        found["ms of a full garbage collection"] = operator.ask("collect")
        took, last, worst = tell_all(load, operator, prober)
        found["ms of the call that tells all"] = took
        found["ms until the last has it"] = last
        found["ms until an echo during a broadcast"] = worst
        operator.sock.close()
        prober.sock.close()
    return found


def raise_limit(count: int) -> None:
    """Have descriptors for so many, here and in the server, which leaves a twentieth of its own to the program."""
    wanted = count * 20 // 19 + SPARE
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
    except (ValueError, OSError):
        sys.exit(f"{count} connections want {wanted} descriptors, {hard} are allowed: ulimit -Hn, or --connections N")


def main() -> None:
    given = options(MODULE, __doc__, SERVERS, connections=100_000, seconds=30.0)
    raise_limit(given.connections)
    _, last = cores()
    gc.disable()
    for name in SERVERS:
        print(f"{name}, {given.connections} connections")
        found = measure_server(MODULE, name, last, lambda server: weigh(server, given.connections, given.seconds))
        for what, figure in found.items():
            print(f"  {figure:12,.2f} {what}")
        for what, goal in GOALS:
            verdict(f"{name}: {what}", found[what], goal)


if __name__ == "__main__":
    main()
