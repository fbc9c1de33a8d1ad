"""A site for foreign clients of HTTP/2: requests, event streams and WebSockets, and where each came from."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any, NamedTuple

import trustme

import rawws
from tests.server.peers import DEADLINE

__all__ = ["LARGE", "Keys", "address", "make_keys", "options", "run_client", "site"]

# More than the windows of most clients, and as much as a server takes unless it is told otherwise.
LARGE = bytes(range(256)) * 4096


def site(peers: set[Any]) -> rawws.Routes:
    """Serve what there is to ask for; `peers` are the addresses from which it is asked."""
    routes = rawws.Routes()

    @routes.get("/item/{name}")
    def item(request: rawws.HttpRequest) -> str:
        peers.add(request.remote_address)
        return request.path_params["name"]

    @routes.get("/events/{name}")
    def events(request: rawws.HttpRequest) -> rawws.EventStream:
        peers.add(request.remote_address)
        stream = rawws.EventStream()
        stream.send(request.path_params["name"])
        return stream

    @routes.get("/large")
    def large(request: rawws.HttpRequest) -> bytes:
        peers.add(request.remote_address)
        return LARGE

    @routes.post("/echo")
    def echo(request: rawws.HttpRequest) -> bytes:
        peers.add(request.remote_address)
        return request.body

    @routes.websocket("/ws")
    async def talk(ws: rawws.WebSocket) -> None:
        peers.add(ws.remote_address)
        async for message in ws:
            await ws.send(message)

    return routes


class Keys(NamedTuple):
    """Of a server: its context, and its authority in PEM."""

    context: ssl.SSLContext
    authority: bytes


def make_keys() -> Keys:
    """Make a certificate for localhost."""
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost", "127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    leaf.configure_cert(context)
    return Keys(context, authority.cert_pem.bytes())


async def run_client(*command: str | Path) -> bytes:
    """Run a client to its end, which is to be good, and return what it printed on standard output."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(5 * DEADLINE):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, (output[-2000:], errors[-2000:])
    return output


def address(server: rawws.Server, scheme: str = "https") -> str:
    """Return where a client is to go."""
    return f"{scheme}://localhost:{server.sockets[0].getsockname()[1]}"


def options(keys: Keys) -> dict[str, Any]:
    """Return the options of a server of the site."""
    return {"ssl": keys.context, "subprotocols": ["chat.v1"]}
