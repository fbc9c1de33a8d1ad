"""Several instances act as one: by a real Redis, and as workers of one port."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import signal
import sys
from collections.abc import Awaitable, Iterator
from contextlib import AsyncExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, NamedTuple, final

import pusher
import pytest
from botocore.exceptions import ClientError

import rawws
from rawws.backplanes.redis import RedisBackplane
from rawws.topics import shared
from tests.backplanes.engines import RedisEngine
from tests.cli.commands import port
from tests.gateway.aws_running import AwsGateway, aws_gateway, chat_api, sdk
from tests.gateway.backends import backend
from tests.gateway.instances import instances
from tests.gateway.own_running import everything, own, token_file
from tests.gateway.running import APP, KEY, PATIENCE, SECRET, member, node
from tests.gateway.v1_running import server
from tests.processes import Process, eventually

# The steps of the first random walk, and how many there are.
SEED, STEPS = 7, 500
LIBRARY: Final = pusher.Pusher(app_id=APP, key=KEY, secret=SECRET)
# An instance that can be killed, and the lease of it and of the one that asks, in seconds: that of a gateway is 15.
OWNER: Final = Path(__file__).with_name("owner.py")
LEASE: Final = 3


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    engine = RedisEngine(tmp_path_factory.mktemp("redis"))
    yield engine.url
    engine.end()


@final
class Application(ThreadingHTTPServer):
    """An application that is told what happens, in a thread: `told` by hooks, and `called` by the routes of an API."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Told)
        self.told: SimpleQueue[dict[str, str]] = SimpleQueue()
        self.called: SimpleQueue[dict[str, Any]] = SimpleQueue()


@final
class Told(BaseHTTPRequestHandler):
    """A request of a hook, or of a route."""

    def do_POST(self) -> None:
        assert isinstance(self.server, Application)
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path == "/called":
            self.server.called.put(json.loads(body)["requestContext"])
            self.send_response(204)
            self.end_headers()
            return
        read = LIBRARY.validate_webhook(self.headers["X-Pusher-Key"], self.headers["X-Pusher-Signature"], body)
        for event in read["events"]:
            self.server.told.put(event)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def application() -> Iterator[Application]:
    """Run an application."""
    with Application() as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@final
class Two(NamedTuple):
    """The ports of two instances, and what their hooks told, and their routes."""

    ports: tuple[int, int]
    told: SimpleQueue[dict[str, str]]
    called: SimpleQueue[dict[str, Any]]


