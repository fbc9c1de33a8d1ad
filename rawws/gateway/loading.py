"""Loading: a file of TOML to the configuration of a gateway, or to all mistakes in it (docs/run/gateway.md)."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
import tomllib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from rawws.net.engines import ENGINES, check_engine
from rawws.net.peer_addresses import parse_ip_network
from rawws.topics.backplane_urls import SCHEMES

from .config import (
    AWS_LIMITS,
    ApiConfig,
    ApiLimits,
    ApiRoute,
    AppConfig,
    AppLimits,
    AuthorizerConfig,
    CallsConfig,
    ChannelRule,
    ConfigError,
    Credential,
    GatewayConfig,
    HookConfig,
    JwtConfig,
)
from .expressions import ExpressionError, RequestValue, RouteSelection
from .grants import TokenVerifier
from .outgoing import Outgoing
from .push_loading import DEVICES_NEED, keeps_devices, push_of
from .reading import TableReader
from .spelling import host_and_port
from .webhooks import STANDARD_MARK, octets_of_secret

if TYPE_CHECKING:
    from pathlib import Path

    from rawws.net.engines import SocketEngine

__all__ = ["app_of_api", "load_config", "read_config"]

# A topic is `{app}/{channel}`: 32, a slash, and 200 fit into the 255 bytes of its name.
IDENT: Final = "[0-9A-Za-z_-]{1,32}"
IDENT_WORDS: Final = "1 to 32 letters, digits, _ and -"
# What begins a host and ends with a port; an address of IPv6 in brackets.
ADDRESS: Final = r"(?:\[[0-9a-fA-F:.]+\]|[^:\[\]\s]+):[0-9]{1,5}"
ADDRESS_WORDS: Final = "HOST:PORT"
ORIGIN: Final = r"\*|null|[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s]+"
# Of which hooks tell; `channel_*` and `*` name several.
HOOK_EVENTS: Final = (
    "channel_occupied",
    "channel_vacated",
    "member_added",
    "member_removed",
    "cache_miss",
    "client_event",
    "subscription_count",
    "user_online",
    "user_offline",
    "user_missed",
    "connection_opened",
    "connection_closed",
)
# An hour is longer than any service keeps a connection silent, and a day than most keep it.
HOUR, DAY = 3600.0, 86400.0
MOST: Final = 1 << 31
CALLS_NEED: Final = "calls over HTTP need httpx2: pip install 'rawws[{extra}]'"
# As many as an API of AWS has.
MOST_ROUTES: Final = 300


def load_config(path: Path) -> GatewayConfig:
    """Read a file. Raises ConfigError with all mistakes, OSError for a file that cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError([f"the file is not UTF-8: {error.reason} at byte {error.start}"]) from None
    return read_config(text)


def read_config(text: str) -> GatewayConfig:
    """Read the text of a file. Raises ConfigError with all mistakes."""
    try:
        whole = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"the file is no TOML: {error}"]) from None
    mistakes: list[str] = []
    reader = TableReader(whole, "", mistakes)
    found = gateway_of(reader, reader.table("gateway") or TableReader({}, "gateway", mistakes))
    if mistakes:
        raise ConfigError(mistakes)
    return found


