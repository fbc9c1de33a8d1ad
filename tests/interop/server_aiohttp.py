"""The server's part of the scenario, played by `aiohttp`, which sends each message in one frame."""

from __future__ import annotations

import asyncio

from aiohttp import WSMsgType, web

from tests.interop import scenario


async def play(request: web.Request) -> web.WebSocketResponse:
    """Play the part that the path asks for, until the client closes, and print what was received."""
    ws = web.WebSocketResponse(autoping=False)
    await ws.prepare(request)
    received = []
    close: scenario.Close = {"code": 1006, "reason": ""}
    await begin(ws, request.path)
    while (message := await ws.receive()).type in {WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.PING}:
        if message.type is WSMsgType.PING:
            await ws.pong(message.data)
            continue
        received.append(scenario.digest(message.data))
        if request.path in {"/echo", "/compressed"}:
            await send(ws, message.data)
    if message.type is WSMsgType.CLOSE:
        close = {"code": message.data, "reason": message.extra or ""}
    elif ws.close_code is not None:
        close["code"] = ws.close_code
    scenario.print_connection({"path": request.path, "received": received, "close": close})
    return ws


async def begin(ws: web.WebSocketResponse, path: str) -> None:
    """Send what the path asks for before the client sends anything."""
    if path == "/fragments":
        await ws.send_str("".join(scenario.TEXT_FRAGMENTS))
        await ws.send_bytes(b"".join(scenario.BINARY_FRAGMENTS))
    elif path == "/ping":
        await ws.ping(scenario.PING.encode())
        pong = await ws.receive()
        assert (pong.type, pong.data) == (WSMsgType.PONG, scenario.PING.encode()), pong
        await ws.send_str("pong")
    elif path == "/close":
        close = scenario.CLOSE_BY_SERVER
        await ws.close(code=close["code"], message=close["reason"].encode())


async def send(ws: web.WebSocketResponse, message: str | bytes) -> None:
    """Send a message of either kind."""
    await (ws.send_str(message) if isinstance(message, str) else ws.send_bytes(message))


async def main() -> None:
    """Serve until the process is ended."""
    app = web.Application()
    app.router.add_get("/{path:.*}", play)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"listening on 127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    asyncio.run(main())
