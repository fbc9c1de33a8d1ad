"""AWS: clients of an API Gateway WebSocket API to calls of its backend, and the answers back (docs/run/api-gateway.md).

Laws:
1. A client is in once its authorizer and the backend of `$connect` said so; before that, nothing can be sent to it.
2. One message of a connection is with the backend at a time, in order; behind 16 that wait, the client is not read.
3. `$disconnect` comes behind the last message, once, for whoever `$connect` let in: also where the client was gone by
   then. Else a backend would keep it for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

import rawws
from rawws import clock
from rawws.net.cancellation import cancel_all
from rawws.protocol.handshake import check_upgrade
from rawws.server.forwarded import scheme_of

from .aws_authorizer import judge_authorizer
from .aws_connections import ApiKeys, ConnectionsApi
from .aws_events import AwsClient, authorizer_event, client_headers, connect_event, disconnect_event, message_event
from .calls import BackendRoute, CallResult, call_result, event_body
from .events import topic_of_channel
from .expressions import NO_JSON, RequestValue, RouteSelection, parse_message
from .figures import call_samples
from .model import GatewayConnection
from .outgoing import CallFailed, Outgoing
from .webhooks import standard_fields

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Iterable

    from rawws.topics import Publication

    from .config import ApiConfig
    from .model import Admission, Gateway
    from .spelling import ConnectionId

__all__ = ["AwsConnection", "AwsFace"]

logger = logging.getLogger("rawws.gateway")

CONNECT, DISCONNECT, DEFAULT = "$connect", "$disconnect", "$default"
# Messages of a client that wait while one is with the backend, and their characters: then no more is read.
MAX_WAITING: Final = 16
MAX_WAITING_SIZE: Final = 256 * 1024
# Of one connection, as an app has it by default.
MOST_CHANNELS: Final = 100
# What clients are told, in the words of API Gateway.
FORBIDDEN: Final = "Forbidden"
FAILED: Final = "Internal server error"
# The end of a connection without a Close frame (RFC 6455 section 7.1.5).
ABNORMAL: Final = (1006, "")
METHODS: Final = ("GET", "POST", "DELETE")
NO_KEYS: Final = ApiKeys(())


@final
class AwsApi:
    """An API: its configuration, and what is made of that. Raises ExpressionError for what is not understood."""

    __slots__ = ("_outgoing", "arn", "config", "identity", "routes", "selection")

    def __init__(self, config: ApiConfig, outgoing: Outgoing) -> None:
        self.config = config
        self._outgoing = outgoing
        self.selection = RouteSelection(config.route_selection)
        self.routes = {each.key: BackendRoute(each, config.signing, outgoing) for each in config.routes}
        self.arn = f"arn:aws:execute-api:{config.region}:{config.account}:{config.id}/{config.stage}/{CONNECT}"
        identity = () if config.authorizer is None else config.authorizer.identity
        self.identity = [RequestValue(each, on_connect=True) for each in identity]

    def route_of(self, text: str) -> BackendRoute | None:
        """Return the route that a message chooses, None for one that has none."""
        message = parse_message(text)
        key = DEFAULT if message is NO_JSON else self.selection.select(message)
        # A client cannot say that it connected.
        found = self.routes.get(key) if key not in {CONNECT, DISCONNECT} else None
        return found or self.routes.get(DEFAULT)

    async def authorize(self, client: AwsClient) -> tuple[int, AwsClient]:
        """Ask the authorizer, if there is one; return 200 or the status of a refusal, and what is known from now on."""
        authorizer = self.config.authorizer
        if authorizer is None:
            return 200, client
        event = authorizer_event(client, self.arn)
        if not all(each.find(event, NO_JSON) for each in self.identity):
            return 401, client
        began = clock.monotonic()
        body, request_id = event_body(event), event["requestContext"]["requestId"]
        fields = [("Content-Type", "application/json"), ("X-Request-Id", request_id)]
        fields += standard_fields(self.config.signing, request_id, body, time.time())
        try:
            answer = await self._outgoing.call(authorizer.url, body, fields, timeout=authorizer.timeout)
        except CallFailed as error:
            logger.warning("the authorizer of %s failed: %s", self.config.id, error)
            return 500, client
        verdict = judge_authorizer(call_result(answer), self.arn)
        latency = int((clock.monotonic() - began) * 1000)
        return verdict.status, client._replace(authorizer={**verdict.context, "integrationLatency": latency})

    async def connect(self, client: AwsClient) -> CallResult:
        """Ask the backend of `$connect`, if there is one, whether a client may connect."""
        route = self.routes.get(CONNECT)
        if route is None:
            return CallResult(200, {}, b"")
        try:
            result = await route.call(client, connect_event(client))
        except CallFailed as error:
            logger.warning("%s of %s failed: %s", CONNECT, self.config.id, error)
            return CallResult(error.status, {}, b"")
        return result if 200 <= result.status < 500 else result._replace(status=502)


class AdmittedClient(NamedTuple):
    """A client that was let in, whose handshake is not done yet."""

    ident: ConnectionId
    client: AwsClient
    subprotocol: str | None


@final
class AwsConnection(GatewayConnection):
    """A connection of a client of an API."""

    def __init__(self, gateway: Gateway, api: str, ws: rawws.WebSocket, admitted: AdmittedClient) -> None:
        super().__init__(gateway, api, "aws", ws)
        self.id = admitted.ident
        self.client = admitted.client
        self.user = str(admitted.client.authorizer.get("principalId", ""))
        self.connected_at = admitted.client.connected_at / 1000
        # What goes to the backend, in order; and whether something is on its way.
        self.waiting: deque[tuple[str, dict[str, Any]]] = deque()
        self.working = False
        # Of the messages that wait.
        self.waiting_size = 0

    @property
    def is_full(self) -> bool:
        """Whether no more is to be read of it for now."""
        return len(self.waiting) >= MAX_WAITING or self.waiting_size >= MAX_WAITING_SIZE

    def join(self, channel: str) -> None:
        """Subscribe to a channel, as a backend asks; nothing where it is. Raises rawws.TopicError."""
        if channel in self.channels:
            return
        if len(self.channels) >= MOST_CHANNELS:
            raise rawws.TopicError("limit", f"the connection has {MOST_CHANNELS} channels, the limit")
        hub = self.gateway.hub_of(channel)
        self.channels[channel] = hub.subscribe(self, topic_of_channel(self.app, channel))
        self.gateway.count(self.app, f"c:{channel}", 1)

    def leave(self, channel: str) -> None:
        """End the subscription to a channel; nothing where there is none."""
        if self.channels.pop(channel, None) is not None:
            self.gateway.hub_of(channel).unsubscribe(self, topic_of_channel(self.app, channel))
            self.gateway.count(self.app, f"c:{channel}", -1)

    def take(self, publication: Publication) -> None:
        """Send what is published to a channel that a backend subscribed this connection to, without anything beside."""
        self.ws.touch()
        self.ws.send(publication.message)

    async def answer(self, message: str) -> None:
        """Send what came of a message, and wait for room. Raises rawws.ConnectionClosed."""
        self.figures.sent += 1
        await self.ws.send(message)

    def write(self, message: str | bytes) -> None:
        """Send a message, which is a sign of life. Raises rawws.ConnectionClosed."""
        self.ws.touch()
        super().write(message)


@final
class AwsFace(rawws.Handler):
    """All APIs of a gateway; `outgoing` is what calls backends, by default one of its own."""

    name = "aws"

    def __init__(self, gateway: Gateway, outgoing: Outgoing | None = None) -> None:
        self.gateway = gateway
        # Made with the first API: only who has one needs what it is made of.
        self.outgoing = outgoing
        self.apis: dict[str, AwsApi] = {}
        # By the path of the APIs; and the paths at which there were some, which are routed as long as it serves.
        self._keys: dict[str, ApiKeys] = {}
        self._paths: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.load()
        gateway.on_reload.append(lambda _: self.load())
        gateway.sources.append(lambda: call_samples(self.outgoing))

    def load(self) -> None:
        """Use what the configuration says now. Raises ExpressionError for what it should not have taken."""
        apis = self.gateway.config.apis
        if apis and self.outgoing is None:
            self.outgoing = Outgoing()
        self.apis = {} if self.outgoing is None else {each.id: AwsApi(each, self.outgoing) for each in apis}
        self._paths.update(each.path for each in apis)
        at: dict[str, list[ApiConfig]] = {}
        for each in apis:
            at.setdefault(each.path, []).append(each)
        self._keys = {path: ApiKeys(found) for path, found in ({"": apis} | at).items()}

    # -- what a gateway asks of a face

    def routes(self) -> Iterable[rawws.Route]:
        """Return where clients connect."""
        for path in sorted(self._paths):
            for each in sorted({path or "/", f"{path}/"}):
                yield rawws.Route(each, self, websocket=True)

    def server_routes(self) -> Iterable[rawws.Route]:
        """Return where backends reach their clients."""
        paths = self._paths
        for path in sorted({*paths, ""}) if paths else ():
            connections = ConnectionsApi(self.gateway, functools.partial(self._keys_at, path))
            for end in ("", "/"):
                at = f"{path}/@connections/{{connection}}{end}"
                yield rawws.Route(at, connections, METHODS, check=connections.check)

    def _keys_at(self, path: str) -> ApiKeys:
        """Return the keys of the APIs at a path; where requests name none, and no API is there, of all."""
        return self._keys.get(path, NO_KEYS)

    def admit(self, ws: rawws.WebSocket, request: rawws.Request) -> Admission | Awaitable[Admission]:
        """Judge an opening handshake."""
        path = request.path.partition("?")[0].removesuffix("/")
        api = next((each for each in self.apis.values() if each.config.path == path), None)
        if api is not None:
            return self._admit(api, ws, request)
        if path not in self._paths:
            return None
        self.gateway.figures_of("", self.name).refused[404] += 1
        return rawws.Response(404, "the API of this path is gone")

    def subprotocol(self, ws: rawws.WebSocket, offered: list[str]) -> str | None:
        """Return the subprotocol that the backend chose, if the client offered it."""
        admitted = ws.state
        chosen = admitted.subprotocol if isinstance(admitted, AdmittedClient) else None
        return chosen if chosen in offered else None

    async def start(self) -> None:
        """Begin."""

    async def close(self) -> None:
        """End: backends are given `drain` seconds to take what waits for them; what is lost is counted."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.gateway.config.drain):
                    while self._tasks:
                        await asyncio.wait(self._tasks)
        finally:
            pending = {*self._tasks}
            if pending:
                logger.warning("%d connections had messages for their backend when the gateway ended", len(pending))
            try:
                await cancel_all(*pending)
            finally:
                if self.outgoing is not None:
                    await self.outgoing.close()

    # -- opening handshakes

    async def _admit(self, api: AwsApi, ws: rawws.WebSocket, request: rawws.Request) -> rawws.Response | None:
        check_upgrade(request)
        ident, held = api.config.id, self.gateway.held
        refusal = self._refusal(api.config, request)
        if refusal is None:
            # It has its place while its backend is asked: else all would be let in who wait for that at once.
            held.change(ident, 1)
            try:
                refusal = await self._judge(api, ws, request)
            finally:
                held.change(ident, -1)
        if refusal is not None:
            self.gateway.figures_of(ident, self.name).refused[refusal.status] += 1
        return refusal

    def _refusal(self, config: ApiConfig, request: rawws.Request) -> rawws.Response | None:
        """Return what refuses a handshake of which nobody need be asked."""
        origin, most = request.headers.get("Origin"), self.gateway.config.max_connections
        if config.origins and origin is not None and not {origin, "*"} & {*config.origins}:
            return refused(403, FORBIDDEN, "")
        if config.max_connections is not None and self.gateway.of_app(config.id) >= config.max_connections:
            return rawws.Response(503, "the API has as many connections as it may have", {"Retry-After": "1"})
        if most is not None and self.gateway.held.total >= most:
            return rawws.Response(503, "the gateway has as many connections as it may have", {"Retry-After": "1"})
        return None

    async def _judge(self, api: AwsApi, ws: rawws.WebSocket, request: rawws.Request) -> rawws.Response | None:
        """Ask the authorizer and the backend of an API whether a client may connect."""
        config = api.config
        ident = self.gateway.new_id()
        client = client_of(config, ident, ws, request)
        status, client = await api.authorize(client)
        if status != 200:
            return refused(status, {401: "Unauthorized", 403: FORBIDDEN}.get(status, FAILED), client.connection_id)
        call = asyncio.get_running_loop().create_task(api.connect(client))
        try:
            # Who leaves now may be let in all the same: the backend has the request.
            result = await asyncio.shield(call)
        except asyncio.CancelledError:
            self._start(self._disown(AdmittedClient(ident, client, None), ws, call))
            raise
        if not result.accepted:
            return refused(result.status, FAILED if result.status >= 500 else FORBIDDEN, client.connection_id)
        ws.state = AdmittedClient(ident, client, result.headers.get("sec-websocket-protocol"))
        # The handshake is done in this turn of the loop, or refused, as where the server ends.
        asyncio.get_running_loop().call_soon(self._look_after, ws.state, ws)
        return None

    async def _disown(self, admitted: AdmittedClient, ws: rawws.WebSocket, call: asyncio.Task[CallResult]) -> None:
        """Wait for what is said of a client that left, and tell that it did."""
        if (await call).accepted:
            self._disconnect(admitted, ws)

    def _look_after(self, admitted: AdmittedClient, ws: rawws.WebSocket) -> None:
        """Tell that a client that was let in did not come in."""
        if ws.state is admitted:
            self._disconnect(admitted, ws)

    def _disconnect(self, admitted: AdmittedClient, ws: rawws.WebSocket) -> None:
        """Tell the backend that a client is gone whose handshake was never done."""
        api = self.apis.get(admitted.client.api_id)
        if api is not None and CONNECT in api.routes:
            connection = AwsConnection(self.gateway, api.config.id, ws, admitted)
            self._put(connection, DISCONNECT, disconnect_event(admitted.client, *ABNORMAL))

    # -- connections

    def on_open(self, ws: rawws.WebSocket) -> None:
        """Take a client that was let in."""
        admitted: AdmittedClient = ws.state
        connection = ws.state = AwsConnection(self.gateway, admitted.client.api_id, ws, admitted)
        api = self.apis.get(connection.app)
        if api is None:
            ws.close(1001, "the API is gone")
        else:
            limits = api.config.limits
            ws.limit(
                max_size=limits.message_size,
                max_frame_size=limits.frame_size or None,
                text_only=True,
                idle_timeout=limits.idle or None,
                max_lifetime=limits.lifetime or None,
            )
        self.gateway.opened(connection)

    def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
        """Have the backend of its route get a message."""
        connection: AwsConnection = ws.state
        connection.active()
        api = self.apis.get(connection.app)
        route = None if api is None else api.route_of(str(message))
        key = DEFAULT if route is None else route.config.key
        self._put(connection, key, message_event(connection.client, key, str(message)))
        if connection.is_full:
            ws.pause_messages()

    def on_close(self, ws: rawws.WebSocket, code: int, reason: str) -> None:
        """Tell the backend that a client is gone."""
        connection = ws.state
        if isinstance(connection, AwsConnection):
            for channel in tuple(connection.channels):
                connection.leave(channel)
            self.gateway.closed(connection, code, reason)
            self._put(connection, DISCONNECT, disconnect_event(connection.client, code, reason))

    # -- calls, one connection's behind each other

    def _put(self, connection: AwsConnection, key: str, event: dict[str, Any]) -> None:
        connection.waiting.append((key, event))
        connection.waiting_size += len(event.get("body", ""))
        if not connection.working:
            connection.working = True
            self._start(self._work(connection))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something for a backend, which the end of the gateway waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, connection: AwsConnection) -> None:
        """Bring what waits to the backend."""
        try:
            while connection.waiting:
                key, event = connection.waiting.popleft()
                connection.waiting_size -= len(event.get("body", ""))
                with contextlib.suppress(rawws.ConnectionClosed):
                    await self._call(connection, key, event)
                if not connection.is_full:
                    connection.ws.resume_messages()
        finally:
            connection.working = False

    async def _call(self, connection: AwsConnection, key: str, event: dict[str, Any]) -> None:
        """Call the backend, and send the client what it is to know. Raises rawws.ConnectionClosed."""
        api = self.apis.get(connection.app)
        route = None if api is None else api.routes.get(key)
        is_message = key != DISCONNECT
        if route is None:
            if is_message:
                await connection.answer(told(FORBIDDEN, event))
            return
        try:
            result = await route.call(connection.client, event)
        except CallFailed as error:
            logger.warning("%s of %s failed: %s", key, connection.app, error)
            result = CallResult(error.status, {}, b"")
        if is_message and result.status >= 500:
            await connection.answer(told(FAILED, event))
        elif is_message and route.config.response and result.body:
            connection.ws.touch()
            await connection.answer(result.text)


def client_of(config: ApiConfig, ident: ConnectionId, ws: rawws.WebSocket, request: rawws.Request) -> AwsClient:
    """Return what events say of a client."""
    remote, local, host = ws.remote_address, ws.local_address, request.headers.get("Host") or ""
    address = str(remote[0]) if remote else ""
    return AwsClient(
        connection_id=ident.aws,
        connected_at=time.time_ns() // 1_000_000,
        source_ip=address,
        user_agent=request.headers.get("User-Agent") or "",
        host=host,
        headers=client_headers(request.headers, address, int(local[1]) if local else 0, scheme_of(ws)),
        query=request.path.partition("?")[2],
        domain=config.domain or host,
        stage=config.stage,
        api_id=config.id,
    )


def refused(status: int, message: str, connection_id: str) -> rawws.Response:
    """Return the answer to a client that is not let in."""
    return rawws.Response.json({"message": message, "connectionId": connection_id}, status)


def told(message: str, event: dict[str, Any]) -> str:
    """Return what a client is told of a message that failed."""
    context = event["requestContext"]
    return json.dumps(
        {"message": message, "connectionId": context["connectionId"], "requestId": context["requestId"]},
        separators=(",", ":"),
    )
