"""Backplanes in the terminal: what an engine needs before the first hub comes, made (`backplane init`)."""

from __future__ import annotations

import argparse
import asyncio
import os
from typing import TYPE_CHECKING, Any

from rawws.net.loops import loop_factory
from rawws.topics.backplane_urls import backplane_class

from .loading import CommandError
from .streams import write_output
from .terminal import refuse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["add_backplane_commands"]

EXAMPLES = """
for example:
  {prog} backplane init postgresql://admin@localhost/app --role app

Others see a command line, so a password rather in RAWWS_BACKPLANE, which stands
for a URL that is left out. What is there already stays as it is.

exit status: 0 when all is there, 1 where it could not be, 2 for a wrong option
"""


def add_backplane_commands(commands: Any, prog: str) -> None:
    """Add `backplane` to the subparsers of the command line."""
    as_written = argparse.RawDescriptionHelpFormatter
    summary = "make what an engine needs before the first hub comes"
    parser: argparse.ArgumentParser = commands.add_parser("backplane", help=summary, allow_abbrev=False)
    init: argparse.ArgumentParser = parser.add_subparsers(metavar="COMMAND", required=True).add_parser(
        "init",
        help=summary,
        description=f"{summary[:1].upper()}{summary[1:]}:\nfor PostgreSQL, a schema with tables and functions.",
        usage=f"{prog} backplane init [URL] [options]",
        epilog=EXAMPLES.format(prog=prog),
        formatter_class=as_written,
        allow_abbrev=False,
    )
    init.set_defaults(command=initialize)
    init.add_argument("url", metavar="URL", nargs="?", help="the engine, such as postgresql://USER@HOST/DATABASE")
    init.add_argument("--prefix", metavar="NAME", default="rawws", help="the schema (default: rawws)")
    init.add_argument("--role", metavar="ROLE", help="who else may use it: the role of the servers")


def initialize(options: argparse.Namespace) -> int:
    """Make what an engine needs."""
    url = options.url or os.environ.get("RAWWS_BACKPLANE", "")
    if not url:
        refuse("there is no URL, needed is one, or RAWWS_BACKPLANE in the environment")
    said = f"{options.prefix} is there"
    try:
        make: Callable[..., Awaitable[None]] | None = getattr(backplane_class(url), "initialize", None)
        if make is None:
            said = f"{url.partition('://')[0]}:// needs nothing made before the first hub comes"
        else:
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                runner.run(finish(make(url, prefix=options.prefix, role=options.role)))
    except Exception as error:  # noqa: BLE001 - what an engine says may be of any class
        raise CommandError(f"backplane init: {str(error) or 'no answer in time'}") from None
    write_output(f"{said}\n".encode())
    return 0


async def finish(making: Awaitable[None]) -> None:
    """Wait for it, as a coroutine."""
    await making
