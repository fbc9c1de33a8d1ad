"""`rawws.sync.HubClient`: topics without asyncio, in threads, after forks, interrupted, and at the end of it all."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, final

import pytest

import rawws
import rawws.sync
from rawws.client.options import HubState
from tests.client.hubs import HASTY, hub_of, routes_of
from tests.client.test_sync import script
from tests.processes import LOOPBACK, eventually, free_port


@final
class Served:
    """A hub in a thread: `run` does something in its loop; what it was told is in `clients`."""

    def __init__(self) -> None:
        self.clients: list[Any] = []
        self.hub = hub_of(authorize=self.authorize)
        self.loop: asyncio.AbstractEventLoop
        self.url = ""

    def authorize(self, client: Any, _action: str, topic: str) -> bool:
        self.clients.append(client)
        return not topic.startswith("secret")

    async def serve(self, ready: Future[str], over: Future[None]) -> None:
        self.loop = asyncio.get_running_loop()
        self.hub.on_call("double")(lambda _client, data: 2 * data)
        never = asyncio.Event()
        self.hub.on_call("never")(lambda _client, _data: never.wait())
        options: Any = {"subprotocols": ["rawws.v1"], "close_timeout": 1}
        async with rawws.serve(routes_of(self.hub), LOOPBACK, 0, **options) as server:
            ready.set_result(f"ws://{LOOPBACK}:{server.sockets[0].getsockname()[1]}/topics")
            await asyncio.wrap_future(over)
            never.set()

    def call(self, name: str, data: Any = None) -> Any:
        """Call a function of the client that came last."""

        async def call() -> Any:
            return await self.hub.call(self.clients[-1], name, data)

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(60)

    def count(self, topic: str) -> int:
        """Return how many are subscribed to a topic."""

        async def count() -> int:
            return self.hub.subscribers(topic)

        return asyncio.run_coroutine_threadsafe(count(), self.loop).result(60)


@pytest.fixture
def served() -> Iterator[Served]:
    made, ready, over = Served(), Future[str](), Future[None]()
    thread = threading.Thread(target=lambda: asyncio.run(made.serve(ready, over)))
    thread.start()
    made.url = ready.result(60)
    yield made
    over.set_result(None)
    thread.join()


@pytest.mark.parametrize("transport", ["websocket", "stream", "poll"])
def test_what_is_published_comes_and_the_past_can_be_asked_for(served: Served, transport: str) -> None:
    with rawws.sync.HubClient(served.url, transports=[transport]) as hub:
        with hub.subscribe("told") as subscription:
            start = subscription.ready()
            cursors = [hub.publish("told", text) for text in ("one", "Grüße")]
            last = hub.publish("told", {"a": 1}, event="move", key="k")
            assert [subscription.recv(timeout=60).message, next(subscription).message] == ["one", "Grüße"]
            moved = subscription.recv()
            assert (moved.json(), moved.event, moved.cursor, subscription.cursor) == ({"a": 1}, "move", last, last)
            assert (start.recovered, subscription.topic) == (True, "told")
            assert repr(subscription) == f"<rawws.sync.TopicSubscription 'told' at '{last}'>"
        assert [each.message for each in hub.history("told", since=cursors[0], limit=1)] == ["Grüße"]
        assert hub.presence("told").count == 0
        assert hub.call("double", 21) == 42
        assert (hub.state, hub.transport, repr(hub)) == ("open", transport, "<rawws.sync.HubClient open>")
        hub.wait_open()
        with pytest.raises(rawws.HubError, match="refused"):
            hub.publish("secret", "x")
        with pytest.raises(rawws.HubError, match="refused"):
            hub.subscribe("secret").ready()
    assert hub.wait_closed().code == "closed"
    eventually(lambda: served.count("told") == 0)
    with pytest.raises(rawws.HubError, match="closed"):
        hub.publish("told", "x")
    with pytest.raises(rawws.HubError, match="closed"):
        hub.subscribe("told")
    hub.close()


def test_an_iteration_goes_on_until_the_client_is_closed_in_another_thread(served: Served) -> None:
    with ThreadPoolExecutor(1) as pool:
        hub = rawws.sync.HubClient(served.url)
        subscription = hub.subscribe("told", since="earliest")
        hub.publish("told", "one")
        found = pool.submit(lambda: [publication.message for publication in subscription])
        eventually(lambda: subscription.cursor != "")
        hub.close()
        assert found.result(60) == ["one"]
        with pytest.raises(rawws.HubError, match="closed: the subscription was closed"):
            subscription.recv()


def test_a_time_limit_or_an_interrupt_loses_nothing(served: Served) -> None:
    with rawws.sync.HubClient(served.url) as hub:
        subscription = hub.subscribe("told")
        subscription.ready()
        for seconds in (0, 0.01):
            with pytest.raises(TimeoutError):
                subscription.recv(timeout=seconds)
        with interrupted(), pytest.raises(KeyboardInterrupt):
            subscription.recv()
        hub.publish("told", "after")
        assert subscription.recv(timeout=60).message == "after"
        with pytest.raises(TimeoutError, match=r"no answer of the hub within 0\.01 s"):
            hub.call("never", timeout=0.01)


@contextmanager
def interrupted() -> Iterator[None]:
    """Interrupt the main thread, once, by signals that come until it is."""
    done = threading.Event()

    def take(*_: object) -> None:
        if not done.is_set():
            done.set()
            raise KeyboardInterrupt

    def send() -> None:
        # One that comes just before the thread begins to wait does not wake it.
        while not done.wait(0.05):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    before, thread = signal.signal(signal.SIGINT, take), threading.Thread(target=send)
    try:
        thread.start()
        yield
    finally:
        done.set()
        thread.join()
        signal.signal(signal.SIGINT, before)


def test_without_a_server_each_call_gives_up_in_time_and_what_was_not_sent_is_not_sent_later(
    coming_back: None,
) -> None:
    nowhere = f"ws://{LOOPBACK}:{free_port()}/"
    states: list[HubState] = []
    with rawws.sync.HubClient(nowhere, **HASTY, on_state=states.append) as hub:
        for work in (
            lambda: hub.wait_open(0.05),
            lambda: hub.publish("told", "x", timeout=0.05),
            lambda: hub.history("told", timeout=0),
            lambda: hub.presence("told", timeout=0),
            lambda: hub.subscribe("told").ready(0.05),
        ):
            with pytest.raises(TimeoutError, match="no answer of the hub within"):
                work()
        assert hub.state == "connecting"
    assert {state.state for state in states} == {"connecting", "closed"}
    with pytest.raises(ValueError, match="queue is 0"):
        rawws.sync.HubClient(nowhere, queue=0)
    # A time limit of the network's is its own.
    with rawws.sync.HubClient(
        nowhere, token=fail_with(TimeoutError("no login")), reconnect_delays=lambda: iter([])
    ) as hub:
        assert hub.wait_closed(20).code == "failed"


def fail_with(error: Exception) -> Any:
    def fail() -> str:
        raise error

    return fail


def test_threads_share_one_client_and_each_finds_its_own_in_order(served: Served) -> None:
    with rawws.sync.HubClient(served.url) as hub, hub.subscribe("told", since="earliest") as subscription:

        def work(name: int) -> None:
            for number in range(50):
                hub.publish("told", [name, number])

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(work, range(4)))
        found = [subscription.recv(timeout=60).json() for _ in range(200)]
        for name in range(4):
            assert [number for each, number in found if each == name] == list(range(50))


def test_the_server_calls_functions_that_may_take_their_time(served: Served) -> None:
    def token() -> str:
        # In the thread of `rawws.sync`, this would wait for itself.
        with rawws.sync.HubClient(served.url) as other:
            return f"token {other.call('double', 1)}"

    threads: list[str] = []
    with rawws.sync.HubClient(served.url, token=token) as hub:
        subscription = hub.subscribe("told")
        subscription.ready()

        @hub.on_call("publish")
        def publish(data: Any) -> Any:
            threads.append(threading.current_thread().name)
            return hub.publish("told", data)

        @hub.on_call("later")
        async def later(data: Any) -> Any:
            await asyncio.sleep(0)
            threads.append(threading.current_thread().name)
            return data

        assert served.clients[-1].token == "token 2"
        assert served.call("publish", "x") == subscription.recv(timeout=60).cursor
        assert served.call("later", [1]) == [1]
        assert threads[0] != "rawws.sync" == threads[1]


def test_who_is_present_is_known_and_told(served: Served) -> None:
    told: list[int] = []
    with rawws.sync.HubClient(served.url) as ann, rawws.sync.HubClient(served.url) as bob:
        here = ann.subscribe("room", join="Ann", on_presence=lambda presence: told.append(presence.count))
        here.ready()
        bob.subscribe("room", join="Bob").ready()
        eventually(lambda: here.count == 1)
        assert (here.present in here.members, told[0]) == (True, 1)


def test_one_that_nobody_has_any_more_ends_but_not_while_a_subscription_is_read(served: Served) -> None:
    subscription = rawws.sync.HubClient(served.url).subscribe("told", since="earliest")
    gc.collect()
    with rawws.sync.HubClient(served.url) as hub:
        hub.publish("told", "x")
    assert subscription.recv(timeout=60).message == "x"
    del subscription
    gc.collect()
    eventually(lambda: served.count("told") == 0)


def test_a_child_begins_its_own_unless_its_parent_did(served: Served) -> None:
    text = """
import os, sys, rawws.sync
early, late = rawws.sync.HubClient(sys.argv[1]), rawws.sync.HubClient(sys.argv[1])
early.publish("told", "parent")
pid = os.fork()
if not pid:
    late.publish("told", "child")
    try:
        early.publish("told", "never")
    except RuntimeError as error:
        os.write(1, str(error).encode() + b"\\n")
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
print([publication.message for publication in early.history("told")])
"""
    assert script(text, served.url).splitlines() == [
        "the connection belongs to the process that forked this one, or the interpreter ends",
        "['parent', 'child']",
    ]


def test_the_end_of_the_interpreter_closes_what_is_open(served: Served) -> None:
    text = """
import sys, threading, rawws.sync
hub = rawws.sync.HubClient(sys.argv[1])
subscription = hub.subscribe("told")
subscription.ready()
begun = threading.Event()
def work():
    begun.set()
    for publication in subscription:
        print(publication.message)
threading.Thread(target=work, daemon=True).start()
begun.wait()
print(hub.state)
"""
    assert script(text, served.url) == "open\n"
    eventually(lambda: served.count("told") == 0)
