"""Count, and tell all who are connected; nobody who comes or goes disturbs the counting."""

import asyncio
import itertools

from websockets.asyncio.server import broadcast, serve


async def wait(websocket):
    await websocket.wait_closed()


async def count(server):
    for number in itertools.count():
        broadcast(server.connections, str(number))
        await asyncio.sleep(0.01)


async def main():
    async with serve(wait, "127.0.0.1", 0) as server:
        print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await count(server)


asyncio.run(main())
