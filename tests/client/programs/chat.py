"""A chat: what one says, all hear, who came and who went."""

import asyncio
import json

from websockets.asyncio.server import broadcast, serve

USERS = set()


def users_event():
    return json.dumps({"type": "users", "count": len(USERS)})


async def chat(websocket):
    USERS.add(websocket)
    try:
        broadcast(USERS, users_event())
        async for message in websocket:
            broadcast(USERS, json.dumps({"type": "say", "text": message}))
    finally:
        USERS.remove(websocket)
        broadcast(USERS, users_event())


async def main():
    async with serve(chat, "127.0.0.1", 0) as server:
        print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await server.serve_forever()


asyncio.run(main())
