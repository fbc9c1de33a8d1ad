"""Clients and a server between which the network ends, without FIN or RST: in how many seconds all of it is noticed.

A network namespace of its own has a loopback interface that goes down. Prints JSON: `seconds` by name, and what the
server still holds at the end; or `refused`, where the system allows no namespace.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import socket
import struct
import sys
import time
from typing import Any

import rawws
from rawws.net import kernel
from tests.server.peers import eventually

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
# The kernel's own clocks with the times of the library divided by ten.
SHORTER = 10
PATIENCE = 60.0


def enter_namespace() -> bool:
    """Leave the network of the machine for one of our own; tell whether the system allows it."""
    libc = ctypes.CDLL(None)
    return any(libc.unshare(flags) == 0 for flags in (CLONE_NEWNET, CLONE_NEWUSER | CLONE_NEWNET))


def set_loopback(up: bool) -> None:
    """Have the loopback interface, the only one, go up or down."""
    from fcntl import ioctl  # noqa: PLC0415 - there is none on Windows, where this is only imported

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        (flags,) = struct.unpack_from("16xH", ioctl(sock, SIOCGIFFLAGS, struct.pack("16sH14x", b"lo", 0)))
        flags = flags | IFF_UP if up else flags & ~IFF_UP
        ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags))


class Witness:
    """Notes when each name was over."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.began = 0.0

    def over(self, name: str) -> None:
        """Take note of an end."""
        self.seconds[name] = round(time.monotonic() - self.began, 2)


def serve_all(witness: Witness, hub: rawws.Hub) -> rawws.Routes:
    """Return one endpoint for each kind of connection."""
    routes = rawws.Routes()

    @routes.get("/ticks")
    def ticks(_: rawws.HttpRequest) -> rawws.EventStream:
        return rawws.EventStream(keepalive=0.5, on_close=lambda _: witness.over("ticks"))

    @routes.get("/quiet")
    def quiet(_: rawws.HttpRequest) -> rawws.EventStream:
        stream = rawws.EventStream(keepalive=None, on_close=lambda _: witness.over("quiet"))
        hub.subscribe(stream, "news")
        return stream

    @routes.get("/poll")
    def poll(_: rawws.HttpRequest) -> rawws.LongPoll:
        return rawws.LongPoll(timeout=600)

    @routes.get("/download")
    def download(_: rawws.HttpRequest) -> rawws.Response:
        return rawws.Response(200, bytes(1 << 24))

    @routes.post("/upload")
    def upload(_: rawws.HttpRequest) -> str:
        return "done"

    @routes.websocket("/ws")
    async def chat(ws: rawws.WebSocket) -> None:
        hub.subscribe(ws, "news", join="Ada")
        await ws.wait_closed()
        witness.over("websocket")

    return routes


async def read_all(name: str, url: str, witness: Witness) -> None:
    """Read an event stream, or messages, to their end."""
    try:
        if url.startswith("ws"):
            async with rawws.connect(url, proxy=None, ping_interval=None) as ws:
                await ws.recv()
        else:
            async for _ in rawws.events(url, proxy=None, reconnect=False):
                pass
    except (OSError, rawws.RawwsError):
        witness.over(name)


async def main() -> dict[str, Any]:
    """Connect all of them, end the network, and wait for the ends."""
    witness, hub = Witness(), rawws.Hub()
    unlimited: Any = dict.fromkeys(("ping_interval", "open_timeout", "keep_alive_timeout"))
    async with rawws.serve(serve_all(witness, hub), "127.0.0.1", 0, close_timeout=1, **unlimited) as server:
        port = server.sockets[0].getsockname()[1]
        heads = [f"GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n" for path in ("ticks", "quiet", "poll", "download")]
        heads += ["POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf", ""]
        peers = [socket.create_connection(("127.0.0.1", port)) for _ in heads]
        for peer, head in zip(peers, heads, strict=True):
            peer.sendall(head.encode())
        reading = [
            asyncio.create_task(read_all(name, f"{url}{port}/{path}", witness))
            for name, url, path in (("connect", "ws://127.0.0.1:", "ws"), ("events", "http://127.0.0.1:", "quiet"))
        ]
        await eventually(lambda: len(server.settings.connections) == 8 and hub.stats().subscriptions == 3)
        # What is on its way arrives, and the download fills the buffers.
        await asyncio.sleep(0.2)
        set_loopback(up=False)
        witness.began = time.monotonic()
        async with asyncio.timeout(PATIENCE):
            await eventually(lambda: not server.settings.connections)
        witness.over("all of the server")
        await asyncio.wait(reading, timeout=PATIENCE)
        left = len(server.settings.connections), hub.stats().subscriptions, len(hub.presence("news"))
        return {"seconds": witness.seconds, "left": left}


if __name__ == "__main__":
    for name in kernel.TCP_OPTIONS:
        kernel.TCP_OPTIONS[name] = max(1, kernel.TCP_OPTIONS[name] // SHORTER)
    if enter_namespace():
        set_loopback(up=True)
        loops: dict[str, Any] = {"asyncio": asyncio.new_event_loop}
        if sys.argv[1] == "uvloop":
            import uvloop

            loops["uvloop"] = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=loops[sys.argv[1]]) as runner:
            print(json.dumps(runner.run(main())))
    else:
        print(json.dumps({"refused": os.geteuid()}))
