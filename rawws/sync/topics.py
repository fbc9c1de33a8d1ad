"""Topics without asyncio: what a thread calls, to what a `HubClient` does in the background (docs/use/hub-client.md).

Laws:
1. Each call is one coroutine in the background, and raises what that raises.
2. What comes as a time limit passes, or Ctrl-C, is given to the next call.
3. What a program has the client call, and takes its time, runs in a thread of its own: it holds up nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, final

from rawws.client.topics import ABSENT
from rawws.client.topics import HubClient as AsyncHubClient
from rawws.errors import HubError

from .background import background

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType
    from typing import Unpack

    from rawws.client.envelopes import TopicMember
    from rawws.client.options import HubKeywords
    from rawws.client.subscriptions import ReceivedPublication, SubscriptionStart, TopicHistory, TopicPresence
    from rawws.client.topics import TopicSubscription as AsyncTopicSubscription

    from .background import BackgroundLoop

__all__ = ["HubClient", "TopicSubscription"]

Function = TypeVar("Function", bound="Callable[[Any], Any]")
Result = TypeVar("Result")

# How long a call waits for an answer where it is not told: as `rawws.sync.publish` does, in seconds.
TIMEOUT = 10.0


@final
class HubClient:
    """Topics of a hub elsewhere: `with rawws.sync.HubClient(url) as hub`, and then subscribe and publish.

    It is `rawws.HubClient`, with its options, whose calls wait. It begins with its first call, in the process that
    makes it, and several threads may use it. `token`, and what `on_call` registers, may take their time; the other
    functions that it is given are called in the thread of `rawws.sync`, and must return at once.

    Each call raises TimeoutError after `timeout` seconds (None waits for ever), and HubError where the client has
    ended. In a child that was forked after the first call, it raises RuntimeError.
    """

    __slots__ = ("_client", "_lock", "_loop")

    def __init__(self, url: str, **options: Unpack[HubKeywords]) -> None:
        token = options.get("token", "")
        if callable(token) and not inspect.iscoroutinefunction(token):
            options["token"] = in_a_thread(token)
        self._client = AsyncHubClient(url, **options)
        self._lock = threading.Lock()
        self._loop: BackgroundLoop | None = None

    def __repr__(self) -> str:
        return f"<rawws.sync.HubClient {self._client.state}>"

    def __enter__(self) -> HubClient:
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # It may be collected in any thread, as the loop ends, and in a child; where the arguments were wrong, it is
        # not complete.
        loop = getattr(self, "_loop", None)
        if loop is not None:
            client = self._client
            with contextlib.suppress(RuntimeError):
                loop.begin(lambda: loop.loop.create_task(client.aclose()))

    # -- what users call

    @property
    def state(self) -> str:
        """What it is: "connecting" or "open", at the end "refused", "failed" or "closed"."""
        return self._client.state

    @property
    def transport(self) -> str | None:
        """What it is connected by: "websocket", "stream" or "poll", None where it is not."""
        return self._client.transport

    def close(self) -> None:
        """End: close the connection. Subscriptions end behind what came, and whoever waits for an answer is told."""
        (self._loop or background()).run(self._client.aclose())

    def wait_open(self, timeout: float | None = TIMEOUT) -> None:
        """Wait until it is connected."""
        self._run(self._client.wait_open, timeout)

    def wait_closed(self, timeout: float | None = None) -> HubError:
        """Wait until it is over, and return why: refused, failed or closed."""
        return self._run(self._client.wait_closed, timeout)

    def subscribe(
        self,
        topic: str,
        *,
        since: str | None = None,
        join: Any = ABSENT,
        watch: bool = False,
        policy: str = "resume",
        on_presence: Callable[[TopicPresence], object] | None = None,
        pattern: bool = False,
    ) -> TopicSubscription:
        """Subscribe to a topic: `for publication in hub.subscribe(topic)`; all is as in `rawws.HubClient.subscribe`."""

        async def subscribed() -> AsyncTopicSubscription:
            return self._client.subscribe(
                topic, since=since, join=join, watch=watch, policy=policy, on_presence=on_presence, pattern=pattern
            )

        loop = self._begin()
        return TopicSubscription(loop.run(subscribed()), self, loop)

    def publish(
        self,
        topic: str,
        message: Any,
        *,
        key: str | None = None,
        event: str | None = None,
        exclude: bool = False,
        timeout: float | None = TIMEOUT,
    ) -> str:
        """Publish a message; return the cursor of the publication when it has its place.

        It is what `rawws.HubClient.publish` does. After a TimeoutError, it may be published or not; what was not sent
        by then is not sent any more.
        """
        work = partial(self._client.publish, topic, message, key=key, event=event, exclude=exclude)
        return self._run(work, timeout)

    def presence(self, topic: str, *, timeout: float | None = TIMEOUT) -> TopicPresence:
        """Return who is present in a topic. Raises HubError as `publish` does."""
        return self._run(partial(self._client.presence, topic), timeout)

    def history(
        self,
        topic: str,
        *,
        since: str | None = None,
        before: str | None = None,
        limit: int | None = None,
        timeout: float | None = TIMEOUT,
    ) -> TopicHistory:
        """Return what the hub holds of a topic, as `rawws.HubClient.history` does."""
        return self._run(partial(self._client.history, topic, since=since, before=before, limit=limit), timeout)

    def call(self, name: str, data: Any = None, *, timeout: float | None = TIMEOUT) -> Any:
        """Call a function of the server with any JSON, and return what it returns."""
        return self._run(partial(self._client.call, name, data), timeout)

    def on_call(self, name: str) -> Callable[[Function], Function]:
        """Have the server call a function by this name: `@client.on_call("name")`.

        It gets any JSON and returns any, in a thread of its own where it is not `async`. All else is as in
        `rawws.HubClient.on_call`; what a function does whose connection is gone goes on, and nobody hears of it.
        """

        def register(function: Function) -> Function:
            self._client.on_call(name)(function if inspect.iscoroutinefunction(function) else in_a_thread(function))
            return function

        return register

    # -- inside

    def _begin(self) -> BackgroundLoop:
        """Have the client run, in the loop of this process."""
        with self._lock:
            if self._loop is None:
                loop = background()
                loop.run(self._client.__aenter__())
                self._loop = loop
        return self._loop

    def _run(self, work: Callable[[], Coroutine[Any, Any, Result]], timeout: float | None) -> Result:
        return run_within(self._begin(), work, timeout)


@final
class TopicSubscription:
    """A subscription to a topic: `for publication in subscription` gives each ReceivedPublication.

    It ends when the client is closed, behind what came, and raises HubError where the hub refuses the topic, or the
    client ends by an error. One thread at a time may wait. It is left by `close`, at the end of a `with` block, or when
    nobody has it any more.
    """

    __slots__ = ("_hub", "_loop", "_received", "_subscription")

    def __init__(self, subscription: AsyncTopicSubscription, hub: HubClient, loop: BackgroundLoop) -> None:
        self._subscription = subscription
        # Nobody else may have it, and it ends with who has it.
        self._hub = hub
        self._loop = loop
        # At most one, which nobody took; None is the end.
        self._received: deque[ReceivedPublication | None] = deque()

    def __repr__(self) -> str:
        return f"<rawws.sync.TopicSubscription {self.topic!r} at {self.cursor!r}>"

    def __enter__(self) -> TopicSubscription:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> TopicSubscription:
        return self

    def __next__(self) -> ReceivedPublication:
        publication = self._next(None)
        if publication is None:
            raise StopIteration
        return publication

    def recv(self, timeout: float | None = None) -> ReceivedPublication:
        """Wait for the next publication.

        Raises TimeoutError after `timeout` seconds, and loses nothing; HubError with the code "closed" behind the last
        one; LocalProtocolError where another thread waits already.
        """
        publication = self._next(timeout)
        if publication is None:
            raise HubError("closed", "the subscription was closed")
        return publication

    def ready(self, timeout: float | None = TIMEOUT) -> SubscriptionStart:
        """Wait until the hub has accepted it; return where it begins. Raises HubError where it does not."""
        return run_within(self._loop, self._subscription.ready, timeout)

    def close(self) -> None:
        """End it at once: what waits is dropped."""

        async def closed() -> None:
            self._subscription.close()

        self._loop.run(closed())

    @property
    def topic(self) -> str:
        """The topic, or the pattern."""
        return self._subscription.topic

    @property
    def cursor(self) -> str:
        """Behind which publication it is, of those that were handed over: `since` of another time."""
        return self._subscription.cursor

    @property
    def members(self) -> dict[str, TopicMember]:
        """Who is present, with `watch`: ids, with who that is; at most 1,000."""
        return self._subscription.members

    @property
    def count(self) -> int:
        """How many are present, with `watch`."""
        return self._subscription.count

    @property
    def present(self) -> str | None:
        """The own id among those who are present, with `join`."""
        return self._subscription.present

    def _next(self, timeout: float | None) -> ReceivedPublication | None:
        self._loop.run(self._receive(timeout))
        return self._received.popleft()

    async def _receive(self, timeout: float | None) -> None:  # noqa: ASYNC109 - that of recv
        if not self._received:
            async with asyncio.timeout(timeout):
                self._received.append(await anext(self._subscription, None))


def run_within(loop: BackgroundLoop, work: Callable[[], Coroutine[Any, Any, Result]], timeout: float | None) -> Result:
    """Have the loop do something within so many seconds, and wait for it. Raises TimeoutError, and what that raises."""

    async def limited() -> Result:
        try:
            async with asyncio.timeout(timeout) as limit:
                return await work()
        except TimeoutError:
            if not limit.expired():
                raise
            raise TimeoutError(f"no answer of the hub within {timeout:g} s") from None

    return loop.run(limited())


def in_a_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that runs another one in a thread, and awaits what that returns where it is awaitable."""

    async def run(*arguments: Any) -> Any:
        value = await asyncio.to_thread(function, *arguments)
        return await value if inspect.isawaitable(value) else value

    return run
