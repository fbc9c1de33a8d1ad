"""Clients of the AWS face that leave, or are turned away, while the backend of `$connect` is asked for them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import rawws
from rawws.gateway.loading import read_config
from rawws.gateway.main import face_routes, gateway_options, new_gateway
from tests.client.peers import port
from tests.gateway.aws_running import aws_gateway, chat_api, event_of
from tests.gateway.backends import Backend, backend
from tests.server.peers import eventually, set_at_end

HANDSHAKE = (
    b"GET /prod HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Deciding:
    """A backend that has `status` for `$connect`, once it has `decided`."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.decided = asyncio.Event()

    async def __call__(self, request: rawws.HttpRequest) -> dict[str, Any]:
        if event_of(request)["requestContext"]["eventType"] == "CONNECT":
            await self.decided.wait()
            return {"statusCode": self.status}
        return {"statusCode": 200}


async def begin(port: int, running: Backend) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect, and wait until the backend is asked."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HANDSHAKE)
    await running.wait_for(1)
    return reader, writer


async def test_a_client_that_was_gone_when_it_was_let_in_gets_its_disconnect() -> None:
    deciding = Deciding(200)
    async with (
        backend(deciding) as running,
        aws_gateway(chat_api(running.url, "$connect", "$disconnect")) as gateway,
        set_at_end(deciding.decided),
    ):
        _, writer = await begin(gateway.port, running)
        writer.transport.abort()
        deciding.decided.set()
        await running.wait_for(2)
        connect, disconnect = [event["requestContext"] for event in running.events]
        assert connect["connectionId"] == disconnect["connectionId"]
        assert (disconnect["eventType"], disconnect["disconnectStatusCode"]) == ("DISCONNECT", 1006)
        await eventually(lambda: gateway.gateway.connections == {})
    assert len(running.requests) == 2


@pytest.mark.parametrize("status", [403, 500])
async def test_a_client_that_was_gone_when_it_was_refused_gets_none(status: int) -> None:
    deciding = Deciding(status)
    async with backend(deciding) as running:
        text = chat_api(running.url, "$connect", "$disconnect")
        async with aws_gateway(text) as gateway, set_at_end(deciding.decided):
            _, writer = await begin(gateway.port, running)
            writer.transport.abort()
            deciding.decided.set()
            await eventually(lambda: not gateway.server.stats().sockets)
        # The gateway waited for what it had to tell.
        assert len(running.requests) == 1


@pytest.mark.usefixtures("steady")
@pytest.mark.parametrize(("status", "count"), [(200, 2), (403, 1)])
async def test_a_client_that_waited_too_long_gets_its_disconnect_if_it_was_let_in(status: int, count: int) -> None:
    deciding = Deciding(status)
    async with backend(deciding) as running:
        gateway = new_gateway(read_config(chat_api(running.url, "$connect", "$disconnect")))
        options = {**gateway_options(gateway), "open_timeout": 0.2}
        async with gateway, set_at_end(deciding.decided):
            async with rawws.serve(face_routes(gateway), "127.0.0.1", 0, **options) as server:
                reader, writer = await begin(port(server), running)
                assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
                writer.close()
            assert len(running.requests) == 1
            deciding.decided.set()
        # As above.
        assert [event["requestContext"]["eventType"] for event in running.events] == ["CONNECT", "DISCONNECT"][:count]


async def test_a_client_that_is_let_in_while_the_server_ends_gets_a_503_and_its_disconnect() -> None:
    deciding = Deciding(200)
    async with (
        backend(deciding) as running,
        aws_gateway(chat_api(running.url, "$connect", "$disconnect")) as gateway,
        set_at_end(deciding.decided),
    ):
        reader, writer = await begin(gateway.port, running)
        ending = asyncio.ensure_future(gateway.server.drain())
        await eventually(lambda: gateway.server.closing)
        deciding.decided.set()
        assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
        writer.close()
        await ending
        await running.wait_for(2)
        assert running.events[1]["requestContext"]["eventType"] == "DISCONNECT"


@pytest.mark.parametrize("whose", ["API", "gateway"])
async def test_no_more_are_let_in_than_may_be_however_many_wait_for_the_backend_at_once(whose: str) -> None:
    deciding, limit = Deciding(200), "max_connections = 2"
    async with backend(deciding) as running, set_at_end(deciding.decided):
        api = chat_api(running.url, "$connect", "$disconnect", api=limit if whose == "API" else "")
        async with aws_gateway(api if whose == "API" else f"[gateway]\n{limit}\n{api}") as gateway:
            waiting = [await begin(gateway.port, running) for _ in range(2)]
            await running.wait_for(2)
            with pytest.raises(rawws.InvalidStatus, match=f"the {whose} has as many connections") as caught:
                await gateway.connect()
            assert (caught.value.status, caught.value.response.headers["Retry-After"]) == (503, "1")
            deciding.decided.set()
            for reader, _ in waiting:
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
            assert gateway.gateway.held.total == 2
            with pytest.raises(rawws.InvalidStatus, match=f"the {whose} has as many connections"):
                await gateway.connect()
            for _, writer in waiting:
                writer.transport.abort()
            await eventually(lambda: gateway.gateway.held.total == 0)
            async with gateway.connect():
                assert gateway.gateway.held.total == 1