def gateway_of(whole: TableReader, table: TableReader) -> GatewayConfig:
    """Return what a file says."""
    found = GatewayConfig(
        listen=table.texts("listen", ("127.0.0.1:8765",), pattern=ADDRESS, allowed=ADDRESS_WORDS),
        api_listen=table.texts("api_listen", pattern=ADDRESS, allowed=ADDRESS_WORDS),
        admin=table.text("admin", "", pattern=f"|{ADDRESS}", allowed=ADDRESS_WORDS),
        admin_key=table.secret("admin_key", ""),
        backplane=backplane_of(table),
        prefix=table.text(
            "prefix", "rawws", pattern="[0-9A-Za-z_.:-]{1,64}", allowed="1 to 64 of letters, digits, _.:-"
        ),
        trusted_proxies=networks_of(table),
        engine=engine_of(table),
        max_connections=most_of(table),
        # A page that comes back subscribes to as many channels as a connection may have.
        message_rate=table.seconds("message_rate", 100.0, 0, 1_000_000),
        drain=table.seconds("drain", 5.0, 0, HOUR),
        history_count=table.integer("history_count", 100, 0, 100_000),
        history_age=table.seconds("history_age", 300.0, 0, DAY),
        apps=tuple(app_of(each) for each in whole.tables("app")),
        apis=tuple(api_of(each) for each in whole.tables("api")),
    )
    table.end()
    whole.end()
    check_once(whole, "app", "id", [each.id for each in found.apps], [])
    check_once(whole, "api", "id", [each.id for each in found.apis], [each.id for each in found.apps])
    check_once(whole, "api", "path", [each.path for each in found.apis], [])
    keys: set[str] = set()
    for number, app in enumerate(found.apps):
        for place, credential in enumerate(app.keys):
            if credential.key in keys:
                whole.wrong(f"app[{number}].keys[{place}].key", "another app has it, allowed is one app for each key")
            keys.add(credential.key)
        if app.push is not None and not keeps_devices(found.backplane):
            whole.wrong(f"app[{number}].push", DEVICES_NEED)
    secrets: dict[str, str] = {}
    for number, api in enumerate(found.apis):
        for place, credential in enumerate(api.credentials):
            # Whose key it is decides which APIs a request may do something to.
            if secrets.setdefault(credential.key, credential.secret) != credential.secret:
                name = f"api[{number}].credentials[{place}].key"
                whole.wrong(name, "another API has it with another secret, allowed is one secret for each key")
    check_callers(whole, found)
    if not found.apps and not found.apis:
        whole.wrong("app", "there is none, needed is an [[app]] or an [[api]]")
    check_ports(table, found)
    return found


def check_ports(table: TableReader, found: GatewayConfig) -> None:
    """Tell of ports that cannot be listened at together."""
    if not found.listen and not table.mistakes:
        table.wrong("listen", "there is none, needed is at least one")
    others = {host_and_port(address)[1] for address in (*found.listen, *filter(None, [found.admin]))} - {0}
    for key, addresses in (("listen", found.listen), ("api_listen", found.api_listen)):
        ports = [host_and_port(address)[1] for address in addresses]
        for number, port in enumerate(ports):
            if port > 65535 or port != ports[0]:
                table.wrong(f"{key}[{number}]", f"the port is {port}, allowed is one up to 65535, the same for all")
            elif key == "api_listen" and port in others:
                table.wrong(f"{key}[{number}]", f"the port is {port}, which listen or admin has, needed is another one")


def check_once(whole: TableReader, kind: str, key: str, values: list[str], others: list[str]) -> None:
    """Tell of what is said twice."""
    for number, value in enumerate(values):
        if value and (value in values[:number] or value in others):
            whole.wrong(f"{kind}[{number}].{key}", f"it is {value!r}, and another one has that already")


def check_callers(whole: TableReader, found: GatewayConfig) -> None:
    """Tell of all that is called over HTTP, where the package for that is missing."""
    if find_spec("httpx2") is not None:
        return
    for number, app in enumerate(found.apps):
        said = {
            "jwt.jwks": app.jwt is not None and app.jwt.jwks,
            "calls": app.calls,
            "hook": app.hooks,
            "push": app.push,
        }
        for name in (name for name, value in said.items() if value):
            extra = "push" if name == "push" else "gateway"
            whole.wrong(f"app[{number}].{name}", CALLS_NEED.format(extra=extra))
    for number in range(len(found.apis)):
        whole.wrong(f"api[{number}]", CALLS_NEED.format(extra="gateway"))


def backplane_of(table: TableReader) -> str:
    """Return what joins the instances."""
    value = table.secret("backplane", "none")
    if value in {"workers", "none"}:
        return value
    scheme, colon, _ = value.partition("://")
    if not colon:
        table.wrong("backplane", 'it is no URL, allowed are one such as redis://HOST, "workers" and "none"')
    elif scheme.lower() not in SCHEMES:
        # What stands behind the scheme may have a password.
        schemes = ", ".join(f"{each}://" for each in SCHEMES)
        table.wrong("backplane", f"it begins with {scheme[:32]!r}, allowed are {schemes}")
    return value


