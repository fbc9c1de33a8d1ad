"""Redis URLs: a URL to where a Redis is: at an address, where sentinels say, or on the nodes of a cluster."""

from __future__ import annotations

import asyncio
import inspect
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, final
from urllib.parse import unquote, urlsplit

from rawws.net.logs import without_userinfo
from rawws.topics.backplane import BackplaneAway

from .redis_line import open_connection
from .tls import FILE_OPTIONS, TlsFiles

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Connection

__all__ = ["ClusterUrl", "FixedSource", "RedisSource", "SentinelSource", "cluster_of", "source_of"]

# Who somebody is to the sentinels.
SENTINEL_OPTIONS = {"sentinel_username", "sentinel_password"}
SENTINEL_PORT = 26379
CLUSTER_PORT = 6379


class RedisSource(Protocol):
    """Says where the Redis is that is written to."""

    @property
    def db(self) -> int:
        """The number of its database."""

    async def find(self) -> Callable[[], Connection]:
        """Return what makes connections to it, none of which is open. Raises BackplaneAway where nobody knows it."""

    async def check(self) -> None:
        """Raise BackplaneAway where it is another one by now than `find` said."""


@final
class FixedSource:
    """One at an address."""

    def __init__(self, kind: type[Connection], options: dict[str, Any]) -> None:
        self.db = int(options.get("db", 0))
        self._make = partial(kind, **options)

    async def find(self) -> Callable[[], Connection]:
        """Return what makes connections to it."""
        return self._make

    async def check(self) -> None:
        """Do nothing: it stays where it is."""


@final
class SentinelSource:
    """The one that sentinels call the master of this name; each of them may take its part of `timeout` seconds."""

    def __init__(
        self,
        kind: type[Connection],
        options: dict[str, Any],
        master: str,
        sentinels: list[tuple[str, int]],
        of_sentinels: dict[str, Any],
        timeout: float,
    ) -> None:
        self.db = int(options.get("db", 0))
        self._make = partial(kind, **options)
        self._name = master
        self._sentinels = sentinels
        self._make_sentinel = partial(kind, **of_sentinels)
        self._timeout = timeout / (len(sentinels) + 1)
        self._master = ("", 0)

    async def find(self) -> Callable[[], Connection]:
        """Ask the sentinels for the master."""
        host, port = self._master = await self._ask()
        return partial(self._make, host=host, port=port)

    async def check(self) -> None:
        """Ask again. Sentinels that are away have nothing to say against the master."""
        try:
            master = await self._ask()
        except BackplaneAway:
            return
        if master != self._master:
            raise BackplaneAway("the sentinels name another master")

    async def _ask(self) -> tuple[str, int]:
        """Return what the first sentinel says that knows the master, which is asked first from now on."""
        from redis.exceptions import RedisError  # noqa: PLC0415

        reasons = []
        for address in list(self._sentinels):
            connection = self._make_sentinel(host=address[0], port=address[1])
            try:
                async with asyncio.timeout(self._timeout):
                    await open_connection(connection)
                    await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._name)
                    found = await connection.read_response(disable_decoding=True)
            except (RedisError, OSError) as error:
                reasons.append(f"{address[0]}:{address[1]}: {str(error) or 'no answer in time'}")
                continue
            finally:
                await connection.disconnect(nowait=True)
            if found:
                self._sentinels.remove(address)
                self._sentinels.insert(0, address)
                return found[0].decode(), int(found[1])
            reasons.append(f"{address[0]}:{address[1]} knows no such master")
        raise BackplaneAway(f"no sentinel says where the master {self._name!r} is: {'; '.join(reasons)}")


@final
@dataclass(frozen=True, slots=True)
class ClusterUrl:
    """The nodes of a cluster of which one is asked for all others, and what makes connections to any of them."""

    nodes: list[tuple[str, int]]
    kind: type[Connection]
    options: dict[str, Any]

    def connection(self, address: tuple[str, int]) -> Connection:
        """Return a connection to a node, which is not open."""
        return self.kind(**self.options | {"host": address[0], "port": address[1]})


