"""Own face: rawws.v1 to calls of a gateway: WebSockets, event streams, polls and posts (docs/run/own-face.md).

All that a client says is a hub's to do; here stands who may come in, and what an instance counts of it.
"""

from __future__ import annotations

import contextlib
import inspect
from base64 import b64encode
from typing import TYPE_CHECKING, Any, Final, final

import rawws
from rawws.topics.endpoints import routes
from rawws.topics.payloads import serialize

from .events import excluded_from, topic_of_channel
from .figures import call_samples
from .model import GatewayConnection
from .outgoing import Outgoing
from .own_clients import OwnClients, check_own_channel
from .pusher_rules import announces_body
from .pusher_users import end_in, user_topic
from .spelling import ConnectionId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rawws.topics import Publication, Subscription

    from .config import AppConfig
    from .events import GatewayEvent
    from .grants import ClientGrant
    from .model import Admission, Gateway

__all__ = ["OwnFace"]

PATH: Final = "/connect/{app}"
SUBPROTOCOL: Final = "rawws.v1"
# Of a message, what is not the data: names, cursors, and what a client says of itself.
ROOM: Final = 64 * 1024
# A page that hears this asks for a new token.
ENDED: Final = 4401


@final
class OwnConnection(GatewayConnection):
    """The WebSocket of a client of rawws.v1: the hub sends to that itself, and to this what its user is told."""

    def __init__(self, gateway: Gateway, app: str, ws: rawws.WebSocket, clients: OwnClients) -> None:
        super().__init__(gateway, app, "own", ws)
        self._clients = clients

    def take(self, publication: Publication) -> None:
        """Take what comes of its user."""
        end = end_in(publication, ENDED)
        if end is not None:
            self.close(*end)

    def tell_event(self, event: GatewayEvent) -> None:
        """Send an event in no channel: what a client of rawws.v1 does not know it ignores."""
        octets = event.data if isinstance(event.data, bytes) else None
        said: dict[str, Any] = {"data": event.data} if octets is None else {"base64": b64encode(octets).decode()}
        if event.name is not None:
            said["event"] = event.name
        if event.is_json:
            said["json"] = True
        self.write(serialize(said))

    def join(self, channel: str) -> None:
        """Subscribe to a channel, as its server asks: in a presence channel it is present. Raises TopicError."""
        topic, ws = topic_of_channel(self.app, channel), self.ws
        if channel in self.channels:
            return
        check_own_channel(channel)
        if ws.identity is None:
            raise rawws.Refused("it is not known yet whose connection it is")
        self._clients.on_subscribe(ws, topic)
        if channel.startswith("presence-"):
            self.gateway.main.subscribe(ws, topic, join=ws.identity)
        else:
            self.gateway.main.subscribe(ws, topic)

    def leave(self, channel: str) -> None:
        """End the subscription to a channel: its client is told."""
        self.gateway.main.unsubscribe(self.ws, topic_of_channel(self.app, channel))


@final
class OwnStream:
    """An event stream of a user: ended where the connections of the user are; a receiver of the control hub."""

    congested = False
    hard_limit = 1 << 16

    def __init__(self, stream: rawws.EventStream) -> None:
        self._stream = stream

    def send(self, publication: Publication) -> None:
        """Take what comes of its user."""
        if end_in(publication, ENDED) is not None:
            self._stream.close()

    def follow(self, follower: object) -> None:
        """Nothing: it is never slow, and the face says when it ends."""

    def unfollow(self, follower: object) -> None:
        """Nothing."""

    def fail(self, code: int, reason: str) -> None:
        """End the stream."""
        del code, reason
        self._stream.close()