@pytest.fixture(scope="module", params=["redis", "workers"])
def running(request: pytest.FixtureRequest, redis: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """Run two instances."""
    with two(tmp_path_factory.mktemp("gateway"), redis if request.param == "redis" else "workers") as found:
        yield found


@pytest.fixture
def ports(running: Two) -> tuple[int, int]:
    """Return the ports of two instances: those of workers are one."""
    return running.ports


@contextmanager
def two(folder: Path, backplane: str) -> Iterator[Two]:
    with application() as app:
        hook = f'[[app.hook]]\nurl = "http://127.0.0.1:{app.server_port}/"\nevents = ["*"]'
        text = token_file(hook, head=f'[gateway]\nbackplane = "{backplane}"')
        text += chat_api(f"http://127.0.0.1:{app.server_port}/called", "$connect", "$disconnect")
        count, options = (1, ["--workers", "2"]) if backplane == "workers" else (2, [])
        with instances(folder, text, count, *options) as processes:
            yield Two((port(processes[0]), port(processes[-1])), app.told, app.called)


def test_all_kinds_of_channels_work_over_two_instances(running: Two) -> None:
    asyncio.run(node("channels.mjs", *running.ports))


def test_rawws_js_and_echo_hear_one_channel_in_one_order_and_a_cut_connection_misses_nothing(running: Two) -> None:
    asyncio.run(node("own.mjs", *running.ports, token=everything("ann")))


def test_all_know_who_is_there_whatever_comes_and_goes(ports: tuple[int, int]) -> None:
    asyncio.run(node("crowd.mjs", *ports, seed=SEED, steps=STEPS))


def test_hooks_are_told_once_of_what_two_instances_have(running: Two) -> None:
    def told_until(*last: str) -> list[str]:
        names: list[str] = []
        while not set(last) <= set(names):
            event = running.told.get(timeout=PATIENCE)
            if event.get("channel") == "presence-hooks":
                names.append(event["name"])
        return names

    async def main() -> None:
        members = [await member(each, "presence-hooks", "ann") for each in running.ports]
        names = await asyncio.to_thread(told_until, "channel_occupied", "member_added")
        for each in members:
            await each.close()
        # Whatever was told twice came before.
        names += await asyncio.to_thread(told_until, "channel_vacated", "member_removed")
        assert sorted(names) == ["channel_occupied", "channel_vacated", "member_added", "member_removed"]

    asyncio.run(main())


def test_counts_are_those_of_all_instances(ports: tuple[int, int]) -> None:
    api = pusher.Pusher(app_id=APP, key=KEY, secret=SECRET, ssl=False, host="127.0.0.1", port=ports[1])
    # The one that is asked hears of the last who left as all do: sooner or later.
    eventually(lambda: api.channels_info() == {"channels": {}})


def test_a1_boto3_posts_gets_and_deletes_what_another_instance_has(running: Two) -> None:
    async def main() -> None:
        here, there = running.ports
        # Several: the kernel gives their connections to both workers.
        clients = [sdk(there) for _ in range(4)]
        async with rawws.connect(f"ws://127.0.0.1:{here}/prod", user_agent_header="chat/1", proxy=None) as ws:
            connected = await asyncio.to_thread(running.called.get, timeout=PATIENCE)
            ident = connected["connectionId"]
            for number, client in enumerate(clients):
                await client.post(ident, f"Grüße {number}")
                assert await ws.recv() == f"Grüße {number}"
                found = await client.get(ident)
                for name in ("ConnectedAt", "LastActiveAt"):
                    assert found[name].tzinfo is not None
                    assert abs(found[name] - dt.datetime.now(dt.UTC)) < dt.timedelta(seconds=PATIENCE)
                assert found["Identity"] == {"SourceIp": "127.0.0.1", "UserAgent": "chat/1"}
            deleted = await clients[0].delete(ident)
            assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 204
            await ws.wait_closed()
            assert (ws.close_code, ws.close_reason) == (1000, "Connection Closed Normally")
        ended = await asyncio.to_thread(running.called.get, timeout=PATIENCE)
        assert (ended["connectionId"], ended["disconnectStatusCode"]) == (ident, 1000)
        for client in clients:
            for call in (client.post(ident, "x"), client.get(ident), client.delete(ident)):
                with pytest.raises(client.exceptions.GoneException):
                    await call

    asyncio.run(main())


def test_a6_a_connection_of_an_instance_that_was_killed_is_never_sent_to_and_is_gone_with_its_lease(
    redis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = shared.SharedBackplane(lambda number: RedisBackplane(redis, prefix=f"killed.{number}", lease=LEASE))
    monkeypatch.setattr(shared, "shared", numbers)

    def whoami(request: rawws.HttpRequest) -> dict[str, object]:
        return {"statusCode": 200, "body": json.loads(request.body)["requestContext"]["connectionId"]}

    async def main() -> None:
        async with backend(whoami) as application:
            text = chat_api(application.url, "$default", route="response = true")
            (tmp_path / "gateway.toml").write_text(text)
            command = [sys.executable, str(OWNER), str(tmp_path / "gateway.toml"), redis, str(LEASE)]
            # Both in threads: what answers the instance runs in this loop.
            owner = await asyncio.to_thread(Process, command, listens=True)
            try:
                async with aws_gateway(text) as gateway:
                    await asks(gateway, owner)
            finally:
                await asyncio.to_thread(owner.stop)

    async def asks(gateway: AwsGateway, owner: Process) -> None:
        client = sdk(gateway.port)
        async with rawws.connect(f"ws://127.0.0.1:{owner.port}/prod", proxy=None) as ws:
            await ws.send("hello")
            ident = str(await ws.recv())
            # On a slow machine a lease may end while its instance lives, and begins again.
            while await status_of(client.post(ident, "before")) != 200:  # noqa: ASYNC110 - nobody says when it is back
                await asyncio.sleep(0.1)
            assert await ws.recv() == "before"
            os.kill(owner.pid, signal.SIGKILL)
            await ws.wait_closed()
        seen = [await status_of(client.post(ident, "after"))]
        while seen[-1] != 410:
            assert seen[-1] == 503
            seen.append(await status_of(client.post(ident, "after")))
        with pytest.raises(client.exceptions.GoneException):
            await client.post(ident, "after")

    asyncio.run(main())


async def status_of(call: Awaitable[Any]) -> int:
    """Return the status of a call of boto3."""
    try:
        answer = await call
    except ClientError as error:
        answer = error.response
    status: int = answer["ResponseMetadata"]["HTTPStatusCode"]
    return status


def test_servers_ask_either_of_two_instances_for_what_both_have(ports: tuple[int, int]) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            asking, again = [await stack.enter_async_context(server(each)) for each in ports]
            pusher = await member(ports[0], "presence-v1", "bob")
            ann = await stack.enter_async_context(own(ports[1], everything("ann")))
            await ann.ask(subscribe="presence-v1", join=None)
            said = {"channel": "presence-v1", "event": "said", "data": "hello"}
            told = await asking.post("publish", said, key="k")
            assert await again.post("publish", said, key="k") == told
            await again.post("publish", {**said, "event": "last"}, key="l")
            heard: list[str] = []
            while heard[-1:] != ["last"]:
                heard.append(json.loads(await pusher.recv())["event"])
            # Who came, and what was published once.
            assert heard == ["pusher_internal:member_added", "said", "last"]
            page = await again.get("channels/presence-v1/history")
            assert [each["event"] for each in page["publications"]] == ["said", "last"]
            members = (await asking.get("channels/presence-v1/members"))["members"]
            assert [each["user"] for each in members] == ["ann", "bob"]
            lists = [await each.get("connections", channel="presence-v1") for each in (asking, again)]
            idents = [[each["connection"] for each in told["connections"]] for told in lists]
            assert (len(idents[0]), idents[0]) == (2, idents[1])
            for ident in idents[0]:
                await asking.post(f"connections/{ident}/subscribe", {"channels": ["room"]}, key=ident)
            await again.until("channels/room", connections=2)
            await asking.until("users/ann", count=1)
            assert (await asking.post("users/ann/disconnect", {"code": 4123, "reason": "bye"}, key="d"))["count"] == 1
            assert await ann.ended() == (4123, "bye")
            await pusher.close()

    asyncio.run(main())