def source_of(url: str, timeout: float) -> RedisSource:
    """Return where the Redis of a URL is. Raises ValueError for a URL that names none, or a cluster."""
    allowed = {"redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"}
    scheme, kind, options, hosts, path = parse(url, allowed)
    if not scheme.endswith("+sentinel"):
        return FixedSource(kind, options)
    master, _, db = path.strip("/").partition("/")
    if not master or (db and not db.isdecimal()):
        raise ValueError(
            f"url is {shown(url)!r}: it names no master, as redis+sentinel://a:26379,b:26379/mymaster does"
        )
    if db:
        options["db"] = int(db)
    # Whoever may enter the Redis need not be known to the sentinels, and where TLS is spoken, it is so by all.
    common = {
        name: value for name, value in options.items() if name.startswith(("ssl_", "socket_", "protocol", "retry"))
    }
    own = {name.removeprefix("sentinel_"): options.pop(name, None) for name in SENTINEL_OPTIONS}
    sentinels = [(host, port or SENTINEL_PORT) for host, port in hosts]
    return SentinelSource(kind, options, unquote(master), sentinels, common | own, timeout)


def cluster_of(url: str) -> ClusterUrl:
    """Return the nodes that a URL names. Raises ValueError for one that names none."""
    _, kind, options, hosts, path = parse(url, {"redis+cluster", "rediss+cluster"})
    if path.strip("/0") or options.get("db"):
        raise ValueError(f"url is {shown(url)!r}: a cluster has no database but 0")
    options.pop("db", None)
    return ClusterUrl([(host, port or CLUSTER_PORT) for host, port in hosts], kind, options)


def parse(url: str, allowed: set[str]) -> tuple[str, Any, dict[str, Any], list[tuple[str, int | None]], str]:
    """Return the scheme of a URL, the kind and the options of its connections, its hosts, and the path behind them."""
    from redis.asyncio.connection import Connection, parse_url  # noqa: PLC0415
    from redis.asyncio.retry import Retry  # noqa: PLC0415
    from redis.backoff import NoBackoff  # noqa: PLC0415

    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    hosts: list[tuple[str, int | None]] = []
    path = ""
    try:
        if scheme not in allowed:
            raise ValueError(f"allowed are {', '.join([f'{each}://' for each in sorted(allowed)])}")
        plain, many, _ = scheme.partition("+")
        if many:
            # The package knows of one host.
            authority, tail = re.fullmatch(r"([^/?#]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
            user, at, named = authority.rpartition("@")
            hosts = [host_of(each) for each in named.split(",")]
            path, mark, query = tail.partition("?")
            rest = f"{user}{at}localhost{mark}{query}"
        options: dict[str, Any] = dict(parse_url(f"{plain}://{rest}"))
    except ValueError as error:
        # What is said may quote a piece of a password, which is hidden with the rest of it.
        why = str(error) if shown(url) == url else "its scheme, its host or its port is none"
        raise ValueError(f"url is {shown(url)!r}: {why}") from None
    if plain == "rediss":
        # The package reads them each time that it connects: what cannot be read is said here.
        TlsFiles.of(options).check(options.get("ssl_password", ""))
    elif others := [name for name in FILE_OPTIONS if name in options]:
        raise ValueError(f"url is {shown(url)!r} with {others[0]!r}, which is for TLS: rediss://")
    if many:
        options.pop("host", None)
    kind = options.pop("connection_class", Connection)
    known = {name for each in kind.__mro__ for name in inspect.signature(each.__init__).parameters}
    if unknown := sorted(options.keys() - known - (SENTINEL_OPTIONS if scheme.endswith("+sentinel") else set())):
        raise ValueError(f"url is {shown(url)!r} with {unknown[0]!r}, which is no option of a connection to a Redis")
    # Whoever waits tries again by itself.
    return scheme, kind, options | {"protocol": 2, "retry": Retry(NoBackoff(), 0)}, hosts, path


def host_of(named: str) -> tuple[str, int | None]:
    """Return a host and its port, None where none stands there. Raises ValueError for what is no host."""
    found = urlsplit(f"//{named}")
    if not found.hostname or found.path or found.query or found.fragment:
        raise ValueError("a host is empty, allowed are names and addresses with a port, and a comma between them")
    return found.hostname, found.port


def shown(url: str) -> str:
    """Return a URL as it may be shown: a password may stand in front of its host, and in what is asked for."""
    found, mark, _ = without_userinfo(url).partition("?")
    return f"{found}?..." if mark else found
