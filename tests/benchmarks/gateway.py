"""`python -m tests.benchmarks.gateway`: what connections, deliveries and posts cost a `rawws gateway`.

An instance runs on one core, all else on another. Five figures, of the instance: CPU per connection that an
application allows (`$connect` of the AWS face, by HTTP), and how many a second there are with 32 at a time; the 99th
percentile of a route, alone and beside one whose backend hangs, and what memory that takes; memory of a connection of
Pusher's protocol that is subscribed to a channel; CPU per delivery of an event to all of them, one event at a time and
ten in one batch; CPU per post to a connection that another instance has, by a Redis, at both instances.
"""

import argparse
import asyncio
import functools
import json
import re
import resource
import sys
import tempfile
import time
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
from tests.gateway.running import APP, KEY, SECRET, app_file
from tests.processes import Process

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


async def say(ws: rawws.WebSocket, pause: float) -> None:
    """Send to the backend that hangs, and drop what comes."""
    while True:
        await ws.send('{"action": "bad"}')
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


async def channel(cpu: int, count: int, seconds: float) -> None:
    """Print what a channel of so many costs."""
    with instances(app_file(), cpu) as [gateway]:
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
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    _, last = cores()
    uvloop.run(connects(last, given.connections))
    uvloop.run(hung(last, given.seconds))
    uvloop.run(channel(last, given.connections, given.seconds))
    uvloop.run(posts(last, given.seconds))


if __name__ == "__main__":
    main()