def networks_of(table: TableReader) -> tuple[str, ...]:
    """Return addresses and networks."""
    found = table.texts("trusted_proxies")
    for number, value in enumerate(found):
        try:
            parse_ip_network(value)
        except ValueError:
            table.wrong(f"trusted_proxies[{number}]", f"it is {value[:64]!r}, allowed are addresses and networks")
    return found


def engine_of(table: TableReader) -> SocketEngine | None:
    """Return who reads and writes the sockets."""
    named = table.text("engine", "", pattern="|".join(ENGINES), allowed=" or ".join(ENGINES))
    found = next((engine for engine in ENGINES if engine == named), None)
    try:
        check_engine(found)
    except ValueError as error:
        table.wrong("engine", str(error).replace("engine is", "it is", 1))
    return found


def credentials_of(table: TableReader, key: str, *, needed: bool) -> tuple[Credential, ...]:
    """Return keys and their secrets."""
    found = []
    for each in table.tables(key):
        name = each.text("key", pattern=r"[!-~]{1,128}", allowed="1 to 128 printable characters")
        found.append(Credential(name, signing_secret_of(each, "secret")))
        each.end()
    if needed and not found:
        table.wrong(key, 'there is none, needed is at least one: [{ key = "...", secret = "..." }]')
    return tuple(found)


def most_of(table: TableReader) -> int | None:
    """Return how many connections there may be."""
    found = table.number("max_connections", None, 1, MOST, whole=True)
    return None if found is None else int(found)


def app_of(table: TableReader) -> AppConfig:
    """Return an app."""
    counts = table.flag("subscription_count", default=False)
    found = AppConfig(
        id=table.text("id", pattern=IDENT, allowed=IDENT_WORDS),
        keys=credentials_of(table, "keys", needed=True),
        enabled=table.flag("enabled", default=True),
        origins=table.texts(
            "origins", pattern=ORIGIN, allowed="a scheme and a host, such as https://example.com, or *"
        ),
        max_connections=most_of(table),
        client_events=table.flag("client_events", default=False),
        subscription_count=counts,
        user_auth_timeout=table.seconds("user_auth_timeout", 0.0, 0, HOUR),
        jwt=jwt_of(table.table("jwt")),
        calls=calls_of(table.table("calls")),
        limits=limits_of(table.table("limits") or TableReader({}, "", table.mistakes)),
        channels=tuple(rule_of(each) for each in table.tables("channel")),
        hooks=tuple(hook_of(each, counts=counts) for each in table.tables("hook")),
        push=push_of(table.table("push")),
    )
    table.end()
    if found.calls is not None and found.calls.connect:
        if found.jwt is not None:
            table.wrong("calls.connect", "the app has jwt, which says who a client is, allowed is one of both")
        if not found.origins:
            # It gets the cookies that a browser sends along, whatever page connects.
            table.wrong("origins", 'there are none, needed beside calls.connect: pages that may connect, or ["*"]')
    elif found.calls is not None and found.jwt is None:
        table.wrong("calls", "nobody can come in to be asked about, needed is jwt or calls.connect")
    return found


def jwt_of(table: TableReader | None) -> JwtConfig | None:
    """Return how tokens are verified."""
    if table is None:
        return None
    keys = table.table("keys") or TableReader({}, "", table.mistakes)
    found = JwtConfig(
        algorithms=table.texts("algorithms", None),
        key=table.public_key("key", ""),
        keys={name: keys.public_key(name) for name in keys.names()},
        jwks=table.url("jwks", ""),
        jwks_age=table.seconds("jwks_age", 600.0, 10, DAY),
        audience=table.text("audience", "") or None,
        issuer=table.text("issuer", "") or None,
        leeway=table.seconds("leeway", 0.0, 0, 300),
    )
    table.end()
    if [bool(found.key), bool(found.keys), bool(found.jwks)].count(True) != 1:
        named = " and ".join(name for name in ("key", "keys", "jwks") if table.has(name))
        ways = "a key, keys by the kid of tokens, or jwks, the URL of such"
        table.wrong("key", f"there {f'are {named}' if named else 'is none'}, needed is one of: {ways}")
        return found
    try:
        TokenVerifier(found, Outgoing)
    except ValueError as error:
        table.wrong("algorithms" if str(error).startswith("algorithms") else "key", str(error))
    except ImportError as error:
        table.wrong("key", f"tokens need {error.name}: pip install 'rawws[gateway]'")
    return found


