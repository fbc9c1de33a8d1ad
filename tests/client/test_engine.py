"""The engine of a client's sockets: our own for plain ones, the transports of the loop for all others."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

import rawws
from rawws.net.reactor import EpollTransport, reactor_of
from tests.client.peers import HOST, descriptors, echo, http_proxy, port, tls
from tests.server.peers import eventually

ENGINES = pytest.mark.parametrize(("engine", "by_epoll"), [("epoll", True), ("asyncio", False)])


@ENGINES
async def test_a_plain_connection_is_on_the_engine_that_is_named(engine: Any, by_epoll: bool, tmp_path: Path) -> None:
    path = f"{tmp_path}/socket"
    async with rawws.serve(echo, HOST, 0) as server, rawws.unix_serve(echo, path) as local:
        kept: list[int] = []
        # The second time the loop has opened what it opens once.
        for _ in range(2):
            for connecting, address in (
                (rawws.connect(f"ws://{HOST}:{port(server)}/", engine=engine), (HOST, port(server))),
                (rawws.unix_connect(path, engine=engine), path),
            ):
                async with connecting as ws:
                    assert isinstance(ws.transport, EpollTransport) is by_epoll
                    assert ws.remote_address == address
                    for message in ("hi", bytes(300_000)):
                        await ws.send(message)
                        assert await ws.recv() == message
                assert ws.close_code == 1000
            await eventually(lambda: not server.settings.connections and not local.settings.connections)
            await eventually(lambda: not kept or descriptors() <= kept[0])
            kept.append(descriptors())
    await eventually(lambda: reactor_of(asyncio.get_running_loop()).members == 0)


@pytest.mark.parametrize("engine", ["epoll", None])
async def test_tls_proxies_and_given_sockets_are_the_loops(engine: Any) -> None:
    part = tls(HOST)
    async with rawws.serve(echo, HOST, 0) as server, rawws.serve(echo, HOST, 0, ssl=part.server) as secure:
        uri = f"ws://{HOST}:{port(server)}/"
        sock = socket.create_connection((HOST, port(server)))
        sock.setblocking(False)
        async with http_proxy() as proxy:
            for connecting in (
                rawws.connect(f"wss://{HOST}:{port(secure)}/", ssl=part.client, engine=engine),
                rawws.connect(uri, proxy=f"http://{HOST}:{proxy.port}", engine=engine),
                rawws.connect(uri, sock=sock, engine=engine),
            ):
                async with connecting as ws:
                    assert not isinstance(ws.transport, EpollTransport)
                    await ws.send("hi")
                    assert await ws.recv() == "hi"


def test_an_unknown_engine_is_refused() -> None:
    engine: Any = "io_uring"
    with pytest.raises(ValueError, match="engine is 'io_uring', allowed are 'asyncio', 'epoll' and None"):
        rawws.connect("ws://a.example/", engine=engine)
