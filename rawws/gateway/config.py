"""Configuration: what a gateway is told (docs/run/gateway.md).

Nothing here changes once it is read: a reload makes a new one.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from rawws.net.engines import SocketEngine

__all__ = [
    "AWS_LIMITS",
    "ApiConfig",
    "ApiLimits",
    "ApiRoute",
    "ApnsConfig",
    "AppConfig",
    "AppLimits",
    "AuthorizerConfig",
    "CallsConfig",
    "ChannelRule",
    "ConfigError",
    "Credential",
    "FcmConfig",
    "GatewayConfig",
    "HookConfig",
    "JwtConfig",
    "PushConfig",
    "WebPushConfig",
]


class ConfigError(Exception):
    """A configuration has mistakes: `mistakes` has each with its key, such as `api[0].route[2].url: ...`."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


@final
@dataclass(frozen=True, slots=True)
class Credential:
    """A key, which everybody may see, and its secret."""

    key: str
    secret: str = field(repr=False)


@final
@dataclass(frozen=True, slots=True)
class ChannelRule:
    """What holds for the channels whose names match: `*` stands for any characters."""

    match: str
    # Users in a presence channel, None for what holds for the app.
    members: int | None

    def fits(self, channel: str) -> bool:
        """Tell whether it holds for a channel."""
        return fnmatch.fnmatchcase(channel, self.match)


@final
@dataclass(frozen=True, slots=True)
class HookConfig:
    """Where an application is told of what happens, and of what: names of HOOK_EVENTS, patterns resolved."""

    url: str
    events: frozenset[str]
    # "pusher" or "rawws" (Standard Webhooks).
    format: str
    # Of which channels, as a ChannelRule matches them.
    channels: str


@final
@dataclass(frozen=True, slots=True)
class JwtConfig:
    """How the tokens of clients are verified that speak rawws.v1."""

    algorithms: tuple[str, ...]
    # One for all tokens, "" for none; or several, by the `kid` of tokens.
    key: str = field(repr=False)
    keys: dict[str, str] = field(repr=False)
    # Or the URL of a set of public keys (RFC 7517), "" for none; they are fetched again after so many seconds.
    jwks: str = field(repr=False)
    jwks_age: float
    # None for tokens that have none.
    audience: str | None
    issuer: str | None
    # In seconds, for clocks that differ.
    leeway: float


@final
@dataclass(frozen=True, slots=True)
class CallsConfig:
    """Whom the gateway asks before a client of rawws.v1 may do something: URLs, "" for nobody."""

    connect: str
    subscribe: str
    publish: str
    # For an answer, in seconds.
    timeout: float


@final
@dataclass(frozen=True, slots=True)
class WebPushConfig:
    """How browsers are pushed to: the private VAPID key, whom a push service may ask, and the hosts that are asked."""

    key: str = field(repr=False)
    subject: str
    hosts: tuple[str, ...]


@final
@dataclass(frozen=True, slots=True)
class ApnsConfig:
    """How devices of Apple are pushed to: the text of a .p8 file, and what it is of."""

    key: str = field(repr=False)
    key_id: str
    team_id: str
    topic: str
    url: str


@final
@dataclass(frozen=True, slots=True)
class FcmConfig:
    """How devices are pushed to by Firebase: the text of a service account's JSON."""

    account: str = field(repr=False)
    url: str


@final
@dataclass(frozen=True, slots=True)
class PushConfig:
    """How users who are not connected are told: by the services that there are, None for not by that."""

    # Seconds after which it is looked whether a user is back.
    after: float
    web: WebPushConfig | None
    apns: ApnsConfig | None
    fcm: FcmConfig | None


@final
@dataclass(frozen=True, slots=True)
class AppLimits:
    """What the clients and the servers of an app may do; rates are of a second, sizes in bytes."""

    # Of one connection.
    channels: int
    client_events: float
    # Requests of servers.
    requests: float
    event_size: int
    # Channels of one event, and events of one batch.
    event_channels: int
    batch: int
    # Users of a presence channel, and what is told of each.
    members: int
    user_info: int