def calls_of(table: TableReader | None) -> CallsConfig | None:
    """Return whom the gateway asks."""
    if table is None:
        return None
    found = CallsConfig(
        connect=table.url("connect", ""),
        subscribe=table.url("subscribe", ""),
        publish=table.url("publish", ""),
        timeout=table.seconds("timeout", 3.0, 0.05, 29.0),
    )
    table.end()
    if not (found.connect or found.subscribe or found.publish):
        table.wrong("connect", "there is none of connect, subscribe and publish, needed is one")
    return found


def limits_of(table: TableReader) -> AppLimits:
    """Return limits; each default is that of Pusher's documentation where it names one."""
    found = AppLimits(
        channels=table.integer("channels", 100, 1, 10_000),
        client_events=table.seconds("client_events", 10.0, 0.1, 100_000),
        requests=table.seconds("requests", 500.0, 1, 1_000_000),
        event_size=table.integer("event_size", 10 * 1024, 1, 900_000),
        event_channels=table.integer("event_channels", 100, 1, 1000),
        batch=table.integer("batch", 10, 1, 1000),
        members=table.integer("members", 100, 1, 100_000),
        user_info=table.integer("user_info", 1024, 2, 1024),
    )
    table.end()
    return found


def app_of_api(api: ApiConfig) -> AppConfig:
    """Return what an API is to the HTTP API of apps: its credentials are its keys."""
    return AppConfig(
        id=api.id,
        keys=api.credentials,
        enabled=True,
        origins=api.origins,
        max_connections=api.max_connections,
        client_events=False,
        subscription_count=False,
        user_auth_timeout=0.0,
        jwt=None,
        calls=None,
        limits=dataclasses.replace(limits_of(TableReader({}, "", [])), event_size=api.limits.message_size),
        channels=(),
        hooks=(),
        push=None,
    )


def rule_of(table: TableReader) -> ChannelRule:
    """Return a rule for channels."""
    members = table.number("members", None, 1, 100_000, whole=True)
    found = ChannelRule(table.text("match"), None if members is None else int(members))
    table.end()
    return found


def hook_of(table: TableReader, *, counts: bool) -> HookConfig:
    """Return a hook; `counts` is whether its app counts subscribers."""
    events: set[str] = set()
    for number, pattern in enumerate(table.texts("events", ("channel_*", "member_*"))):
        matched = fnmatch.filter(HOOK_EVENTS, pattern)
        if not matched:
            table.wrong(f"events[{number}]", f"it is {pattern[:64]!r}, allowed are {', '.join(HOOK_EVENTS)}, and *")
        if pattern == "subscription_count" and not counts:
            table.wrong(f"events[{number}]", "the app counts no subscribers, needed is its subscription_count = true")
        events.update(matched)
    found = HookConfig(
        url=table.url("url"),
        events=frozenset(events),
        format=table.text("format", "pusher", among=("pusher", "rawws")),
        channels=table.text("channels", "*"),
    )
    table.end()
    return found


