"""A health check on the port of the WebSocket."""

import asyncio
import http

from websockets.asyncio.server import serve


def health_check(connection, request):
    if request.path == "/healthz":
        return connection.respond(http.HTTPStatus.OK, "OK\n")


async def echo(websocket):
    async for message in websocket:
        await websocket.send(message)


async def main():
    async with serve(echo, "127.0.0.1", 0, process_request=health_check) as server:
        print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await server.serve_forever()


asyncio.run(main())
