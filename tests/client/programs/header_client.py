"""Connect with a token in a header, and without."""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedOK, InvalidHandshake, InvalidStatus


async def main(uri):
    async with connect(f"{uri}/news", additional_headers={"Authorization": "Bearer s3cret"}) as websocket:
        print(await websocket.recv())
        try:
            await websocket.recv()
        except ConnectionClosedOK as closed:
            print(closed.rcvd.code)
    try:
        await connect(uri)
    except InvalidStatus as error:
        response = error.response
        print(response.status_code, response.headers["WWW-Authenticate"], response.body.decode())
    try:
        await connect(uri, additional_headers={"Authorization": "Bearer wrong"})
    except InvalidHandshake as error:
        print(error.response.status_code, error.response.body.decode())


asyncio.run(main(sys.argv[1]))