@final
@dataclass(frozen=True, slots=True)
class AppConfig:
    """An application: that of the Pusher face, and of rawws.v1 where it says who may come in."""

    id: str
    # The first signs; all are taken.
    keys: tuple[Credential, ...]
    enabled: bool
    # Whose pages may connect; empty for all.
    origins: tuple[str, ...]
    # At one instance, None for no limit of its own.
    max_connections: int | None
    client_events: bool
    # Whether subscribers are told how many they are.
    subscription_count: bool
    # Within so many seconds a client signs in, or subscribes to a channel that needs it; 0 for never.
    user_auth_timeout: float
    # Who may come in by rawws.v1: by tokens, or by who is asked; by none of both, nobody.
    jwt: JwtConfig | None
    calls: CallsConfig | None
    limits: AppLimits
    channels: tuple[ChannelRule, ...]
    hooks: tuple[HookConfig, ...]
    # None for no notifications.
    push: PushConfig | None

    @property
    def tells_missed(self) -> bool:
        """Whether somebody is told which users missed an event."""
        return self.push is not None or any("user_missed" in hook.events for hook in self.hooks)

    @property
    def speaks_rawws(self) -> bool:
        """Whether clients of rawws.v1 may come in."""
        return self.jwt is not None or (self.calls is not None and bool(self.calls.connect))

    def rule_of(self, channel: str) -> ChannelRule | None:
        """Return the first rule that holds for a channel."""
        return next((rule for rule in self.channels if rule.fits(channel)), None)

    def most_members(self, channel: str) -> int:
        """Return how many users a presence channel may have."""
        rule = self.rule_of(channel)
        return self.limits.members if rule is None or rule.members is None else rule.members

    def secret_of(self, key: str) -> str | None:
        """Return the secret of a key, None for one that is not of this app."""
        return next((each.secret for each in self.keys if each.key == key), None)


@final
@dataclass(frozen=True, slots=True)
class ApiLimits:
    """What the clients of an API may do: sizes in bytes, times in seconds, 0 for no limit."""

    message_size: int = 128 * 1024
    frame_size: int = 32 * 1024
    idle: float = 600.0
    lifetime: float = 7200.0


AWS_LIMITS: Final = ApiLimits()


@final
@dataclass(frozen=True, slots=True)
class AuthorizerConfig:
    """Who is asked whether a client may connect; `identity` are expressions of what a request must have."""

    url: str
    identity: tuple[str, ...]
    timeout: float


@final
@dataclass(frozen=True, slots=True)
class ApiRoute:
    """Where messages with a route key go: `$connect`, `$disconnect`, `$default`, or a key of the API's own."""

    key: str
    url: str
    # "event": JSON as a function gets it. "http": method, headers and body.
    format: str
    method: str
    # Of the request, each an expression (`context.connectionId`).
    headers: dict[str, str]
    # Whether the body of the answer goes to the client.
    response: bool
    timeout: float


@final
@dataclass(frozen=True, slots=True)
class ApiConfig:
    """An API of the AWS face."""

    id: str
    # What clients connect to, and the prefix of `@connections`.
    path: str
    stage: str
    domain: str
    region: str
    account: str
    route_selection: str
    credentials: tuple[Credential, ...]
    # What signs calls to the backend, the first; empty for none.
    signing: tuple[str, ...] = field(repr=False)
    origins: tuple[str, ...]
    max_connections: int | None
    limits: ApiLimits
    authorizer: AuthorizerConfig | None
    routes: tuple[ApiRoute, ...]

    def route(self, key: str) -> ApiRoute | None:
        """Return the route of a key."""
        return next((each for each in self.routes if each.key == key), None)


@final
@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """All that a gateway is told."""

    # Hosts and ports of clients, and of servers' requests where those have none of their own; all have one port.
    listen: tuple[str, ...]
    # Hosts and ports of servers' requests alone, as well; empty for those of clients.
    api_listen: tuple[str, ...]
    admin: str
    admin_key: str = field(repr=False)
    # A URL, "workers" or "none".
    backplane: str = field(repr=False)
    prefix: str
    trusted_proxies: tuple[str, ...]
    # Who reads and writes the sockets of both ports, as `rawws.serve` takes it; None for what costs less.
    engine: SocketEngine | None
    # Of all apps, at one instance; None for as many as there are descriptors for.
    max_connections: int | None
    # Messages of one connection a second, and as many at once; more are not read for a while. 0 for no limit.
    message_rate: float
    drain: float
    history_count: int
    history_age: float
    apps: tuple[AppConfig, ...]
    apis: tuple[ApiConfig, ...]

    def app(self, ident: str) -> AppConfig | None:
        """Return the app of an id."""
        return next((each for each in self.apps if each.id == ident), None)

    def app_of_key(self, key: str) -> AppConfig | None:
        """Return the app that has a key."""
        return next((each for each in self.apps if each.secret_of(key) is not None), None)

    def api(self, ident: str) -> ApiConfig | None:
        """Return the API of an id."""
        return next((each for each in self.apis if each.id == ident), None)
