"""Shut down at SIGTERM: all connections are closed, and their handlers end as they want to."""

import asyncio
import signal

from websockets.asyncio.server import serve


async def handler(websocket):
    async for message in websocket:
        await websocket.send(message)
    print("saved", websocket.close_code, flush=True)


async def main():
    async with serve(handler, "127.0.0.1", 0) as server:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, server.close)
        print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await server.wait_closed()
    print("done")


asyncio.run(main())
