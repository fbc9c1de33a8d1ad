"""A server that does what it is told to: the first word of a message is an order, or the message comes back.

At /N it closes the connection behind so many messages.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from pathlib import Path
from typing import Any

import rawws


async def talk(ws: rawws.WebSocket) -> None:
    """Obey, and say how it ended."""
    try:
        await obey(ws)
    finally:
        print("ended with", ws.close_code, flush=True)


async def obey(ws: rawws.WebSocket) -> None:
    """Obey."""
    left = int(ws.request.path[1:] or 0) if ws.request is not None else 0
    async for message in ws:
        order, _, rest = message.partition(" ") if isinstance(message, str) else ("", "", "")
        if order == "close":
            code, _, reason = rest.partition(" ")
            await ws.close(int(code), reason)
        elif order == "abort":
            ws.abort()
        elif order == "silence":
            await ws.wait_closed()
        elif order == "binary":
            await ws.send(bytes(range(int(rest))))
        elif order == "much":
            await ws.send("x" * int(rest))
        elif order == "lines":
            await ws.send("\n".join(["x"] * int(rest)))
        elif order == "hostile":
            await ws.send("\x1b[31mred\x1b[0m\x07 \x9b\u202e")
        elif order == "later":
            await asyncio.sleep(0.4)
            await ws.send(rest)
        elif order == "headers" and ws.request is not None:
            more = [("subprotocol", ws.subprotocol), ("version", ws.request.http_version)]
            await ws.send(json.dumps([*ws.request.headers.raw_items(), *more]))
        else:
            await ws.send(message)
        left -= 1
        if not left:
            await ws.close()


async def main() -> None:
    """Serve: with the certificate in the file that is named, or on that unix socket; without HTTP/2 if told so."""
    argument = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    context = None
    if argument and argument.suffix == ".pem":
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(argument)
    options: dict[str, Any] = {
        "origins": "*",
        "select_subprotocol": lambda _, offered: offered[-1] if offered else None,
    }
    if sys.argv[2:] == ["without-http2"]:
        options["http2"] = False
    if argument and not context:
        server = await rawws.unix_serve(talk, str(argument), **options)
        print("listening", flush=True)
    else:
        server = await rawws.serve(talk, "127.0.0.1", 0, ssl=context, **options)
        print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
