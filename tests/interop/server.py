"""The server's part of the scenario, played by `rawws.serve`, which also hands a browser its page."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Final

import rawws
from rawws import _twins
from tests.interop import scenario

if TYPE_CHECKING:
    from rawws.protocol.http11 import HttpResponse

HERE: Final = Path(__file__).parent

# What a browser fetches: its page, and the modules that node's built-in client shares with it.
FILES: Final = {
    "/": (HERE / "node" / "page.html", "text/html; charset=utf-8"),
    "/standard.mjs": (HERE / "node" / "standard.mjs", "text/javascript"),
    "/scenario.mjs": (HERE / "node" / "scenario.mjs", "text/javascript"),
    "/scenario.json": (HERE / "scenario.json", "application/json"),
}


async def play(ws: rawws.WebSocket) -> None:
    """Play the part that the path asks for, until the client closes, and print what was received."""
    path = ws.request.path if ws.request else ""
    if path == "/report":
        print("report", await ws.recv(), flush=True)
        return
    if path == "/fragments":
        await ws.send(scenario.TEXT_FRAGMENTS)
        await ws.send(scenario.BINARY_FRAGMENTS)
    elif path == "/ping":
        await ws.ping(scenario.PING)
        await ws.send("pong")
    elif path == "/close":
        await ws.close(**scenario.CLOSE_BY_SERVER)
    received = []
    try:
        async for message in ws:
            received.append(scenario.digest(message))
            if path in {"/echo", "/compressed"}:
                await ws.send(message)
    except rawws.ConnectionClosed:
        pass  # the codes of the scenario are no regular end
    scenario.print_connection(
        {
            "path": path,
            "received": received,
            "close": {"code": ws.close_code or 1006, "reason": ws.close_reason or ""},
        }
    )


def answer(_ws: rawws.WebSocket, request: rawws.Request) -> HttpResponse | None:
    """Answer what is no WebSocket: the browser's page and its parts."""
    if "Upgrade" in request.headers:
        return None
    if request.path not in FILES:
        return rawws.Response(HTTPStatus.NOT_FOUND, f"{request.path} is not here, allowed are {', '.join(FILES)}")
    file, content_type = FILES[request.path]
    return rawws.Response(HTTPStatus.OK, file.read_bytes(), content_type=content_type)


async def main() -> None:
    """Serve until the process is ended."""
    async with rawws.serve(play, "127.0.0.1", 0, process_request=answer) as server:
        print(f"rawws, {_twins.running()}")
        print(f"listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
