"""PostgreSQL schemas: what the PostgreSQL backplane needs in a database, to tables and functions of one schema.

Laws:
1. It is made once, all of it or nothing, however many servers start at once.
2. What stands there and is of another version, or of another program, is left as it is.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from rawws.net.cancellation import cancel_all
from rawws.net.logs import without_userinfo
from rawws.topics.backplane import BackplaneAway

from .remedies import with_remedy

if TYPE_CHECKING:
    from asyncpg import Connection

__all__ = [
    "POOLER",
    "TLS_OPTIONS",
    "check_prefix",
    "check_server",
    "check_url",
    "connect",
    "grant",
    "prepare",
    "settle",
]

# That of the files in sql/: whoever changes one of them changes it.
VERSION: Final = 1
SQL: Final = Path(__file__).parent / "sql"
FILES: Final = ("tables", "publish", "history", "presence", "sweep", "outside")
# The first that has gen_random_uuid() without an extension.
OLDEST: Final = 130000
# The functions ask for few rows by their keys: tables that were empty when a plan was made would be read whole, and
# compiled, for ever. A server whose machine is gone loses its locks within half a minute.
SETTINGS: Final = {
    "enable_seqscan": "off",
    "jit": "off",
    # With a plan for each call, one publication takes 3 ms of CPU instead of 1.
    "plan_cache_mode": "force_generic_plan",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "25000",
}
POOLER: Final = (
    "what is published does not come back: LISTEN needs connections that are not shared, which pgbouncer gives with"
    " pool_mode = session only"
)
# What the URL names for TLS.
TLS_OPTIONS: Final = ("sslrootcert", "sslcert", "sslkey")
# How long a connection that is not wanted any more may take to be there, in seconds.
GRACE: Final = 1.0

# What is there of a schema: whether it is, the tables in it, and whether a table says its version.
LOOK: Final = """
    select n.oid is not null as exists, count(c.oid) as tables, count(c.oid) filter (where c.relname = 'about') as about
    from (select to_regnamespace(quote_ident($1))::oid as oid) n
    left join pg_class c on c.relnamespace = n.oid and c.relkind = 'r' group by n.oid
"""
MISSING_RIGHTS: Final = """
    select string_agg(relname, ', ' order by relname) from pg_class where relnamespace = quote_ident($1)::regnamespace
    and relkind = 'r' and not (has_table_privilege(oid, 'select') and has_table_privilege(oid, 'insert')
    and has_table_privilege(oid, 'update') and has_table_privilege(oid, 'delete'))
