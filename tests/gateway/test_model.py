"""The model: ids in both spellings, what is delivered to whom, and how faces are asked."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, final

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rawws
from rawws.gateway.deliveries import Delivery
from rawws.gateway.events import GatewayEvent, is_cached
from rawws.gateway.loading import read_config
from rawws.gateway.main import face_routes, gateway_options, new_gateway
from rawws.gateway.model import Admission, Gateway, GatewayConnection
from rawws.gateway.spelling import ConnectionId
from tests.client.peers import tls
from tests.gateway.running import APP, app_file, gateway
from tests.gateway.test_pusher_protocol import greeted
from tests.server.peers import Logged, eventually


@given(st.integers(0, (1 << 24) - 1), st.integers(0, (1 << 53) - 1))
def test_both_spellings_stand_for_one_connection(instance: int, number: int) -> None:
    ident = ConnectionId(instance, number)
    assert ConnectionId.parse(ident.aws) == ConnectionId.parse(ident.socket_id) == ident
    assert len(ident.aws) == 16
    assert ident.aws[-1] == "="


@pytest.mark.parametrize(
    "text", ["", "1", "1.", "01.2", "1.02", "16777216.1", f"1.{1 << 53}", "A" * 16, "_" * 15 + "="]
)
def test_what_was_never_given_is_no_id(text: str) -> None:
    with pytest.raises(ValueError, match="allowed are those that were given"):
        ConnectionId.parse(text)


def test_cache_channels_are_known_by_their_names() -> None:
    found = ["cache-a", "private-cache-a", "private-encrypted-cache-a", "presence-cache-a"]
    assert all(map(is_cached, found))
    assert not any(map(is_cached, ["a", "private-a", "private-encrypted-a", "presence-a", "my-cache-a"]))


@final
class SlowFace(rawws.Handler):
    """A face that takes its time to let somebody in."""

    name = "slow"

    def __init__(self, made: Gateway) -> None:
        self.gateway = made
        self.told: list[str] = []

    def routes(self) -> Iterable[rawws.Route]:
        return [rawws.Route("/slow/{who}", self, websocket=True)]

    def server_routes(self) -> Iterable[rawws.Route]:
        return ()

    def admit(self, ws: rawws.WebSocket, request: rawws.Request) -> Any:
        async def judge() -> Admission:
            await asyncio.sleep(0)
            return rawws.Response(403, "no\n") if request.path == "/slow/eve" else None

        return judge()

    def subprotocol(self, ws: rawws.WebSocket, offered: list[str]) -> str | None:
        return "slow.v1" if "slow.v1" in offered else None

    async def start(self) -> None:
        self.told.append("start")

    async def close(self) -> None:
        self.told.append("close")

    def on_open(self, ws: rawws.WebSocket) -> None:
        ws.state = connection = GatewayConnection(self.gateway, APP, "slow", ws)
        self.gateway.opened(connection)

    def on_close(self, ws: rawws.WebSocket, code: int, reason: str) -> None:
        self.gateway.closed(ws.state, code, reason)


async def test_faces_are_asked_one_after_the_other_who_may_come_in() -> None:
    made = new_gateway(read_config(app_file()))
    slow = SlowFace(made)
    made.faces.insert(0, slow)
    async with made, rawws.serve(face_routes(made), "127.0.0.1", 0, **gateway_options(made)) as server:
        at = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with rawws.connect(f"{at}/slow/ann", subprotocols=["x", "slow.v1"]) as ws:
            assert ws.subprotocol == "slow.v1"
            [connection] = made.connections.values()
            assert repr(connection) == f"<GatewayConnection {connection.id.socket_id} of {APP}>"
            with pytest.raises(NotImplementedError):
                connection.take(made.main)  # type: ignore[arg-type]
        with pytest.raises(rawws.InvalidStatus, match="403"):
            await rawws.connect(f"{at}/slow/eve")
    assert slow.told == ["start", "close"]


async def test_a_gateway_that_is_cancelled_while_a_face_closes_closes_the_others_and_its_hubs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = new_gateway(read_config(app_file()))
    first, last = SlowFace(made), SlowFace(made)
    made.faces.insert(0, first)
    made.faces.append(last)
    monkeypatch.setattr(last, "close", asyncio.Event().wait)
    await made.__aenter__()
    closing = asyncio.create_task(made.__aexit__(None, None, None))
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    assert (closing.cancelled(), first.told) == (True, ["start", "close"])


async def test_what_a_slow_client_has_no_room_for_is_refused_and_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    async with gateway() as running:
        client = await greeted(running)
        ident = ConnectionId.parse(client.socket_id)
        with monkeypatch.context() as slow:
            slow.setattr(GatewayConnection, "congested", True)
            assert await running.gateway.send(ident, "one more") == Delivery(429)
        assert await running.gateway.send(ident, "another") == Delivery(200)
        assert await client.ws.recv() == "another"
        connection = running.gateway.connections[ident]
        connection.ws.close(1000)
        assert await running.gateway.send(ident, "late") == Delivery(410)


async def test_an_event_that_cannot_be_is_refused() -> None:
    async with gateway() as running:
        for name in ("", "\n", "x" * 256):
            with pytest.raises(rawws.TopicError, match="allowed are 1 to 255 printable bytes"):
                running.gateway.publish(APP, "a", GatewayEvent(name, "x"))
        result = running.gateway.publish(APP, "a", GatewayEvent(None, b"x"))
        assert result.accepted


async def test_what_fails_in_the_background_is_logged(logged: Logged) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    async with gateway() as running:
        running.gateway.start(fail())
        await eventually(lambda: not running.gateway._tasks)
        running.gateway.start(asyncio.sleep(3600))
    logged.take("the gateway failed at work in the background", ZeroDivisionError, "rawws.gateway")


async def test_a_gateway_with_a_certificate_speaks_http11() -> None:
    """Its faces let clients in by their Upgrade, which a WebSocket over HTTP/2 comes without."""
    keys = tls()
    made = new_gateway(read_config(app_file()))
    options = gateway_options(made)
    async with made, rawws.serve(face_routes(made), "127.0.0.1", 0, ssl=keys.server, **options) as server:
        keys.client.set_alpn_protocols(["h2", "http/1.1"])
        at = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", at, ssl=keys.client, server_hostname="localhost")
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() is None
        writer.close()
        await eventually(lambda: not server.settings.connections)