def api_of(table: TableReader) -> ApiConfig:
    """Return an API."""
    found = ApiConfig(
        id=table.text("id", pattern=IDENT, allowed=IDENT_WORDS),
        path=table.text("path", pattern=r"(?:/[0-9A-Za-z_.~-]+)*", allowed='"", or segments such as /prod'),
        stage=table.text(
            "stage", "", pattern=r"[0-9A-Za-z_-]{0,128}|\$default", allowed="$default, or letters, digits, _ and -"
        ),
        domain=table.text("domain", ""),
        region=table.text("region", "local", pattern="[0-9a-z-]{1,32}", allowed="small letters, digits and -"),
        account=table.text("account", "000000000000", pattern="[0-9]{12}", allowed="12 digits"),
        route_selection=table.text("route_selection", "$request.body.action"),
        credentials=credentials_of(table, "credentials", needed=True),
        signing=signing_of(table),
        origins=table.texts(
            "origins", pattern=ORIGIN, allowed="a scheme and a host, such as https://example.com, or *"
        ),
        max_connections=most_of(table),
        limits=api_limits_of(table),
        authorizer=authorizer_of(table.table("authorizer")),
        routes=tuple(route_of(each) for each in table.tables("route")),
    )
    table.end()
    if len(found.routes) > MOST_ROUTES:
        table.wrong("route", f"there are {len(found.routes)}, allowed are {MOST_ROUTES}")
    try:
        RouteSelection(found.route_selection)
    except ExpressionError as error:
        table.wrong("route_selection", str(error))
    keys = [each.key for each in found.routes]
    for number, key in enumerate(keys):
        if key and key in keys[:number]:
            table.wrong(f"route[{number}].key", f"it is {key!r}, and another route has that already")
    return found


def signing_of(table: TableReader) -> tuple[str, ...]:
    """Return what signs calls."""
    found = signing_secret_of(table, "signing", "")
    return (found,) if found else ()


def signing_secret_of(table: TableReader, key: str, default: str | None = None) -> str:
    """Return a secret that requests to a backend are signed by."""
    found = table.secret(key, default)
    try:
        octets_of_secret(found)
    except ValueError:
        table.wrong(key, f"it begins with {STANDARD_MARK}, needed behind that is base64 (Standard Webhooks)")
    return found


def api_limits_of(table: TableReader) -> ApiLimits:
    """Return the limits of an API: "aws", or a table of those that differ."""
    inner = table.table("limits") if table.is_table("limits") else None
    if inner is None:
        table.text("limits", "aws", among=("aws",))
        return AWS_LIMITS
    found = ApiLimits(
        message_size=inner.integer("message_size", AWS_LIMITS.message_size, 1, 1 << 20),
        frame_size=inner.integer("frame_size", AWS_LIMITS.frame_size, 0, 1 << 20),
        idle=inner.seconds("idle", AWS_LIMITS.idle, 0, DAY),
        lifetime=inner.seconds("lifetime", AWS_LIMITS.lifetime, 0, 365 * DAY),
    )
    inner.end()
    return found


def authorizer_of(table: TableReader | None) -> AuthorizerConfig | None:
    """Return who is asked whether a client may connect."""
    if table is None:
        return None
    expression = r"route\.request\.(?:querystring|header)\.[^\s.]+"
    found = AuthorizerConfig(
        url=table.url("url"),
        identity=table.texts("identity", pattern=expression, allowed="such as route.request.querystring.token"),
        timeout=table.seconds("timeout", 29.0, 0.05, 29.0),
    )
    table.end()
    return found


def route_of(table: TableReader) -> ApiRoute:
    """Return a route of an API."""
    key = table.text("key")
    if key.startswith("$") and key not in {"$connect", "$disconnect", "$default"}:
        table.wrong("key", f"it is {key[:64]!r}, of those with $ allowed are $connect, $disconnect and $default")
    found = ApiRoute(
        key=key,
        url=table.url("url"),
        format=table.text("format", "event", among=("event", "http")),
        method=table.text("method", "", pattern="[A-Z]{0,16}", allowed="the name of a method, such as GET"),
        headers=table.pairs("headers"),
        response=table.flag("response", default=False),
        timeout=table.seconds("timeout", 29.0, 0.05, 29.0),
    )
    for name in found.headers:
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
            table.wrong(f"headers.{name}", "it is no name of a header field (RFC 9110 section 5.1)")
        try:
            RequestValue(found.headers[name], on_connect=key == "$connect")
        except ExpressionError as error:
            table.wrong(f"headers.{name}", str(error))
    table.end()
    return found
