"""Probes: readiness that includes the backplanes of hubs."""

from __future__ import annotations

from typing import Any

import pytest

import rawws
from rawws.backplanes.redis import RedisBackplane
from rawws.topics import Hub
from tests.server.answers import ask, get
from tests.server.peers import Logged, eventually, serve


async def test_readiness_includes_the_backplane_of_a_hub(logged: Logged) -> None:
    # Nothing listens there.
    async with Hub(backplane=RedisBackplane("redis://127.0.0.1:1")) as hub:
        whole = Hub(backplane=None)
        routes = rawws.Routes([rawws.Route("/readyz", rawws.Readiness(hub, whole))])
        routes.get("/whole")(rawws.Readiness(whole))
        async with serve(routes) as server:
            await eventually(lambda: hub.degraded)
            [answer] = await ask(server, get("/readyz"))
            assert (answer.status, answer.body) == (503, b"the backplane is away\n")
            assert answer.headers["cache-control"] == "no-store"
            [answer] = await ask(server, get("/whole"))
            assert (answer.status, answer.body) == (200, b"ok\n")
            server.context.draining = True
            [answer] = await ask(server, get("/whole"))
            assert (answer.status, answer.body) == (503, b"draining\n")
    logged.take("the backplane is away, topics are degraded: ", name="rawws.topics")


@pytest.mark.parametrize("what", [None, "hub"])
def test_what_is_no_hub_is_no_reason_to_be_ready(what: Any) -> None:
    with pytest.raises(TypeError, match=r"a hub is .*, allowed are rawws\.Hub"):
        rawws.Readiness(what)
