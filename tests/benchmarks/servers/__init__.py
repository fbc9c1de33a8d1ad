"""The servers under test, each in its fastest documented configuration; one file a peer, one `serve` in each."""

import asyncio
import ssl
import subprocess
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, final

from ..scenarios import (  # noqa: TID252 - an absolute name would depend on how mypy and pytest are called
    ACCEPT,
    SCENARIOS,
    STREAMED,
    Exchange,
    Scenario,
    exchange,
    message,
)

__all__ = [
    "ACCEPT",
    "HOST",
    "SCENARIOS",
    "STREAMED",
    "TEXT",
    "Exchange",
    "Options",
    "compiled",
    "coroutine_handler",
    "exchange",
    "run",
]

HOST: Final = "127.0.0.1"
TEXT: Final = message(SCENARIOS["stream"], 0).decode()  # what is streamed, `STREAMED` times a request


@final
@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks of a server."""

    scenario: Scenario
    port: int
    style: Literal["callback", "coroutine", "rawws"]
    loop: Literal["uvloop", "asyncio"]
    engine: Literal["asyncio", "epoll"] | None
    cert: Path

    @property
    def streaming(self) -> bool:
        return self.scenario.kind == "stream"

    def rawws(self) -> dict[str, Any]:
        """Return the options of our own servers."""
        return {
            "ssl": self.tls(),
            "engine": self.engine,
            "compression": "deflate" if self.scenario.deflate else None,
            "ping_interval": None,
            "backlog": 1024,
        }

    def tls(self) -> ssl.SSLContext | None:
        """Return the server's context when the scenario is over TLS."""
        if not self.scenario.tls:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert)
        return context


def coroutine_handler(options: Options) -> Callable[[Any], Coroutine[Any, Any, None]]:
    """Return the handler of every library with the interface of websockets."""

    async def echo(ws: Any) -> None:
        async for received in ws:
            await ws.send(received)

    async def stream(ws: Any) -> None:
        async for _ in ws:
            for _ in range(STREAMED):
                await ws.send(TEXT)

    return stream if options.streaming else echo


def compiled(source: Path, *arguments: str) -> Path:
    """Return the program of a C file, which the compiler is given these arguments for, too; made where it is older."""
    program = Path(__file__).resolve().parents[3] / "build" / source.stem
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        program.parent.mkdir(exist_ok=True)
        subprocess.run(["cc", "-O2", "-o", program, source, *arguments], check=True)
    return program


def run(main: Coroutine[Any, Any, None], options: Options) -> None:
    """Run `main` on the loop that was asked for."""
    factory = None
    if options.loop == "uvloop":
        import uvloop  # noqa: PLC0415 - the stdlib variants must not load it

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main)
