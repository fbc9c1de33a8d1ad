"""Answer one message on each connection, then close it: well, badly, well."""

import asyncio
import itertools

from websockets.asyncio.server import serve

CODES = itertools.cycle([1000, 1011, 1001])


async def once(websocket):
    await websocket.send(await websocket.recv())
    await websocket.close(next(CODES))


def forbid(connection, request):
    if request.path == "/forbidden":
        return connection.respond(403, "no\n")


async def main():
    async with serve(once, "127.0.0.1", 0, process_request=forbid) as server:
        print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await server.serve_forever()


asyncio.run(main())
