"""Topics: a URL of a hub to what is published there, over as many connections as it takes (docs/use/rawws.v1.md).

Laws:
1. What is lost is a connection, and no publication: the next one goes on behind what came, or tells that it cannot.
2. What may heal is tried again, ever later; what the server refused ends the client, with an error that says so.
3. After `aclose` there is no task, no connection, and nobody who waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from rawws import clock
from rawws.errors import ConnectionClosed, HubError, InvalidStatus, LocalProtocolError
from rawws.net.cancellation import cancel_all
from rawws.net.options import options_for
from rawws.protocol.opcodes import CloseCode

from .envelopes import channel_key, message_fields
from .hub_http_links import PollLink, StreamLink
from .hub_links import AnswerTooLargeError, HubAddress, WebSocketLink
from .hub_requests import HubRequests
from .options import HubOptions, HubState
from .retrying import STABLE, is_permanent, retry_after
from .subscriptions import (
    SLOW_POLICIES,
    Channel,
    ReceivedPublication,
    SubscriptionStart,
    TopicHistory,
    TopicPresence,
    TopicReceiver,
    received_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Unpack

    from .envelopes import HubEnvelope, TopicMember
    from .hub_links import HubLink
    from .options import HubKeywords

__all__ = ["ABSENT", "HubClient", "TopicSubscription"]

Function = TypeVar("Function", bound="Callable[[Any], Any]")
# Stands for what a program tells of itself that is not present: all else is JSON.
ABSENT: Final = object()
UNAUTHORIZED: Final = 401
# What a server closes with that lets in nobody, as statuses: 3000 and 3003 are IANA's, 44xx is common use.
REFUSALS: Final = {3000: 401, 3003: 403, 4401: 401, 4403: 403, 4404: 404}
# So many failures that no server explains, and the next transport has its turn.
STRIKES = 2
# Until a better transport is tried again, in seconds: for the first time, then twice as long each time, and at most.
BETTER_FIRST = 2.0
BETTER_LAST = 600.0


@final
class HubClient:
    """Topics of a hub elsewhere: `async with rawws.HubClient(url) as hub`, and then subscribe and publish.

    It connects by a WebSocket, or where a proxy lets none through, by an event stream or by polls, with posts beside
    them; and again and again, after waits that are random and grow from failure to failure. Subscriptions go on behind
    what came last.

    `url` begins with ws://, wss://, http:// or https://. `token` goes into it as `?token=`: a str, or a function,
    `async` or not, that is asked for one at each connection. `transports` names those that are used, the best first.
    `on_state(HubState)` is told of each change. At most `queue` requests and `queue_size` bytes of them wait for an
    answer; at most `buffer` publications and `buffer_size` bytes of messages for the reader of each subscription. The
    other options are those of `connect`.

    Where the server lets nobody in (401, 403, 404, or a close code that says so), or it never heals, the client ends:
    all that waits raises HubError with the code "refused" or "failed".
    """

    __slots__ = (
        "_better",
        "_channels",
        "_end",
        "_functions",
        "_hopeless",
        "_level",
        "_link",
        "_opened_at",
        "_reached",
        "_requests",
        "_state",
        "_strikes",
        "_task",
        "_tried",
        "_turn",
        "_warned",
        "address",
        "options",
    )

    def __init__(self, url: str, **options: Unpack[HubKeywords]) -> None:
        self.options = chosen = options_for("HubClient", HubOptions, **options)
        self.address = HubAddress(url, chosen)
        self._channels: dict[str, Channel] = {}
        self._requests = HubRequests(chosen.queue, chosen.queue_size)
        self._functions: dict[str, Callable[[Any], Any]] = {}
        self._link: HubLink | None = None
        self._task: asyncio.Task[None] | None = None
        self._state = HubState("connecting")
        # Set at the next change of the state.
        self._turn = asyncio.Event()
        # Why it is over, None while it is not.
        self._end: HubError | None = None
        # Which transport is in use, how often it failed, and how often a better one was tried.
        self._level = 0
        self._strikes = 0
        self._tried = 0
        # Those that answered what would not heal, while nothing else came.
        self._hopeless: set[str] = set()
        self._better = BETTER_FIRST
        # Whether the hub has ever said something, and when the connection in use did first, 0.0 if it did not.
        self._reached = False
        self._opened_at = 0.0
        # Why it could not connect, as the log has it since it last could.
        self._warned = ""

    def __repr__(self) -> str:
        return f"<rawws.HubClient {self._state.state}, {len(self._channels)} topics>"

    # -- what users call

    @property
    def state(self) -> str:
        """What it is: "connecting" or "open", at the end "refused", "failed" or "closed"."""
        return self._state.state

    @property
    def transport(self) -> str | None:
        """What it is connected by: "websocket", "stream" or "poll", None where it is not."""
        return self._state.transport

    async def __aenter__(self) -> HubClient:
        if self._task is not None or self._end is not None:
            raise LocalProtocolError("the client was used already, it can be entered once")
        self._task = asyncio.ensure_future(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End: close the connection. Subscriptions end behind what came, and whoever waits for an answer is told."""
        self._finish(HubError("closed", "the client was closed"), "closed")
        if self._task is not None:
            await cancel_all(self._task)

    async def wait_open(self) -> None:
        """Wait until it is connected. Raises HubError where it ends before."""
        while self._state.state != "open":
            self._check()
            await self._turn.wait()

    async def wait_closed(self) -> HubError:
        """Wait until it is over, and return why: refused, failed or closed."""
        while self._end is None:
            await self._turn.wait()
        return self._end

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
        """Subscribe to a topic: `async for publication in hub.subscribe(topic)`.

        It returns at once, and begins when there is a connection; all subscriptions to a topic share what that brings.
        `since` is the cursor of the last publication that is known, or "earliest"; without it, there is what comes from
        now on. `join` is what others are told of this program, any JSON: it is present. With `watch`, the subscription
        knows who is present, and `on_presence(TopicPresence)` is called when that changes. With `pattern`, the topic is
        the beginning of names and a `*`: `news/*` is for all topics whose names begin with "news/", each publication
        says its `topic`, and there is no presence.

        `policy` says what becomes of publications for which there is no room: with "resume" they are asked for again
        when there is, which loses none that the hub still holds; "drop_oldest" drops what waited longest, and tells it
        as a gap; with "disconnect" the iteration raises HubError with the code "slow" behind what waits.
        """
        self._check()
        if self._task is None:
            raise LocalProtocolError("the client is not connected, begin with: async with rawws.HubClient(url) as hub")
        if not isinstance(topic, str):
            raise TypeError(f"the topic is {type(topic).__name__}, allowed is str")
        if policy not in SLOW_POLICIES:
            raise ValueError(f"the policy is {policy!r}, allowed are {', '.join(SLOW_POLICIES)}")
        told = None if join is ABSENT else json.dumps(join, ensure_ascii=False, allow_nan=False)
        watch = watch or on_presence is not None
        if pattern and (watch or told is not None):
            raise HubError("pattern", "presence is that of a topic, a pattern has neither join nor watch")
        key = channel_key(topic, pattern=pattern)
        channel = self._channels.get(key)
        if channel is None:
            channel = Channel(topic, self._complain, pattern=pattern)
        before = channel.told
        if told is not None and before is not None and told != before:
            raise HubError("limit", f"{topic} was joined by {before}")
        limits = self.options.buffer, self.options.buffer_size
        receiver = TopicReceiver(topic, since or "", told, policy, limits, on_presence)
        # What the connection brings already is shared at once; for more than that, it is asked anew.
        more = (told is not None and before is None) or watch > channel.watch
        shared = channel.wanted and not more and receiver.cursor in {"", channel.cursor}
        self._channels[key] = channel
        channel.receivers[receiver] = None
        channel.watch = channel.watch or watch
        if shared:
            asyncio.get_running_loop().call_soon(channel.admit, receiver)
        else:
            self._enter(channel)
        return TopicSubscription(self, channel, receiver)

    async def publish(
        self, topic: str, message: Any, *, key: str | None = None, event: str | None = None, exclude: bool = False
    ) -> str:
        """Publish a message; return the cursor of the publication when it has its place.

        str is published as text, bytes-like as binary, a dict, list, tuple, int, float, bool or None as JSON; `event`
        is the name of an event, which goes with it. Publications arrive in the order of the calls. Without a
        connection, they wait for one. `key` says what it is about: for slow subscribers, the hub may keep only the
        latest of each. With `exclude`, this client does not get it back; that needs a WebSocket.

        Raises HubError: what the hub refused, "queue" where too much waits already, "unanswered" where the connection
        broke before the answer, so that it may be published or not.
        """
        fields = {"publish": topic, **message_fields(message), "event": event, "key": key}
        return (await self._ask({**fields, "exclude": exclude or None})).cursor

    async def presence(self, topic: str) -> TopicPresence:
        """Return who is present in a topic. Raises HubError as `publish` does."""
        found = await self._ask({"presence": topic})
        return TopicPresence(found.members or {}, found.total, found.users)

    async def history(
        self, topic: str, *, since: str | None = None, before: str | None = None, limit: int | None = None
    ) -> TopicHistory:
        """Return what the hub holds of a topic: the last publications, those before a cursor, or the first ones behind.

        They are at most `limit`, by default 100, and of 512 KiB in all. Raises HubError as `publish` does.
        """
        found = await self._ask({"history": topic, "since": since, "before": before, "limit": limit})
        publications = tuple(received_of(topic, each) for each in found.publications)
        return TopicHistory(publications, found.cursor, bool(found.recovered))

    async def call(self, name: str, data: Any = None) -> Any:
        """Call a function of the server with any JSON, and return what it returns. Raises HubError as `publish` does.

        Its codes are the function's own, or "call" where there is none of this name, "failed" and "timeout".
        """
        return (await self._ask({"call": name, "data": data})).result

    def on_call(self, name: str) -> Callable[[Function], Function]:
        """Have the server call a function by this name: `@client.on_call("name")`.

        The function, `async` or not, gets any JSON and returns any. What it raises fails the call; a HubError tells its
        code and reason. Calls come over WebSockets alone, and are cancelled with the connection.
        """

        def register(function: Function) -> Function:
            self._functions[name] = function
            return function

        return register

    # -- what its subscriptions call

    def unsubscribe(self, channel: Channel, receiver: TopicReceiver) -> None:
        """End a subscription; its topic is left with the last one."""
        told = channel.told
        receiver.end()
        if channel.receivers.pop(receiver, self) is self:
            return
        if not channel.receivers:
            self._channels.pop(channel.key, None)
            if self._link is not None:
                self._link.leave(channel)
        elif channel.told != told:
            self._enter(channel)

    def resume(self, channel: Channel) -> None:
        """Have a subscription brought what it missed while it was full."""
        if channel.receivers:
            self._enter(channel)

    # -- requests

    async def _ask(self, fields: dict[str, Any]) -> HubEnvelope:
        self._check()
        if self._task is None:
            raise LocalProtocolError("the client is not connected, begin with: async with rawws.HubClient(url) as hub")
        request = self._requests.ask(fields)
        if self._opened_at and self._link is not None:
            self._link.flush()
        try:
            return await request.future
        finally:
            self._requests.forget(request)

    def _enter(self, channel: Channel) -> None:
        channel.live = False
        if self._link is not None:
            self._link.enter(channel)

    def _check(self) -> None:
        """Raise what ended the client."""
        if self._end is not None:
            error = HubError(self._end.code, self._end.reason, self._end.status)
            raise error from self._end.__cause__

    # -- one connection after another

    async def _run(self) -> None:
        waits = self.options.reconnect_delays()
        while self._end is None:
            self._opened_at = 0.0
            try:
                failure: Exception = await self._connect()
            except Exception as error:  # noqa: BLE001 - all that can go wrong on the way to a server
                failure = error
            opened = self._opened_at > 0
            stable = opened and clock.monotonic() - self._opened_at >= STABLE
            self._leave()
            if stable:
                waits = self.options.reconnect_delays()
                self._strikes = 0
                if not self._level:
                    self._better = BETTER_FIRST
            end = self._judge(failure, opened=opened, early=not stable)
            if end is None:
                await self._wait(failure, waits, opened=opened)
            else:
                end.__cause__ = failure
                self._finish(end, end.code if end.code == "refused" else "failed")

    async def _connect(self) -> Exception:
        """Connect by the transport in use, or a better one when that works, and raise why that ended."""
        link = await self._make(self._level)
        while self._level:
            serving = asyncio.ensure_future(self._serve(link))
            finding = asyncio.ensure_future(self._find_better())
            try:
                await asyncio.wait([serving, finding], return_when=asyncio.FIRST_COMPLETED)
                await cancel_all(serving, finding)
            except asyncio.CancelledError:
                finding.add_done_callback(drop_found)
                await cancel_all(serving, finding)
                raise
            if finding.cancelled():
                serving.result()
            # It takes over, and failed before.
            self._leave()
            self._level, link = finding.result()
            self._strikes = STRIKES - 1
        await self._serve(link)
        raise AssertionError("a link ends by raising")

    async def _make(self, level: int) -> HubLink:
        """Return a link by one of the transports."""
        address, channels, requests = self.address, self._channels, self._requests
        kind = self.options.transports[level]
        if kind == "websocket":
            ws = await address.dial()
            return WebSocketLink(ws, address, channels, requests, self._opened, self._functions)
        return (StreamLink if kind == "stream" else PollLink)(address, channels, requests, self._opened)

    async def _serve(self, link: HubLink) -> None:
        self._link = link
        await link.run()

    async def _find_better(self) -> tuple[int, HubLink]:
        """Try the better transports beside the one in use, in turn, until one works; return which, and a link by it."""
        while True:
            await asyncio.sleep(self._better * random.uniform(0.5, 1))  # noqa: S311 - it is no secret
            self._better = min(2 * self._better, BETTER_LAST)
            level = self._tried % self._level
            self._tried += 1
            with contextlib.suppress(Exception):  # it is tried again
                link = await self._make(level)
                await link.prove()
                return level, link

    def _opened(self, link: HubLink) -> None:
        """Take note that something came over a connection: it works so far."""
        if link is not self._link or self._opened_at:
            return
        self._opened_at = clock.monotonic()
        self._reached = True
        self._warned = ""
        self._hopeless.clear()
        self._tell(HubState("open", link.kind))
        link.flush()

    def _leave(self) -> None:
        """Forget a connection that is gone."""
        self._link = None
        self._opened_at = 0.0
        for channel in self._channels.values():
            channel.leave()
        self._requests.lose()

    def _judge(self, failure: Exception, *, opened: bool, early: bool) -> HubError | None:
        """Return the error that ends the client, None where trying again may help; have another transport its turn."""
        status = self._refusal(failure)
        # A connection that worked is closed when its token ends: the next one asks for another.
        if status and not (opened and status == UNAUTHORIZED and callable(self.options.token)):
            return HubError("refused", f"the server let nobody in: {failure}", status)
        closed = failure.sent if isinstance(failure, ConnectionClosed) else None
        too_large = closed is not None and closed.code == CloseCode.MESSAGE_TOO_BIG
        if too_large or isinstance(failure, AnswerTooLargeError):
            return HubError("failed", f"the server sent more than max_size, {self.options.max_size} bytes, at once")
        transports = self.options.transports
        permanent = is_permanent(failure) and (not self._reached or isinstance(failure, ConnectionClosed))
        if permanent:
            self._hopeless.add(transports[self._level])
            if len(self._hopeless) == len(transports):
                return HubError("failed", str(failure))
        # A server that says goodbye, or is not there, is no proxy that breaks something.
        goodbye = isinstance(failure, ConnectionClosed) and failure.rcvd is not None
        absent = isinstance(failure, OSError) and not isinstance(failure, (TimeoutError, ConnectionResetError))
        if early and (permanent or not (goodbye or absent)):
            self._strikes += 1
        if self._strikes >= STRIKES or permanent:
            self._strikes = 0
            self._level = (self._level + 1) % len(transports)
        return None

    def _refusal(self, failure: Exception) -> int:
        """Return the status by which a server lets nobody in, 0 where that is not so."""
        if isinstance(failure, ConnectionClosed):
            return 0 if failure.rcvd is None else REFUSALS.get(failure.rcvd.code, 0)
        if not isinstance(failure, InvalidStatus):
            return 0
        # Behind a proxy that has nobody for a moment, a program that worked goes on.
        known = {401, 403} if self._reached else {401, 403, 404}
        return failure.status if failure.status in known else 0

    async def _wait(self, failure: Exception, waits: Iterator[float], *, opened: bool) -> None:
        """Wait before the next connection; end where there is none."""
        seconds = next(waits, None)
        if seconds is None:
            end = HubError("failed", str(failure))
            end.__cause__ = failure
            self._finish(end, "failed")
            return
        seconds += retry_after(failure)
        self._log(str(failure) or type(failure).__name__, seconds, opened=opened)
        self._tell(HubState("connecting", None, str(failure)))
        if self.options.on_retry is not None:
            self.options.on_retry(failure, seconds)
        await asyncio.sleep(seconds)

    def _log(self, reason: str, seconds: float, *, opened: bool) -> None:
        """Log why it connects again: a warning where it could not connect, once for each reason in a row."""
        is_known = opened or reason == self._warned
        if not opened:
            self._warned = reason
        level = logging.INFO if is_known else logging.WARNING
        words = "connecting to the hub at %s again in %.1f s: %s"
        self.address.logger.log(level, words, self.address.authority, seconds, reason)

    def _finish(self, error: HubError, state: str) -> None:
        """End all that waits."""
        if self._end is not None:
            return
        self._end = error
        self._requests.lose()
        self._requests.end(error)
        for channel in self._channels.values():
            channel.end(None if state == "closed" else error)
        self._channels.clear()
        self._tell(HubState(state, None, error.reason, error.status))

    def _tell(self, state: HubState) -> None:
        self._state = state
        turn, self._turn = self._turn, asyncio.Event()
        turn.set()
        if self.options.on_state is not None:
            try:
                self.options.on_state(state)
            except Exception as error:  # noqa: BLE001 - whatever it raises, the connection goes on
                self._complain("on_state", error)

    def _complain(self, callback: str, error: Exception) -> None:
        """Log what a callback raised, which disturbs nobody else."""
        self.address.logger.error("%s raised", callback, exc_info=error)


