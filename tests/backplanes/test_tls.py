"""TLS to each engine: by files that the URL names, and what is wrong with a certificate is told with what to do."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import redis as client
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from rawws.backplanes.postgres_schema import TLS_OPTIONS
from rawws.backplanes.remedies import with_remedy
from rawws.backplanes.tls import FILE_OPTIONS, TlsFiles
from rawws.topics import History, Hub
from rawws.topics.backplane import BackplaneAway
from rawws.topics.backplane_urls import SCHEMES, backplane_of
from tests.backplanes.certificates import Certificates
from tests.backplanes.cuts import cut_everywhere, reach
from tests.backplanes.engine_kafka import KafkaEngine
from tests.backplanes.engine_nats import NatsEngine
from tests.backplanes.engine_postgres import PostgresEngine
from tests.backplanes.engine_redis_cluster import RedisProcess
from tests.backplanes.engines import KEEPING, RedisEngine
from tests.backplanes.handlers import Reader, Told
from tests.processes import LOOPBACK, ROOT, Process, find_program, free_port
from tests.processes import eventually as until
from tests.server.cuts import Cut, Leftovers, in_its_turn
from tests.server.peers import Logged, eventually
from tests.torture.torture import sockets

ON_ONE_LOOP = True

PAGE: Final = (ROOT / "docs" / "run" / "backplanes.md").read_text(encoding="utf-8")

# What asyncio says of each connection that the package of NATS has TLS spoken on.
EOF: Final = "returning true from eof_received() has no effect when using ssl"


class Target(NamedTuple):
    """An engine that speaks TLS, and what stands behind the `?` of its URL for a CA, with a certificate or without."""

    url: str
    files: Certificates

    def with_files(self, ca: Path | None = None, *, client: bool = True) -> str:
        if self.url.startswith("postgresql"):
            return f"{self.url}?sslmode=verify-full&sslrootcert={ca or self.files.ca}"
        return f"{self.url}?{self.files.query(ca, client=client)}"

    @property
    def name_of_ca(self) -> str:
        return "sslrootcert" if self.url.startswith("postgresql") else "ssl_ca_certs"


def options_of(files: Certificates, port: int) -> list[str]:
    """Return the options of a Redis that speaks nothing but TLS."""
    paths = {"cert-file": files.certificate, "key-file": files.key, "ca-cert-file": files.ca}
    named = [word for name, path in paths.items() for word in (f"--tls-{name}", str(path))]
    return ["--port", "0", "--tls-port", str(port), "--tls-replication", "yes", *named]


@contextmanager
def redis(folder: Path, files: Certificates) -> Iterator[str]:
    engine = RedisEngine(folder, *KEEPING)
    engine.kill()
    engine.command += options_of(files, engine.port)
    engine.start()
    yield f"rediss://{LOOPBACK}:{engine.port}"
    engine.end()


@contextmanager
def redis_cluster(folder: Path, files: Certificates) -> Iterator[str]:
    server = RedisProcess(folder, *KEEPING)
    server.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    until(server.is_ok)
    server.kill()
    server.command += [*options_of(files, server.port), "--tls-cluster", "yes"]
    server.start()

    def is_ok() -> bool:
        keys = {"ssl_ca_certs": files.ca, "ssl_certfile": files.certificate, "ssl_keyfile": files.key}
        with client.Redis(port=server.port, host=LOOPBACK, ssl=True, **keys) as connection:  # type: ignore[arg-type]
            return bool(connection.execute_command("CLUSTER INFO")["cluster_state"] == "ok")

    # It waits for others that it may have missed.
    until(is_ok)
    yield f"rediss+cluster://{LOOPBACK}:{server.port}"
    server.kill()


@contextmanager
def redis_sentinel(folder: Path, files: Certificates) -> Iterator[str]:
    with redis(folder, files) as url:
        port, config = free_port(), folder / "sentinel.conf"
        master = url.rpartition(":")[2]
        lines = [" ".join(pair).removeprefix("--") for pair in pairs(options_of(files, port))]
        config.write_text("\n".join([*lines, f"sentinel monitor mymaster {LOOPBACK} {master} 1"]), encoding="utf-8")
        program = find_program("redis-server", "apt-get install redis-server")
        with Process([program, config, "--sentinel"], listens=port):
            yield f"rediss+sentinel://{LOOPBACK}:{port}/mymaster"


def pairs(words: list[str]) -> Iterator[tuple[str, str]]:
    return zip(words[::2], words[1::2], strict=True)


@contextmanager
def nats(folder: Path, files: Certificates) -> Iterator[str]:
    named = f'cert_file: "{files.certificate}", key_file: "{files.key}", ca_file: "{files.ca}"'
    engine = NatsEngine(folder, f"tls {{ {named}, verify: true }}\n")
    yield f"tls://{LOOPBACK}:{engine.port}"
    engine.end()


@contextmanager
def kafka(folder: Path, files: Certificates) -> Iterator[str]:
    engine = KafkaEngine(folder)
    # It has certificates of its own.
    for name in ("ca", "certificate", "key"):
        shutil.copy(getattr(engine.broker.certificates, name), getattr(files, name))
    yield f"kafkas://{LOOPBACK}:{engine.broker.tls}/{engine.prefix}"


@contextmanager
def postgres(folder: Path, files: Certificates) -> Iterator[str]:
    engine = PostgresEngine(folder)
    engine.kill()
    # No other user may read the key, which is that of the server.
    for name in ("certificate", "key"):
        path = engine.server.folder / f"{name}.pem"
        path.write_bytes(getattr(files, name).read_bytes())
        path.chmod(0o600)
        if not os.getuid():
            shutil.chown(path, "postgres", "postgres")
    named = {"ssl_cert_file": "certificate.pem", "ssl_key_file": "key.pem"}
    paths = {option: str(engine.server.folder / name) for option, name in named.items()}
    engine.end()
    engine = PostgresEngine(folder, options={"ssl": "on", **paths})
    yield engine.url
    engine.end()


ENGINES: Final[dict[str, Callable[[Path, Certificates], AbstractContextManager[str]]]] = {
    "redis": redis,
    "redis-cluster": redis_cluster,
    "redis-sentinel": redis_sentinel,
    "nats": nats,
    "kafka": kafka,
    "postgres": postgres,
}


@pytest.fixture(scope="module", params=ENGINES)
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("tls")
    files = Certificates(folder)
    with ExitStack() as stack:
        url = stack.enter_context(ENGINES[request.param](folder, files))
        yield Target(url, files)


@asynccontextmanager
async def closing() -> AsyncIterator[None]:
    """Wait at the end until all connections are closed: with TLS, both sides say so before they are."""
    loop, before = asyncio.get_running_loop(), sockets()
    told = loop.get_exception_handler()

    def tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # uvloop goes on with a handshake whose connection was closed, as where a backplane is closed in the middle.
        cut_off = context["message"] == "Fatal error on SSL protocol" and "handler is closed" in repr(context)
        if told is not None and not cut_off:
            told(loop, context)

    loop.set_exception_handler(tell)
    yield
    await eventually(lambda: sockets() <= before)


async def reason_of(url: str, **options: Any) -> str:
    """Return why an engine cannot be used."""
    async with closing():
        told = Told(backplane_of(url, **options))
        told.backplane.open("one", History(), told)
        try:
            await eventually(lambda: told.reasons)
            assert not told.backs
        finally:
            await told.backplane.close()
    return told.reasons[0]


def take_eofs(logged: Logged) -> None:
    logged.take_all(EOF, sum(EOF in each for each in logged.left()))


async def test_hubs_are_joined_by_the_files_that_the_url_names(target: Target, logged: Logged) -> None:
    url = target.with_files()
    async with closing(), Hub(backplane=url) as one, Hub(backplane=url) as two:
        reader = Reader()
        await two.subscribe(reader, "news")
        assert (await one.publish("news", "hello")).accepted
        await eventually(lambda: reader.got == ["hello"])
        assert not one.stats().degraded
    take_eofs(logged)


async def test_another_ca_is_told_in_one_line_with_the_remedy_and_subscribers_of_one_server_go_on(
    target: Target, logged: Logged
) -> None:
    async with closing(), Hub(backplane=target.with_files(target.files.other)) as hub:
        reader = Reader()
        await hub.subscribe(reader, "news")
        hub.publish("news", "hello")
        await eventually(lambda: reader.got == ["hello"])
        await eventually(lambda: hub.stats().retries > 1)
        take_eofs(logged)
        [line] = logged.left()
        assert "the backplane is away, topics are degraded: " in line
        assert "its certificate is not trusted (" in line
        assert f"name the file of the CA that signed it, {target.name_of_ca}=FILE in the URL" in line
        assert "\n" not in line
        logged.take_all("its certificate is not trusted", 1)


async def test_a_certificate_of_another_name_is_told(target: Target, logged: Logged) -> None:
    reason = await reason_of(target.with_files().replace(f"{LOOPBACK}:", "localhost:"))
    assert "its certificate is of another name (" in reason
    assert "have the URL name the host as the certificate does" in reason
    take_eofs(logged)


# Whom a PostgreSQL asks for a certificate, stands in its pg_hba.conf.
@pytest.mark.parametrize("target", [name for name in ENGINES if name != "postgres"], indirect=True)
async def test_a_client_without_the_certificate_that_is_wanted_is_told_so(target: Target, logged: Logged) -> None:
    reason = await reason_of(target.with_files(client=False))
    assert "certificate of its clients" in reason
    assert "ssl_certfile=FILE and ssl_keyfile=FILE" in reason
    take_eofs(logged)


@pytest.mark.parametrize("url", ["rediss://{}", "rediss+sentinel://{}/mymaster", "rediss+cluster://{}"])
@pytest.mark.parametrize("reads", [0, 1])
async def test_a_client_is_told_so_where_a_reset_overtakes_what_tls_says_of_it(
    files: Certificates, url: str, reads: int, logged: Logged
) -> None:
    # As each Redis may: TLS 1.3 is open to a client before its certificate is looked for, and what it writes by then
    # has the kernel reset the connection, so that it is lost as the client reads, or as it writes.
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(files.certificate, files.key)

    def reset_all(listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                with context.wrap_socket(listening.accept()[0], server_side=True) as connection:
                    connection.recv(reads)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with socket.create_server((LOOPBACK, 0)) as listening:
        resetting = asyncio.create_task(asyncio.to_thread(reset_all, listening))
        address = f"{LOOPBACK}:{listening.getsockname()[1]}"
        reason = await reason_of(f"{url.format(address)}?{files.query(client=False)}")
        listening.shutdown(socket.SHUT_RDWR)
        await resetting
    assert "does it want a certificate of its clients: ssl_certfile=FILE and ssl_keyfile=FILE?" in reason
    take_eofs(logged)


@in_its_turn
@pytest.mark.parametrize("target", ["redis", "nats"], indirect=True)
async def test_a_session_that_is_cancelled_wherever_it_waits_leaves_nothing_behind(
    target: Target, late: bool, logged: Logged
) -> None:
    url = target.with_files()
    async with closing():
        await reach(Told(backplane_of(url)), "", Cut(0, late=late))
        left = Leftovers()
        with left.heard():
            await cut_everywhere(lambda: backplane_of(url), "EngineSession._run", left, late=late)
    take_eofs(logged)


# -- where no TLS is spoken


async def test_a_nats_server_without_tls_never_hears_the_password(tmp_path: Path) -> None:
    # It says by itself whether TLS is spoken: so does whoever is in between.
    engine = NatsEngine(tmp_path, "authorization { user: ali, password: sesame }\n")
    try:
        reason = await reason_of(f"tls://ali:sesame@{LOOPBACK}:{engine.port}")
        assert reason == "the NATS server speaks no TLS, and the URL is tls://: have it do so, or use nats://"
    finally:
        engine.end()


async def test_a_kafka_without_tls_is_asked_whether_it_has_it(tmp_path: Path) -> None:
    engine = KafkaEngine(tmp_path)
    reason = await reason_of(f"kafkas://{LOOPBACK}:{engine.broker.port}", timeout=1.0)
    assert "does it speak TLS at this port?" in reason


# -- what is wrong with the options


@pytest.fixture
def files(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


URLS: Final = ("tls://host", "tls://one,tls://two", "kafkas://host/chat", "rediss://host", "rediss+cluster://one,two")


@pytest.mark.parametrize("url", [*URLS, "rediss+sentinel://one,two/master"])
@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("ssl_ca_certs=/none.pem", r"ssl_ca_certs=/none\.pem cannot be used: No such file or directory"),
        ("ssl_ca_certs={key}", r"ssl_ca_certs=.*own\.key cannot be used: "),
        ("ssl_keyfile={key}", "ssl_keyfile is named and ssl_certfile is not, needed are both"),
        ("ssl_certfile={certificate}", r"ssl_certfile=.*own\.pem cannot be used: "),
        ("ssl_certfile={certificate}&ssl_keyfile={locked}", r"ssl_certfile=.* with ssl_keyfile=.* cannot be used: "),
    ],
)
def test_files_that_cannot_be_used_are_named_where_the_backplane_is_made(
    files: Certificates, url: str, query: str, said: str, tmp_path: Path
) -> None:
    # A key that wants a password is asked for by nobody at a terminal.
    locked = tmp_path / "locked.key"
    key = load_pem_private_key(files.key.read_bytes(), None)
    locked.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"sesame")))
    named = query.format(key=files.key, certificate=files.certificate, locked=locked)
    with pytest.raises(ValueError, match=said):
        backplane_of(f"{url}?{named}")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nats://host?ssl_ca_certs={ca}", r"url is 'nats://host' with 'ssl_ca_certs', which is for tls://"),
        ("tls://one,nats://two?ssl_ca_certs={ca}", "which is for tls://"),
        ("tls://host?ssl=1", r"url is 'tls://host' with 'ssl', allowed are ssl_ca_certs, ssl_certfile, ssl_keyfile"),
        ("kafka://host?ssl_ca_certs={ca}", "ssl_ca_certs is for kafkas://"),
        ("kafkas://host?ssl=1", "allowed mechanism=PLAIN or SCRAM-SHA-256 or SCRAM-SHA-512, ssl_ca_certs, "),
        ("redis://host?ssl_ca_certs={ca}", "with 'ssl_ca_certs', which is for TLS: rediss://"),
    ],
)
def test_files_where_no_tls_is_spoken_and_other_options_are_refused(files: Certificates, url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        backplane_of(url.format(ca=files.ca))


@pytest.mark.parametrize("url", ["tls://host", "kafkas://host"])
def test_a_context_and_files_are_one_too_many(files: Certificates, url: str) -> None:
    with pytest.raises(ValueError, match="tls is given, and the URL names files, allowed is one of both"):
        backplane_of(f"{url}?{files.query()}", tls=ssl.create_default_context())


def test_files_are_read_anew_and_may_be_gone(files: Certificates) -> None:
    named = TlsFiles(str(files.ca), str(files.certificate), str(files.key))
    named.check()
    files.ca.write_bytes(files.other.read_bytes())
    [found] = named.context().get_ca_certs(binary_form=True)
    assert found == ssl.PEM_cert_to_DER_cert(files.other.read_text(encoding="utf-8"))
    files.ca.unlink()
    with pytest.raises(BackplaneAway, match=r"ssl_ca_certs=.* cannot be used: No such file or directory"):
        named.context()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "x: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired (_ssl.c:1006).",
            "x: its certificate is not good at this time (certificate has expired): renew it, or set the clock right",
        ),
        (
            "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)",
            "no TLS is spoken there (wrong version number): name another port, or have the URL be without TLS",
        ),
        ("[SSL: NO_CIPHERS] no ciphers (_ssl.c:1006)", "[SSL: NO_CIPHERS] no ciphers (_ssl.c:1006)"),
        ("no answer in time", "no answer in time"),
    ],
)
def test_a_remedy_is_told_where_one_is_known(said: str, told: str) -> None:
    assert with_remedy(said) == told


# -- the page


def test_the_page_names_the_scheme_and_the_files_of_each_engine() -> None:
    rows = re.findall(r"^\| [\w ,]+ \| `([\w+]+)://`.* \| `(\w+)` \| `(\w+)`, `(\w+)` \|$", PAGE, re.MULTILINE)
    of_postgres = ("sslrootcert", "sslcert", "sslkey")
    schemes = ("rediss", "rediss+sentinel", "rediss+cluster", "tls", "kafkas")
    assert rows == [*[(scheme, *FILE_OPTIONS) for scheme in schemes], ("postgresql", *of_postgres)]
    assert {scheme for scheme, *_ in rows} <= SCHEMES.keys()
    assert of_postgres == TLS_OPTIONS


def test_the_page_quotes_what_the_log_says() -> None:
    _, _, table = PAGE.partition("| what the line says |")
    quoted = re.findall(r"`([^`]+)`", table.partition("##")[0])
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "rawws" / "backplanes").glob("*.py"))
    assert quoted
    assert [said for said in quoted if said not in sources] == []
