"""A peer that vanished: the kernel is asked to notice, on every transport and on both ends."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from typing import Any

import pytest

import rawws
from rawws.net import kernel
from tests.processes import ROOT
from tests.server.peers import Peer, serve

OPTIONS = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT]


def told(sock: Any) -> list[int]:
    """Return what the kernel was told about a connection."""
    alive = sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    return [alive, *(sock.getsockopt(socket.IPPROTO_TCP, option) for option in OPTIONS)]


async def test_a_connection_whose_peer_vanished_is_gone_within_a_minute_on_both_ends() -> None:
    """Event streams, WebSockets, polls, downloads, uploads, silent ones; in a tenth of the time."""
    loop = "uvloop" if "uvloop" in type(asyncio.get_running_loop()).__module__ else "asyncio"
    command = [sys.executable, "-m", "tests.server.vanishing", loop]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0
    found = json.loads(output)
    if "refused" in found:
        # Not everywhere is that allowed: then what the kernel was told is what can be known.
        await test_the_kernel_is_asked_to_notice_at_both_ends()
        return
    assert found["left"] == [0, 0, 0]
    assert sorted(found["seconds"]) == ["all of the server", "connect", "events", "quiet", "ticks", "websocket"]
    # In 5 s where nothing else runs; a kernel that was not asked tries for minutes.
    assert max(found["seconds"].values()) < 30


async def test_the_kernel_is_asked_to_notice_at_both_ends() -> None:
    opened: asyncio.Queue[rawws.WebSocket] = asyncio.Queue()

    async def handler(ws: rawws.WebSocket) -> None:
        opened.put_nowait(ws)
        await ws.wait_closed()

    async with serve(handler) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with rawws.connect(url, proxy=None) as client:
            for ws in (client, await opened.get()):
                assert told(ws.extra("socket")) == [1, 30, 10, 3, 40_000]


@pytest.mark.parametrize(
    ("interval", "answer", "expected"),
    [
        # Who waits longer for the answer to a ping does so for the kernel, too; in proportion.
        (60, 60, [1, 90, 30, 3, 120_000]),
        (10.5, 35, [1, 35, 12, 3, 45_500]),
        (1e9, 1e9, [1, 2700, 900, 3, 3_600_000]),
        # Shorter ones are for WebSockets alone.
        (1, 1, [1, 30, 10, 3, 40_000]),
        (None, 60, [1, 30, 10, 3, 40_000]),
        (60, None, [1, 30, 10, 3, 40_000]),
    ],
)
async def test_the_kernel_gives_no_peer_up_before_the_pings_do(
    interval: float | None, answer: float | None, expected: list[int]
) -> None:
    opened: asyncio.Queue[rawws.WebSocket] = asyncio.Queue()

    async def handler(ws: rawws.WebSocket) -> None:
        opened.put_nowait(ws)
        await ws.wait_closed()

    pings: Any = {"ping_interval": interval, "ping_timeout": answer}
    async with serve(handler, **pings) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with rawws.connect(url, proxy=None, **pings) as client:
            for ws in (client, await opened.get()):
                assert told(ws.extra("socket")) == expected


@pytest.mark.parametrize("given", [True, False])
async def test_also_where_the_socket_is_given(given: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        where: Any = {"sock": listening} if given else {"host": "127.0.0.1", "port": 0}
        async with rawws.serve(rawws.Handler(), **where) as server:
            address = server.sockets[0].getsockname()
            with socket.create_connection(address) as sock:
                sock.setblocking(True)
                async with rawws.connect(f"ws://127.0.0.1:{address[1]}/", sock=sock) as ws:
                    assert told(ws.extra("socket")) == [1, 30, 10, 3, 40_000]


async def test_a_unix_socket_is_told_nothing() -> None:
    """Neither end can vanish: each is told when the other one ends."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        kernel.notice_vanished(ours)
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


async def test_what_the_kernel_says_grows_as_the_peer_reads() -> None:
    async with serve(rawws.Handler()) as server:
        peer = await Peer.reach(server.sockets[0].getsockname(), 4096)
        await peer.shake_hands()
        (ws,) = server.connections
        ws.send(bytes(200_000))
        await asyncio.sleep(0)
        before = kernel.send_queue(ws.transport)
        assert before.held > 0
        for _ in range(10):
            await peer.read(4096)
        while (after := kernel.send_queue(ws.transport)).acked <= before.acked:
            await peer.read(4096)
        assert after.held < before.held
        peer.close()
