"""Come back as long as the server does: it closes after each message."""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus


async def main(uri):
    rounds = 0
    async for websocket in connect(uri, reconnect_delays=lambda: iter([0.01] * 100)):
        try:
            await websocket.send(f"round {rounds}")
            async for message in websocket:
                print(message)
        except ConnectionClosed as closed:
            print(closed.rcvd.code)
        rounds += 1
        if rounds == 3:
            break
    try:
        async for websocket in connect(f"{uri}/forbidden"):
            print("let in")
    except InvalidStatus as error:
        print(error.response.status_code)


asyncio.run(main(sys.argv[1]))
