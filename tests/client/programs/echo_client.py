"""Send a few messages, and print what comes back."""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


async def main(uri):
    async with connect(uri) as websocket:
        await websocket.send("Hello world!")
        print(await websocket.recv())
        await websocket.send(b"\x00\x01\x02")
        print(await websocket.recv())
        await websocket.send(["in ", "three ", "parts"])
        print(await websocket.recv())
        await websocket.send("as bytes")
        print(await websocket.recv(decode=False))
        pong = await websocket.ping()
        print("latency", await pong >= 0)
        try:
            await asyncio.wait_for(websocket.recv(), timeout=0.05)
        except TimeoutError:
            print("nothing more")
        await websocket.close(code=1000, reason="done")
        try:
            await websocket.recv()
        except ConnectionClosed as closed:
            print(type(closed).__name__, closed.rcvd.code, closed.sent.code, closed.sent.reason)
    print(websocket.close_code)


asyncio.run(main(sys.argv[1]))
