"""Authentication by a header of the opening handshake: 401 for those who have no token."""

import asyncio
import http

from websockets.asyncio.server import serve

TOKENS = {"s3cret": "alice"}


async def authenticate(connection, request):
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme != "Bearer":
        response = connection.respond(http.HTTPStatus.UNAUTHORIZED, "Missing token\n")
        response.headers["WWW-Authenticate"] = "Bearer"
        return response
    user = TOKENS.get(token)
    if user is None:
        return connection.respond(http.HTTPStatus.UNAUTHORIZED, "Invalid token\n")
    connection.username = user


async def handler(websocket):
    await websocket.send(f"Hello {websocket.username}! You asked for {websocket.request.path}")


async def main():
    async with serve(handler, "127.0.0.1", 0, process_request=authenticate) as server:
        print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await server.serve_forever()


asyncio.run(main())