@final
class TopicSubscription:
    """A subscription to a topic: `async for publication in subscription` gives each ReceivedPublication.

    It ends when the client is closed, behind what came, and raises HubError where the hub refuses the topic, or the
    client ends by an error. One task at a time may wait; one that is cancelled loses nothing. It is left by `close`, at
    the end of an `async with` block, or when nobody has it any more: after a `break` out of `async for publication in
    hub.subscribe(topic)`, for example.
    """

    __slots__ = ("_busy", "_channel", "_hub", "_loop", "_receiver", "cursor", "topic")

    def __init__(self, hub: HubClient, channel: Channel, receiver: TopicReceiver) -> None:
        self._hub = hub
        self._channel = channel
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()
        self._busy = False
        self.topic = receiver.topic
        #: Behind which publication it is, of those that were handed over: `since` of another time.
        self.cursor = receiver.cursor

    def __repr__(self) -> str:
        return f"<rawws.TopicSubscription {self.topic!r} at {self.cursor!r}>"

    def __aiter__(self) -> TopicSubscription:
        return self

    async def __anext__(self) -> ReceivedPublication:
        if self._busy:
            raise LocalProtocolError("another task waits for the next publication already")
        self._busy = True
        try:
            publication = await self._receiver.next(lambda: self._hub.resume(self._channel))
        finally:
            self._busy = False
        if publication is None:
            raise StopAsyncIteration
        self.cursor = publication.cursor or self.cursor
        return publication

    async def ready(self) -> SubscriptionStart:
        """Wait until the hub has accepted it; return where it begins. Raises HubError where it does not."""
        return await asyncio.shield(self._receiver.started)

    @property
    def members(self) -> dict[str, TopicMember]:
        """Who is present, with `watch`: ids, with who that is; at most 1,000."""
        return self._channel.members

    @property
    def count(self) -> int:
        """How many are present, with `watch`."""
        return self._channel.count

    @property
    def present(self) -> str | None:
        """The own id among those who are present, with `join`."""
        return self._channel.present

    def close(self) -> None:
        """End it at once: what waits is dropped."""
        self._hub.unsubscribe(self._channel, self._receiver)
        self._receiver.drop()

    async def __aenter__(self) -> TopicSubscription:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # It may be collected in any thread, and after the loop's end.
        if not self._receiver.over:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._hub.unsubscribe, self._channel, self._receiver)


def drop_found(finding: asyncio.Task[tuple[int, HubLink]]) -> None:
    """Drop a link that was found when nobody needed it any more."""
    if not finding.cancelled() and finding.exception() is None:
        finding.result()[1].drop()
