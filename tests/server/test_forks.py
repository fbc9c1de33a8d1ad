"""Forks: the end of a connection, and of a server, is seen at once, whatever a child of the process still holds."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import rawws
from rawws.net.forks import HOLDERS
from tests.client.peers import HOST, tls
from tests.server.answers import get, on
from tests.server.forked import child
from tests.server.peers import Peer, connected, eventually, held, serve


def answers(address: Any) -> bool:
    """Tell whether somebody listens at an address."""
    try:
        socket.create_connection(address).close()
    except ConnectionRefusedError:
        return False
    return True


@contextmanager
def kept(connection: Any) -> Iterator[None]:
    """Keep the descriptor, as a child does that was forked by C code, and so lets go of nothing."""
    same = os.dup(connection.extra("socket").fileno())
    try:
        yield
    finally:
        os.close(same)


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_peer_sees_the_end_whatever_keeps_the_descriptor(how: str) -> None:
    async with held() as (ws, peer):
        with kept(ws):
            getattr(ws, how)()
            await peer.finish()
            await ws.wait_closed()


async def test_a_server_sees_the_end_of_a_client_whatever_keeps_the_descriptor() -> None:
    async with serve(rawws.Handler()) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        ws = await rawws.connect(url, proxy=None)
        with kept(ws):
            ws.abort()
            await eventually(lambda: not server.settings.connections)


async def test_a_client_sees_the_end_of_a_response_and_of_a_stream_whatever_keeps_the_descriptor() -> None:
    streams: list[rawws.EventStream] = []

    def stream(_: rawws.HttpRequest) -> rawws.EventStream:
        streams.append(rawws.EventStream())
        return streams[-1]

    async with serve(on("/", stream)) as server:
        for ask in (get(), get().replace(b"HTTP/1.1", b"HTTP/1.0")):
            peer = await Peer.reach(server.sockets[0].getsockname())
            await peer.write(ask)
            await peer.response()
            (connection,) = server.settings.connections
            with kept(connection):
                streams[-1].close()
                connection.abort()
                await peer.read_to_end()
            peer.close()
            await eventually(lambda: not server.settings.connections)


async def test_a_child_keeps_neither_connections_nor_listeners() -> None:
    server = await serve(rawws.Handler())
    address = server.sockets[0].getsockname()
    async with connected(server) as peer:
        with child():
            server.close()
            await peer.finish()
            await server.wait_closed()
            await eventually(lambda: not answers(address))
            again = await rawws.serve(rawws.Handler(), *address)
            again.close()
            await again.wait_closed()


async def test_a_child_keeps_no_connection_in_tls() -> None:
    part = tls(HOST)
    async with serve(rawws.Handler(), ssl=part.server, close_timeout=0.5) as server:
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=part.client, server_hostname=HOST
        )
        await eventually(lambda: server.settings.connections)
        with child():
            for connection in tuple(server.settings.connections):
                connection.abort()
            assert await reader.read() == b""
        writer.close()


async def test_a_child_keeps_a_listener_that_was_given_to_the_server() -> None:
    """A program that made the socket may have children that listen with it, too."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with rawws.serve(rawws.Handler(), sock=listening) as server:
            assert server.descriptors() == []
        async with serve(rawws.Handler()) as server:
            assert server.descriptors() == [server.sockets[0].fileno()]
            assert server in HOLDERS


async def test_in_the_child_the_numbers_stay_taken() -> None:
    """What the objects of the parent close there is nothing that the child opened."""
    async with held() as (ws, _):
        number = ws.extra("socket").fileno()
        reader, writer = os.pipe()
        null = os.open(os.devnull, os.O_RDONLY)
        pid = os.fork()
        if pid == 0:
            os.write(writer, b"null" if os.path.samestat(os.fstat(number), os.fstat(null)) else b"other")
            os._exit(0)
        await asyncio.to_thread(os.waitpid, pid, 0)
        assert os.read(reader, 100) == b"null"
        for descriptor in (reader, writer, null):
            os.close(descriptor)
        assert ws.ready_state is rawws.State.OPEN
