"""The option --admin: an address and a key to a listener for those who look into what is served."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rawws.admin.guard import check_admin_key
from rawws.admin.inspector import Inspector
from rawws.admin.listening import check_reach, serve, serve_workers, worker_path
from rawws.admin.sources import offer
from rawws.net.loops import loop_factory

from .loading import CommandError
from .streams import print_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from contextlib import AbstractAsyncContextManager

    from rawws.server.server import Server

    from .supervisor import SupervisorChannel

__all__ = ["AdminPlan", "add_admin", "admin_plan"]


def add_admin(parser: argparse.ArgumentParser) -> None:
    """Add the options of whoever looks on."""
    group = parser.add_argument_group("who looks on")
    group.add_argument(
        "--admin",
        type=_address_of,
        metavar="HOST:PORT",
        help="answer probes, metrics of all workers and a live page there, such as 127.0.0.1:8766",
    )
    group.add_argument(
        "--admin-key-file",
        metavar="FILE",
        help="its first line is the key that all need there; or RAWWS_ADMIN_KEY (without it, only this machine may)",
    )


def _address_of(text: str) -> tuple[str, int]:
    """Return the host and the port of HOST:PORT, which may be a URL, for the terminal has the same variable."""
    host, colon, port = text.removeprefix("http://").rstrip("/").rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, for example 127.0.0.1:8766")
    return host.removeprefix("[").removesuffix("]"), int(port)


class AdminPlan(NamedTuple):
    """Where to listen, and what those who ask need."""

    host: str
    port: int
    key: str | None

    @property
    def place(self) -> str:
        """Where that is, as a person reads it."""
        return f"{self.host}, port {self.port}"

    @contextlib.contextmanager
    def reserve(self) -> Iterator[AdminPlan]:
        """Have the port, for the process that will listen. Raises CommandError where it cannot be had."""
        from .supervisor import ReservedPort  # noqa: PLC0415 - not on every system

        try:
            with ReservedPort([self.host], self.port) as reserved:
                yield self._replace(port=reserved.port)
        except OSError as error:
            raise CommandError(f"cannot listen on {self.place} for --admin: {error.strerror or error}") from error

    def announce(self, port: int) -> None:
        """Say where it listens."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        print_line(f"admin at http://{host}:{port}{' (with the key)' if self.key else ''}")

    @contextlib.asynccontextmanager
    async def listen(self, server: Server) -> AsyncIterator[None]:
        """Listen in the process that serves. Raises CommandError where that cannot be."""
        try:
            running = await serve(server, host=self.host, port=self.port, key=self.key)
        except OSError as error:
            raise CommandError(f"cannot listen on {self.place} for --admin: {error.strerror or error}") from error
        async with running:
            self.announce(running.sockets[0].getsockname()[1])
            yield

    def offer(self, folder: Path, channel: SupervisorChannel, server: Server) -> AbstractAsyncContextManager[None]:
        """Have a worker be asked."""
        return offer(worker_path(folder, channel.number), Inspector(server, worker=channel.number))

    def run(self, folder: Path, count: int, channel: SupervisorChannel) -> None:
        """Listen in a process of its own, beside so many workers."""
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(serve_workers(folder, count, self.host, self.port, self.key, channel.ready))


def admin_plan(options: argparse.Namespace) -> AdminPlan | None:
    """Return what the options say, None without --admin. Raises CommandError for what cannot be."""
    if options.admin is None:
        return None
    host, port = options.admin
    try:
        key = _key_of(options.admin_key_file)
        check_reach(host, key)
    except ValueError as error:
        raise CommandError(f"--admin: {error}; --admin-key-file has one, or RAWWS_ADMIN_KEY") from error
    except OSError as error:
        raise CommandError(f"cannot listen on {host} for --admin: {error.strerror or error}") from error
    return AdminPlan(host, port, key)


def _key_of(file: str | None) -> str | None:
    """Return the key. Raises ValueError for one that is easily guessed."""
    if file is None:
        key = os.environ.get("RAWWS_ADMIN_KEY")
        return check_admin_key(key) if key else None
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"cannot read --admin-key-file {file}: {getattr(error, 'strerror', error)}") from error
    return check_admin_key(lines[0].strip() if lines else "")
