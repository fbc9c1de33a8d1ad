"""A PostgreSQL of the tests: one for each process of pytest, which each test has for itself."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import shutil
import signal
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, final

import asyncpg

from rawws.backplanes.postgres import PostgresBackplane
from rawws.topics.backplane import Backplane
from tests.processes import LOOPBACK, PATIENCE, MissingComponentError, Process, eventually, free_port

__all__ = ["PostgresEngine", "Server", "find_postgres"]

INSTALL = "apt-get install postgresql"
# The role of the tests, and the options of a server that is only asked for what is right: all else is as it comes.
ROLE = "tester"
OPTIONS = {"max_connections": "60", "shared_buffers": "32MB", "listen_addresses": LOOPBACK, "autovacuum_naptime": "5s"}


def find_postgres(name: str) -> str:
    """Return the path of a program of the newest PostgreSQL, which Debian has in a folder of its version."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[4]))
    path = shutil.which(name) if not found else str(found[-1])
    if path is None:
        raise MissingComponentError(f"{name} is not installed: {INSTALL}")
    return path


def as_nobody() -> list[str]:
    """Return what runs a PostgreSQL as another user where this one is root, which it refuses to be."""
    if os.getuid():
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]


@final
class Server:
    """A PostgreSQL on a free port with a folder of its own, which can be killed and started again."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rawws-postgres-"))
        if not os.getuid():
            shutil.chown(self.folder, "postgres", "postgres")
        self.port = free_port()
        self.process: Process | None = None
        self.options: dict[str, str] = {}
        # Whom the hubs are.
        self.role = ROLE
        initdb = [find_postgres("initdb"), "-D", str(self.folder / "new"), "-U", ROLE, "--auth=trust", "-E", "UTF8"]
        self.run(*initdb, "--locale=C", "--no-sync", "--wal-segsize=1")
        # One role has a password, if a test makes that.
        hosts = self.folder / "new" / "pg_hba.conf"
        hosts.write_text(f"host all secret {LOOPBACK}/32 scram-sha-256\n{hosts.read_text()}")
        self.renew()

    def renew(self) -> None:
        """Have the data of a new server."""
        shutil.rmtree(self.data, ignore_errors=True)
        self.run("cp", "-a", str(self.folder / "new"), str(self.data))

    @property
    def data(self) -> Path:
        """The folder of the data."""
        return self.folder / "data"

    def url(self, role: str = ROLE, database: str = "postgres") -> str:
        """Return where it is reached."""
        return f"postgresql://{role}@{LOOPBACK}:{self.port}/{database}"

    def start(self) -> None:
        """Start it, unless it runs with the same options."""
        options = OPTIONS | {"port": str(self.port), "unix_socket_directories": str(self.folder)} | self.options
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        command = [*as_nobody(), find_postgres("postgres"), "-D", str(self.data), *words]
        self.process = Process(command, cwd=self.folder, listens=self.port)
        self.wait()

    def wait(self) -> None:
        """Wait until it serves."""

        def is_ready() -> bool:
            with contextlib.suppress(OSError, asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError):
                return bool(self.ask("select true"))
            return False

        eventually(is_ready)

    def kill(self) -> None:
        """Kill it and all its processes as by `kill -9`."""
        if self.process is not None:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            for pid in (self.process.pid, *map(int, children)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.stop()
            self.process = None
            # The next one refuses to start before they are gone.
            eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))

    def end(self) -> None:
        """Leave nothing behind."""
        self.kill()
        shutil.rmtree(self.folder)

    def ask(self, sql: str, *words: object, role: str = ROLE, database: str = "postgres") -> Any:
        """Ask the PostgreSQL itself, and return the first value of the answer."""
        # In a thread, for there may be a loop in this one.
        with ThreadPoolExecutor(1) as threads:
            return threads.submit(asyncio.run, self._ask(sql, words, role, database)).result()

    async def _ask(self, sql: str, words: tuple[object, ...], role: str, database: str) -> Any:
        # A lock that a hub left would be waited for without end.
        connection = await asyncpg.connect(self.url(role, database), timeout=20, command_timeout=60, ssl=False)
        try:
            return await (connection.fetchval(sql, *words) if words else connection.fetchval(sql))
        finally:
            await connection.close(timeout=20)

    def run(self, *command: str) -> None:
        """Run a program as the user of the server."""
        with Process([*as_nobody(), *command], cwd=self.folder) as process:
            process.result(60)


SERVERS: list[Server] = []


def server_of_all() -> Server:
    """Return the server that tests have one after the other."""
    if not SERVERS:
        SERVERS.append(Server())
        atexit.register(SERVERS[0].end)
    return SERVERS[0]


@final
class PostgresEngine:
    """The server of this process, without data; it has on its disk what it answers."""

    def __init__(self, _folder: Path, *, options: dict[str, str] | None = None, **arguments: Any) -> None:
        self.server = server_of_all()
        self.arguments = arguments
        self.prefix = arguments.get("prefix", "rawws")
        if self.server.options != (options or {}):
            self.server.kill()
            self.server.options = options or {}
        if self.server.process is None:
            self.server.start()

    @property
    def url(self) -> str:
        return self.server.url(self.server.role)

    def backplane(self) -> Backplane:
        return PostgresBackplane(self.url, **{"timeout": PATIENCE, **self.arguments})

    def kill(self, *, forget: bool = False) -> None:
        self.server.kill()
        if forget:
            self.server.renew()

    def start(self) -> None:
        self.server.start()

    def ask(self, sql: str, *words: object) -> Any:
        """Ask the PostgreSQL itself, with the schema as the place of all names."""
        return self.server.ask(sql.replace("rawws.", f"{self.prefix}."), *words)

    def spoil(self, topic: str) -> None:
        self.ask(
            'insert into rawws.topics (topic, epoch, "offset", before, life)'
            " select $1, '%:=&', 1, '{}', life from rawws.engine()",
            topic,
        )

    def mend(self, topic: str) -> None:
        self.ask("delete from rawws.topics where topic = $1", topic)

    def names(self) -> int:
        names = [f"select topic from rawws.{table}" for table in ("topics", "records", "origins", "roster")]
        return int(self.ask(f"select count(*) from ({' union '.join(names)}) names"))

    def end(self) -> None:
        if self.server.process is None:
            self.server.start()
        try:
            self.ask(f"drop schema if exists {self.prefix} cascade")
        except asyncpg.PostgresError:
            # What a test left so is no server for the next one.
            self.kill(forget=True)
