"""Phoenix: a server that is started again as soon as it dies. Its first message says which process it is."""

from __future__ import annotations

import asyncio
import os
import socket
import sys

import rawws

HOST = "127.0.0.1"


async def echo(ws: rawws.WebSocket) -> None:
    """Say who this is, then send everything back."""
    await ws.send(str(os.getpid()))
    async for message in ws:
        await ws.send(message)


async def main(port: int) -> None:
    """Serve until the process is killed."""
    async with rawws.serve(echo, HOST, port) as server:
        print(f"listening on {HOST}:{port}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, 0))
        number = probe.getsockname()[1]
    while True:
        child = os.fork()
        if not child:
            asyncio.run(main(number))
            sys.exit()
        os.waitpid(child, 0)