@final
class OwnCounts:
    """Tells the observers of a gateway of the subscriptions of clients of rawws.v1; polls come and go, and are none."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def subscribed(self, subscription: Subscription) -> None:
        """Count a subscription."""
        self._count(subscription, 1)

    def unsubscribed(self, subscription: Subscription) -> None:
        """Count one less."""
        self._count(subscription, -1)

    def _count(self, subscription: Subscription, change: int) -> None:
        receiver = subscription.subscriber.receiver
        if not isinstance(receiver, (rawws.WebSocket, rawws.EventStream)):
            return
        app, _, channel = subscription.topic.partition("/")
        connection = receiver.state if isinstance(receiver, rawws.WebSocket) else None
        if isinstance(connection, OwnConnection):
            if change > 0:
                connection.channels[channel] = subscription
            else:
                connection.channels.pop(channel, None)
        self._gateway.count(app, f"c:{channel}", change)
        if subscription.present and receiver.identity is not None and channel.startswith("presence-"):
            self._gateway.count(app, f"m:{channel}:{receiver.identity.user}", change)


@final
class OwnFace(rawws.Handler):
    """What speaks rawws.v1 at `/connect/{app}`; `outgoing` is what asks applications, by default one of its own."""

    name = "own"

    def __init__(self, gateway: Gateway, outgoing: Outgoing | None = None) -> None:
        self.gateway = gateway
        self._outgoing = outgoing
        self.clients = OwnClients(gateway, self._outgoing_of, self._entered)
        self.hub = rawws.HubHandler(gateway.main)
        rules = gateway.main.rules
        rules.identify, rules.authorize = self.clients.identify, self.clients.authorize
        rules.on_subscribe, rules.on_publish = self.clients.on_subscribe, self.clients.on_publish
        rules.excluded = self._excluded
        gateway.main.observer = OwnCounts(gateway)
        gateway.sources.append(lambda: call_samples(self._outgoing))

    def _excluded(self, publication: Publication) -> rawws.WebSocket | None:
        """Return who of this instance does not get a publication, None for nobody: the hub sends to that itself."""
        named = excluded_from(publication)
        try:
            connection = self.gateway.connections.get(ConnectionId.parse(named)) if named else None
        except ValueError:
            # Another program wrote it into the engine.
            return None
        return connection.ws if isinstance(connection, OwnConnection) else None

    def _outgoing_of(self) -> Outgoing:
        """Return what asks applications, made where one is asked first."""
        if self._outgoing is None:
            self._outgoing = Outgoing()
        return self._outgoing

    # -- Face

    def routes(self) -> Iterable[rawws.Route]:
        """Return what it answers."""
        *_, script = routes(self.gateway.main, PATH)
        return [
            rawws.Route(PATH, self, websocket=True),
            rawws.Route(PATH, self._guarded(self._get), check=self._refusal_of_get),
            rawws.Route(PATH, self._guarded(self.gateway.main.post), ["POST"], check=self._refusal_of_post),
            script._replace(check=refusal_of_body),
        ]

    def server_routes(self) -> Iterable[rawws.Route]:
        """Return nothing: servers ask `/v1`."""
        return ()

    def admit(self, ws: rawws.WebSocket, request: rawws.Request) -> Admission:
        """Refuse whoever comes from another page than those of the app, and whoever is one too many."""
        del ws
        path = request.path.partition("?")[0].split("/")
        if len(path) != 3 or path[1] != "connect":
            return None
        refused = self._refusal_of(path[2], request.headers) or self._refusal_of_more(path[2])
        if refused is not None:
            self.gateway.figures_of(path[2], self.name).refused[refused.status] += 1
        return refused

    def subprotocol(self, ws: rawws.WebSocket, offered: list[str]) -> str | None:
        """Choose rawws.v1 for who comes to this face."""
        return (
            SUBPROTOCOL
            if SUBPROTOCOL in offered and ws.request is not None and ws.request.path.startswith("/connect/")
            else None
        )

    async def start(self) -> None:
        """Begin."""
        self.clients.start()

    async def close(self) -> None:
        """End."""
        await self.clients.close()
        if self._outgoing is not None:
            await self._outgoing.close()

    def _refusal_of(self, ident: str, headers: rawws.Headers) -> rawws.Response | None:
        """Return what refuses a request, None where it may be made."""
        app, origin = self.gateway.config.app(ident), headers.get("Origin")
        if app is None or not app.speaks_rawws:
            return problem(404, "path", "there is no such app for rawws.v1")
        if not app.enabled:
            return problem(403, "refused", "the app is disabled")
        if origin is not None and app.origins and "*" not in app.origins and origin not in app.origins:
            return problem(
                403, "refused", f"pages of {origin[:200]} may not connect, allowed are {', '.join(app.origins)}"
            )
        return None

    def _refusal_of_get(self, request: rawws.HttpRequest) -> rawws.Response | None:
        """Return what refuses an event stream or a poll by its head."""
        self._count(request)
        return refusal_of_body(request)

    def _count(self, request: rawws.HttpRequest) -> None:
        request.on_response = self.gateway.figures_of(request.path_params["app"], self.name).count_client_request

    def _refusal_of_post(self, request: rawws.HttpRequest) -> rawws.Response | None:
        """Return what refuses a post by its head, before its body is read: it is not known yet whose it is."""
        self._count(request)
        ident = request.path_params["app"]
        refused, app = self._refusal_of(ident, request.headers), self.gateway.config.app(ident)
        if refused is not None or app is None:
            return refused
        try:
            self.gateway.bodies.enter_client(app, request, most_of(app))
        except rawws.HttpError as error:
            return problem(error.status, "size", error.reason, *error.headers)
        return None

    def _refusal_of_more(self, ident: str) -> rawws.Response | None:
        """Return what refuses a connection too many."""
        config, app = self.gateway.config, self.gateway.config.app(ident)
        if app is not None and app.max_connections is not None and self.gateway.of_app(ident) >= app.max_connections:
            return problem(503, "limit", f"the app has {app.max_connections} connections, the limit")
        if config.max_connections is not None and self.gateway.held.total >= config.max_connections:
            return problem(503, "limit", f"the gateway has {config.max_connections} connections, the limit")
        return None

    # -- requests

    def _get(self, request: rawws.HttpRequest) -> Any:
        """Answer by a stream, or by a poll, as a client prefers."""
        wanted = ",".join(request.headers.get_all("Accept")).lower()
        return (self._stream if "text/event-stream" in wanted else self.gateway.main.poll)(request)

    async def _stream(self, request: rawws.HttpRequest) -> Any:
        """Answer by a stream: a connection of the app, counted before it is asked whose: many may wait for that."""
        app, watched = request.path_params["app"], False
        refused = self._refusal_of_more(app)
        if refused is not None:
            return refused
        self.gateway.held.change(app, 1)
        try:
            asked = self.gateway.main.stream(request)
            found = await asked if inspect.isawaitable(asked) else asked
            if isinstance(found, rawws.EventStream) and request.identity is not None:
                try:
                    self._watch(found, app, request.identity)
                except BaseException:
                    # It is subscribed already, and nobody gets it.
                    found.close()
                    raise
                watched = True
        finally:
            if not watched:
                self.gateway.held.change(app, -1)
        return found

    def _guarded(self, endpoint: Callable[[rawws.HttpRequest], Any]) -> Callable[[rawws.HttpRequest], Any]:
        """Return an endpoint that looks first at where a request comes from."""

        async def answer(request: rawws.HttpRequest) -> Any:
            refused = self._refusal_of(request.path_params["app"], request.headers)
            if refused is not None:
                return refused
            try:
                found = endpoint(request)
                found = await found if inspect.isawaitable(found) else found
            except rawws.HttpError as error:
                return problem(error.status, "refused", error.reason, *error.headers)
            finally:
                self.clients.forget(request)
            return found

        return answer

    def _watch(self, stream: rawws.EventStream, app: str, identity: rawws.Identity) -> None:
        """Have a stream end with the connections of its user, and be counted until it ends."""
        receiver, before = OwnStream(stream), stream.on_close

        def end(ended: rawws.EventStream) -> None:
            self.gateway.held.change(app, -1)
            self.gateway.control.unsubscribe(receiver)
            if before is not None:
                before(ended)

        self.gateway.control.subscribe(receiver, user_topic(app, identity.user), join=rawws.Identity(identity.user))
        stream.on_close = end

    # -- WebSockets

    def _entered(self, client: Any, grant: ClientGrant) -> None:
        """Have the WebSocket of a user end with the others of the user, and be counted."""
        connection = client.state if isinstance(client, rawws.WebSocket) else None
        if isinstance(connection, OwnConnection):
            topic = user_topic(connection.app, grant.user)
            self.gateway.control.subscribe(connection, topic, join=rawws.Identity(grant.user))
            # Behind what may refuse it: who has a user is counted, and at the end once less.
            connection.user = grant.user
            self.gateway.count(connection.app, f"u:{grant.user}", 1)

    def on_open(self, ws: rawws.WebSocket) -> None:
        """Find out who a client is."""
        ident = ws.path_params["app"]
        app = self.gateway.config.app(ident)
        ws.limit(max_size=most_of(app) if app is not None else ROOM)
        connection = ws.state = OwnConnection(self.gateway, ident, ws, self.clients)
        self.gateway.opened(connection)
        self.hub.on_open(ws)

    def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
        """Do what a client asks for."""
        if isinstance(ws.state, OwnConnection):
            ws.state.active()
        self.hub.on_message(ws, message)

    def on_close(self, ws: rawws.WebSocket, code: int, reason: str) -> None:
        """Forget a client that is gone."""
        connection = ws.state
        self.hub.on_close(ws, code, reason)
        self.clients.forget(ws)
        if isinstance(connection, OwnConnection):
            if connection.user:
                self.gateway.count(connection.app, f"u:{connection.user}", -1)
            self.gateway.closed(connection, code, reason)


def most_of(app: AppConfig) -> int:
    """Return how many bytes a client may say at once."""
    return app.limits.event_size * 2 + ROOM


def refusal_of_body(request: rawws.HttpRequest) -> rawws.Response | None:
    """Return what refuses a GET that has a body: that of a stranger would be kept for nothing."""
    return problem(413, "size", "a GET has no body here") if announces_body(request) else None


def problem(status: int, code: str, reason: str, *fields: tuple[str, str]) -> rawws.Response:
    """Return an answer that says what is wrong, as a hub says it."""
    with contextlib.suppress(ValueError):
        return rawws.Response.json({"error": code, "reason": reason}, status, [("Cache-Control", "no-store"), *fields])
    return rawws.Response(status, "")
