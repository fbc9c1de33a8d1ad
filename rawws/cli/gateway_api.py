"""The key `api_listen` of a gateway: an address for its HTTP APIs alone, to a listener beside that of clients."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

from rawws.server.server import serve
from rawws.server.shutdown import Drain

from .loading import CommandError
from .streams import print_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from rawws.gateway.model import Gateway
    from rawws.server.server import Server

__all__ = ["ApiPlan"]


class ApiPlan(NamedTuple):
    """Where to listen for the servers of applications, and what `rawws.serve` is told beside that."""

    hosts: list[str]
    port: int
    options: dict[str, Any]
    # Whether several processes listen there, of which another one says so.
    is_shared: bool = False

    @contextlib.contextmanager
    def reserve(self) -> Iterator[ApiPlan]:
        """Have the port, for the processes that will listen. Raises CommandError where it cannot be had."""
        from .supervisor import ReservedPort  # noqa: PLC0415 - not on every system

        with self._told(), ReservedPort(self.hosts, self.port) as reserved:
            self._announce(reserved.port)
            options = {**self.options, "reuse_port": True}
            yield self._replace(port=reserved.port, options=options, is_shared=True)

    @contextlib.asynccontextmanager
    async def listen(self, gateway: Gateway) -> AsyncIterator[Server]:
        """Listen in a process that serves. Raises CommandError where that cannot be."""
        from rawws.gateway.main import server_api_options, server_api_routes  # noqa: PLC0415 - only this command

        drain = Drain(grace=0, timeout=self.options["drain"].timeout)
        given = {**server_api_options(gateway), **self.options, "drain": drain}
        with self._told():
            server = await serve(server_api_routes(gateway), self.hosts, self.port, **given)
        async with server:
            if not self.is_shared:
                self._announce(server.sockets[0].getsockname()[1])
            yield server
            # Whoever asked gets an answer.
            await server.drain()

    def _announce(self, port: int) -> None:
        for host in self.hosts:
            scheme = "https" if self.options.get("ssl") else "http"
            print_line(f"HTTP APIs at {scheme}://{f'[{host}]' if ':' in host else host}:{port}")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            place = f"{' and '.join(self.hosts)}, port {self.port}"
            raise CommandError(f"cannot listen on {place} for gateway.api_listen: {error.strerror or error}") from error
