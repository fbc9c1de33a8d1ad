"""Clients in Node, where one run of each is enough: the SDK of AWS, close codes, and restarts."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import rawws
from rawws.backplanes.memory import Engine
from rawws.gateway.events import GatewayEvent
from tests.gateway.aws_running import KEY as AWS_KEY
from tests.gateway.aws_running import SECRET as AWS_SECRET
from tests.gateway.aws_running import aws_gateway, chat_api, event_of
from tests.gateway.backends import backend
from tests.gateway.relays import relay
from tests.gateway.running import APP, Running, app_file, gateway, member, node
from tests.server.peers import eventually

CLIENTS = 6


def test_a4_the_sdk_of_aws_for_javascript_posts_gets_and_deletes_and_knows_each_error() -> None:
    def whoami(request: rawws.HttpRequest) -> dict[str, Any]:
        return {"statusCode": 200, "body": event_of(request)["requestContext"]["connectionId"]}

    async def main() -> None:
        async with backend(whoami) as running:
            text = chat_api(running.url, "$connect", "$disconnect", "whoami", route="response = true")
            async with aws_gateway(text) as made, made.connect(max_size=None, sock=narrow_to(made.port)) as silent:
                [ident] = made.gateway.connections
                await node("aws.mjs", made.port, key=AWS_KEY, secret=AWS_SECRET, silent=ident.aws)
                # What was answered by 200 came, in order; what was answered by 429 did not; and it is connected.
                end = asyncio.ensure_future(say_at_last(made.gateway, ident))
                said = []
                while (message := str(await silent.recv())) != "end":
                    said.append(int(message))
                await end
                assert said == list(range(len(said)))
                assert said
            await running.wait_for(5)
        codes = [event["requestContext"].get("disconnectStatusCode") for event in running.events]
        assert [code for code in codes if code is not None] == [1000, 1000]

    asyncio.run(main())


def narrow_to(at: int) -> socket.socket:
    """Return a socket that is connected, and takes little from a peer before somebody reads."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect(("127.0.0.1", at))
    made.setblocking(False)
    return made


async def say_at_last(made: Any, ident: Any) -> None:
    """Send a client something, when there is room for it."""
    while (await made.send(ident, "end")).status == 429:  # noqa: ASYNC110 - nobody says when there is
        await asyncio.sleep(0)


def test_p5_each_close_code_has_pusher_js_go_or_come_back() -> None:
    async def main() -> None:
        async with (
            gateway(app_file("enabled = false")) as disabled,
            gateway(app_file("max_connections = 1")) as full,
            gateway(app_file("user_auth_timeout = 0.05")) as unsigned,
            gateway(app_file(head="[gateway]\nmax_connections = 1")) as crowded,
            gateway() as good,
            relay(lambda: good.port) as older,
        ):
            older.replaced = b"protocol=7", b"protocol=4"
            first = await member(full.port, "presence-a", "ann")
            ports = [each.port for each in (good, disabled, full, older, unsigned, crowded)]
            await node("closes.mjs", *ports)
            await first.close()

    asyncio.run(main())


def test_p5_clients_come_back_while_instances_are_restarted_one_after_the_other(engines: list[Engine]) -> None:
    async def main() -> None:
        turn, ports = itertools.count(), list[int]()
        stacks = [AsyncExitStack(), AsyncExitStack()]
        instances: list[Running] = []

        async def begin(stack: AsyncExitStack) -> Running:
            made = await stack.enter_async_context(gateway())
            ports.append(made.port)
            return made

        def all_are_back() -> bool:
            return sum(each.gateway.subscriptions[APP] for each in instances) == CLIENTS

        async with stacks[0], stacks[1], relay(lambda: ports[next(turn) % len(ports)]) as balancer:
            instances += [await begin(stack) for stack in stacks]
            clients = asyncio.ensure_future(node("restarts.mjs", balancer.port, clients=CLIENTS))
            ticks = Ticks()
            for number, stack in enumerate(stacks):
                await eventually(lambda: all_are_back() or clients.done())
                before, other = instances[number], instances[1 - number]
                ticks.for_all += [ticks.next(other), ticks.next(before)]
                ports.remove(before.port)
                async with ticks.by(other):
                    await before.server.drain()
                    await stack.aclose()
                    instances[number] = await begin(stack)
                    await eventually(lambda: all_are_back() or clients.done())
                    ticks.for_all.append(ticks.next(other))
            over = {"last": ticks.next(instances[0]), "for_all": ticks.for_all}
            instances[0].gateway.publish(APP, "room", GatewayEvent("over", json.dumps(over)))
            await clients

    asyncio.run(main())


class Ticks:
    """Numbers that are published in a channel, each one more than the last."""

    def __init__(self) -> None:
        self.number = 0
        # Those that were published while all clients were in the channel.
        self.for_all: list[int] = []

    def next(self, running: Running) -> int:
        """Publish the next one; return it."""
        self.number += 1
        running.gateway.publish(APP, "room", GatewayEvent("tick", str(self.number)))
        return self.number

    @asynccontextmanager
    async def by(self, running: Running) -> AsyncIterator[None]:
        """Publish one after the other by an instance."""

        async def publish() -> None:
            while True:
                self.next(running)
                await asyncio.sleep(0.01)

        task = asyncio.ensure_future(publish())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
