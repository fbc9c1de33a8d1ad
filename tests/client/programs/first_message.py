"""Authentication by the first message: a token, or the connection is closed."""

import asyncio

from websockets.asyncio.server import serve

TOKENS = {"s3cret": "alice"}


async def handler(websocket):
    token = await websocket.recv()
    user = TOKENS.get(token)
    if user is None:
        await websocket.close(1011, "authentication failed")
        return
    await websocket.send(f"Hello {user}!")
    async for message in websocket:
        await websocket.send(f"{user}: {message}")


async def main():
    async with serve(handler, "127.0.0.1", 0) as server:
        print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await server.serve_forever()


asyncio.run(main())
