"""Hub links: a URL of a hub to what it says over one connection, and what all kinds of these have; a WebSocket.

Laws:
1. A link lives as long as its connection: `run` returns never, and raises why it ended.
2. What comes before the answer to the last request for a topic is of an earlier one, and is passed over.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import secrets
from typing import TYPE_CHECKING, Any, Final, Protocol, final
from urllib.parse import quote

from rawws.errors import HubError, InvalidURI, NegotiationError, RawwsError
from rawws.net.cancellation import cancel_all
from rawws.net.logs import without_userinfo
from rawws.protocol.http11 import Headers, Request, serialize_request

from .connect import connect
from .dialing import TransportOptions
from .envelopes import parse_envelope, serialize_request_fields
from .events import events
from .publishing import exchange
from .redirects import added_headers
from .uri import HTTP, parse_uri

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rawws.http.responses import Received
    from rawws.net.websocket import WebSocket

    from .dialing import InMemory
    from .envelopes import HubEnvelope
    from .hub_requests import HubRequests
    from .options import HubOptions, LocatedKeywords
    from .subscriptions import Channel

__all__ = ["TURN", "AnswerTooLargeError", "ChannelLink", "HubAddress", "HubLink", "WebSocketLink"]

PROTOCOL: Final = "rawws.v1"
# So many messages at once, and then those who wait for them have their turn.
TURN = 64
# Calls of the server that are answered at a time; a server makes no more. What they take together, in characters; one
# alone is never too large.
MAX_CALLS = 100
MAX_CALLS_SIZE = 1 << 20
# A stream brings a comment every 15 s; one that is silent for so long, in seconds, is lost.
SILENCE = 40.0


class AnswerTooLargeError(RawwsError):
    """What the server sent is larger than `max_size`: it would come again."""


class HubLink(Protocol):
    """A connection to a hub, as the client uses it."""

    @property
    def kind(self) -> str:
        """Its name among the transports."""

    def enter(self, channel: Channel) -> None:
        """Have it bring a topic too, or bring it anew."""

    def leave(self, channel: Channel) -> None:
        """Have it bring a topic no more."""

    def flush(self) -> None:
        """Send the requests that wait."""

    async def run(self) -> None:
        """Take what comes until the connection ends, and raise why it did."""

    async def prove(self) -> None:
        """Wait until it brings something, before it is run: a proxy may let its beginning through, and nothing else."""

    def drop(self) -> None:
        """Give up one that was proven, and is not run."""


@final
class HubAddress:
    """The one URL of a hub, to the ways to it."""

    __slots__ = ("authority", "in_memory", "logger", "options", "url")

    def __init__(self, url: str, options: HubOptions) -> None:
        # http and ws are the same server; parse_uri looks at the rest.
        scheme, colon, rest = url.partition(":")
        if scheme.lower() not in {"http", "https", "ws", "wss"} or not colon:
            shown = without_userinfo(url)
            raise InvalidURI(f"the URI is {shown!r}, it must begin with http://, https://, ws:// or wss://")
        secure = scheme.lower().endswith("s") and scheme.lower() != "ws"
        self.url = f"{'s' if secure else ''}:{rest}"
        #: The host, and the port where it is not the usual one.
        self.authority = parse_uri(f"http{self.url}", HTTP).authority
        self.options = options
        self.logger = options.logger or logging.getLogger("rawws.client")
        # What connects without a socket, for tests.
        self.in_memory: InMemory | None = None

    async def dial(self) -> WebSocket:
        """Return a WebSocket whose handshake is done. Raises what `connect` raises."""
        options = self.options
        connecting = connect(
            await self._complete("ws", ()),
            subprotocols=[PROTOCOL],
            compression=options.compression,
            close_timeout=options.close_timeout,
            ping_interval=options.ping_interval,
            ping_timeout=options.ping_timeout,
            # What waits to be sent is bounded by `queue_size`.
            hard_limit=None,
            **self._shared(),
        )
        connecting.transport = connecting.transport._replace(in_memory=self.in_memory)
        ws = await connecting
        if ws.subprotocol != PROTOCOL:
            ws.abort()
            raise NegotiationError(101, f"the server speaks {ws.subprotocol or 'no subprotocol'}, needed is {PROTOCOL}")
        return ws

    async def follow(self, fields: Iterable[tuple[str, str]]) -> events:
        """Return a feed of events, which connects once."""
        feed = events(
            await self._complete("http", fields),
            reconnect=False,
            read_timeout=SILENCE,
            **self._shared(),
        )
        feed.transport = feed.transport._replace(in_memory=self.in_memory)
        return feed

    async def request(
        self, method: str, fields: Iterable[tuple[str, str]] = (), body: bytes = b"", held: float = 0.0
    ) -> Received:
        """Return the response to one request, which the server holds for so many seconds, within `open_timeout` more.

        Raises OSError, HandshakeError, AnswerTooLargeError.
        """
        options = self.options
        target = parse_uri(await self._complete("http", fields), HTTP)
        headers = [("Host", target.authority), *added_headers(target, target, options), ("Connection", "close")]
        if body:
            headers += [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        head = serialize_request(Request(method, target.path, Headers(headers)))
        transport = TransportOptions.of(options)._replace(in_memory=self.in_memory)
        seconds, most = options.open_timeout, options.max_size or 1 << 30
        async with asyncio.timeout(None if seconds is None else seconds + held):
            response = await exchange(head + body, target, transport, most + 1)
        if len(response.body) > most:
            raise AnswerTooLargeError(f"the answer has more than {most} bytes")
        return response

    def _shared(self) -> LocatedKeywords:
        """Return what `connect` and `events` both have of the options."""
        options = self.options
        return {
            "additional_headers": options.headers,
            "user_agent_header": options.user_agent_header,
            "proxy": options.proxy,
            "open_timeout": options.open_timeout,
            "max_size": options.max_size,
            "ssl": options.ssl,
            "server_hostname": options.server_hostname,
            "http2": options.http2,
            "local_addr": options.local_addr,
            "path": options.path,
            "logger": self.logger,
        }

    async def token(self) -> str:
        """Return the token that is good now. Raises TypeError for what is none, and what the function raises."""
        given = self.options.token
        token: Any = given() if callable(given) else given
        if inspect.isawaitable(token):
            token = await token
        if not isinstance(token, str):
            raise TypeError(f"the token is {type(token).__name__}, allowed is a str")
        return token

    async def _complete(self, scheme: str, fields: Iterable[tuple[str, str]]) -> str:
        """Return the URL for one request, with the token that is good now."""
        token = await self.token()
        pairs = [*fields, *([("token", token)] if token else [])]
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs)
        return f"{scheme}{self.url}" + (("&" if "?" in self.url else "?") + query if query else "")


class ChannelLink:
    """What all kinds of links have: the channels, the requests, and whom to tell that something came."""

    __slots__ = ("channels", "opened", "requests")

    def __init__(
        self, channels: dict[str, Channel], requests: HubRequests, opened: Callable[[HubLink], object]
    ) -> None:
        self.channels = channels
        self.requests = requests
        self.opened = opened

    def fail(self, channel: Channel, error: HubError, since: str) -> None:
        """End the subscriptions that an error is about: a cursor is of those that named it."""
        channel.end(error, since if error.code == "cursor" else None)
        self.tidy(channel)

    def tidy(self, channel: Channel) -> None:
        """Forget a channel whose subscriptions are over."""
        if not channel.receivers and self.channels.get(channel.key) is channel:
            del self.channels[channel.key]


@final
class WebSocketLink(ChannelLink):
    """A WebSocket that speaks rawws.v1; `ws` is open."""

    __slots__ = ("_address", "_answering", "_asked_size", "_entries", "_functions", "_renewing", "ws")

    kind = "websocket"

    def __init__(
        self,
        ws: WebSocket,
        address: HubAddress,
        channels: dict[str, Channel],
        requests: HubRequests,
        opened: Callable[[HubLink], object],
        functions: Mapping[str, Callable[[Any], Any]],
    ) -> None:
        super().__init__(channels, requests, opened)
        self.ws = ws
        self._address = address
        # What the server may call, and what answers its calls.
        self._functions = functions
        self._answering: set[asyncio.Task[None]] = set()
        self._asked_size = 0
        # What asks for a new token.
        self._renewing: asyncio.Task[None] | None = None
        # What is subscribed to and not answered yet: the topic, and since which cursor.
        self._entries: dict[int, tuple[Channel, str]] = {}

    def enter(self, channel: Channel) -> None:
        """Have it bring a topic too, or bring it anew."""
        self.leave(channel)
        if not channel.wanted:
            return
        number = channel.entry = self.requests.next_id()
        since = channel.since
        self._entries[number] = channel, since
        text = serialize_request_fields(
            {
                "id": number,
                "subscribe": channel.topic,
                "pattern": channel.pattern or None,
                "since": since or None,
                "watch": channel.watch or None,
            }
        )
        if channel.told is not None:
            text = text[:-1] + b',"join":' + channel.told.encode() + b"}"
        self._say(text)

    def leave(self, channel: Channel) -> None:
        """Have it bring a topic no more."""
        if channel.entry:
            pattern = channel.pattern or None
            self._say(serialize_request_fields({"unsubscribe": channel.topic, "pattern": pattern}))
        channel.leave()

    def flush(self) -> None:
        """Send the requests that wait."""
        while (request := self.requests.take()) is not None:
            self._say(request.text)

    async def run(self) -> None:
        """Take what comes until the connection ends, and raise why it did."""
        try:
            self._ping()
            for channel in tuple(self.channels.values()):
                self.enter(channel)
            await self._receive()
            while True:
                for _ in range(TURN):
                    self._hear(parse_envelope(await self.ws.recv()))
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            await self.ws.close()
            raise
        finally:
            self.ws.abort()
            await cancel_all(*self._answering, *([self._renewing] if self._renewing is not None else []))

    async def prove(self) -> None:
        """Wait until the server says something: a proxy may let a handshake through, and nothing else."""
        try:
            self._ping()
            await self._receive()
        except BaseException:
            self.ws.abort()
            raise

    def drop(self) -> None:
        """Give up one that was proven, and is not run."""
        self.ws.abort()

    async def _receive(self) -> None:
        """Take the first answer."""
        seconds = self._address.options.open_timeout
        try:
            async with asyncio.timeout(seconds):
                text = await self.ws.recv()
        except TimeoutError:
            raise TimeoutError(f"the server said nothing for {seconds:g} s") from None
        self._hear(parse_envelope(text))

    def _ping(self) -> None:
        """Ask for what is done already and is allowed to all."""
        self._say(serialize_request_fields({"id": 0, "unsubscribe": f"ping {secrets.token_hex(8)}"}))

    def _say(self, text: bytes) -> None:
        # What becomes of it is told by `recv`.
        if self.ws.close_code is None:
            self.ws.send(text, True)

    def _hear(self, envelope: HubEnvelope) -> None:
        self.opened(self)
        if self.requests.answer(envelope):
            return
        entry = None if envelope.id is None else self._entries.pop(envelope.id, None)
        if entry is not None:
            self._begin(*entry, envelope)
            return
        if envelope.call:
            self._take_call(envelope)
            return
        if envelope.expires is not None and callable(self._address.options.token) and self._renewing is None:
            self._renewing = asyncio.ensure_future(self._renew())
        channel = self.channels.get(envelope.channel)
        if channel is not None and channel.live:
            channel.take(envelope)
            self._look_after(channel)

    def _take_call(self, envelope: HubEnvelope) -> None:
        """Answer a call of the server, later where it takes time."""
        function = self._functions.get(envelope.call)
        if function is None:
            self._say(serialize_request_fields({"answer": envelope.number, "error": "call"}))
        elif len(self._answering) >= MAX_CALLS or (
            self._answering and self._asked_size + envelope.size > MAX_CALLS_SIZE
        ):
            self._say(serialize_request_fields({"answer": envelope.number, "error": "limit"}))
        else:
            task = asyncio.ensure_future(self._answer(envelope, function))
            self._answering.add(task)
            self._asked_size += envelope.size
            task.add_done_callback(lambda task: self._answered(task, envelope.size))

    def _answered(self, task: asyncio.Future[None], size: int) -> None:
        """Count a call that was answered."""
        self._answering.discard(task)
        self._asked_size -= size

    async def _answer(self, envelope: HubEnvelope, function: Callable[[Any], Any]) -> None:
        fields: dict[str, Any] = {"answer": envelope.number}
        try:
            value = function(envelope.data)
            if inspect.isawaitable(value):
                value = await value
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
            self._say(serialize_request_fields(fields)[:-1] + b',"data":' + text.encode() + b"}")
        except HubError as error:
            self._say(serialize_request_fields({**fields, "error": error.code, "reason": error.reason}))
        except Exception:
            self._address.logger.exception("the function %r failed", envelope.call)
            self._say(serialize_request_fields({**fields, "error": "failed"}))

    async def _renew(self) -> None:
        """Tell the server a new token, before the one in use ends."""
        try:
            self._say(serialize_request_fields({"renew": await self._address.token()}))
        except Exception as error:  # noqa: BLE001 - whatever the user's function raises
            # The server closes the connection, and the next one asks again.
            self._address.logger.warning("the token could not be renewed: %s", error)
        self._renewing = None

    def _begin(self, channel: Channel, since: str, envelope: HubEnvelope) -> None:
        """Take the answer to a subscription, if it is to the last one."""
        if channel.entry != envelope.id:
            return
        if envelope.error:
            channel.entry = 0
            self.fail(channel, HubError(envelope.error, envelope.reason), since)
        if channel.receivers and (envelope.error or channel.begin(envelope, since)):
            self.enter(channel)

    def _look_after(self, channel: Channel) -> None:
        """Leave a topic that nobody takes now."""
        if not channel.wanted:
            self.leave(channel)
            self.tidy(channel)
