"""Pusher: protocol 7 of Pusher Channels to calls of a gateway, and its events back (docs/run/gateway.md).

Sources: https://pusher.com/docs/channels/library_auth_reference/pusher-websockets-protocol/, and pusher-js 8.6.

Laws:
1. The data of events goes as the publisher wrote it; that of the protocol's own is a string of JSON.
2. Nothing of a channel comes before its subscription has succeeded.
3. Who somebody is in a channel, a signature of the application says.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any, Final, final

import rawws
from rawws.net.rate import RateLimiter
from rawws.topics import Notice
from rawws.topics.payloads import serialize

from .events import GatewayEvent, is_cached, topic_of_channel
from .pusher_api import PusherApi
from .pusher_counts import SubscriptionCounts
from .pusher_rules import (
    MAX_CHANNEL,
    MAX_EVENT_NAME,
    MAX_USER_ID,
    USER_CHANNEL,
    ChannelKind,
    check_channel_name,
    is_name,
    is_signed,
    kind_of_channel,
)
from .pusher_users import Users
from .pusher_wire import MESSAGE, SpokenConnection, message_of, spell, spell_notice

if TYPE_CHECKING:
    from rawws.topics import Publication, Subscription

    from .config import AppConfig
    from .model import Admission, Gateway

__all__ = ["PusherConnection", "PusherFace"]

# What has Ping and Pong in the protocol; those of before have not.
PROTOCOLS: Final = ("5", "6", "7")
# Seconds of silence after which a client asks whether the gateway is there; and it must not be 0.
ACTIVITY_TIMEOUT: Final = 120
# Of a message, what is not the data of an event: names, a signature, and what a user says of itself.
ROOM: Final = 64 * 1024
# What a channel that has not begun yet is held for: a cache channel has one event.
MOST_HELD: Final = 100
# Close codes (4000 to 4099: do not come back; 4100 to 4199: later; 4200 to 4299: at once).
UNKNOWN_APP, DISABLED, OVER_QUOTA, BAD_VERSION, BAD_PROTOCOL, NO_PROTOCOL = 4001, 4003, 4004, 4006, 4007, 4008
UNAUTHORIZED, OVER_CAPACITY, RECONNECT, CLIENT_EVENT = 4009, 4100, 4200, 4301


class SubscriptionError(Exception):
    """A subscription cannot be: `kind` and `status` are told to the client."""

    def __init__(self, kind: str, status: int, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.status = status


@final
class JoinedChannel:
    """A channel that a connection is subscribed to, or about to be."""

    __slots__ = ("held", "kind", "members", "name", "ready", "user")

    def __init__(self, name: str, kind: ChannelKind, user: str) -> None:
        self.name = name
        self.kind = kind
        # Who it is in a presence channel.
        self.user = user
        self.ready = False
        # Whom the client was told to be present.
        self.members: set[str] = set()
        # What came before that.
        self.held: list[Publication] = []


@final
class PusherConnection(SpokenConnection):
    """A connection of a client that speaks protocol 7."""

    drain_code = RECONNECT

    def __init__(
        self, gateway: Gateway, app: str, ws: rawws.WebSocket, users: Users, counts: SubscriptionCounts
    ) -> None:
        super().__init__(gateway, app, "pusher", ws)
        self.counts = counts
        self.channels: dict[str, JoinedChannel] = {}
        self.users = users
        self.client_events = RateLimiter(self.config.limits.client_events, 0)
        self.waits_for_user: asyncio.TimerHandle | None = None

    @property
    def config(self) -> AppConfig:
        """What holds for its app now. Raises LookupError where the app is gone."""
        found = self.gateway.config.app(self.app)
        if found is None:
            raise LookupError(f"the app {self.app} is gone")
        return found

    # -- what a hub has for it

    def take(self, publication: Publication) -> None:
        """Send a publication, or who came and went."""
        if self.users.take(self, publication):
            return
        channel = self.channels.get(publication.topic.partition("/")[2])
        if channel is None:
            return
        if isinstance(publication, Notice):
            self.take_notice(channel, publication)
        elif channel.ready:
            self.figures.sent += 1
            self.ws.send_prepared(publication.form_of(spell))
        elif len(channel.held) < MOST_HELD:
            channel.held.append(publication)

    def take_notice(self, channel: JoinedChannel, notice: Notice) -> None:
        """Tell of somebody's first connection, and of the end of the last."""
        present = notice.present
        if present is None or not channel.ready or present.user == channel.user:
            return
        is_here = self.gateway.main.connections(notice.topic, present.user) > 0
        # Two may go at once, with an instance that is gone: it is told of the user once.
        if is_here == (notice.event == "join") and is_here != (present.user in channel.members):
            (channel.members.add if is_here else channel.members.discard)(present.user)
            self.figures.sent += 1
            self.ws.send_prepared(notice.form_of(spell_notice))

    def tell_event(self, event: GatewayEvent) -> None:
        """Send an event in no channel: `pusher.bind` hears it. Raises rawws.ConnectionClosed."""
        if isinstance(event.data, bytes):
            raise rawws.TopicError("data", "clients of Pusher get text, allowed is data")
        data = event.data if event.is_json else json.dumps(event.data)
        self.write(f'{{"event":{json.dumps(event.name or MESSAGE)},"data":{data}}}')

    # -- what the client says

    def subscribe(self, data: dict[str, Any]) -> None:
        """Subscribe to a channel, or tell why not."""
        name = data.get("channel")
        # A lone surrogate, as JSON can say it, is in no answer.
        shown = name[:MAX_CHANNEL] if isinstance(name, str) and name.isprintable() else ""
        try:
            self.enter(data)
        except SubscriptionError as error:
            self.tell(
                "pusher:subscription_error",
                {"type": error.kind, "error": str(error), "status": error.status},
                shown,
            )

    def enter(self, data: dict[str, Any], *, trusted: bool = False) -> None:
        """Subscribe to a channel; one who is `trusted` needs no signature. Raises SubscriptionError."""
        channel, info = self.check_subscription(data, trusted=trusted)
        found = self.begin(channel, info)
        if any(each.pending for each in found):
            self.gateway.start(self.wait(channel, found))
        else:
            self.succeed(channel)

    def join(self, channel: str) -> None:
        """Subscribe as its server asks; a presence channel needs a user that is signed in. Raises TopicError."""
        if channel not in self.channels:
            try:
                self.enter({"channel": channel}, trusted=True)
            except SubscriptionError as error:
                raise rawws.TopicError("limit" if error.status == 429 else "refused", str(error)) from None

    def leave(self, channel: str) -> None:
        """End the subscription to a channel; nothing where there is none."""
        self.unsubscribe(channel)

    def check_subscription(self, data: dict[str, Any], *, trusted: bool = False) -> tuple[JoinedChannel, Any]:
        """Return the channel that is asked for, and what is told of its user. Raises SubscriptionError."""
        try:
            name = check_channel_name(data.get("channel"))
        except rawws.HttpError as error:
            raise SubscriptionError("InvalidChannel", 400, error.reason) from None
        config, kind = self.config, kind_of_channel(name)
        if name in self.channels:
            raise SubscriptionError("AlreadySubscribed", 409, f"the channel {name} is subscribed already")
        most = config.limits.channels
        if len(self.channels) >= most:
            raise SubscriptionError("LimitReached", 429, f"the connection has {most} channels, the limit")
        if name.startswith(USER_CHANNEL) and (not self.user or name != f"{USER_CHANNEL}{self.user}"):
            raise SubscriptionError("AuthError", 401, f"the channel {name} is for another user")
        if not kind.needs_auth:
            return JoinedChannel(name, kind, ""), None
        told = data.get("channel_data")
        plain = f"{self.id.socket_id}:{name}"
        signed = {f"{plain}:{told}" if isinstance(told, str) else plain}
        if not kind.presence:
            # Libraries sign the data of a private channel, too, if their application gives some; it says nothing here.
            signed.add(plain)
        if not trusted and not any(is_signed(config, data.get("auth"), each) for each in signed):
            raise SubscriptionError("AuthError", 401, f"the signature for {name} is wrong or missing")
        if not kind.presence:
            return JoinedChannel(name, kind, ""), None
        user, info = self.member_of(told, config)
        topic = topic_of_channel(self.app, name)
        most = config.most_members(name)
        if self.gateway.main.user_count(topic) >= most and not self.gateway.main.connections(topic, user):
            raise SubscriptionError("LimitReached", 429, f"the channel {name} has {most} members, the limit")
        return JoinedChannel(name, kind, user), info

    def member_of(self, told: object, config: AppConfig) -> tuple[str, Any]:
        """Return who somebody is in a presence channel, and what is told of it. Raises SubscriptionError."""
        if not isinstance(told, str):
            if not self.user:
                raise SubscriptionError("AuthError", 400, "the channel_data is missing, and nobody is signed in")
            return self.user, self.users.info_of(self)
        try:
            fields = json.loads(told)
        except (ValueError, RecursionError):
            fields = None
        user = fields.get("user_id") if isinstance(fields, dict) else None
        # Servers that number their users send numbers: as a name, it is its text.
        user = str(user) if isinstance(user, int) and not isinstance(user, bool) else user
        if not is_name(user, MAX_USER_ID):
            raise SubscriptionError("AuthError", 400, f"the user_id is no text of 1 to {MAX_USER_ID} characters")
        info = fields.get("user_info")
        size = len(json.dumps(info, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"))
        if size > config.limits.user_info:
            raise SubscriptionError("AuthError", 413, f"user_info has {size} bytes, limit {config.limits.user_info}")
        return user, info

    def begin(self, channel: JoinedChannel, info: Any) -> list[Subscription]:
        """Subscribe. Raises SubscriptionError where the hub refuses."""
        gateway, topic = self.gateway, topic_of_channel(self.app, channel.name)
        self.channels[channel.name] = channel
        try:
            if channel.kind.presence:
                identity = rawws.Identity(channel.user, info)
                found = [gateway.main.subscribe(self, topic, join=identity, watch=True)]
            elif is_cached(channel.name) and not channel.kind.needs_auth:
                found = []
            else:
                found = [gateway.main.subscribe(self, topic)]
            if is_cached(channel.name):
                found.append(gateway.cache.subscribe(self, topic, since="earliest"))
        except (rawws.TopicError, ValueError) as error:
            self.leave_hubs(channel.name)
            raise SubscriptionError("Unavailable", getattr(error, "status", 400), str(error)) from None
        return found

    async def wait(self, channel: JoinedChannel, subscriptions: list[Subscription]) -> None:
        """Wait until the place of a channel is known, and go on."""
        try:
            for subscription in subscriptions:
                await subscription
        except rawws.TopicError as error:
            if self.channels.get(channel.name) is channel:
                self.leave_hubs(channel.name)
                with contextlib.suppress(rawws.ConnectionClosed):
                    wrong = {"type": "Unavailable", "error": str(error), "status": 503}
                    self.tell("pusher:subscription_error", wrong, channel.name)
            return
        if self.channels.get(channel.name) is channel:
            with contextlib.suppress(rawws.ConnectionClosed):
                self.succeed(channel)

    def succeed(self, channel: JoinedChannel) -> None:
        """Tell that a subscription holds, who is present, and what came meanwhile."""
        gateway, data = self.gateway, {}
        if channel.kind.presence:
            users = gateway.main.users(topic_of_channel(self.app, channel.name))
            members = {user: found[0].info for user, found in users.items()}
            channel.members = set(members)
            data = {"presence": {"ids": list(members), "hash": members, "count": len(members)}}
        channel.ready = True
        self.tell("pusher_internal:subscription_succeeded", data, channel.name)
        held, channel.held = channel.held, []
        for publication in held:
            self.figures.sent += 1
            self.ws.send_prepared(publication.form_of(spell))
        if is_cached(channel.name) and not held:
            self.tell("pusher:cache_miss", None, channel.name)
            gateway.missed_cache(self.app, channel.name)
        if channel.kind.needs_auth and self.waits_for_user is not None:
            self.waits_for_user.cancel()
        gateway.count(self.app, f"c:{channel.name}", 1)
        if self.config.subscription_count and not channel.kind.presence:
            self.counts.join(self, channel.name)
        if channel.user:
            gateway.count(self.app, f"m:{channel.name}:{channel.user}", 1)

    def unsubscribe(self, name: object) -> None:
        """End a subscription, if there is one."""
        channel = self.channels.get(name) if isinstance(name, str) else None
        if channel is not None:
            self.leave_hubs(channel.name)
            self.uncount(channel)

    def leave_hubs(self, name: str) -> None:
        """Get nothing more of a channel."""
        self.channels.pop(name, None)
        for hub in (self.gateway.main, self.gateway.cache):
            hub.unsubscribe(self, topic_of_channel(self.app, name))

    def uncount(self, channel: JoinedChannel) -> None:
        """Count a channel that is left."""
        if channel.ready:
            channel.ready = False
            self.gateway.count(self.app, f"c:{channel.name}", -1)
            self.counts.leave(self, channel.name)
            if channel.user:
                self.gateway.count(self.app, f"m:{channel.name}:{channel.user}", -1)

    def publish(self, event: str, name: object, data: Any) -> None:
        """Publish an event of a client, or tell why not."""
        config, channel = self.config, self.channels.get(name) if isinstance(name, str) else None
        try:
            text = data if isinstance(data, str) else serialize(data)
        except (ValueError, RecursionError):
            # Infinity and NaN, which others could not parse.
            self.complain(CLIENT_EVENT, "the data has a number that JSON has not, or is nested too deeply")
            return
        if not config.client_events:
            self.complain(CLIENT_EVENT, "the app takes no client events")
        elif channel is None or not channel.ready or not channel.kind.needs_auth or channel.kind.encrypted:
            allowed = "allowed are private and presence channels that the connection is subscribed to"
            self.complain(CLIENT_EVENT, f"the channel takes no client event of this connection, {allowed}")
        elif not is_name(event, MAX_EVENT_NAME):
            self.complain(CLIENT_EVENT, f"the name of the event is no text of 1 to {MAX_EVENT_NAME} characters")
        elif len(text.encode("utf-8", "surrogatepass")) > config.limits.event_size:
            self.complain(CLIENT_EVENT, f"the data is over {config.limits.event_size} bytes, the limit")
        elif not self.client_events.take():
            self.complain(CLIENT_EVENT, f"over {config.limits.client_events:g} client events a second, the limit")
        else:
            said = GatewayEvent(
                event,
                text,
                exclude=self.id.socket_id,
                user=channel.user,
                is_json=not isinstance(data, str),
                by_client=True,
            )
            try:
                self.gateway.publish(self.app, channel.name, said)
            except (rawws.TopicError, rawws.LocalProtocolError) as error:
                self.complain(CLIENT_EVENT, str(error))
            else:
                self.gateway.heard(self, channel.name, said)

    def end(self) -> None:
        """Leave everything: the connection is gone."""
        if self.waits_for_user is not None:
            self.waits_for_user.cancel()
        for channel in self.channels.values():
            self.uncount(channel)
        self.channels = {}
        self.users.leave(self)


@final
class PusherFace(rawws.Handler):
    """What speaks protocol 7 at `/app/{key}`, and answers the HTTP API at `/apps/{id}/`."""

    name = "pusher"

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.users = Users(gateway)
        self.counts = SubscriptionCounts(gateway)
        self.api = PusherApi(gateway, self.users)

    # -- Face

    def routes(self) -> list[rawws.Route]:
        """Return where clients connect."""
        return [rawws.Route("/app/{key}", self, websocket=True)]

    def server_routes(self) -> list[rawws.Route]:
        """Return what the libraries of Pusher ask for."""
        return self.api.routes()

    def admit(self, ws: rawws.WebSocket, request: rawws.Request) -> Admission:
        """Refuse pages of other origins than those of the app."""
        del ws
        parts = request.path.partition("?")[0].split("/")
        if len(parts) != 3 or parts[1] != "app":
            return None
        app = self.gateway.config.app_of_key(parts[2])
        origin = request.headers.get("Origin")
        if app is None or origin is None or not app.origins or "*" in app.origins or origin in app.origins:
            return None
        self.gateway.figures_of(app.id, self.name).refused[403] += 1
        return rawws.Response(403, f"pages of {origin[:200]} may not connect, allowed are {', '.join(app.origins)}\n")

    def subprotocol(self, ws: rawws.WebSocket, offered: list[str]) -> str | None:
        """Choose none: protocol 7 has no name for itself."""
        del ws, offered
        return None

    async def start(self) -> None:
        """Begin."""
        self.counts.start()

    async def close(self) -> None:
        """End."""
        self.counts.close()

    # -- Handler

    def on_open(self, ws: rawws.WebSocket) -> None:
        """Greet a client, or tell why it may not stay."""
        app = self.gateway.config.app_of_key(ws.path_params["key"])
        refusal = self.refusal_of(ws, app)
        if refusal is not None or app is None:
            code, reason = refusal or (UNKNOWN_APP, "")
            self.gateway.figures_of("" if app is None else app.id, self.name).refused[code] += 1
            ws.send(message_of("pusher:error", {"code": code, "message": reason}))
            ws.close(code, reason)
            return
        ws.limit(max_size=app.limits.event_size * 2 + ROOM, text_only=True)
        connection = ws.state = PusherConnection(self.gateway, app.id, ws, self.users, self.counts)
        self.gateway.opened(connection)
        if app.user_auth_timeout:
            loop = asyncio.get_running_loop()
            connection.waits_for_user = loop.call_later(
                app.user_auth_timeout, connection.refuse, UNAUTHORIZED, "nobody signed in, in time"
            )
        greeting = {"socket_id": connection.id.socket_id, "activity_timeout": ACTIVITY_TIMEOUT}
        connection.tell("pusher:connection_established", greeting)

    def refusal_of(self, ws: rawws.WebSocket, app: AppConfig | None) -> tuple[int, str] | None:
        """Return why a client may not stay, None where it may."""
        config, protocol, version = self.gateway.config, ws.query.get("protocol"), ws.query.get("version", "")
        if app is None:
            return UNKNOWN_APP, "there is no app with this key"
        if not app.enabled:
            return DISABLED, "the app is disabled"
        if protocol is None:
            return NO_PROTOCOL, f"no protocol is named, allowed are {', '.join(PROTOCOLS)}"
        if protocol not in PROTOCOLS:
            return BAD_PROTOCOL, f"the protocol is {protocol[:16]!r}, allowed are {', '.join(PROTOCOLS)}"
        if len(version) > 64 or not version.isprintable():
            return BAD_VERSION, "the version is no text of up to 64 characters"
        if app.max_connections is not None and self.gateway.of_app(app.id) >= app.max_connections:
            return OVER_QUOTA, f"the app has {app.max_connections} connections, the limit"
        if config.max_connections is not None and self.gateway.held.total >= config.max_connections:
            return OVER_CAPACITY, f"the gateway has {config.max_connections} connections, the limit"
        return None

    def on_message(self, ws: rawws.WebSocket, message: str | bytes) -> None:
        """Do what a client asks for."""
        connection = ws.state
        if not isinstance(connection, PusherConnection):
            return
        connection.active()
        try:
            said = json.loads(message)
        except (ValueError, RecursionError):
            said = None
        event = said.get("event") if isinstance(said, dict) else None
        if not isinstance(event, str):
            connection.complain(None, 'the message is no JSON object with "event"')
            return
        with contextlib.suppress(rawws.ConnectionClosed):
            try:
                self.handle(connection, event, said)
            except LookupError:
                connection.refuse(UNKNOWN_APP, "the app is gone")

    def handle(self, connection: PusherConnection, event: str, said: dict[str, Any]) -> None:
        """Do what an event of a client asks for."""
        data = said.get("data")
        if event.startswith("client-"):
            connection.publish(event, said.get("channel"), data)
            return
        if isinstance(data, str):
            with contextlib.suppress(ValueError, RecursionError):
                data = json.loads(data)
        fields = data if isinstance(data, dict) else {}
        match event:
            case "pusher:ping":
                connection.tell("pusher:pong", {})
            case "pusher:pong":
                pass
            case "pusher:subscribe":
                connection.subscribe(fields)
            case "pusher:unsubscribe":
                connection.unsubscribe(fields.get("channel"))
            case "pusher:signin":
                wrong = self.users.sign_in(connection, connection.config, fields)
                if wrong:
                    connection.refuse(UNAUTHORIZED, wrong)
                elif connection.waits_for_user is not None:
                    connection.waits_for_user.cancel()
            case _:
                known = "allowed are pusher:subscribe, unsubscribe, signin, ping, pong, and client-*"
                connection.complain(None, f"the event is {event[:64]!r}, {known}")

    def on_close(self, ws: rawws.WebSocket, code: int, reason: str) -> None:
        """Forget a client that is gone."""
        connection = ws.state
        if isinstance(connection, PusherConnection):
            connection.end()
            self.gateway.closed(connection, code, reason)
