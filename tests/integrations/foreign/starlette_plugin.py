"""A plugin for Starlette's own tests: their test client talks to a server on a socket, which FOREIGN_SERVER names.

What the application raises is raised in the test, as Starlette's own client does: the server is a thread of the test.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from typing import Any

import starlette.testclient
import uvicorn
from starlette.testclient import WebSocketDenialResponse, WebSocketTestSession
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from rawws.integrations import asgi


class Server:
    """An application on a free port, in a thread; `stop` raises what the application raised."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.errors: list[BaseException] = []
        self.ready = threading.Event()
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        self.loop = asyncio.new_event_loop()
        self.end = asyncio.Event()
        self.thread = threading.Thread(target=self.loop.run_until_complete, args=[self.serve()])
        self.thread.start()
        self.ready.wait()

    async def serve(self) -> None:
        if os.environ["FOREIGN_SERVER"] == "rawws":
            async with asgi.serve(self.call, sock=self.sock, lifespan="off"):
                self.ready.set()
                await self.end.wait()
            return
        ws = "rawws.integrations.uvicorn:WebSocketProtocol"
        config = uvicorn.Config(self.call, ws=ws, interface="asgi3", lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        # Only the main thread can have handlers of signals.
        task = self.loop.create_task(server._serve([self.sock]))
        while not server.started:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.005)
        self.ready.set()
        await self.end.wait()
        server.should_exit = True
        await task

    async def call(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self.app(scope, receive, send)
        except BaseException as error:
            self.errors.append(error)
            raise

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.end.set)
        self.thread.join()
        self.loop.close()
        if self.errors:
            raise self.errors[0]


class Session(WebSocketTestSession):
    """One WebSocket, with the methods of Starlette's own."""

    accepted_subprotocol: Any
    extra_headers: Any

    def __init__(self, app: Any, url: str, subprotocols: Any, headers: Any) -> None:
        self.server = Server(app)
        self.url = url
        self.options = {"subprotocols": subprotocols, "additional_headers": headers}
        self.ws: ClientConnection

    def __enter__(self) -> Session:
        sock = socket.create_connection(("127.0.0.1", self.server.port))
        try:
            self.ws = connect(self.url, sock=sock, proxy=None, compression=None, legacy=True, **self.options)
        except InvalidStatus as error:
            self.server.stop()
            response, body = error.response, bytes(error.response.body or b"")
            if body == b"the application refused the connection\n":
                raise WebSocketDisconnect(1006) from None
            raise WebSocketDenialResponse(
                status_code=response.status_code, headers=list(response.headers.raw_items()), content=body
            ) from None
        assert self.ws.response is not None
        self.accepted_subprotocol = self.ws.subprotocol
        self.extra_headers = [
            (name.lower().encode(), value.encode())
            for name, value in self.ws.response.headers.raw_items()
            if name.lower() not in {"upgrade", "connection", "date", "server"} and not name.startswith("Sec-")
        ]
        return self

    def __exit__(self, *_: object) -> None:
        self.ws.close()
        self.server.stop()

    def send(self, message: Any) -> None:
        if message["type"] == "websocket.disconnect":
            self.ws.close(message.get("code", 1000), message.get("reason") or "")
        else:
            self.ws.send(message["text"] if message.get("text") is not None else message["bytes"])

    def receive(self) -> Any:
        try:
            message = self.ws.recv(timeout=60)
        except ConnectionClosed as closed:
            code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")
            return {"type": "websocket.close", "code": code, "reason": reason}
        return {"type": "websocket.send", "text" if isinstance(message, str) else "bytes": message}


class Client:
    """What stands for Starlette's TestClient."""

    def __init__(self, app: Any, **_: Any) -> None:
        self.app = app

    def websocket_connect(self, url: str, subprotocols: Any = None, headers: Any = None, **_: Any) -> Session:
        return Session(self.app, url if "://" in url else f"ws://testserver{url}", subprotocols, headers)


starlette.testclient.TestClient = Client  # type: ignore[assignment,misc]