"""


def check_prefix(prefix: str) -> None:
    """Raise ValueError for what is no name of a schema."""
    if not re.fullmatch(r"(?!pg_)[\w.:-]{1,48}", prefix, re.ASCII):
        raise ValueError(
            f"prefix is {prefix[:64]!r}, allowed are 1 to 48 of letters, digits and _.:-, not beginning with pg_"
        )


def check_url(url: str) -> None:
    """Raise ValueError for a URL of no PostgreSQL."""
    shown = without_userinfo(url)
    try:
        scheme = urlsplit(url).scheme
    except ValueError:
        scheme = ""
    if scheme not in {"postgres", "postgresql"} or not url.startswith(f"{scheme}://"):
        raise ValueError(f"url is {shown!r}, allowed are postgresql://user:password@host:port/database")
    # Several hosts may stand there.
    ports = [host.rpartition(":")[2] for host in urlsplit(url).netloc.rpartition("@")[2].split(",") if ":" in host]
    if not all(port.endswith("]") or (port.isascii() and port.isdigit() and int(port) < 65536) for port in ports):
        raise ValueError(f"url is {shown!r}: a port is no number from 0 to 65535")


async def connect(url: str, seconds: float) -> Connection:
    """Connect. Raises BackplaneAway where that cannot be."""
    import asyncpg  # noqa: PLC0415

    try:
        return await open_connection(url, seconds)
    except asyncpg.InvalidAuthorizationSpecificationError as error:
        raise BackplaneAway(f"PostgreSQL refuses the user or the password of the URL: {error}") from None
    except asyncpg.InvalidCatalogNameError as error:
        raise BackplaneAway(f"{error}: create it, or name another in the URL") from None
    except asyncpg.TooManyConnectionsError as error:
        raise BackplaneAway(f"{error}: each hub needs two, see max_connections") from None
    except ssl.SSLError as error:
        raise BackplaneAway(with_remedy(str(error), TLS_OPTIONS)) from None
    except (asyncpg.InterfaceError, asyncpg.InternalClientError, ValueError) as error:
        # What asyncpg says may quote a piece of the URL, and so of the password.
        name = type(error).__name__
        raise BackplaneAway(f"cannot connect to {without_userinfo(url)}: {name}, check what the URL says") from None


async def settle(connection: Connection, prefix: str) -> None:
    """Have the schema be the place of all names on a connection, and set what it needs."""
    words = [f"set {name} = '{value}'" for name, value in SETTINGS.items()]
    await connection.execute("; ".join([*words, f'set search_path = "{prefix}", pg_temp']))


async def open_connection(url: str, seconds: float) -> Connection:
    """Connect. asyncpg leaves a future behind where it is cancelled between TCP and TLS: it has a moment to end."""
    import asyncpg  # noqa: PLC0415

    task = asyncio.ensure_future(asyncpg.connect(url, timeout=seconds))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # Also where this is cancelled once more.
        task.add_done_callback(end_late)
        try:
            await asyncio.wait([task], timeout=GRACE)
        finally:
            task.cancel()
        await cancel_all(task)
        raise


def end_late(connecting: asyncio.Task[Connection]) -> None:
    """End a connection for which nobody waits any more."""
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().terminate()


async def check_server(connection: Connection) -> None:
    """Raise BackplaneAway for a server or a database that a backplane cannot use."""
    row = await connection.fetchrow(
        "select current_setting('server_version_num')::int as version, current_setting('server_version') as name,"
        " current_setting('server_encoding') as encoding, current_database() as database,"
        " pg_is_in_recovery() as standby"
    )
    if row["version"] < OLDEST:
        raise BackplaneAway(f"PostgreSQL is version {row['name']}, needed is 13 or later")
    if row["encoding"] != "UTF8":
        raise BackplaneAway(
            f"the database {row['database']} has the encoding {row['encoding']}, needed is UTF8: create another one"
        )
    if row["standby"]:
        raise BackplaneAway("this PostgreSQL is a standby, which takes no writes: name the primary in the URL")


async def prepare(connection: Connection, prefix: str) -> None:
    """See that all stands there that is needed, or make it. Raises BackplaneAway where that cannot be."""
    import asyncpg  # noqa: PLC0415

    role = await connection.fetchval("select current_user")
    remedy = f"have one who may run: rawws backplane init URL --prefix {prefix} --role {role}"
    try:
        if not await is_there(connection, prefix):
            async with connection.transaction():
                # Whoever comes second waits here, and finds it made.
                await connection.execute("select pg_advisory_xact_lock(hashtextextended($1, 0))", f"rawws {prefix}")
                if not await is_there(connection, prefix):
                    await make(connection, prefix)
        missing = await connection.fetchval(MISSING_RIGHTS, prefix)
    except asyncpg.InsufficientPrivilegeError as error:
        raise BackplaneAway(f"the role {role} may not use or make the schema {prefix} ({error}): {remedy}") from None
    if missing:
        raise BackplaneAway(f"the role {role} may not read and write {missing} of the schema {prefix}: {remedy}")


async def is_there(connection: Connection, prefix: str) -> bool:
    """Tell whether the schema is made. Raises BackplaneAway where something else stands there."""
    found = await connection.fetchrow(LOOK, prefix)
    if not found["tables"]:
        return False
    if not found["about"]:
        raise BackplaneAway(f"the schema {prefix} has tables of another program: choose another prefix")
    version = await connection.fetchval(f'select version from "{prefix}".about')  # noqa: S608 - a checked name
    if version != VERSION:
        raise BackplaneAway(
            f"the schema {prefix} is of version {version}, this rawws needs version {VERSION}: run the same rawws on"
            " all servers, or choose another prefix"
        )
    return True


async def make(connection: Connection, prefix: str) -> None:
    """Make the schema, and all in it."""
    if not (await connection.fetchrow(LOOK, prefix))["exists"]:
        await connection.execute(f'create schema "{prefix}"')
    # Behind a pooler it is not said that this is the connection for which it was set.
    await connection.execute(f'set local search_path = "{prefix}", pg_temp')
    for name in FILES:
        await connection.execute((SQL / f"{name}.sql").read_text(encoding="utf-8"))
    await connection.execute("insert into about (version) values ($1)", VERSION)


async def grant(connection: Connection, prefix: str, role: str) -> None:
    """Give a role what a hub needs."""
    import asyncpg  # noqa: PLC0415

    name: Any = await connection.fetchval("select quote_ident($1)", role)
    try:
        await connection.execute(
            f'grant usage on schema "{prefix}" to {name};'
            f'grant select, insert, update, delete on all tables in schema "{prefix}" to {name}'
        )
    except asyncpg.UndefinedObjectError:
        raise BackplaneAway(f"there is no role {role}: create it first") from None
