"""pusher-js, `pusher` for Node and for Python, unmodified, against the Pusher face."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pusher
import pytest
from pusher.errors import PusherBadAuth, PusherBadRequest, PusherBadStatus, PusherForbidden

from tests.gateway.running import APP, KEY, SECRET, app_file, gateway, node
from tests.server.peers import eventually


def library(port: int, **more: Any) -> pusher.Pusher:
    """Return the library for Python, as its documentation makes it."""
    return pusher.Pusher(
        **{"app_id": APP, "key": KEY, "secret": SECRET, "ssl": False, "host": "127.0.0.1", "port": port, **more}
    )


async def call(function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Call what blocks."""
    return await asyncio.to_thread(function, *arguments, **named)


async def test_all_kinds_of_channels_work_with_pusher_js_and_the_library_for_node() -> None:
    async with gateway() as running:
        await node("channels.mjs", running.port, running.port)
        await eventually(lambda: running.gateway.counts == {})


async def test_laravel_echo_works_with_both_of_its_broadcasters() -> None:
    async with gateway() as running:
        await node("echo.mjs", running.port, running.port)


async def test_every_method_of_the_library_for_python() -> None:
    async with gateway() as running:
        api = library(running.port)
        assert await call(api.trigger, ["a", "b"], "event", {"x": 1}) == {}
        assert await call(api.trigger, "a", "event", "x", socket_id="1.2") == {}
        assert await call(api.trigger_batch, [{"channel": "a", "name": "e", "data": "1"}]) == {}
        assert await call(api.channels_info, "presence-", ["user_count"]) == {"channels": {}}
        assert await call(api.channel_info, "presence-a", ["user_count"]) == {"occupied": False, "user_count": 0}
        assert await call(api.users_info, "presence-a") == {"users": []}
        assert await call(api.send_to_user, "ann", "event", {}) == {}
        assert await call(api.terminate_user_connections, "ann") == {}


async def test_a_request_that_is_wrong_is_refused_with_the_status_that_the_library_knows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with gateway() as running:
        api = library(running.port)
        await call(api.trigger, "a", "event", "x" * 10240)
        with pytest.raises(PusherBadStatus, match="10241 bytes, limit 10240"):
            await call(api.trigger, "a", "event", "x" * 10241)
        with pytest.raises(PusherBadRequest, match="user_count is of presence channels"):
            await call(api.channels_info, None, ["user_count"])
        with pytest.raises(PusherBadAuth):
            await call(library(running.port, secret="wrong").trigger, "a", "event", {})
        with pytest.raises(PusherBadAuth):
            await call(library(running.port, key="wrong").trigger, "a", "event", {})
        now = time.time()
        with monkeypatch.context() as moved:
            moved.setattr("pusher.http.time", SimpleNamespace(time=lambda: now - 660))
            with pytest.raises(PusherBadAuth, match="within 600 s"):
                await call(api.trigger, "a", "event", {})
    async with gateway(app_file("enabled = false")) as running:
        with pytest.raises(PusherForbidden, match="disabled"):
            await call(library(running.port).trigger, "a", "event", {})
