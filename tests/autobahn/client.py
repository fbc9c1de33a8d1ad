"""The echo client of Autobahn's fuzzing server: it asks for the number of cases, runs each, and ends the run.

With `--peer websockets` that library connects instead; the names are the same in both.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

PEERS: Final = ("rawws", "websockets")

# The largest message of the suite (9.1.6, 9.2.6) is 16 MiB, our default limit 1 MiB.
MAX_SIZE: Final = 2**24


async def talk(peer: str, uri: str, *, echo: bool) -> str | bytes:
    """Receive until the connection closes, and send each message back if `echo`; return the last one."""
    library = import_module(peer)
    last: str | bytes = ""
    with contextlib.suppress(library.ConnectionClosed):
        # The suite takes a Ping of the client for the end of a case, and on a busy machine some last for over 20 s.
        async with library.connect(uri, max_size=MAX_SIZE, ping_interval=None) as ws:
            async for message in ws:
                last = message
                if echo:
                    await ws.send(message)
    return last


async def run(uri: str, peer: str, jobs: int) -> None:
    """Run every case that the fuzzing server at `uri` offers, `jobs` of them at a time."""
    print(f"{describe(peer)}, {type(asyncio.get_running_loop()).__module__.partition('.')[0]} loop", flush=True)
    numbers = iter(range(1, int(await talk(peer, f"{uri}/getCaseCount", echo=False)) + 1))

    async def lane() -> None:
        for number in numbers:
            await talk(peer, f"{uri}/runCase?case={number}&agent={peer}", echo=True)

    await asyncio.gather(*(lane() for _ in range(jobs)))
    await talk(peer, f"{uri}/updateReports?agent={peer}", echo=False)


def describe(peer: str) -> str:
    """Return the name and the version of the peer, and our twin."""
    if peer != "rawws":
        return f"{peer} {version(peer)}"
    from rawws import _twins, _version  # noqa: PLC0415 - a comparison runs where the project itself may not be built

    return f"{peer} {_version.__version__}, {_twins.running()}"


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("uri", help="of the fuzzing server, without a path")
    parser.add_argument("--peer", choices=PEERS, default="rawws", help="the library that connects")
    parser.add_argument("--jobs", type=int, default=1, help="cases at a time")
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop", help="the event loop")
    options = parser.parse_args()
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if options.loop == "uvloop":
        import uvloop  # noqa: PLC0415 - only where it is asked for

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(run(options.uri, options.peer, options.jobs))


if __name__ == "__main__":
    main()
