"""What ends a connection of the AWS face by time alone, on a clock that jumps: silence, and age."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import rawws
from rawws import clock, testing
from rawws.gateway.config import AWS_LIMITS
from rawws.gateway.loading import read_config
from rawws.gateway.main import face_routes, gateway_options, new_gateway
from tests.gateway.aws_running import chat_api

# Times are looked at once a second.
LOOK = 2.0


@asynccontextmanager
async def connected() -> AsyncIterator[rawws.WebSocket]:
    """Give a client of a gateway, both in memory."""
    gateway = new_gateway(read_config(chat_api("http://127.0.0.1:9/")))
    async with gateway, testing.serve(face_routes(gateway), **gateway_options(gateway)) as host:
        async with host.connect("/prod") as ws:
            yield ws


def test_a10_a_client_that_says_nothing_is_closed_after_ten_minutes_whatever_its_pongs() -> None:
    async def main() -> None:
        async with connected() as ws:
            began = clock.monotonic()
            await ws.wait_closed()
            assert ws.close_code == 1001
            assert AWS_LIMITS.idle <= clock.monotonic() - began <= AWS_LIMITS.idle + LOOK
            assert AWS_LIMITS.idle == 600

    testing.run(main())


def test_a10_a_message_of_either_side_is_a_sign_of_life_and_after_two_hours_it_ends_all_the_same() -> None:
    async def main() -> None:
        async with connected() as ws:
            began = clock.monotonic()
            # It may end as an answer is waited for, too.
            with contextlib.suppress(rawws.ConnectionClosed):
                while True:
                    await ws.send("hello")
                    assert "Forbidden" in str(await ws.recv())
                    for _ in range(590):
                        if not ws.close_code:
                            await asyncio.sleep(1)
            # A tenth is left to chance, so that not all come back at once.
            age = clock.monotonic() - began
            assert ws.close_code == 1001
            assert AWS_LIMITS.lifetime * 0.9 <= age <= AWS_LIMITS.lifetime + LOOK
            assert AWS_LIMITS.lifetime == 7200

    testing.run(main())
